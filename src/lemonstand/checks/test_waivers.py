"""Waivers end: on their day, or when what they wait for is there."""

from __future__ import annotations

import datetime as dt

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import expect
from lemonstand.policy.waivers import GivenWaiver

pytestmark = pytest.mark.answer("configuration")


def test_a_waiver_still_holds(waiver: GivenWaiver, facts_of: FactsOf, nodes: list[str], measure: Measure) -> None:
    """Every waiver is before its day, and no host has the package that takes its reason away."""
    packages = {}
    for name in nodes if waiver.until else ():
        packages[name] = facts_of(name).data["packages"]
        if waiver.until and waiver.until.package in packages[name]:
            measure(f"{name} {waiver.until.package}", packages[name][waiver.until.package])
    measure("expires", waiver.expires.isoformat())
    ended = waiver.ended(dt.datetime.now(dt.UTC).date(), packages)
    expect(
        not ended,
        f"waiver {waiver.id} ({waiver.title}) has ended",
        seen=ended,
        expected=f"a reason that still holds: {waiver.reason}",
        remedy=f"meet {', '.join(waiver.controls)} and drop the waiver, or have {waiver.owner} grant it anew",
    )
