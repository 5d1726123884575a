"""What the people who own a firewall are asked for: a change request from flows and timers (RFC 5383 section 6.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lemonstand.derived.deviations import deviations
from lemonstand.derived.documents import written
from lemonstand.policy.flows import GROUPS, ZONES, Flow
from lemonstand.site.families import one_family_flows, zone_at
from lemonstand.site.model import Host, Services, Site

FORMATS = ("md", "html")
NAMES = {
    "controllers": "the controllers",
    "resolvers": "the name servers",
    "ntp": "the time servers",
    "internet": "any address outside",
    "backup": "the backup repository",
    "smarthost": "the smarthost",
    "mirror": "the mirror for packages",
    "mirror_dmz": "the mirror for packages of the DMZ",
    "directory": "the directory behind",
}
STATES = {
    "established": "established, whether or not anything is sent",
    "unack": "established, with data not yet acknowledged",
    "retrans": "established, with data sent again",
    "fin_wait": "closed by one side",
    "close_wait": "closed by the other side",
    "syn_sent": "opening",
    "syn_recv": "opening, answered",
    "last_ack": "closing, the last acknowledgement missing",
    "time_wait": "closed",
    "close": "reset",
}
"""Conntrack's names of states, as a person who runs another make of firewall would put them."""


@dataclass(frozen=True)
class Opening:
    """One row of the request.

    Args:
        flow: what it comes from.
        source, destination: who, with addresses.
        own: whether the site adds it to the flows that ship.
    """

    flow: Flow
    source: str
    destination: str
    own: bool = False


@dataclass(frozen=True)
class Request:
    """All that the template shows; times in seconds."""

    site: str
    public_name: str
    domains: str
    openings: tuple[Opening, ...]
    floor: int
    timers: tuple[tuple[str, int], ...]
    keepalive: int
    idle_notify: int
    tls_profile: str
    service_ports: str
    deviations: tuple[str, ...]
    one_family: tuple[str, ...]


def change_request(site: Site) -> Request:
    """The request for a site's border, flows that stay within one zone left out.

    Args:
        site: a valid site.
    """
    timers = site.timers_in_force
    return Request(
        site=site.settings.site_name,
        public_name=site.settings.public_name,
        domains=", ".join(site.settings.mail_domains),
        openings=tuple(
            Opening(flow, _who(site, flow, flow.source), _who(site, flow, flow.destination), flow.name in site.own_flows)
            for flow in site.active_flows
            if _crosses(site, flow)
        ),
        floor=site.timers.floor("established"),
        timers=tuple((meaning, site.timers.floor(state)) for state, meaning in STATES.items()),
        keepalive=timers["tcp_keepalive_time"],
        idle_notify=timers["idle_notify"],
        tls_profile=site.settings.tls_profile,
        service_ports=", ".join(str(port) for flow in site.active_flows if flow.is_for_clients for port in flow.ports),
        deviations=tuple(map(str, deviations(site))),
        one_family=tuple(f"{flow} {gap}" for flow, gap in one_family_flows(site).items()),
    )


def render(request: Request, form: str) -> str:
    """The request as a document.

    Args:
        form: `md` or `html`; HTML is one file without anything outside it.

    Raises:
        LemonstandError: the template is not there.
    """
    return written("firewall-request", form, {"span": span}, request=request)


def span(seconds: int) -> str:
    """Seconds as people say them: 7440 is `2 h 4 min`."""
    parts = [(seconds // 86400, "d"), (seconds % 86400 // 3600, "h"), (seconds % 3600 // 60, "min"), (seconds % 60, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def _who(site: Site, flow: Flow, endpoint: str) -> str:
    if endpoint in GROUPS:
        hosts = site.group(endpoint)
        named = _hosts(hosts)
        published = flow.publish and endpoint == flow.destination and site.settings.public_ipv4
        return f"{named}, IPv4 by way of {site.settings.public_ipv4}" if published else named
    if endpoint == "controllers":
        return f"{NAMES[endpoint]} ({', '.join(map(str, site.settings.controllers))})"
    if endpoint in {"resolvers", "ntp"}:
        asking = [host for host in site.hosts.values() if flow.source in host.groups or flow.source in host.interfaces]
        lists = (host.settings.dns_resolvers if endpoint == "resolvers" else host.settings.ntp_servers for host in asking)
        values = {str(address) for addresses in lists for address in addresses}
        return f"{NAMES[endpoint]} ({', '.join(sorted(values)) or 'none is set'})"
    if endpoint in Services.model_fields:
        service = site.settings.services.at(endpoint)
        return f"{NAMES[endpoint]} ({', '.join(map(str, service.addresses)) if service else 'none is named'})"
    return NAMES[endpoint] if endpoint == "internet" else _network(site, flow, endpoint)


def _network(site: Site, flow: Flow, endpoint: str) -> str:
    """A zone; what of management lies behind the border are hosts that have no leg there."""
    if endpoint == "management" and endpoint == flow.destination:
        return _hosts(of_one_leg(site))
    zone = site.settings.zones[endpoint]
    return f"zone {endpoint} ({', '.join(map(str, zone.networks))})"


def _hosts(hosts: Iterable[Host]) -> str:
    rows = []
    for host in hosts:
        zones = [zone for zone in host.interfaces if zone != "management"] or list(host.interfaces)
        addresses = [str(a) for zone in zones for a in host.interfaces[zone].addresses]
        rows.append(f"{host.name} ({', '.join(addresses)})")
    return "; ".join(rows)


def _crosses(site: Site, flow: Flow) -> bool:
    """Whether the ends stand in different zones; what hosts ask their own zone's edge never meets a rule between zones."""
    if flow.destination == "edges" and flow.source in ZONES:
        return False
    if flow.destination == "management":
        return bool(of_one_leg(site))
    if flow.destination in Services.model_fields and _zones(site, flow.destination) <= {"management"}:
        # Whoever has a leg there needs nobody between.
        return any(flow.source in host.groups or flow.source in host.interfaces for host in of_one_leg(site))
    return _zones(site, flow.source) != _zones(site, flow.destination)


def of_one_leg(site: Site) -> tuple[Host, ...]:
    """The site's hosts that are managed by the leg they serve by, so that the border lets the controllers through to them (record 0051)."""
    return tuple(host for host in site.hosts.values() if host.role_groups and host.way_in not in {None, "management"})


def _zones(site: Site, endpoint: str) -> frozenset[str]:
    if endpoint in ZONES:
        return frozenset({endpoint})
    if endpoint == "controllers":
        return frozenset({"management"})
    if endpoint in {"resolvers", "ntp"}:
        return frozenset({"internet"})
    if endpoint in Services.model_fields:
        service = site.settings.services.at(endpoint)
        return frozenset(zone_at(address, site.settings.zones) or "internet" for address in (service.addresses if service else ()))
    return frozenset(zone for host in site.group(endpoint) for zone in host.interfaces if zone != "management")
