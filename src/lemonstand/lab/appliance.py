"""What stands between a lab's zones where the site has no edge: an appliance of somebody else's, set up by the change request alone.

A site without `edges` hands its firewall's owner what `lemonstand firewall-request` prints. Here that owner is a namespace of the driver:
it passes what the request asks for, keeps state as long as it asks for, and drops the rest (RFC 5383 section 6.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from lemonstand.derived.change_request import STATES, change_request, of_one_leg
from lemonstand.policy.flows import GROUPS, ZONES, Flow
from lemonstand.policy.kinds import MANAGEMENT, OUTSIDE
from lemonstand.site import Site
from lemonstand.site.families import zone_at

Address = IPv4Address | IPv6Address
OCTET = 1
"""The last octet of its addresses in every zone."""
SERVED = tuple(zone for zone in ZONES if zone != MANAGEMENT)


def joined(site: Site) -> tuple[str, ...]:
    """The zones it stands in. In management only where it is the way to hosts: others are reached by legs of their own there."""
    return ZONES if of_one_leg(site) else SERVED


def device(zone: str) -> str:
    """Its device in a zone."""
    return f"{zone}0"


def rules(site: Site, public: str) -> str:
    """Its rules as a file for `nft -f`.

    Args:
        site: a site without an edge.
        public: its own IPv4 address on the Internet, which is the site's where one is translated.
    """
    request = change_request(site)
    timers = dict(zip(STATES, (seconds for _, seconds in request.timers), strict=True))
    policy = ", ".join(f"{state} : {seconds}" for state, seconds in timers.items())
    passed = [line for opening in request.openings for line in _passed(site, opening.flow)]
    published = [line for opening in request.openings if opening.flow.publish for line in _published(site, opening.flow)]
    outward = f'iifname "dmz0" oifname "internet0" meta nfproto ipv4 snat ip to {public}' if site.settings.public_ipv4 else ""
    return f"""table inet appliance
delete table inet appliance
table inet appliance {{
  ct timeout tcp4 {{ protocol tcp; l3proto ip; policy = {{ {policy} }}; }}
  ct timeout tcp6 {{ protocol tcp; l3proto ip6; policy = {{ {policy} }}; }}
  chain timers {{
    type filter hook prerouting priority -190; policy accept;
    meta nfproto ipv4 meta l4proto tcp ct timeout set "tcp4"
    meta nfproto ipv6 meta l4proto tcp ct timeout set "tcp6"
  }}
  chain inward {{
    type nat hook prerouting priority -100; policy accept;
    {_lines(published)}
  }}
  chain input {{
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    meta l4proto {{ icmp, icmpv6 }} accept
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    icmp type destination-unreachable accept
    icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} accept
    {_lines(passed)}
  }}
  chain outward {{
    type nat hook postrouting priority 100; policy accept;
    {outward}
  }}
}}
"""


def _lines(lines: list[str]) -> str:
    return "\n    ".join(lines)


def _passed(site: Site, flow: Flow) -> Iterator[str]:
    ports = f"{flow.protocol} dport {{ {', '.join(map(str, flow.ports))} }}"
    for version, family in ((4, "ip"), (6, "ip6")):
        source, destination = (_end(site, flow, end, version) for end in (flow.source, flow.destination))
        if source is None or destination is None:
            continue
        sides = [f'iifname "{device(OUTSIDE)}"' if not source else f"{family} saddr {{ {', '.join(source)} }}"]
        sides.append(f'oifname "{device(OUTSIDE)}"' if not destination else f"{family} daddr {{ {', '.join(destination)} }}")
        # What is published is reached by the translated address alone.
        translated = "ct status dnat " if version == 4 and flow.publish and site.settings.public_ipv4 is not None else ""
        yield f"meta nfproto ipv{version} {' '.join(sides)} {ports} {translated}accept"


def _end(site: Site, flow: Flow, end: str, version: int) -> list[str] | None:
    """The addresses of one end of a flow in an IP version; an empty list is the Internet, None is nobody."""
    if end == OUTSIDE:
        return []
    if end in GROUPS:
        found: list[object] = list(_members(site, end))
    elif end == "controllers":
        found = list(site.settings.controllers)
    elif end == MANAGEMENT and end == flow.destination:
        found = [address for host in of_one_leg(site) for leg in host.interfaces.values() for address in leg.addresses]
    elif end in {"resolvers", "ntp"}:
        asking = [host for host in site.hosts.values() if flow.source in host.groups or flow.source in host.interfaces]
        found = [each for host in asking for each in (host.settings.dns_resolvers if end == "resolvers" else host.settings.ntp_servers)]
    elif (service := site.settings.services.at(end)) is not None:
        reached = joined(site)
        found = [each for each in service.addresses if (zone_at(each, site.settings.zones) or OUTSIDE) in reached]
    elif end in joined(site):
        found = list(site.settings.zones[end].networks)
    else:
        return None
    mine = sorted({str(each) for each in found if ip_address(str(each).partition("/")[0]).version == version})
    return mine or None


def _members(site: Site, group: str) -> Iterator[Address]:
    for host in site.group(group):
        for zone, leg in host.interfaces.items():
            if zone != MANAGEMENT:
                yield from leg.addresses


def _published(site: Site, flow: Flow) -> Iterator[str]:
    hosts = [str(address) for address in _members(site, flow.destination) if address.version == 4]
    if site.settings.public_ipv4 is None or not hosts:
        return
    ports = f"{flow.protocol} dport {{ {', '.join(map(str, flow.ports))} }}"
    spread = ", ".join(f"{number} : {address}" for number, address in enumerate(hosts))
    to = hosts[0] if len(hosts) == 1 else f"numgen inc mod {len(hosts)} map {{ {spread} }}"
    yield f'iifname "{device(OUTSIDE)}" ip daddr {site.settings.public_ipv4} {ports} dnat ip to {to}'
