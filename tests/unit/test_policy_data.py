"""Flows and timers: the shipped files hold, and broken ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lemonstand.errors import LemonstandError
from lemonstand.policy import DEFAULT_PROFILE, load_flows, load_timers
from lemonstand.policy.flows import ENDPOINTS

FLOW: dict[str, Any] = {"name": "a", "from": "dmz", "to": "stores", "protocol": "tcp", "ports": [1], "reason": "why"}
TIMERS: dict[str, Any] = {
    "profiles": {"default": {"idle": 10, "logout": 20}},
    "relations": [{"left": "idle", "op": "<", "right": "logout", "reason": "speak first", "control": "LEM-1"}],
}


def write(folder: Path, data: object) -> Path:
    """A YAML file."""
    path = folder / "data.yml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_shipped_flows_know_their_endpoints_and_controls() -> None:
    flows = load_flows().flows
    assert len(flows) > 10
    assert all(flow.source in ENDPOINTS and flow.destination in ENDPOINTS for flow in flows)
    assert all(flow.controls for flow in flows), "a flow nobody demands is a hole"


def test_no_shipped_flow_leads_from_outside_to_an_inner_zone() -> None:
    """RFC 5383 section 8: credentials and mailboxes are not reachable from the Internet."""
    inner = {"auth", "store", "auths", "stores", "management"}
    assert not [flow.name for flow in load_flows().flows if flow.source == "internet" and flow.destination in inner]


def test_shipped_timers_agree() -> None:
    timers = load_timers()
    assert set(timers.profiles) == {DEFAULT_PROFILE, "strict", "nat-hostile", "dormant"}
    assert len(timers.relations) > 10
    assert {profile: timers.broken(profile) for profile in timers.profiles} == {profile: [] for profile in timers.profiles}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ports": []}, "ports"),
        ({"ports": ["143"]}, "ports"),
        ({"ports": [0]}, "ports"),
        ({"protocol": "sctp"}, "protocol"),
        ({"when": "sometimes"}, "when"),
        ({"name": "Not Kebab"}, "name"),
        ({"reason": ""}, "reason"),
        ({"extra": 1}, "extra"),
    ],
)
def test_broken_flow_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert load_flows(write(tmp_path, {"flows": [FLOW]})).names() == ("a",)
    with pytest.raises(LemonstandError, match=message):
        load_flows(write(tmp_path, {"flows": [{**FLOW, **change}]}))


def test_flows_share_no_name(tmp_path: Path) -> None:
    with pytest.raises(LemonstandError, match="share a name: a"):
        load_flows(write(tmp_path, {"flows": [FLOW, FLOW]}))


@pytest.mark.parametrize(("idle", "broken"), [(19, []), (20, ["idle < logout"]), (21, ["idle < logout"])])
def test_relation_is_computed(idle: int, broken: list[str], tmp_path: Path) -> None:
    data = {**TIMERS, "profiles": {"default": {"idle": idle, "logout": 20}}}
    assert [str(relation) for relation in load_timers(write(tmp_path, data)).broken("default")] == broken


@pytest.mark.parametrize(
    ("op", "left", "right", "holds"), [(">=", 2, 2, True), (">", 2, 2, False), ("<=", 2, 2, True), ("<", 2, 2, False), (">", 3, 2, True)]
)
def test_operators(op: str, left: int, right: int, holds: bool, tmp_path: Path) -> None:
    relation = {**TIMERS["relations"][0], "left": "x", "op": op, "right": right}
    timers = load_timers(write(tmp_path, {"profiles": {"p": {"x": left}}, "relations": [relation]}))
    assert (timers.broken("p") == []) is holds


def test_unknown_timer_and_text_for_a_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LemonstandError, match="no timer 'logout'"):
        load_timers(write(tmp_path, {**TIMERS, "profiles": {"default": {"idle": 1}}}))
    with pytest.raises(LemonstandError, match="idle"):
        load_timers(write(tmp_path, {**TIMERS, "profiles": {"default": {"idle": "1 h", "logout": 2}}}))


def test_missing_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(LemonstandError, match="can't be read") as caught:
        load_timers(tmp_path / "none.yml")
    assert "restore" in caught.value.remedy


def test_the_floor_under_a_timer_comes_from_its_relations() -> None:
    timers = load_timers()
    assert timers.floor("established") == 7440
    assert timers.floor("close") == 240
    with pytest.raises(LookupError, match="imap_hibernate"):
        timers.floor("imap_hibernate")


TERMS: dict[str, Any] = {"default": {"deviations": [{"relation": "idle < logout", "reason": "for a test's sake"}]}}


def test_a_deviation_is_listed_and_not_a_fault(tmp_path: Path) -> None:
    timers = load_timers(write(tmp_path, {**TIMERS, "profiles": {"default": {"idle": 30, "logout": 20}}, "terms": TERMS}))
    assert timers.broken("default") == []
    assert [(str(relation), deviation.reason) for relation, deviation in timers.deviations("default")] == [
        ("idle < logout", "for a test's sake")
    ]


def test_a_deviation_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LemonstandError, match="does not break 'idle < logout'"):
        load_timers(write(tmp_path, {**TIMERS, "terms": TERMS}))


def test_a_relation_of_one_profile_binds_no_other(tmp_path: Path) -> None:
    bound = {"left": "idle", "op": ">=", "right": 15, "reason": "rarely", "control": "LEM-1", "profile": "quiet"}
    profiles = {"default": {"idle": 10, "logout": 20}, "quiet": {"idle": 12, "logout": 20}}
    timers = load_timers(write(tmp_path, {**TIMERS, "profiles": profiles, "relations": [*TIMERS["relations"], bound]}))
    assert timers.broken("default") == []
    assert [str(relation) for relation in timers.broken("quiet")] == ["idle >= 15"]


def test_what_profiles_promise() -> None:
    timers = load_timers()
    assert 4 * 60 <= timers.profiles["nat-hostile"]["idle_notify"] <= 9 * 60
    assert [relation.control for relation, _ in timers.deviations("nat-hostile")] == ["LEM-5-02"]
    assert 7000 < timers.profiles["dormant"]["idle_notify"] < 7200
    assert timers.terms["dormant"].states_middleboxes
    assert timers.deviations(DEFAULT_PROFILE) == timers.deviations("strict") == []


@pytest.mark.parametrize(
    ("name", "value", "control"),
    [("established", 7200, "LEM-7-01"), ("close_wait", 60, "LEM-7-03"),
     ("tcp_keepalive_time", 600, "LEM-4.2-03"), ("idle_notify", 120, "LEM-5-02"),
     ("idle_notify", 1800, "LEM-4.1-07"), ("tcp_syn_retries", 6, "LEM-4-04b")],
)  # fmt: skip
def test_a_timer_that_breaks_a_relation_is_named_with_its_control(name: str, value: int, control: str) -> None:
    timers = load_timers()
    broken = timers.broken(DEFAULT_PROFILE, {**timers.profiles[DEFAULT_PROFILE], name: value})
    assert any(each.control == control and each.left == name for each in broken)
