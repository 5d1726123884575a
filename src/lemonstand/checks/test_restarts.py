"""Services get up again after a crash, by themselves; nobody has to know that they fell."""

from __future__ import annotations

import re

import pytest

from lemonstand.checks.conftest import FactsOf, Measure, Table
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import Endpoints
from lemonstand.remote.prober import Prober

pytestmark = pytest.mark.supports("LEM-4.1-11", "LEM-6-05")

BACK_SECONDS = 45
"""A killed service answers again within this: systemd waits 15 s at most after many crashes, the rest is for leftovers
(20 s at most) and the start."""
LONGEST_WAIT_SECONDS = 60
SPAN = re.compile(r"(\d+)(min|s|ms)")


def _seconds(text: str) -> float:
    """Seconds of `1min 30s` as systemctl shows it; no number (`infinity`) is longer than all."""
    parts = SPAN.findall(text)
    return sum(int(number) * {"min": 60, "s": 1, "ms": 0.001}[unit] for number, unit in parts) if parts or text == "0" else float("inf")


@pytest.mark.answer("configuration")
def test_every_service_gets_up_again(facts_of: FactsOf, node: str, measure: Measure, table: Table) -> None:
    """systemd starts each again, whatever ended it, never gives up, and waits longer the more often it happens; none stands still."""
    services = facts_of(node).data["services"]
    measure("services", len(services))
    table(
        "what follows a crash",
        ("service", "restart", "first wait", "longest wait", "start limit within"),
        [
            [name, each["Restart"], each["RestartUSec"], each["RestartMaxDelayUSec"], each["StartLimitIntervalUSec"]]
            for name, each in sorted(services.items())
        ],
    )
    expect(bool(services), f"{node} has no service that roles brought to its configuration", seen=0, expected="one or more")
    for name, each in sorted(services.items()):
        expect(each["MainState"] != "T", f"{name} stands still", seen="active, its main process stopped by a signal", expected="at work")
        expect(each["Restart"] == "always", f"{name} stays down after a crash", seen=f"Restart={each['Restart']}", expected="always")
        expect(
            _seconds(each["StartLimitIntervalUSec"]) == 0,
            f"{name} is given up after {each['StartLimitBurst']} starts",
            seen=f"StartLimitInterval={each['StartLimitIntervalUSec']}",
            expected="0: no limit",
        )
        first, longest = _seconds(each["RestartUSec"]), _seconds(each["RestartMaxDelayUSec"])
        expect(
            0 < first <= longest <= LONGEST_WAIT_SECONDS and int(each["RestartSteps"]) > 0,
            f"{name} is started again in a tight loop, or too late",
            seen=f"{each['RestartUSec']} to {each['RestartMaxDelayUSec']} in {each['RestartSteps']} steps",
            expected=f"growing, up to {LONGEST_WAIT_SECONDS} s",
        )
        expect(
            each["OOMPolicy"] == "continue",
            f"{name} ends as a whole when the kernel ends one process",
            seen=each["OOMPolicy"],
            expected="continue",
        )
        expect(each["NeedDaemonReload"] == "no", f"systemd has not read what stands on disk of {name}", seen="changed", expected="read")


@pytest.mark.answer("live")
@pytest.mark.disruptive
def test_a_killed_service_is_back(
    prober: Prober, facts_of: FactsOf, node: str, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """SIGKILL to the main process of every service of the host: all are back, listen where they did, and a user logs in."""
    names = [name for name, each in facts_of(node).data["services"].items() if each["ActiveState"] == "active" and each["MainPID"] != "0"]
    if not names:
        invalid(f"{node}: no service runs")
    found = prober.ask(node, "killed", seconds=BACK_SECONDS + 30, units=names, within=BACK_SECONDS)
    for name, each in sorted(found.items()):
        measure(f"{name} back after", each["seconds"], "s")
    down = {name: each for name, each in found.items() if each["seconds"] is None}
    expect(not down, f"services of {node} stay down", seen=down, expected=f"back within {BACK_SECONDS} s", late=True)
    answers = vantage.ask("login-answers", endpoint=endpoints(), account=accounts[0], seconds=120)
    wrong = [each for tries in answers.values() for each in tries if each["status"] not in ("OK", "235")]
    expect(not wrong, "nobody logs in after it", seen=wrong[:2], expected="OK, 235")
