"""Mutants, checks and controls fit each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import shipped_lab
from lemonstand import checks
from lemonstand.breaking import Mutant, load_mutants
from lemonstand.breaking.catalogue import DATA, load_without
from lemonstand.breaking.record import unproven
from lemonstand.breaking.runner import named
from lemonstand.breaking.shipped_checks import shipped
from lemonstand.errors import LemonstandError
from lemonstand.policy.controls import load_controls

MUTANTS = load_mutants()
CONTROLS = set(load_controls().by_id())
PAIRED = frozenset({"auth1", "auth2", "edge1", "edge2", "frontend1", "frontend2", "relay1", "relay2", "standby1", "store1"})
"""Hosts of labs with pairs."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_names_checks_of_its_controls(mutant: Mutant) -> None:
    assert set(mutant.controls) <= CONTROLS
    assert mutant.host in {*shipped_lab.hosts(), *PAIRED}
    assert not mutant.program or (DATA / mutant.program).is_file()
    disturbs = []
    for name in mutant.noticed_by:
        meant = named(name)
        disturbs += [check.disruptive for check in meant]
        about = {control for check in meant for control in check.controls | check.supports}
        assert about & set(mutant.controls), f"{name} is about none of {mutant.controls}"
    assert any(disturbs) == mutant.disruptive


def test_a_name_means_one_check() -> None:
    for name in {name for mutant in MUTANTS for name in mutant.noticed_by}:
        places = {(check.topic, check.function) for check in named(name)}
        assert len(places) == 1 or not any(check.case for check in named(name)), f"{name} is in {places}: put the topic in front"


def test_every_control_that_is_answered_has_a_mutant_or_a_reason() -> None:
    lacking = unproven(MUTANTS)
    reasons = load_without()
    assert set(lacking) <= set(reasons), (
        f"no mutant that a check of theirs notices: { {k: v for k, v in lacking.items() if k not in reasons} }"
    )
    assert set(reasons) <= set(lacking), f"these have a mutant by now: {sorted(set(reasons) - set(lacking))}"


def test_all_checks_are_known_with_their_marks() -> None:
    functions = {
        (path.stem.removeprefix("test_"), node.name)
        for path in Path(checks.__file__).parent.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert {(check.topic, check.function) for check in shipped()} == functions
    assert all(check.controls | check.supports for check in shipped() if check.topic != "waivers")
    assert {check.answer for check in shipped()} <= {"live", "scaled", "configuration"}
    assert {check.topic for check in shipped() if check.disruptive} >= {"endurance"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mutants: [{name: x, controls: [], host: edge, change: 'true', noticed_by: [y]}]", "controls"),
        ("mutants: [{name: X, controls: [LEM-3-01], host: edge, change: 'true', noticed_by: [y]}]", "name"),
        ("mutants: []\nwithout: [{control: LEM-3-01, reason: no}]", "reason"),
        ("- nothing", "mutants"),
    ],
)
def test_a_broken_catalogue_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "mutants.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LemonstandError, match=word) as caught:
        load_mutants(path)
    assert str(path) in caught.value.where


def test_two_files_may_not_share_a_name(tmp_path: Path) -> None:
    for name in ("a.yml", "b.yml"):
        (tmp_path / name).write_text(
            "mutants: [{name: same, controls: [LEM-3-01], host: edge, change: 'true', noticed_by: [y]}]", encoding="utf-8"
        )
    with pytest.raises(LemonstandError, match="'same'"):
        load_mutants(tmp_path)
