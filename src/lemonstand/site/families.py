"""IP versions: which each end of a flow has, and where the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from lemonstand.policy.kinds import OUTSIDE, load_kinds
from lemonstand.site.model import Site, Zone

NAMES = {4: "IPv4", 6: "IPv6"}


def families_of(endpoint: str, zones: Mapping[str, Zone]) -> tuple[int, ...] | None:
    """The IP versions of an endpoint: those of its zone; both for the Internet; None for edges and lists of addresses.

    Args:
        endpoint: as flows have it.
        zones: the site's.
    """
    if endpoint == OUTSIDE:
        return (4, 6)
    kind = load_kinds().kinds.get(endpoint)
    zone = zones.get(endpoint if kind is None else kind.home or "")
    if zone is None:
        return None
    return tuple(version for version, network in ((4, zone.ipv4), (6, zone.ipv6)) if network is not None)


def zone_at(address: IPv4Address | IPv6Address, zones: Mapping[str, Zone]) -> str | None:
    """The zone whose network has an address; None: it lies outside the site."""
    return next((name for name, zone in zones.items() if zone.network_of(address) is not None), None)


def one_family_flows(site: Site) -> dict[str, str]:
    """The flows that work in one IP version although one of their ends has both: {flow: which, and why}."""
    found = {}
    for flow in site.active_flows:
        source, target = (families_of(endpoint, site.settings.zones) for endpoint in (flow.source, flow.destination))
        if source is None or target is None or source == target:
            continue
        common = set(source) & set(target)
        lacking = flow.source if len(source) < len(target) else flow.destination
        missing = ({4, 6} - common).pop()
        found[flow.name] = f"by {NAMES[common.pop()]} alone: {lacking} has no {NAMES[missing]}"
    return found
