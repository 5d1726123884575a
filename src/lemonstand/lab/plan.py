"""Works out a lab from an inventory: which hosts stand on which wires, and what they know of the way (docs/decisions/0033).

A data centre gives hosts their addresses and routes before anybody configures them; here the driver does, from what the inventory says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from lemonstand.derived.change_request import of_one_leg
from lemonstand.errors import InputError, InputErrors
from lemonstand.lab import appliance
from lemonstand.lab.topology import (
    APPLIANCE,
    CARRIER,
    CARRIER_OCTET,
    CARRIER_POOL_OFFSET,
    CONTROLLER_OCTET,
    HANDSET_OCTETS,
    PARTS,
    ROOT,
    Leg,
    Machine,
    Route,
    Topology,
)
from lemonstand.policy import load_flows, load_timers
from lemonstand.policy.kinds import MANAGEMENT, OUTSIDE, load_kinds
from lemonstand.site import Host, Site, build
from lemonstand.site.raw import BECOME_PASSWORDS, RawSite
from lemonstand.site.rules import jump_host

Ways = Mapping[str, str]
"""Host to the address Ansible reaches it at (`ansible_host`)."""


@dataclass(frozen=True)
class Login:
    """How Ansible comes in at a host.

    Args:
        account: whom it comes as; the first apply finds that account there.
        asks: whether sudo asks that account for a password.
        jump: the last host its SSH jumps over, as the inventory names it; empty: none.
    """

    account: str = ROOT
    asks: bool = False
    jump: str = ""


def planned(bare: Topology, path: Path, raw: RawSite) -> Topology:
    """The lab an inventory names, as it was read.

    Args:
        bare: the lab's name and prefix.
        path: the inventory.
        raw: what it says.

    Raises:
        InputErrors: everything that is wrong with it, or that no lab can hold.
    """
    ways = {name: host.connection.get("ansible_host", name) for name, host in raw.hosts.items()}
    logins = {
        name: Login(
            host.connection.get("ansible_user", ROOT),
            any(word in host.connection for word in BECOME_PASSWORDS),
            jump_host(host.connection).rpartition("@")[2],
        )
        for name, host in raw.hosts.items()
    }
    return plan(bare.name, bare.prefix, build(path, raw, load_flows(), load_timers()), ways, logins)


def plan(name: str, prefix: str, site: Site, ways: Ways, logins: Mapping[str, Login] | None = None) -> Topology:
    """The lab an inventory names.

    Args:
        name: the lab's name.
        prefix: the first two octets of its network.
        site: the inventory's site; its addresses lie in the lab's network.
        ways: host to the address Ansible reaches it at.
        logins: host to how it comes in there; who is not in it: as root, and straight.

    Raises:
        InputErrors: what of the inventory no lab can hold.
    """
    bare, logins = Topology(name, prefix), logins or {}
    faults = [*_foreign_networks(bare, site), *_taken(bare, site), *_handsets(bare, site, ways), *_jumps(site, ways, logins)]
    if faults:
        raise InputErrors(faults)
    handsets = iter(range(len(site.group("handsets"))))
    machines = []
    names = {**{way: host for host, way in ways.items()}, **{host: host for host in ways}}

    def entered(machine: Machine, login: Login) -> Machine:
        return replace(machine, account=login.account, asks=login.asks, by=names.get(login.jump, ""))

    for host in _everybody(site):
        login = logins.get(host.name, Login())
        if "handsets" in host.groups:
            machines.append(entered(_handset(bare, host.name, next(handsets), ways[host.name]), login))
            continue
        legs = tuple(
            Leg(zone, leg.device, tuple(f"{address}/{_length(site, zone, address)}" for address in leg.addresses))
            for zone, leg in host.interfaces.items()
        )
        routes = tuple(_routes(bare, site, host))
        machines.append(entered(Machine(host.name, legs, routes, bool(host.role_groups), open=host.name in site.apart), login))
    # The Internet routes what is public in the DMZ to the edge. Its IPv4 network is private where the edge translates an address to it.
    between = "" if site.group("edges") else appliance.rules(site, bare.address4(OUTSIDE, appliance.OCTET))
    return Topology(name, prefix, tuple(machines), tuple(_inward(bare, site)), between, tuple(_behind(bare, site)))


def _everybody(site: Site) -> Iterator[Host]:
    """All hosts of an inventory, those too of which the site knows a service's address alone."""
    yield from site.hosts.values()
    yield from site.apart.values()


def _length(site: Site, zone: str, address: IPv4Address | IPv6Address) -> int:
    networks = site.settings.zones.get(zone)
    network = networks and networks.network_of(address)
    return network.prefixlen if network else 24 if address.version == 4 else 64


def gateways(lab: Topology, site: Site, zone: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """The addresses in a zone by which hosts reach other zones, IPv4 first: what a pair of edges shares, the edge's, or the appliance's.

    Of a zone with several networks those in all of them.
    """
    shared = site.settings.edge_addresses.get(zone)
    if shared is not None:
        return shared.addresses
    edges = site.group("edges")
    if not edges:
        return IPv4Address(lab.address4(zone, appliance.OCTET)), IPv6Address(lab.address6(zone, appliance.OCTET))
    leg = edges[0].interfaces.get(zone)
    return leg.addresses if leg else ()


def _inward(lab: Topology, site: Site) -> Iterator[Route]:
    """What the Internet knows of the DMZ."""
    public = [each for each in site.settings.zones["dmz"].networks if each.version == 6 or not site.settings.public_ipv4]
    for hop in gateways(lab, site, OUTSIDE):
        yield from (Route(str(network), str(hop)) for network in public if network.version == hop.version)


def _behind(lab: Topology, site: Site) -> Iterator[Route]:
    """What the management zone knows of hosts that have no leg in it: their zones lie behind the border."""
    zones = dict.fromkeys(str(host.way_in) for host in of_one_leg(site))
    for zone in zones:
        networks = site.settings.zones[zone].networks
        for hop in gateways(lab, site, MANAGEMENT):
            yield from (Route(str(network), str(hop)) for network in networks if network.version == hop.version)


def _routes(lab: Topology, site: Site, host: Host) -> Iterator[Route]:
    """What a host knows of the way: the DMZ all of it, inner hosts the DMZ and no way out (LEM-8-06, LEM-8-07).

    Who has no leg in management knows the way there as well.
    """
    carrier = (lab.address4(OUTSIDE, CARRIER_OCTET), lab.address6(OUTSIDE, CARRIER_OCTET))
    outer = host.interfaces.get(OUTSIDE)
    versions = {address.version for address in outer.addresses} if outer else set()
    if "edges" in host.groups:
        yield from (Route("default", hop) for hop in carrier if ip_address(hop).version in versions)
        return
    if "peers" in host.groups:
        yield from _inward(lab, site)
        if 6 in versions:
            yield Route(str(lab.zone6(CARRIER)), carrier[1])
        return
    if host.name in site.apart:
        yield from _behind(lab, site)
        return
    home = next((kind.home for group, kind in load_kinds().kinds.items() if group in host.groups), None)
    known = [site.settings.zones["dmz"], *([site.settings.zones[MANAGEMENT]] if host in of_one_leg(site) else [])]
    if home is None or home not in host.interfaces:
        return
    own = [site.settings.zones[home].network_of(address) for address in host.interfaces[home].addresses]
    # The other networks of its own zone are behind the gateway as well.
    beside = [network for network in site.settings.zones[home].networks if network not in own]
    for hop in gateways(lab, site, home):
        if not any(network is not None and hop in network for network in own):
            continue
        if home == "dmz":
            yield Route("default", str(hop))
            continue
        networks = [*(network for zone in known for network in zone.networks), *beside]
        yield from (Route(str(network), str(hop)) for network in networks if network.version == hop.version)


def _handset(lab: Topology, name: str, number: int, way: str) -> Machine:
    octets = [octet + number * len(HANDSET_OCTETS) for octet in HANDSET_OCTETS]
    radio = Leg(CARRIER, "radio0", tuple(address for octet in octets for address in lab.both(CARRIER, octet)))
    octet = ip_address(way).packed[-1]
    hops = (lab.address4(CARRIER, 1), lab.address6(CARRIER, 1))
    return Machine(
        name, (radio, Leg(MANAGEMENT, "mgmt0", lab.both(MANAGEMENT, octet))), tuple(Route("default", hop) for hop in hops), managed=False
    )


def _foreign_networks(lab: Topology, site: Site) -> Iterator[InputError]:
    """Every network of the inventory is the lab's own one of that zone."""
    for zone, networks in site.settings.zones.items():
        for network in networks.networks:
            own = lab.zone4(zone) if network.version == 4 else lab.zone6(zone)
            if not network.subnet_of(own):  # type: ignore[arg-type]
                yield InputError(
                    f"the zone '{zone}' of a lab's inventory is {network}, and the lab's is {own}",
                    f"{site.inventory} (lemonstand_zones)",
                    "make networks of LEMONSTAND_LAB_PREFIX, as inventories/lab does",
                )
    for host in _everybody(site):
        for zone, leg in host.interfaces.items():
            for address in leg.addresses:
                if address not in (lab.zone4(zone) if address.version == 4 else lab.zone6(zone)):
                    yield InputError(
                        f"{address} of host {host.name} lies outside the lab's zone '{zone}'",
                        f"{site.inventory} (host {host.name})",
                        "make addresses of LEMONSTAND_LAB_PREFIX, as inventories/lab does",
                    )


def _taken(lab: Topology, site: Site) -> Iterator[InputError]:
    """No host has an address or a name of the driver's own parts."""
    outer = range(HANDSET_OCTETS.start, HANDSET_OCTETS.stop + (len(site.group("handsets")) - 1) * len(HANDSET_OCTETS))
    of_carrier = {lab.address4(OUTSIDE, octet) for octet in (CARRIER_OCTET, *(octet + CARRIER_POOL_OFFSET for octet in outer))}
    own = {
        **dict.fromkeys((*of_carrier, lab.address6(OUTSIDE, CARRIER_OCTET)), "the carrier's"),
        **dict.fromkeys((lab.address4(MANAGEMENT, CONTROLLER_OCTET), lab.address6(MANAGEMENT, CONTROLLER_OCTET)), "the controller's"),
    }
    if not site.group("edges"):
        if joined := [zone for zone, networks in site.settings.zones.items() if networks.more]:
            yield InputError(
                f"the zone '{joined[0]}' has several networks, and the appliance of a lab has one address of each IP version in a zone",
                f"{site.inventory} (lemonstand_zones)",
                "rehearse the site with one network in each zone",
            )
        between = [each.partition("/")[0] for zone in appliance.joined(site) for each in lab.both(zone, appliance.OCTET)]
        own |= dict.fromkeys(between, "the appliance's")
        if site.settings.public_ipv4 is not None and str(site.settings.public_ipv4) != between[0]:
            what = f"lemonstand_public_ipv4 is {site.settings.public_ipv4}, and in a lab without an edge it is {between[0]}"
            yield InputError(what, f"{site.inventory} (lemonstand_public_ipv4)", "the lab's appliance has that address")
    for host in _everybody(site):
        where = f"{site.inventory} (host {host.name})"
        if host.name in {*PARTS, APPLIANCE}:
            yield InputError(f"'{host.name}' is the name of a part of every lab", where, "give the host another name")
        for leg in host.interfaces.values():
            for address in leg.addresses:
                if str(address) in own:
                    yield InputError(f"{address} of host {host.name} is {own[str(address)]} in a lab", where, "give the host another one")


def _handsets(lab: Topology, site: Site, ways: Ways) -> Iterator[InputError]:
    """Each handset is reached by the management zone, and so is every other host."""
    for host in _everybody(site):
        where = f"{site.inventory} (host {host.name})"
        zone = host.way_in or MANAGEMENT
        leg = host.interfaces.get(zone) if host.role_groups or zone == MANAGEMENT else None
        try:
            way = ip_address(ways.get(host.name, host.name))
        except ValueError:
            way = None
        if way not in ({leg.addresses[0]} if leg else lab.zone4(MANAGEMENT)):
            known = f"{leg.addresses[0]}, which it has in the zone {zone}" if leg else f"an address of {lab.zone4(MANAGEMENT)}"
            yield InputError(f"the controller can't reach {host.name} at {way or 'that name'}", where, f"let its ansible_host be {known}")


def _jumps(site: Site, ways: Ways, logins: Mapping[str, Login]) -> Iterator[InputError]:
    """What SSH jumps over is a machine of the lab."""
    known = {*ways, *ways.values()}
    for name, login in logins.items():
        if login.jump and login.jump not in known:
            yield InputError(
                f"{name} is reached by way of {login.jump}, which is no machine of the lab",
                f"{site.inventory} (host {name})",
                "put the jump host into the group 'jumphosts', with its address in the zone management",
            )
