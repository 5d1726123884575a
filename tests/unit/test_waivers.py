"""Waivers: in their form, about controls that exist, and with an end."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import yaml

from lemonstand.errors import LemonstandError
from lemonstand.policy.controls import load_controls
from lemonstand.policy.waivers import SHIPPED, ControlWaiver, Until, given, load_waivers

NONE: dict[str, dict[str, str]] = {}


def _changed(tmp_path: Path, **changes: object) -> Path:
    data = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    data["waivers"][0] = {**data["waivers"][0], **changes}
    path = tmp_path / "waivers.yml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_those_that_ship_are_about_controls_and_end() -> None:
    known = load_controls().by_id()
    waivers = load_waivers()
    assert {name for waiver in waivers for name in waiver.controls} <= set(known)
    for waiver in waivers:
        assert waiver.ended(waiver.expires, NONE) == f"it expired on {waiver.expires}"
        assert not waiver.ended(waiver.date, NONE)
        assert (waiver.expires - waiver.date) <= dt.timedelta(days=366), "a waiver is looked at once a year"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"expires": dt.date(2020, 1, 1)}, "not after"),
        ({"owner": ""}, "owner"),
        ({"reason": "so"}, "reason"),
        ({"controls": []}, "controls"),
        ({"id": "PRO-W2"}, "share an id"),
        ({"id": "w"}, "id"),
        ({"until": {"package": "dovecot-core", "version": "1:2.4"}}, "version"),
        ({"colour": "green"}, "colour"),
    ],
)
def test_faults_are_found(tmp_path: Path, changes: dict[str, object], word: str) -> None:
    with pytest.raises(LemonstandError, match=word):
        load_waivers(_changed(tmp_path, **changes))


@pytest.mark.parametrize(
    ("installed", "reached"),
    [("1:2.4.1+dfsg1-6+deb13u7", False), ("2.4.2", False), ("1:2.4.3-1", True), ("1:2.4.10-1", True), ("2.5~beta", True), ("", False)],
)
def test_versions_are_compared_as_numbers(installed: str, reached: bool) -> None:
    assert Until(package="dovecot-core", version="2.4.3").reached(installed) is reached


def test_the_urlauth_waiver_ends_with_a_fixed_dovecot() -> None:
    (waiver,) = (each for each in load_waivers() if each.until)
    assert not waiver.ended(waiver.date, {"store": {"dovecot-core": "1:2.4.1+dfsg1-6"}})
    assert "store has dovecot-core 1:2.4.3-1" in waiver.ended(waiver.date, {"store": {"dovecot-core": "1:2.4.3-1"}})


def test_a_site_adds_its_own() -> None:
    own = ControlWaiver.model_validate(
        {"id": "SITE-1", "title": "an old modem", "controls": ["LEM-7-01"], "reason": "it will be gone by spring", "owner": "network",
         "date": "2026-11-01", "expires": "2027-04-01"}
    )  # fmt: skip
    every = given((own,))
    assert [each.id for each in every if each.origin == "site"] == ["SITE-1"]
    assert len(every) == len(load_waivers()) + 1
