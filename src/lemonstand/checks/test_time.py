"""Clocks: tickets and URLAUTH expiry compare the times of several hosts."""

from __future__ import annotations

import time

import pytest

from lemonstand.checks.conftest import FactsOf, HostFactory, Measure
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("configuration"), pytest.mark.supports("LEM-8-11", "PRO-E2E-02")]

MOST_OFFSET = 1.0
"""Seconds. Tickets are dated 5 s back (record 0004); a fifth of that leaves room for the other host's error."""
FIELDS = 14
"""Columns of `chronyc -c tracking`; the last is the leap status."""
YOUNG_SECONDS = 300.0
"""How long chronyd may run before it follows a source. It asks four times when it starts, then once a minute: who started before his source
did, hears nothing good at first, and a source that has to find one itself is a minute behind."""
PATIENCE_SECONDS = 150.0
"""How long a chronyd that started a moment ago is waited for."""
LOOK_SECONDS = 3.0
AGE = "echo $(cut -d' ' -f1 /proc/uptime) $(systemctl show --property ActiveEnterTimestampMonotonic --value chrony)"
TRACKING = "chronyc -c tracking"


def _row(node: str, text: str) -> list[str]:
    if not text:
        invalid(f"{node}: chronyc gets no answer from chronyd; its command socket may be off (journalctl -u chrony)")
    row = text.strip().split(",")
    if len(row) != FIELDS:
        invalid(f"{node}: {TRACKING} shows {len(row)} columns, not {FIELDS}")
    return row


def _age(host: HostFactory, node: str) -> float:
    """For how many seconds chronyd has run on a host."""
    up, started = host(node).run(AGE).stdout.split()
    return float(up) - float(started) / 1e6


def _settled(host: HostFactory, node: str, row: list[str]) -> list[str]:
    """What chronyd says once it follows a source, or has run long enough to; a young one is asked again.

    Args:
        row: what it said when the host's facts were read, which may be minutes ago.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while row[-1] != "Normal":
        age = _age(host, node)
        row = _row(node, host(node).run(TRACKING).stdout)
        if row[-1] == "Normal" or age >= YOUNG_SECONDS:
            break
        if time.monotonic() > until:
            not_measurable(f"chronyd of {node} started {age:.0f} s ago and follows no source yet: verify again in some minutes")
        time.sleep(LOOK_SECONDS)
    return row


def test_clock_follows_its_source(facts_of: FactsOf, host: HostFactory, site: Site, node: str, measure: Measure) -> None:
    """chrony has a source, and the clock is close to it; one that was started minutes ago, as an apply does, has time to find it."""
    settings = site.hosts[node].settings
    if not settings.ntp_servers and not settings.clock_is_ours:
        not_measurable(f"{node} has no time server to be compared with: its clock is its platform's, as the inventory says")
    row = _settled(host, node, _row(node, facts_of(node).data["tracking"]))
    source, stratum, offset, leap = row[1], int(row[2]), float(row[4]), row[-1]
    measure("source", source)
    measure("stratum", stratum)
    measure("offset", offset, "s")
    remedy = f"`chronyc -n sources` on {node} shows which source does not answer, or differs; whoever runs that one mends it"
    expect(leap == "Normal", f"{node} has no time to follow", seen=f"leap status {leap}", expected="Normal", remedy=remedy)
    expect(
        abs(offset) <= MOST_OFFSET,
        f"the clock of {node} is off",
        seen=f"{offset} s",
        expected=f"within {MOST_OFFSET} s of its source",
        remedy=remedy,
    )


def test_time_service_runs(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """chronyd is up and starts with the host."""
    unit = facts_of(node).unit("chrony")
    measure("state", unit["ActiveState"])
    expect(unit["ActiveState"] == "active", "chronyd does not run", seen=unit["ActiveState"], expected="active")
    expect(unit["UnitFileState"] == "enabled", "chronyd does not start with the host", seen=unit["UnitFileState"], expected="enabled")
