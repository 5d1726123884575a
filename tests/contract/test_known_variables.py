"""The table that preflight checks by where there is no package: it is the model's, and takes what the model takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lemonstand.derived.variables_table import table
from lemonstand.policy.kinds import load_kinds
from lemonstand.policy.settings import load_defaults
from lemonstand.site import load_site
from lemonstand.site.model import HostSettings, SiteSettings
from lemonstand.site.reader import read
from lemonstand.site.shipped import filter_plugin
from sample_site import BAD_SITES, sound_site, write_site

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
WAIVER = yaml.safe_load(
    "{id: W-1, title: no implicit TLS for old phones, controls: [LEM-3-01], reason: the old phones are gone next year,"
    " owner: ops team, date: 2026-11-01, expires: 2027-06-01}"
)
VALUES: dict[str, Any] = {
    "lemonstand_waivers": [{**WAIVER, "date": "2026-11-01", "expires": "2027-06-01"}],
    "lemonstand_middleboxes": [{"name": "box", "between": ["internet", "dmz"], "established": 86400}],
    "lemonstand_timers": {},
    "lemonstand_managesieve": True,
    "lemonstand_self_service": True,
    "lemonstand_probe_users": ["alice@lemon.example", "bob@lemon.example"],
    "lemonstand_flows_extra": [],
    "lemonstand_flows_disabled": [],
    "lemonstand_foreign_variables": ["others_own"],
    "lemonstand_clock_is_ours": True,
    "lemonstand_review": {"by": "ops team", "date": "2026-11-01", "analysis": "0" * 64},
    "lemonstand_tls_profile": "modern",
    "lemonstand_devices_per_user": 3,
}
"""Variables that a sound site may set, one after the other."""


def _by_the_table(folder: Path) -> list[str]:
    found = read(folder, PLAYBOOKS)
    groups = {name: [group for group, members in found["groups"].items() if name in members] for name in found["hosts"]}
    said: list[str] = filter_plugin("site_faults").plain_faults(
        {name: {**host["values"], "group_names": groups[name]} for name, host in found["hosts"].items()}
    )
    return said


def test_the_table_is_made_from_the_model() -> None:
    assert (PLAYBOOKS / "variables.json").read_text(encoding="utf-8") == table(), "`make docs` makes playbooks/variables.json"


def test_every_default_is_written_once() -> None:
    optional = {name for model in (SiteSettings, HostSettings) for name, info in model.model_fields.items() if not info.is_required()}
    assert set(load_defaults()) == optional


def test_a_kind_is_one_entry_with_its_files() -> None:
    kinds = load_kinds()
    for folder in (PLAYBOOKS / "group_vars", *(PLAYBOOKS / "tasks").glob("*/")):
        assert {path.stem for path in folder.glob("*.yml")} - {"all"} == set(kinds.deployed), folder
    for name in kinds.deployed:
        assert yaml.safe_load((PLAYBOOKS / "group_vars" / f"{name}.yml").read_text(encoding="utf-8"))["lemonstand_kind"] == name


@pytest.mark.parametrize("variable", sorted(VALUES))
def test_both_take_what_a_site_may_say(variable: str, tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"][variable] = VALUES[variable]
    folder = write_site(tmp_path, tree)
    load_site(folder)
    assert _by_the_table(folder) == []


def test_dates_without_quotes_are_taken_as_well(tmp_path: Path) -> None:
    """YAML makes a date of 2026-11-01."""
    folder = write_site(tmp_path, sound_site())
    text = yaml.safe_dump({"lemonstand_waivers": [WAIVER]})
    assert "date: 2026-11-01" in text
    (folder / "group_vars" / "all" / "waivers.yml").write_text(text, encoding="ascii")
    assert load_site(folder).settings.waivers[0].id == "W-1"
    assert _by_the_table(folder) == []


@pytest.mark.parametrize("variable", ["lemonstand_waiver", "lemonstand_nonsense", "lemonstand_timer"])
def test_both_refuse_what_none_knows(variable: str, tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"][variable] = []
    assert any(variable in fault for fault in _by_the_table(write_site(tmp_path, tree)))


def test_what_the_table_refuses_the_model_refuses(tmp_path: Path) -> None:
    """It knows less, never something else: each of its faults is about a sample the model refuses, and there are many."""
    refused = []
    for number, bad in enumerate(BAD_SITES):
        tree = sound_site()
        bad.spoil(tree)
        if _by_the_table(write_site(tmp_path / str(number), tree)):
            refused.append(bad.name)
    assert len(refused) >= 20, refused
    assert _by_the_table(write_site(tmp_path / "sound", sound_site())) == []


def test_the_table_is_plain_json() -> None:
    assert set(json.loads(table())) == {"site", "host"}
