"""Faults of the programs below: which of those we live with are still there, by the versions that are installed."""

from __future__ import annotations

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, not_measurable
from lemonstand.policy.upstream import Fault, load_faults
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, Endpoints

pytestmark = pytest.mark.answer("configuration")


@pytest.mark.parametrize("fault", [pytest.param(each, marks=pytest.mark.supports(*each.controls), id=each.id) for each in load_faults()])
def test_a_listed_fault_is_one_still(fault: Fault, facts_of: FactsOf, nodes: list[str], measure: Measure) -> None:
    """A fixed package makes an entry of docs/upstream.md obsolete, and what stands here because of it; a version nobody tried is named."""
    found = {name: facts_of(name).data["packages"].get(fault.package, "") for name in nodes}
    installed = {name: version for name, version in found.items() if version}
    for name, version in installed.items():
        measure(f"{name} {fault.package}", version)
    fixed = [f"{name} {version}" for name, version in installed.items() if fault.obsolete(version)]
    expect(not fixed, f"{fault.id} is fixed: {fault.gone}, then take it out of the list", seen=fixed, expected=f"before {fault.fixed}")
    untested = sorted({version for version in installed.values() if fault.untested(version)})
    if untested:
        not_measurable(f"{fault.id} was not tried with {', '.join(untested)}: see docs/upstream/{fault.try_}")


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.supports("PRO-SUB-01")
def test_what_follows_the_end_of_a_message_loses_no_answer(
    facts_of: FactsOf, stores: list[str], vantage: Vantage, *, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """RFC 2920 lets a client send MAIL and RCPT behind the end of a message: the message's own answer comes first. It arrives once."""
    fault = next(each for each in load_faults() if each.id == "pipelined-past-the-end")
    found = vantage.ask("past-the-end", endpoint=endpoints(), account=accounts[0], recipient=accounts[1]["user"])
    lost, copies = [], []
    for name, each in found.items():
        measure(name, each["answer"] or "closed")
        got = vantage.ask("wait-for", endpoint=endpoints(), account=accounts[1], ident=each["ident"], within=ARRIVAL_SECONDS)
        if each["answer"] != 250:
            lost.append(f"{name}: {each['text']}")
        if got["seconds"] is None or got["copies"] != 1:
            copies.append(f"{name}: {got.get('copies', 0)} copies")
    expect(not copies, "a message with commands behind it does not arrive once", seen=copies, expected="one copy of each")
    installed = {facts_of(name).data["packages"].get(fault.package, "") for name in stores}
    if lost and not any(fault.obsolete(version) for version in installed):
        not_measurable(f"{fault.id} (docs/upstream.md), fixed in {fault.package} {fault.fixed}: {'; '.join(lost)[:300]}")
    expect(not lost, "commands behind the end of a message cost it its answer", seen=lost, expected=250)
