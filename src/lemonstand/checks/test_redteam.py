"""The red team as a check: from each position, no attempt gets more than the known deviations. Labs only; minutes, so it runs with
`--disruptive` alone."""

from __future__ import annotations

import pytest

from lemonstand.checks.conftest import Measure
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.redteam.attack import Report, attack
from lemonstand.redteam.catalogue import POSITIONS, Position, load_catalogue
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.disruptive]


@pytest.fixture(scope="session")
def report(site: Site) -> Report:
    """What the red team got.

    Raises:
        NotMeasurable: the site is no lab.
    """
    if not site.is_lab:
        not_measurable("the red team attacks labs only")
    return attack(site)


@pytest.mark.control("LEM-8-04", "LEM-8-09", "LEM-8-12", "LEM-8-13")
@pytest.mark.parametrize("position", POSITIONS)
def test_no_position_gives_more_than_is_known(report: Report, position: Position, measure: Measure) -> None:
    """As root on a frontend and on a relay, from the Internet, with a valid account."""
    mine = [result for result in report.results if result.attempt.position == position]
    measure("attempts", len(mine))
    measure("held", sum(result.outcome == "held" for result in mine))
    measure("known deviations", ", ".join(sorted({result.deviation for result in mine if result.deviation})))
    breaches = [f"{result.attempt.id}: {result.got}" for result in mine if result.outcome == "BREACH"]
    expect(
        not breaches, "an attacker gets more than the known deviations allow", seen=breaches,
        expected=f"only {', '.join(each.name for each in load_catalogue().deviations)}",
    )  # fmt: skip
    untried = [f"{result.attempt.id}: {result.got}" for result in mine if result.outcome == "could not try"]
    if untried or not mine:
        invalid(f"could not be tried: {'; '.join(untried[:4]) or 'anything'}")
