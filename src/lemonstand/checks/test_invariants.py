"""What no flow moves, tried from each host that must not get through. Made from the invariants and the hosts' addresses, not from flows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.checks.live import THROUGH, Way, knock
from lemonstand.derived.change_request import of_one_leg
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.policy.invariants import ANY, Invariant, load_invariants
from lemonstand.policy.kinds import MANAGEMENT, OUTSIDE, load_kinds
from lemonstand.remote.prober import Prober
from lemonstand.site import Host, Site

pytestmark = pytest.mark.answer("live")

KINDS = load_kinds()
PORTS = (
    21, 22, 24, 25, 53, 80, 110, 111, 139, 143, 389, 443, 445, 465, 514, 587, 636, 993, 995, 2222, 2525, 3306, 4190, 5432, 6379, 8080, 8443,
    9090, 9100, 49152,
)  # fmt: skip
"""What mail, directories, shells, file shares, databases and monitors are asked on, whatever the flows say, and one that nobody uses."""
ITSELF = "127.0.0.1"


@measurement()
def forbidden_ways(vantage: Vantage) -> dict[Way, str]:
    """What came of each knock that no invariant lets through, from all hosts at once; and of a knock of each host at itself."""
    ways = {way for invariant in load_invariants() for way in _ways(vantage.site, invariant, PORTS)}
    return knock(vantage.prober, _with_itself({*ways, *_at_the_published_address(vantage.site, PORTS)}))


@pytest.mark.control("LEM-8-06", "LEM-8-07", "LEM-8-09")
@pytest.mark.parametrize("invariant", load_invariants(), ids=lambda each: each.id)
def test_an_invariant_holds(
    invariant: Invariant, site: Site, facts_of: FactsOf, prober: Prober, forbidden_ways: Mapping[Way, str], measure: Measure
) -> None:
    """Each host that an invariant keeps out knocks at each address it is kept from, in both IP versions, and stays unanswered."""
    seen = dict(forbidden_ways)
    if OUTSIDE in {*invariant.sources, *invariant.destinations} and not any(not host.role_groups for host in site.hosts.values()):
        not_measurable("the inventory names no host outside the site")
    # What listens there beside is asked as well.
    listening = {
        socket.port
        for host in _hosts(site, invariant.destinations)
        if host.role_groups
        for socket in facts_of(host.name).sockets
        if socket.protocol == "tcp" and not socket.is_local
    }
    more = set(_ways(site, invariant, sorted(listening - set(PORTS)))) - set(seen)
    if more:
        seen |= knock(prober, _with_itself(more))
    mine = set(_ways(site, invariant, (*PORTS, *listening)))
    if {OUTSIDE, ANY} & set(invariant.sources):
        # Who answers at the published address is not seen from outside: where neither frontend nor relay listens it is somebody else.
        mine |= set(_at_the_published_address(site, set(PORTS) - _public_ports(site, facts_of)))
    deaf = sorted({source for source, _, _ in mine if seen.get((source, ITSELF, PORTS[0])) not in THROUGH})
    if not mine or deaf:
        invalid(f"a knock at itself went unanswered on {', '.join(deaf)}" if deaf else "no host is kept out of anything")
    measure("hosts that knocked", " ".join(sorted({source for source, _, _ in mine})), volatile=False)
    measure("knocks", len(mine))
    through = [f"{source} to {address} port {port}: {seen[source, address, port]}" for source, address, port in sorted(mine)
               if seen[source, address, port] in THROUGH]  # fmt: skip
    expect(
        not through, f"it does not hold that {invariant.title} ({invariant.id})", seen=through[:20], expected="silence",
        remedy=f"{invariant.why}; look for a rule on these hosts and the edge that no flow asks for",
    )  # fmt: skip


def _with_itself(ways: set[Way]) -> set[Way]:
    """The same, and one of each host to itself, which has to be answered: it shows that the host knocks at all."""
    return ways | {(source, ITSELF, PORTS[0]) for source, _, _ in ways}


def _ways(site: Site, invariant: Invariant, ports: Iterable[int]) -> list[Way]:
    """Every way an invariant forbids between hosts of the inventory."""
    asked = tuple(ports)
    # Of a host with one leg the shell is what belongs to management.
    shells = [
        (source.name, str(address), target.shell_port)
        for source in _hosts(site, invariant.sources)
        for target in (of_one_leg(site) if MANAGEMENT in invariant.destinations else ())
        for address in target.interfaces[str(target.way_in)].addresses
        if target.name != source.name
    ]
    return shells + [
        (source.name, address, port)
        for source in _hosts(site, invariant.sources)
        for target, zone, address in _targets(site, invariant.destinations)
        if target != source.name
        for port in asked
        if not _left_open(site, invariant, source, target, zone, port)
    ]


def _at_the_published_address(site: Site, ports: Iterable[int]) -> list[Way]:
    """From each host outside to the address that the edge translates, to whomever."""
    public = site.settings.public_ipv4
    outer = [host.name for host in site.hosts.values() if not host.role_groups] if public is not None else []
    return [(source, str(public), port) for source in outer for port in ports]


def _public_ports(site: Site, facts_of: FactsOf) -> set[int]:
    """Where those listen that may answer there."""
    hosts = (*site.group("frontends"), *site.group("relays"))
    return {socket.port for host in hosts for socket in facts_of(host.name).sockets if socket.protocol == "tcp" and socket.hears(4)}


def _hosts(site: Site, ends: Iterable[str]) -> list[Host]:
    """The hosts an invariant means by its ends."""
    return [host for host in site.hosts.values() if any(_is(host, end) for end in ends)]


def _is(host: Host, end: str) -> bool:
    if end == ANY:
        return True
    if end == OUTSIDE:
        return not host.role_groups
    if end in KINDS.zones:
        return any(KINDS.kinds[group].home == end for group in host.role_groups)
    return end in host.groups


def _targets(site: Site, ends: Iterable[str]) -> list[tuple[str, str, str]]:
    """Host, zone and address of everything an invariant keeps others from; controllers are part of management."""
    wanted = tuple(ends)
    found = [
        (host.name, zone, str(address))
        for host in site.hosts.values()
        for zone, leg in host.interfaces.items()
        for address in leg.addresses
        if any((zone == MANAGEMENT and bool(host.role_groups)) if end == MANAGEMENT else _is(host, end) for end in wanted)
    ]
    return [*found, *(("a controller", MANAGEMENT, str(each)) for each in site.settings.controllers if MANAGEMENT in wanted)]


def _left_open(site: Site, invariant: Invariant, source: Host, target: str, zone: str, port: int) -> bool:
    """Whether an exception of the invariant covers a knock."""
    for each in invariant.exempt:
        # At an address of a list with an exception there is no host of the inventory (site/rules.py).
        by_way = not each.list and (not each.destination or each.destination == zone)
        allowed = (22, site.hosts[target].shell_port) if each.ports == "ssh" and target in site.hosts else each.ports
        if _is(source, each.source) and by_way and (allowed is None or port in allowed) and each.protocol in {None, "tcp"}:
            return True
    return False
