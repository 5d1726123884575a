"""Judges flows by the invariants: who could open a connection to whom by a flow, and what of that must never be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from lemonstand.policy.flows import Flow
from lemonstand.policy.invariants import ANY, SSH, Exempt, Invariant, load_invariants
from lemonstand.policy.kinds import MANAGEMENT, OUTSIDE, load_kinds
from lemonstand.site.families import zone_at

Address = IPv4Address | IPv6Address
KINDS = load_kinds()
SOMEBODY = "somebody"
"""A machine in a zone that is no host of the inventory."""


@dataclass(frozen=True)
class End:
    """Where a connection begins or ends.

    Args:
        who: a group of hosts, `controllers`, `internet`, or somebody.
        zone: the zone it begins or ends in.
    """

    who: str
    zone: str

    def __str__(self) -> str:
        """For messages: `auths by management`."""
        return self.who if self.zone in {OUTSIDE, *_homes(self.who)} else f"{self.who} by {self.zone}"


@dataclass(frozen=True)
class Addressing:
    """What a site says that decides where flows lead.

    Args:
        zones: the networks of each zone, by name.
        lists: the addresses of each list (controllers, resolvers, ntp), by the group of the hosts that have it.
        owners: address to the group of the host that has it, and the zone it has it in.
        shells: ports by which Ansible gets to a host.
    """

    zones: Mapping[str, Any]
    lists: Mapping[str, Mapping[str, Collection[Address]]]
    owners: Mapping[Address, End]
    shells: frozenset[int] = frozenset({SSH})

    def place(self, address: Address) -> End:
        """Whose an address is."""
        owner = self.owners.get(address)
        if owner is not None:
            return owner
        zone = zone_at(address, self.zones)
        return End(OUTSIDE, OUTSIDE) if zone is None else End(SOMEBODY, zone)


def broken(flow: Flow, addressing: Addressing) -> Iterator[tuple[Invariant, End, End]]:
    """The invariants a flow breaks, each with the first pair of ends by which it does; its condition counts for nothing.

    Args:
        flow: one whose ends exist.
        addressing: the site.
    """
    sources = _sources(flow.source, addressing)
    pairs = [(source, target) for source in sources for target in _ends(flow.destination, {each.who for each in sources}, addressing)]
    for invariant in load_invariants():
        for source, target in pairs:
            forbidden = _among(source, invariant.sources) and _among(target, invariant.destinations)
            if forbidden and not any(_excuses(each, flow, source, target, addressing) for each in invariant.exempt):
                yield invariant, source, target
                break


def _homes(group: str) -> tuple[str, ...]:
    kind = KINDS.kinds.get(group)
    return tuple(zone for zone in kind.zones if zone != MANAGEMENT) if kind else ()


def _at_home(zone: str) -> list[str]:
    """The groups of hosts that live in a zone; an edge stands in each to join them, and lives in none."""
    return [name for name, kind in KINDS.kinds.items() if kind.home == zone]


def _sources(endpoint: str, addressing: Addressing) -> list[End]:
    if endpoint == "controllers":
        return [End("controllers", MANAGEMENT)]
    ends = _ends(endpoint, None, addressing)
    return [End("controllers", MANAGEMENT), *ends] if endpoint == MANAGEMENT else ends


def _ends(endpoint: str, asking: Collection[str] | None, addressing: Addressing) -> list[End]:
    """Who an endpoint of a flow stands for, as its target; as its source, controllers apart.

    Args:
        asking: the groups that ask, for a list of addresses of theirs; None: of all hosts.
    """
    if endpoint == OUTSIDE:
        return [End(OUTSIDE, OUTSIDE)]
    if endpoint in KINDS.zones:
        groups = KINDS.groups if endpoint == MANAGEMENT else _at_home(endpoint)
        return [*(End(group, endpoint) for group in groups), End(SOMEBODY, endpoint)]
    if endpoint in KINDS.kinds:
        return [End(endpoint, zone) for zone in _homes(endpoint)]
    return _listed(endpoint, asking, addressing)


def _listed(endpoint: str, asking: Collection[str] | None, addressing: Addressing) -> list[End]:
    """The ends of a list of addresses: those of the hosts that ask, or of all hosts."""
    by_group = addressing.lists.get(endpoint, {})
    chosen = {address for group, addresses in by_group.items() if asking is None or group in asking for address in addresses}
    return sorted({addressing.place(address) for address in chosen}, key=lambda end: (end.who, end.zone))


def _among(end: End, ends: Iterable[str]) -> bool:
    """Whether an end is one of those an invariant names."""
    return any(_is(end, name) for name in ends)


def _is(end: End, name: str) -> bool:
    if name == ANY:
        return True
    if name == OUTSIDE:
        return end.who == OUTSIDE
    if name == MANAGEMENT:
        return end.zone == MANAGEMENT
    if name in KINDS.zones:
        return end.who in _at_home(name) or (end.who == SOMEBODY and end.zone == name)
    return end.who == name


def _excuses(exempt: Exempt, flow: Flow, source: End, target: End, addressing: Addressing) -> bool:
    ports = addressing.shells if exempt.ports == "ssh" else exempt.ports
    return (
        _is(source, exempt.source)
        and (not exempt.destination or _is(target, exempt.destination))
        and exempt.list in {"", flow.destination}
        and exempt.protocol in {None, flow.protocol}
        and (ports is None or set(flow.ports) <= set(ports))
    )
