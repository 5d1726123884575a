"""No push is lost: changes that come while sessions are put to sleep, are woken, or are told that the connection lives (RFC 2177)."""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.measure import Finding, Vantage, hibernation
from lemonstand.outcomes import expect, invalid
from lemonstand.site import Site

TOLD_SECONDS = 2.0
CROSSED = 2
"""Sessions a kind, on average, that have to be falling asleep when the change comes: fewer, and nothing was looked at."""
KINDS = ("delivery", "append", "flag", "expunge")
EVERY_KIND = (*KINDS, "twice")
AWAKE_KINDS = ("notify", "compress")
"""Sessions that can't be put to sleep: they are looked at at the same age."""


@measurement(after=("marked",))
def swept(vantage: Vantage) -> Finding:
    """Changes that come while sessions fall asleep. Mail for the account they stand in would wake them before: it comes first."""
    return hibernation.falling_asleep(vantage, kinds=KINDS)


@pytest.mark.answer("live")
@pytest.mark.control("LEM-5-05", "PRO-IMAP-09")
@pytest.mark.supports("LEM-5-01")
def test_nothing_is_missed_in_falling_asleep(swept: Finding, measure: Measure) -> None:
    """New mail, an addition, a flag and an expunge, each while sessions hibernate one after the other: all are told."""
    _judge(swept.data, measure)


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("LEM-5-05", "PRO-IMAP-09")
@pytest.mark.supports("LEM-5-01")
@pytest.mark.parametrize("kinds", [EVERY_KIND, AWAKE_KINDS], ids=["asleep", "awake"])
def test_five_hundred_are_told_in_time(vantage: Vantage, sessions_held: None, kinds: tuple[str, ...], measure: Measure) -> None:
    """The same 500 times and with a second change while the first one wakes them; with sessions that compress or asked for NOTIFY too."""
    found = hibernation.falling_asleep(vantage, kinds=kinds, sessions=500 if kinds == EVERY_KIND else 40)
    _judge(found.data, measure, asleep=kinds == EVERY_KIND, told_within=TOLD_SECONDS)


def _judge(kinds: dict[str, dict[str, Any]], measure: Measure, *, asleep: bool = True, told_within: float | None = None) -> None:
    missed, late = [], []
    for kind, seen in kinds.items():
        told = sorted(seconds for _, seconds in seen["sessions"] if seconds is not None)
        measure(f"{kind}: told", f"{len(told)} of {len(seen['sessions'])}")
        measure(f"{kind}: of these falling asleep", seen["crossed"])
        if told:
            measure(f"{kind}: told after, median and slowest", f"{told[len(told) // 2]:.2f} and {told[-1]:.2f}", "s")
        missed += [f"{kind}, after {age:.2f} s in IDLE" for age, seconds in seen["sessions"] if seconds is None]
        late += [f"{kind}, after {age:.2f} s in IDLE: {seconds:.2f} s" for age, seconds in seen["sessions"] if seconds is not None
                 and told_within is not None and seconds > told_within]  # fmt: skip
        expect(not seen["ended"], f"{kind}: sessions ended", seen=seen["ended"][:5], expected="none")
    expect(not missed, "sessions were not told of a change", seen=missed[:20], expected="each is told", late=True)
    crossed = sum(seen["crossed"] for seen in kinds.values())
    unmet = [kind for kind, seen in kinds.items() if not seen["crossed"] and told_within is not None]
    if asleep and (unmet or crossed < CROSSED * len(kinds)):
        early = sum(seen["early"] for seen in kinds.values())
        invalid(f"{crossed} sessions were falling asleep when a change came, {early} had heard of another change before")
    expect(not late, "sessions were told late", seen=late[:20], expected=f"within {told_within} s", late=True)


@pytest.mark.answer("configuration")
@pytest.mark.supports("LEM-5-05", "PRO-IMAP-09")
def test_who_wakes_sleepers_is_at_work(site: Site, facts_of: FactsOf, store: str, measure: Measure) -> None:
    """Dovecot tells of each hibernation, somebody hears it, and is started again whatever ends it."""
    facts = facts_of(store)
    if not site.timers_in_force["hibernate"]:
        return
    exporter, metric = facts.dovecot.section("event_exporter nudge"), facts.dovecot.section("metric hibernated")
    unit = facts.unit("mailbox-nudge")
    measure("state", f"{unit['ActiveState']}, restarts {unit['Restart']}")
    expect(
        metric.get("filter") == "event=imap_client_hibernated" and metric.get("exporter") == "nudge" and exporter.get("driver") == "unix",
        "Dovecot tells nobody of sessions that fall asleep",
        seen=[metric, exporter],
        expected="the event imap_client_hibernated over a local socket",
    )
    expect(unit["ActiveState"] == "active", "nobody wakes them", seen=unit["ActiveState"], expected="active")
    expect(unit["Restart"] == "always", "nobody starts it again", seen=unit["Restart"], expected="always")
