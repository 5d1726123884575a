"""Which connections a site's flows allow, worked out from the model alone: what reachability checks compare the network with.

Shares no code with the rules' templates (`playbooks/filter_plugins`), so that one mistake can't hide in both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from lemonstand.policy.flows import GROUPS, Flow
from lemonstand.site.model import Host, Services, Site

OUTSIDE = "internet"
MANAGEMENT = "management"
CONTROLLER = "controller"
"""The name of the source that stands for whoever runs lemonstand."""
UNLISTED: tuple[tuple[Literal["tcp", "udp"], int], ...] = (
    ("tcp", 21),
    ("tcp", 110),
    ("tcp", 389),
    ("tcp", 2525),
    ("tcp", 8080),
    ("tcp", 49152),
    ("udp", 161),
)
"""Ports that no shipped flow names: a sample of what is asked for most often, what hosts run for themselves, and one nobody uses."""
REACHABILITY, SILENT = "reachability", "reachability: silent"
"""Tables of evidence: each way that a flow allows or that something answered on; and how many others of a pair of hosts stayed silent."""
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Cell:
    """One question of the matrix: may `source` open a connection to this port of this address?

    Args:
        source: a host's inventory name, or `controller`.
        destination: the inventory name of the host that is meant to answer.
        address: the address that is dialled; the published one where the edge translates.
        port: the destination port.
    """

    source: str
    destination: str
    address: Address
    protocol: Literal["tcp", "udp"]
    port: int


def expected_matrix(site: Site) -> dict[Cell, str | None]:
    """Every question with its answer: the name of the flow that allows it, or None where it must be dropped.

    The questions: each host of the inventory and the controller as a source; each other site host, at each of its addresses, as a
    destination; hosts outside ask at the published address as well; each port any flow names, and a sample of others. An answer
    "allowed" says what filters must let through. Whether something listens there, and whether there is a route, the flow can't know.

    Args:
        site: a valid site.
    """
    ports = asked_ports(site)
    matrix: dict[Cell, str | None] = {}
    for source in (CONTROLLER, *site.hosts):
        for destination, zone, address in _targets(site, source):
            for protocol, port in ports:
                cell = Cell(source, destination, address, protocol, port)
                # The published address stands for several hosts: the one a flow leads to answers.
                matrix[cell] = matrix.get(cell) or _allowing(site, cell, zone)
    return matrix


def asked_ports(site: Site) -> list[tuple[Literal["tcp", "udp"], int]]:
    """The ports the matrix asks for: those of any flow, whether or not it is used here, and `UNLISTED` ones."""
    flows = (*site.flows.flows, *site.active_flows)
    return sorted({*((flow.protocol, port) for flow in flows if flow.protocol != "vrrp" for port in flow.ports), *UNLISTED})


def _targets(site: Site, source: str) -> Iterator[tuple[str, str | None, Address]]:
    """Where a source may knock: (host, zone or None for the published address, address)."""
    outer = source in site.hosts and _is_outer(site.hosts[source])
    for name, host in site.hosts.items():
        if name == source:
            continue
        for zone, leg in host.interfaces.items():
            for address in leg.addresses:
                if zone == OUTSIDE and address == site.settings.public_ipv4 and outer:
                    continue  # asked below: what is published there is not the edge
                if _answers_for(site, source, name, address):
                    continue  # whoever asks there asks himself
                yield name, zone, address
    if outer and site.settings.public_ipv4 is not None:
        for name, host in site.hosts.items():
            if not _is_outer(host) and name != source:
                yield name, None, site.settings.public_ipv4


def _answers_for(site: Site, source: str, name: str, address: Address) -> bool:
    """Whether a host has another one's address too: frontends do by IPv6, for connections an edge hands on (record 0035)."""
    frontends = {host.name for host in site.group("frontends")}
    return address.version == 6 and {source, name} <= frontends and bool(site.group("edges"))


def _allowing(site: Site, cell: Cell, zone: str | None) -> str | None:
    if never_allowed(site, cell, zone):
        return None
    for flow in site.active_flows:
        if flow.protocol != cell.protocol or cell.port not in flow.ports:
            continue
        if zone is None:
            allowed = flow.publish and flow.source == OUTSIDE and flow.destination in site.hosts[cell.destination].groups
        else:
            allowed = _is_source(site, flow, cell.source) and _is_destination(site, flow, cell, zone)
        if allowed:
            return flow.name
    return None


def never_allowed(site: Site, cell: Cell, zone: str | None) -> bool:
    """Whether no flow may allow a cell, whatever it says: the invariants a second time, apart from `policy/invariants.yml` on purpose.

    Args:
        zone: the one the address is in; None for the published address.
    """
    target = site.hosts[cell.destination]
    if cell.source == CONTROLLER:
        by_shell = zone == target.way_in and cell.protocol == "tcp" and cell.port in {22, target.shell_port}
        return "auths" in target.groups and not by_shell
    source = site.hosts[cell.source]
    if _is_outer(target):
        return "stores" in source.groups or "auths" in source.groups
    if "auths" in target.groups:
        twins = "auths" in source.groups and (cell.protocol, cell.port) in {("tcp", 636), ("tcp", 8444)}
        return not (twins or "frontends" in source.groups) or zone == MANAGEMENT
    if "stores" in target.groups and _is_outer(source):
        return True
    # One leg for everything: what of it is management is the shell.
    managed = zone == MANAGEMENT or (zone == target.way_in and cell.protocol == "tcp" and cell.port in {22, target.shell_port})
    return managed and ("frontends" in source.groups or "relays" in source.groups)


def _is_source(site: Site, flow: Flow, source: str) -> bool:
    if source == CONTROLLER or flow.source == "controllers":
        return source == CONTROLLER and flow.source == "controllers"
    host = site.hosts[source]
    if flow.source in GROUPS:
        return flow.source in host.groups
    if flow.source == OUTSIDE:
        return _is_outer(host)
    # An edge stands in every zone to join it, not to live there.
    return flow.source in host.interfaces and "edges" not in host.groups


def _is_destination(site: Site, flow: Flow, cell: Cell, zone: str) -> bool:
    host = site.hosts[cell.destination]
    if flow.destination == MANAGEMENT:
        return zone == MANAGEMENT or (zone == host.way_in and not _is_outer(host))
    if zone == MANAGEMENT:
        return False  # no flow but those to `management` may use that zone
    if flow.destination in GROUPS:
        # What is translated is not known outside by its own address: there only the published one counts.
        hidden = flow.source == OUTSIDE and cell.address.version == 4 and not site.settings.routed_ipv4
        # One edge is met at any of its addresses; of two, the one on the way lets nobody through to the other.
        elsewhere = "edges" in host.groups and len(site.group("edges")) > 1 and zone not in _zones_of(site, cell.source)
        return flow.destination in host.groups and not hidden and not elsewhere and (not flow.by or zone in flow.by)
    if flow.destination == OUTSIDE:
        return _is_outer(host)
    if flow.destination in ("resolvers", "ntp", *Services.model_fields):
        return cell.address in _listed(site, flow.destination, cell.source)
    return zone == flow.destination and "edges" not in host.groups


def _listed(site: Site, end: str, source: str) -> Collection[object]:
    """The addresses of an end that is a list. A lab's peer may be at one of them; a service for backups is at no host of the inventory."""
    if (service := site.settings.services.at(end)) is not None:
        return service.addresses
    if source == CONTROLLER:
        return ()  # the lists are hosts' own; which servers a controller asks is nobody's business here
    asking = site.hosts[source].settings
    return asking.dns_resolvers if end == "resolvers" else asking.ntp_servers


def _zones_of(site: Site, source: str) -> Collection[str]:
    return site.hosts[source].interfaces if source != CONTROLLER else ()


def _is_outer(host: Host) -> bool:
    return not host.role_groups


def allowed_between(matrix: Mapping[Cell, str | None], source: str, destination: str) -> dict[tuple[str, str, int], str]:
    """The allowed cells of a pair of hosts, for reading: {(address, protocol, port): flow}."""
    return {
        (str(cell.address), cell.protocol, cell.port): flow
        for cell, flow in matrix.items()
        if flow is not None and (cell.source, cell.destination) == (source, destination)
    }
