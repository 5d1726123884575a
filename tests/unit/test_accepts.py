"""The site's word on deviations: what is proposed stays so until its owner accepts it, and says so wherever evidence goes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from lemonstand.derived.deviations import acceptance, accepted, deviations, waivers_of
from lemonstand.errors import InputErrors
from lemonstand.evidence.model import proposed
from lemonstand.policy import load_flows, load_timers
from lemonstand.policy.waivers import load_waivers
from lemonstand.site import Site, build
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from sample_report import sample_report
from sample_site import sound_site, write_site

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
TODAY = dt.datetime.now(dt.UTC).date().isoformat()
TIMER = "TIMER-NAT-HOSTILE-IDLE-NOTIFY"


def _site(folder: Path, *accepts: dict[str, Any], **more: Any) -> Site:
    tree = sound_site()
    tree["all"] |= {"lemonstand_accepts": list(accepts), **more}
    return build(folder, RawSite.from_plain(read(write_site(folder, tree), PLAYBOOKS)), load_flows(), load_timers())


def _word(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "by": "Jane Doe", "date": TODAY, **more}


def test_what_ships_is_proposed_until_it_is_accepted(tmp_path: Path) -> None:
    first, *others = (waiver.id for waiver in load_waivers())
    site = _site(tmp_path, _word(first))
    words = {waiver.id: acceptance(site, waiver) for waiver in waivers_of(site)}
    assert words[first] is not None
    assert words[first].by == "Jane Doe"
    assert [words[name] for name in others] == [None] * len(others)


def test_what_a_profile_does_less_is_accepted_by_its_name(tmp_path: Path) -> None:
    site = _site(tmp_path, _word(TIMER), lemonstand_timer_profile="nat-hostile")
    assert [each.id for each in deviations(site)] == [TIMER]
    assert accepted(site, TIMER) is not None


def test_a_sites_own_waiver_is_its_word(tmp_path: Path) -> None:
    own = {
        "id": "SITE-W1", "title": "no mail by IPv6", "controls": ["LEM-3-05"], "reason": "the provider has none yet", "owner": "Jane Doe",
        "date": "2026-11-01", "expires": "2030-01-01",
    }  # fmt: skip
    site = _site(tmp_path, lemonstand_waivers=[own])
    (mine,) = [waiver for waiver in waivers_of(site) if waiver.origin == "site"]
    assert acceptance(site, mine) is not None
    with pytest.raises(InputErrors, match="a waiver of the site's own"):
        _site(tmp_path, _word("SITE-W1"), lemonstand_waivers=[own])


@pytest.mark.parametrize(
    ("accepts", "what", "remedy"),
    [
        ([_word("PRO-W11")], "there is no deviation 'PRO-W11' to accept", "did you mean 'PRO-W1'"),
        ([_word("PRO-W1"), _word("PRO-W1")], "the deviation 'PRO-W1' is accepted twice", "leave the one that holds"),
        ([_word("PRO-W1", date="2999-01-01")], "'PRO-W1' is accepted on 2999-01-01, which is in the future", "the day it was done"),
        ([_word("PRO-W1", date="2020-01-01")], "'PRO-W1' was accepted on 2020-01-01, before what is proposed now", "accept it anew"),
        ([_word(TIMER)], f"there is no deviation '{TIMER}' to accept", "use one of"),
        ([{"id": "PRO-W1", "by": "Jane Doe"}], "lemonstand_accepts[0]: 'date' is missing", "add 'date'"),
        ([_word("pro w1")], "lemonstand_accepts[0].id", "give"),
    ],
)
def test_a_word_that_is_none_is_named(accepts: list[dict[str, Any]], what: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(InputErrors) as caught:
        _site(tmp_path, *accepts)
    (found,) = caught.value.problems
    assert what in found.what
    assert "site.yml:" in found.where
    assert "lemonstand_accepts[" in found.where
    assert remedy in found.remedy


def test_evidence_names_what_is_proposed() -> None:
    evidence = sample_report()
    assert proposed(evidence) == ["PRO-W1"]
    evidence["waivers"][1]["ended"] = "it expired"
    assert proposed(evidence) == []
    del evidence["waivers"][1]["accepted"]
    evidence["waivers"][1]["ended"] = ""
    assert proposed(evidence) == [], "evidence from before that was asked says nothing of it"
