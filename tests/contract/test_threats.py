"""Attempts, code, breaks, controls and the lab's threat analysis fit each other."""

from __future__ import annotations

from pathlib import Path

import pytest

import shipped_lab
from lemonstand.breaking.redteam_breaks import load_breaks
from lemonstand.errors import LemonstandError
from lemonstand.policy.controls import load_controls
from lemonstand.redteam import POSITIONS, load_catalogue
from lemonstand.redteam.analysis import analyse, digest, render, unreviewed
from lemonstand.redteam.attempts import load_code
from lemonstand.site import Site

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = load_catalogue()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The lab's inventory, with passwords nobody uses."""
    return shipped_lab.site(tmp_path_factory.mktemp("lab") / "state")


def test_every_attempt_has_a_move_and_every_move_an_attempt() -> None:
    assert set(load_code()) == set(CATALOGUE.by_id())


def test_attempts_are_about_controls() -> None:
    known = set(load_controls().by_id())
    assert {name for attempt in CATALOGUE.attempts for name in attempt.controls} <= known


def test_every_position_is_tried_and_yields_something() -> None:
    assert {attempt.position for attempt in CATALOGUE.attempts} == set(POSITIONS)
    assert {each.position for each in CATALOGUE.yields} == set(POSITIONS)


def test_breaks_name_attempts_and_hosts() -> None:
    for made in load_breaks():
        assert set(made.breaches) | set(made.holds) <= set(CATALOGUE.by_id()), made.name
        assert not set(made.breaches) & set(made.holds), made.name
        assert made.host in shipped_lab.hosts()


def test_broken_breaks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "breaks.yml"
    path.write_text("breaks: [{name: x, host: edge, change: 'true', breaches: []}]", encoding="utf-8")
    with pytest.raises(LemonstandError, match="breaches"):
        load_breaks(path)


def test_the_labs_threat_analysis_is_current(lab: Site) -> None:
    shipped = (ROOT / "docs" / "threat-analysis.md").read_text(encoding="utf-8")
    assert render(analyse(lab)) == shipped, "write it anew: `make docs`, and read what changed"


def test_the_labs_review_is_of_that_analysis(lab: Site) -> None:
    assert unreviewed(lab) == "", f"lemonstand_review.analysis in inventories/lab has to be {digest(lab)}, once it was read"
