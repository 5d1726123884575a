"""The red team against the lab as it is, and against labs broken on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lemonstand.breaking.redteam_breaks import Break, load_breaks, prove
from lemonstand.redteam import POSITIONS, load_catalogue
from lemonstand.site import Site

from .conftest import Command

pytestmark = pytest.mark.long


def test_nobody_gets_more_than_the_known_deviations(deployed: str, lemonstand: Command, tmp_path: Path) -> None:
    done = lemonstand("redteam", "--lab", deployed, "--json", str(tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["attempts"] == len(load_catalogue().attempts)
    assert report["outcomes"]["BREACH"] == report["outcomes"]["could not try"] == 0
    assert {result["deviation"] for result in report["results"] if result["outcome"] == "known deviation"} == {
        deviation.name for deviation in load_catalogue().deviations
    }
    assert all(result["control"] for result in report["results"])
    assert {each["position"] for each in report["yields"]} == set(POSITIONS)
    assert "0 breaches" in done.stdout


@pytest.mark.parametrize("made", load_breaks(), ids=lambda made: made.name)
def test_a_broken_lab_shows_exactly_its_hole(made: Break, deployed: str, lab_site: Site) -> None:
    proof = prove(made, deployed, lab_site)
    assert proof.wrong == ()
    assert proof.mended
