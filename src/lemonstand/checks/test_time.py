"""Clocks: tickets and URLAUTH expiry compare the times of several hosts."""

from __future__ import annotations

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("configuration"), pytest.mark.supports("LEM-8-11", "PRO-E2E-02")]

MOST_OFFSET = 1.0
"""Seconds. Tickets are dated 5 s back (record 0004); a fifth of that leaves room for the other host's error."""
FIELDS = 14
"""Columns of `chronyc -c tracking`; the last is the leap status."""


def test_clock_follows_its_source(facts_of: FactsOf, site: Site, node: str, measure: Measure) -> None:
    """chrony has a source, and the clock is close to it."""
    settings = site.hosts[node].settings
    if not settings.ntp_servers and not settings.clock_is_ours:
        not_measurable(f"{node} has no time server to be compared with: its clock is its platform's, as the inventory says")
    facts = facts_of(node)
    text = facts.data["tracking"]
    if not text:
        invalid(f"{node}: chronyc gets no answer from chronyd; its command socket may be off (journalctl -u chrony)")
    row = text.strip().split(",")
    if len(row) != FIELDS:
        invalid(f"{node}: chronyc -c tracking shows {len(row)} columns, not {FIELDS}")
    source, stratum, offset, leap = row[1], int(row[2]), float(row[4]), row[-1]
    measure("source", source)
    measure("stratum", stratum)
    measure("offset", offset, "s")
    expect(leap == "Normal", f"{node} has no time to follow", seen=f"leap status {leap}", expected="Normal")
    expect(abs(offset) <= MOST_OFFSET, f"the clock of {node} is off", seen=f"{offset} s", expected=f"within {MOST_OFFSET} s of its source")


def test_time_service_runs(facts_of: FactsOf, node: str, measure: Measure) -> None:
    """chronyd is up and starts with the host."""
    unit = facts_of(node).unit("chrony")
    measure("state", unit["ActiveState"])
    expect(unit["ActiveState"] == "active", "chronyd does not run", seen=unit["ActiveState"], expected="active")
    expect(unit["UnitFileState"] == "enabled", "chronyd does not start with the host", seen=unit["UnitFileState"], expected="enabled")
