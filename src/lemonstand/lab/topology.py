"""A lab's machines, zones and addresses: plain data and arithmetic, nothing is touched here (docs/decisions/0001, 0033)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import Any

from lemonstand.errors import InputError
from lemonstand.paths import LAB_NAME

ZONES = {"internet": 1, "dmz": 2, "auth": 3, "store": 4, "management": 5, "carrier": 6}
"""Zone to the number in its networks. The carrier's is the handsets' side of the carrier, which is the driver's own."""
CARRIER = "carrier"
CARRIER_OCTET = 2
"""Last octet of the carrier's own address on the Internet."""
CONTROLLER_OCTET = 254
HANDSET_OCTETS = range(10, 26)
CARRIER_POOL_OFFSET = 100
"""Handset address .10 appears on the Internet as .110: one outer address a handset address, so that servers can tell them apart."""
PARTS = ("switch", "carrier", "ctl")
"""Namespaces of every lab that are the driver's own; no host may have their names, nor that of the appliance."""
APPLIANCE = "appliance"
ROOT = "root"
NAME = LAB_NAME


@dataclass(frozen=True)
class Leg:
    """One interface of a machine: the zone, the device's name, and its addresses with their networks' lengths (the first is primary)."""

    zone: str
    device: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """A way out of a machine: ``default`` or a network, and the next hop, which says the family."""

    to: str
    via: str

    @property
    def family(self) -> str:
        """The option of `ip` for its family."""
        return "-6" if ":" in self.via else "-4"


@dataclass(frozen=True)
class Machine:
    """One lab host.

    ``managed``: roles harden it; else it stands for a part of the rest of the world. ``open``: hosts may reach it in the management zone,
    where else nobody reaches another but the controller all. ``account``: whom the controller comes as; not root: sudo is there, and
    ``asks`` for a password or not. ``by``: the machine that the controller's SSH goes through.
    """

    name: str
    legs: tuple[Leg, ...]
    routes: tuple[Route, ...] = ()
    managed: bool = True
    open: bool = False
    account: str = ROOT
    asks: bool = False
    by: str = ""

    @property
    def management(self) -> str:
        """The address the controller reaches it at: in the management zone, or by the one leg it has."""
        leg = next((leg for leg in self.legs if leg.zone == "management"), self.legs[0])
        return str(ip_interface(leg.addresses[0]).ip)


@dataclass(frozen=True)
class Topology:
    """Names and addresses of one lab.

    Args:
        name: the lab's name, part of every container, namespace and directory name (1 to 12 of a-z, 0-9).
        prefix: the first two octets of a private IPv4 network, for instance ``10.83``.
        machines: its hosts; none: what needs to know of the wires alone.
        carrier_routes: what the carrier knows beside its own networks.
        appliance: rules of what stands between the zones where the site has no edge; empty where it has one.
        controller_routes: what the controller knows beside the management zone: hosts of one leg lie behind the border.
    """

    name: str = "lab"
    prefix: str = "10.83"
    machines: tuple[Machine, ...] = field(default=(), repr=False)
    carrier_routes: tuple[Route, ...] = field(default=(), repr=False)
    appliance: str = field(default="", repr=False)
    controller_routes: tuple[Route, ...] = field(default=(), repr=False)

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

    def both(self, zone: str, octet: int) -> tuple[str, str]:
        """The addresses of both families with this last octet, with their networks' lengths."""
        return f"{self.address4(zone, octet)}/24", f"{self.address6(zone, octet)}/64"

    @property
    def handset_octets(self) -> tuple[int, ...]:
        """The last octets of all handsets' addresses on the carrier's network, each of which has an outer address of its own."""
        addresses = [
            ip_interface(address).ip for item in self.machines for leg in item.legs if leg.zone == CARRIER for address in leg.addresses
        ]
        return tuple(address.packed[-1] for address in addresses if address.version == 4)

    def management(self, machine: str) -> str:
        """The IPv4 address the controller reaches a machine at."""
        return self.machine(machine).management

    def machine(self, name: str) -> Machine:
        """The machine of that name.

        Raises:
            LemonstandError: there is none.
        """
        for machine in self.machines:
            if machine.name == name:
                return machine
        known = ", ".join(m.name for m in self.machines)
        raise InputError(f"the lab '{self.name}' has no host '{name}'", "lemonstand lab", f"hosts: {known}")

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
        yield from (self.container(part) for part in (*PARTS, *((APPLIANCE,) if self.appliance else ())))
        yield from (self.container(machine.name) for machine in self.machines)

    def plain(self) -> dict[str, Any]:
        """The hosts and routes as JSON has them."""
        machines = [asdict(machine) for machine in self.machines]
        return {
            "machines": machines,
            "carrier_routes": [asdict(way) for way in self.carrier_routes],
            "appliance": self.appliance,
            "controller_routes": [asdict(way) for way in self.controller_routes],
        }


def from_plain(name: str, prefix: str, data: Mapping[str, Any]) -> Topology:
    """Takes what `Topology.plain` made.

    Raises:
        InputError: the name or the prefix is none.
        KeyError, TypeError: the data has another form.
    """
    machines = tuple(
        Machine(
            str(item["name"]),
            tuple(Leg(leg["zone"], leg["device"], tuple(leg["addresses"])) for leg in item["legs"]),
            tuple(Route(**way) for way in item["routes"]),
            bool(item["managed"]),
            # A lab that was made before there were any has none; likewise below.
            bool(item.get("open")),
            str(item.get("account", ROOT)),
            bool(item.get("asks")),
            str(item.get("by", "")),
        )
        for item in data["machines"]
    )
    carrier, controller = (tuple(Route(**way) for way in data.get(key, ())) for key in ("carrier_routes", "controller_routes"))
    return Topology(name, prefix, machines, carrier, str(data["appliance"]), controller)
