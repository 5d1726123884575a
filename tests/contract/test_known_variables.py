"""The preflight of plain Ansible and the site model know the same variables, and take the same values for them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from lemonstand.site import load_site
from lemonstand.site.model import HostSettings, SiteSettings
from lemonstand.site.reader import read
from sample_site import sound_site, write_site

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
_spec = importlib.util.spec_from_file_location("lemonstand_filters", PLAYBOOKS / "filter_plugins" / "lemonstand.py")
assert _spec is not None and _spec.loader is not None
filters: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(filters)
FLOWS = filters.data("flows.yml")["flows"]
TIMERS = filters.data("timers.yml")
WAIVER = yaml.safe_load(
    "{id: W-1, title: no implicit TLS for old phones, controls: [LEM-3-01], reason: the old phones are gone next year,"
    " owner: ops team, date: 2026-11-01, expires: 2027-06-01}"
)
VALUES: dict[str, Any] = {
    "lemonstand_waivers": [{**WAIVER, "date": "2026-11-01", "expires": "2027-06-01"}],
    "lemonstand_middleboxes": [{"name": "box", "between": ["internet", "dmz"], "established": 86400}],
    "lemonstand_timers": {},
    "lemonstand_managesieve": True,
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
MODEL = {f"lemonstand_{name}" for name in (*SiteSettings.model_fields, *HostSettings.model_fields)}


def test_preflight_knows_every_variable_of_the_model() -> None:
    known = {f"lemonstand_{name}" for name in filters.KNOWN}
    assert known - {"lemonstand_kind"} == MODEL, "KNOWN in playbooks/filter_plugins/lemonstand.py and site/model.py differ"


@pytest.mark.parametrize("variable", sorted(VALUES))
def test_both_take_what_a_site_may_say(variable: str, tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"][variable] = VALUES[variable]
    folder = write_site(tmp_path, tree)
    load_site(folder)
    said = read(folder, PLAYBOOKS)
    hosts = {name: dict(host["values"]) for name, host in said["hosts"].items()}
    assert filters.site_faults(hosts, said["groups"], TIMERS, FLOWS, "2026-11-29") == []


def test_dates_without_quotes_are_taken_as_well(tmp_path: Path) -> None:
    """YAML makes a date of 2026-11-01."""
    folder = write_site(tmp_path, sound_site())
    text = yaml.safe_dump({"lemonstand_waivers": [WAIVER]})
    assert "date: 2026-11-01" in text
    (folder / "group_vars" / "all" / "waivers.yml").write_text(text, encoding="ascii")
    assert load_site(folder).settings.waivers[0].id == "W-1"


@pytest.mark.parametrize("variable", ["lemonstand_waiver", "lemonstand_nonsense", "lemonstand_timer"])
def test_both_refuse_what_none_knows(variable: str, tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"][variable] = []
    said = read(write_site(tmp_path, tree), PLAYBOOKS)
    hosts = {name: dict(host["values"]) for name, host in said["hosts"].items()}
    assert any(variable in fault for fault in filters.site_faults(hosts, said["groups"], TIMERS, FLOWS, "2026-11-29"))
