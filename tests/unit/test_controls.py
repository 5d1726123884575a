"""The catalogue of controls: whole, in its form, and about things that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir
from lemonstand.policy import DEFAULT_PROFILE, load_flows, load_timers
from lemonstand.policy.controls import CATALOGUE, load_controls

CATALOGUED = 200
"""Requirements of the reference matrix of RFC 5383 and the profile."""


def _changed(tmp_path: Path, **changes: object) -> Path:
    data = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    data["controls"][0] = {**data["controls"][0], **changes}
    path = tmp_path / "controls.yml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_every_requirement_is_there() -> None:
    controls = load_controls().controls
    assert len(controls) == CATALOGUED
    assert len({control.statement for control in controls}) == CATALOGUED


def test_what_enforces_a_control_exists() -> None:
    flows, timers = set(load_flows().names()), load_timers().profiles[DEFAULT_PROFILE]
    for control in load_controls().controls:
        for source in control.enforced_by:
            kind, _, name = source.partition(":")
            if kind == "flow":
                assert name in flows, control.id
            elif kind == "timer":
                assert name in timers, control.id
            else:
                top, _, rest = source.partition("/")
                assert (data_dir(top) / rest).exists(), f"{control.id}: {source}"


def test_flows_and_timers_name_controls_that_exist() -> None:
    known = load_controls().by_id()
    assert {name for flow in load_flows().flows for name in flow.controls} <= set(known)
    assert {relation.control for relation in load_timers().relations} <= set(known)


def test_no_number_of_timers_is_said_again() -> None:
    timers = {str(value) for value in load_timers().profiles[DEFAULT_PROFILE].values() if value >= 1500}
    for control in load_controls().controls:
        assert not timers & set(control.statement.replace(",", " ").split()), control.id


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"id": "LEM-3-02"}, "share an id"),
        ({"id": "X-1"}, "pattern"),
        ({"level": "OUGHT"}, "level"),
        ({"made_of": ["LEM-9-99"]}, "no other control"),
        ({"made_of": ["LEM-3-01"]}, "no other control"),
        ({"binds": []}, "binds"),
        ({"binds": ["toaster"]}, "binds"),
        ({"not_applicable": "because"}, "a reason 'because'"),
        ({"colour": "green"}, "colour"),
    ],
)
def test_faults_are_found(tmp_path: Path, changes: dict[str, object], word: str) -> None:
    with pytest.raises(LemonstandError, match=word):
        load_controls(_changed(tmp_path, **changes))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LemonstandError, match="can't be read"):
        load_controls(tmp_path / "none.yml")


def test_what_takes_several_hosts_binds_nothing_with_one() -> None:
    catalogue = load_controls()
    control = catalogue.by_id()["SUR-14"]
    assert "one auth host" in catalogue.reason(control, ["edges", "auths", "stores"])
    assert not catalogue.reason(control, ["edges", "auths", "auths", "stores"])
