"""The lab's machines, zones and addresses: plain data and arithmetic, nothing is touched here (docs/decisions/0001)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

from lemonstand.errors import InputError
from lemonstand.paths import LAB_NAME

ZONES = {"internet": 1, "dmz": 2, "auth": 3, "store": 4, "management": 5, "carrier": 6}
CONTROLLER_OCTET = 254
NAME = LAB_NAME


@dataclass(frozen=True)
class Leg:
    """One interface of a machine: the zone, the device name, and the last octets of its addresses (the first one is primary)."""

    zone: str
    device: str
    octets: tuple[int, ...]


@dataclass(frozen=True)
class Machine:
    """One lab host. ``via`` maps a destination (zone name or ``default``) to the (zone, octet) of the next hop.

    ``managed``: roles harden it; else it stands for a part of the rest of the world.
    """

    name: str
    legs: tuple[Leg, ...]
    via: dict[str, tuple[str, int]] = field(default_factory=dict)
    ipv6_via: dict[str, tuple[str, int]] = field(default_factory=dict)
    managed: bool = True


def _leg(zone: str, *octets: int) -> Leg:
    device = {"management": "mgmt0", "carrier": "radio0"}.get(zone, f"{zone}0")
    return Leg(zone, device, octets)


MACHINES: tuple[Machine, ...] = (
    Machine(
        "edge",
        (_leg("internet", 1), _leg("dmz", 1), _leg("auth", 1), _leg("store", 1), _leg("management", 1)),
        via={"default": ("internet", 2)},
        ipv6_via={"default": ("internet", 2)},
    ),
    Machine("frontend", (_leg("dmz", 10), _leg("management", 10)), {"default": ("dmz", 1)}, {"default": ("dmz", 1)}),
    Machine("relay", (_leg("dmz", 20), _leg("management", 13)), {"default": ("dmz", 1)}, {"default": ("dmz", 1)}),
    # Inner hosts know the way to the DMZ and nowhere else: no default route, so no way out (LEM-8-06, LEM-8-07).
    Machine("auth", (_leg("auth", 10), _leg("management", 11)), {"dmz": ("auth", 1)}, {"dmz": ("auth", 1)}),
    Machine("store", (_leg("store", 10), _leg("management", 12)), {"dmz": ("store", 1)}, {"dmz": ("store", 1)}),
    # IPv6 of the DMZ is public, so the Internet routes it to the edge; its IPv4 addresses are private and have no route here.
    Machine(
        "peer", (_leg("internet", 25), _leg("management", 14)), {}, {"dmz": ("internet", 1), "carrier": ("internet", 2)}, managed=False
    ),
    Machine(
        "handset",
        (_leg("carrier", *range(10, 18)), _leg("management", 15)),
        {"default": ("carrier", 1)},
        {"default": ("carrier", 1)},
        managed=False,
    ),
)


@dataclass(frozen=True)
class Topology:
    """Names and addresses of one lab.

    Args:
        name: the lab's name, part of every container, namespace and directory name (1 to 12 of a-z, 0-9).
        prefix: the first two octets of a private IPv4 network, for instance ``10.83``.
    """

    name: str = "lab"
    prefix: str = "10.83"

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise InputError(f"'{self.name}' can't name a lab", "--name", "use 1 to 12 characters of a-z and 0-9, a letter first")
        try:
            private = self.ipv4.is_private
        except ValueError:
            private = False
        documentation = ("192.0.2.", "198.51.100.", "203.0.113.")
        if not private or str(self.ipv4).startswith(documentation) or self.prefix.startswith(("127.", "169.254")):
            raise InputError(f"'{self.prefix}' is no private IPv4 prefix of 16 bits", "--prefix", "use two octets such as 10.84 or 172.20")

    @property
    def ipv4(self) -> IPv4Network:
        """The lab's whole IPv4 network (/16)."""
        return IPv4Network(f"{self.prefix}.0.0/16")

    @property
    def ipv6(self) -> IPv6Network:
        """The lab's whole IPv6 network (/48, a unique local address, RFC 4193)."""
        return IPv6Network(f"{self._ipv6_stem}::/48")

    @property
    def _ipv6_stem(self) -> str:
        return f"fd6c:656d:{self.prefix.split('.')[1]}"

    def zone4(self, zone: str) -> IPv4Network:
        """The IPv4 network of a zone (/24)."""
        return IPv4Network(f"{self.prefix}.{ZONES[zone]}.0/24")

    def zone6(self, zone: str) -> IPv6Network:
        """The IPv6 network of a zone (/64)."""
        return IPv6Network(f"{self._ipv6_stem}:{ZONES[zone]}::/64")

    def address4(self, zone: str, octet: int) -> str:
        """The IPv4 address with this last octet in a zone."""
        return f"{self.prefix}.{ZONES[zone]}.{octet}"

    def address6(self, zone: str, octet: int) -> str:
        """The IPv6 address that reads like the IPv4 one (``.10`` and ``::10``)."""
        return f"{self._ipv6_stem}:{ZONES[zone]}::{octet}"

    def management(self, machine: str) -> str:
        """The IPv4 address the controller reaches a machine at."""
        leg = next(leg for leg in self.machine(machine).legs if leg.zone == "management")
        return self.address4("management", leg.octets[0])

    def machine(self, name: str) -> Machine:
        """The machine of that name.

        Raises:
            LemonstandError: there is none.
        """
        for machine in MACHINES:
            if machine.name == name:
                return machine
        raise InputError(f"the lab has no host '{name}'", "lemonstand lab", "hosts: " + ", ".join(m.name for m in MACHINES))

    def container(self, machine: str) -> str:
        """The container's name; network namespaces are named alike."""
        return f"ls-{self.name}-{machine}"

    @property
    def switch(self) -> str:
        """The network namespace that holds the zones' bridges."""
        return self.container("switch")

    @property
    def carrier(self) -> str:
        """The network namespace of the carrier: NAT44 and IPv6 router between handset and Internet."""
        return self.container("carrier")

    @property
    def controller(self) -> str:
        """The network namespace with the controller's leg in the management zone."""
        return self.container("ctl")

    def namespaces(self) -> Iterator[str]:
        """Every network namespace of the lab."""
        yield self.switch
        yield self.carrier
        yield self.controller
        for machine in MACHINES:
            yield self.container(machine.name)


def destination(topology: Topology, target: str, family: int) -> str:
    """A route's destination for ``ip route``: ``default`` or the network of a zone."""
    if target == "default":
        return "default"
    network = topology.zone4(target) if family == 4 else topology.zone6(target)
    return str(ip_network(network))
