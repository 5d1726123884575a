"""Fixtures of live checks: probes on hosts, the endpoints they ask, the accounts they use.

The vantage is a host outside the site (group `handsets`), the accounts are `lemonstand_probe_users`. Without them live checks are not
measured and the others still run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.derived import CONTROLLER, Cell, expected_matrix
from lemonstand.derived.matrix import OUTSIDE, REACHABILITY, SILENT
from lemonstand.measure import Vantage
from lemonstand.observations import Pool
from lemonstand.outcomes import NotApplicable, not_measurable
from lemonstand.policy.flows import ZONES
from lemonstand.probes.clients.tickets import InnerServices
from lemonstand.probes.protocols.wire import Account, Endpoint
from lemonstand.remote.connections import Connection
from lemonstand.remote.endpoints import FAMILIES, Endpoints, families_of
from lemonstand.remote.prober import Prober
from lemonstand.site import Site


@pytest.fixture(scope="session")
def prober(connections: dict[str, Connection]) -> Iterator[Prober]:
    """Starts probes; their agents on the hosts end with the checks."""
    with Prober(connections) as prober:
        yield prober


@pytest.fixture(scope="session")
def vantage(prober: Prober, site: Site) -> Vantage:
    """The host outside that live checks look from. A check that uses what the inventory does not name is not measured."""
    return Vantage(prober, site)


@pytest.fixture(scope="session")
def outsider(vantage: Vantage) -> str:
    """A mail host outside the site."""
    return vantage.outsider


@pytest.fixture(scope="session")
def accounts(vantage: Vantage) -> list[Account]:
    """The accounts of live checks, two or more; not measured where the inventory has none."""
    return vantage.accounts


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest, site: Site) -> int:
    """Both IP versions, one after the other.

    Raises:
        NotApplicable: clients do not reach the site in this one.
    """
    if request.param not in families_of(site):
        raise NotApplicable(f"the site has no public address of IPv{request.param}")
    return int(request.param)


@pytest.fixture(scope="session")
def endpoints(vantage: Vantage) -> Endpoints:
    """`endpoints(family)`: the public endpoint of mail clients."""
    return vantage.endpoints


@pytest.fixture
def endpoint(endpoints: Endpoints, family: int) -> Endpoint:
    """The public endpoint in one IP version."""
    return endpoints(family)


@pytest.fixture(scope="session")
def exchangers(vantage: Vantage) -> Endpoints:
    """`exchangers(family)`: the site's MX."""
    return vantage.exchangers


@pytest.fixture
def mx(exchangers: Endpoints, family: int) -> Endpoint:
    """The site's MX in one IP version."""
    return exchangers(family)


@pytest.fixture(scope="session")
def inner_services(vantage: Vantage) -> InnerServices:
    """What a frontend talks to inside, by IPv4 where there is one."""
    return vantage.inner_services


EXPIRED_SECONDS = 10
"""How long ago the ticket ended that must be refused."""


@measurement()
def attempts(vantage: Vantage) -> dict[str, Any]:
    """Ways into the store, tried from a frontend."""
    frontend, auth = (vantage.site.group(group)[0].name for group in ("frontends", "auths"))
    one, two = vantage.accounts[:2]
    inner_services = vantage.inner_services
    spoilt = vantage.prober.ask(auth, "tickets-spoilt", user=one["user"], ago=EXPIRED_SECONDS, store=inner_services["store"])
    return dict(vantage.prober.ask(frontend, "ticket-attempts", inner_services=inner_services, account=one, other=two, spoilt=spoilt))


KNOCK_SECONDS = 1.5
THROUGH = {"open", "refused"}
"""What a SYN brings that was not held back: `refused` is an answer of the host too."""
Seen = dict[Cell, str]
Way = tuple[str, str, int]
"""From a host to an address and port."""


@measurement(first=True)
def matrix(vantage: Vantage) -> Seen:
    """What came of each TCP cell, dialled from all hosts of the inventory at once."""
    site, prober = vantage.site, vantage.prober
    inner = {host.name for host in site.hosts.values() if host.role_groups}
    cells = [
        cell
        for cell in expected_matrix(site)
        if cell.protocol == "tcp" and cell.source != CONTROLLER and (cell.source in inner or cell.destination in inner)
    ]
    ways = {cell: (cell.source, str(cell.address), cell.port) for cell in cells}
    seen = knock(prober, ways.values())
    return {cell: seen[way] for cell, way in ways.items()}


def knock(prober: Prober, ways: Iterable[Way]) -> dict[Way, str]:
    """What came of a SYN on each way, from all hosts at once: `open`, `refused`, or what else `network.reach` says."""
    by_source: dict[str, set[tuple[str, int]]] = {}
    for source, address, port in ways:
        by_source.setdefault(source, set()).add((address, port))

    def ask(source: str) -> dict[Way, str]:
        found = prober.ask(source, "reach", targets=sorted(by_source[source]), timeout=KNOCK_SECONDS)
        return {(source, address, port): str(what) for address, port, what in found}

    with Pool(max_workers=len(by_source) or 1) as pool:
        return {way: what for seen in pool.map(ask, by_source) for way, what in seen.items()}


def keep_matrix(site: Site, matrix: Seen, table: Callable[..., None]) -> None:
    """Keeps the matrix: each way that a flow allows or that let something through, and how many others of a pair did not."""
    told = []
    silent: Counter[tuple[str, str]] = Counter()
    expected = expected_matrix(site)
    allowed = {(cell.source, cell.address, cell.port) for cell, flow in expected.items() if flow is not None}
    # A zone as a destination stands for hosts of several kinds, where not each one has the service.
    loose = {flow.name for flow in site.active_flows if flow.destination in ZONES and flow.destination != OUTSIDE}
    for cell, flow in expected.items():
        seen = matrix.get(cell, "")
        # The published address stands for several hosts; the way is told for the one that a flow leads to.
        elsewhere = flow is None and (cell.source, cell.address, cell.port) in allowed
        wanted = flow is not None and not (flow in loose and seen and seen != "open")
        if wanted or (flow is None and seen in THROUGH and not elsewhere):
            told.append([cell.source, cell.destination, str(cell.address), cell.protocol, cell.port, flow or "", seen])
        elif seen and not elsewhere:
            silent[cell.source, cell.destination] += 1
    table(REACHABILITY, ["from", "to", "address", "protocol", "port", "flow", "seen"], told)
    table(SILENT, ["from", "to", "ways"], [[*pair, ways] for pair, ways in silent.items()])


@pytest.fixture(scope="session")
def lab_only(site: Site) -> None:
    """These checks play tricks that only a lab bears: false servers, a relay that is taken away, a disk that is full.

    Raises:
        NotMeasurable: the site is real.
    """
    if not site.is_lab:
        not_measurable("what would trouble users is done to labs only")
