"""Who reaches whom: every cell of the matrix dialled from where it starts, and compared with the flows."""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.checks.conftest import Measure, Table
from lemonstand.checks.live import KNOCK_SECONDS, THROUGH, Seen, keep_matrix
from lemonstand.derived import Cell, expected_matrix
from lemonstand.derived.dns import records
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.remote.endpoints import Endpoints
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")

IMPLICIT_TLS = (465, 993)


def _named(cell: Cell) -> str:
    return f"{cell.source} to {cell.destination} {cell.address} port {cell.port}"


@pytest.mark.control("LEM-8-06", "LEM-8-09")
@pytest.mark.supports("LEM-8-18", "LEM-6.1-02")
def test_nothing_gets_through_that_is_no_flow(site: Site, matrix: Seen, measure: Measure, table: Table) -> None:
    """Each host dials each port any flow names on each other host; what no flow allows must stay silent."""
    expected = expected_matrix(site)
    keep_matrix(site, matrix, table)
    # The published address stands for several hosts: one of them may answer.
    allowed = {(cell.source, cell.address, cell.port) for cell, flow in expected.items() if flow is not None}
    closed = [cell for cell in matrix if (cell.source, cell.address, cell.port) not in allowed]
    open_ones = [f"{_named(cell)}: {matrix[cell]}" for cell in closed if matrix[cell] in THROUGH]
    measure("cells dialled", len(matrix))
    measure("cells that must stay silent", len(closed))
    if not closed:
        invalid("nothing was dialled")
    expect(not open_ones, "connections get through that no flow allows", seen=open_ones, expected="silence")


@pytest.mark.control("LEM-3-04", "LEM-6-02", "LEM-6-03")
def test_every_flow_gets_through(site: Site, matrix: Seen, measure: Measure) -> None:
    """Each TCP flow between hosts of the inventory ends at a service that answers."""
    expected = expected_matrix(site)
    wanted = {cell: flow for cell, flow in expected.items() if flow is not None and cell in matrix}
    # A zone as a destination stands for hosts of several kinds, where not each one has the service.
    kinds = {flow.name: flow.destination for flow in site.active_flows}
    fixed = [cell for cell, flow in wanted.items() if kinds[flow].endswith("s") or kinds[flow] == "internet"]
    measure("cells of flows", len(fixed), volatile=False)
    # Where somebody listens only now and then, a reset shows that the packet got there.
    sometimes = {flow.name for flow in site.active_flows if flow.sometimes}
    closed = [
        f"{_named(cell)} ({wanted[cell]}): {matrix[cell]}"
        for cell in fixed
        if matrix[cell] not in (THROUGH if wanted[cell] in sometimes else {"open"})
    ]
    expect(bool(fixed) and not closed, "a flow does not get through", seen=closed, expected="open")


@pytest.mark.control("LEM-3-03", "LEM-4-05")
@pytest.mark.supports("LEM-3-01", "LEM-3-02", "LEM-4-01")
def test_the_handset_reaches_both_services(vantage: Vantage, endpoints: Endpoints, family: int, measure: Measure) -> None:
    """143 and 587 by this IP version, as a client dials them: without both a site is not compliant, whatever else it offers."""
    address = endpoints(family)["address"]
    found = vantage.ask("reach", targets=[(address, 143), (address, 587)], timeout=5)
    measure("dialled", address)
    expect(all(what == "open" for _, _, what in found), "the handset does not reach both", seen=found, expected="open")


@pytest.mark.control("LEM-8-16")
def test_implicit_tls_is_as_the_profile_says(site: Site, vantage: Vantage, endpoints: Endpoints, family: int, measure: Measure) -> None:
    """993 and 465 stand beside 143 and 587, or are closed (RFC 8314)."""
    address = endpoints(family)["address"]
    targets = [(address, port) for port in (143, 587, *IMPLICIT_TLS)]
    found = {port: what for _, port, what in vantage.ask("reach", targets=targets, timeout=KNOCK_SECONDS)}
    profile = site.settings.tls_profile
    measure("profile", profile, volatile=False)
    wrong = [port for port in IMPLICIT_TLS if (found[port] == "open") is (profile == "seed-strict")]
    expect(not wrong, f"ports of implicit TLS are not as '{profile}' says", seen=found, expected="open unless seed-strict")
    expect(found[143] == found[587] == "open", "the ports with STARTTLS are closed", seen=found, expected="open in every profile")


@pytest.mark.control("LEM-3-08", "LEM-4-02")
def test_submission_reaches_imap(site: Site, prober: Prober, measure: Measure) -> None:
    """Every host with submission opens a connection to IMAP on every store, itself included."""
    closed: list[Any] = []
    targets = [(str(address), 143) for store in site.group("stores") for address in store.interfaces["store"].addresses]
    for store in site.group("stores"):
        found = prober.ask(store.name, "reach", targets=targets, timeout=KNOCK_SECONDS)
        closed += [f"{store.name} to {address}: {what}" for address, _, what in found if what != "open"]
    measure("dialled", len(targets))
    expect(bool(targets) and not closed, "submission does not reach IMAP", seen=closed, expected="open")


@pytest.mark.control("LEM-8-07")
@pytest.mark.supports("LEM-8-06")
@pytest.mark.parametrize("inner", ["auths", "stores"])
def test_the_internet_finds_no_inner_host(site: Site, matrix: Seen, inner: str, measure: Measure) -> None:
    """From outside, hosts with credentials or mail answer on no port at any of their addresses."""
    names = {host.name for host in site.group(inner)}
    outer = {host.name for host in site.hosts.values() if not host.role_groups}
    if not outer:
        not_measurable("the inventory names no host outside the site")
    addresses = {address for name in names for leg in site.hosts[name].interfaces.values() for address in leg.addresses}
    cells = [cell for cell in matrix if cell.source in outer and cell.address in addresses]
    found = [f"{_named(cell)}: {matrix[cell]}" for cell in cells if matrix[cell] in THROUGH]
    measure("cells dialled", len(cells))
    expect(bool(cells) and not found, "an inner host answers the Internet", seen=found, expected="silence")


@pytest.mark.control("LEM-8-23", "LEM-3-07")
def test_clients_are_told_where_to_go(site: Site, vantage: Vantage, measure: Measure) -> None:
    """SRV records name the public name at its registered ports (RFC 6186, RFC 8314), MX the relay's; both lead to addresses."""
    servers = site.group("relays")[0].settings.dns_resolvers
    wanted: dict[tuple[str, str], list[str]] = {}
    for record in records(site):
        if record.kind != "TXT":  # who has a domain may have other texts there; test_outgoing.py looks for the site's
            wanted.setdefault((record.name, record.kind), []).append(record.value)
    questions = list(wanted)
    found = {
        (entry["name"], entry["type"]): entry["records"]
        for entry in vantage.ask("lookup", questions=questions, server=str(servers[0]) if servers and site.is_lab else "")
    }
    measure("records", sum(len(values) for values in found.values()), volatile=False)
    wrong = [f"{name} {kind}: {found[name, kind]}" for (name, kind), values in wanted.items() if found[name, kind] != sorted(values)]
    expect(
        not wrong, "DNS leads elsewhere", seen=wrong, expected="what `lemonstand dns` prints", remedy="publish what `lemonstand dns` prints"
    )
