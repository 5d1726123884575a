"""What the model accepts the preflight of plain Ansible accepts, and what one refuses the other refuses, in the same words."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lemonstand.site.load
from lemonstand.site import preflight, rules
from one_judge import PLAYBOOKS, by_preflight, by_the_model
from sample_site import BAD_SITES, Bad, Tree, sound_site, write_site

ROOT = PLAYBOOKS.parent
INVENTORIES = sorted(path for path in (ROOT / "inventories").iterdir() if path.is_dir())


def _host_file(variable: str, value: Any, where: str = "host_vars/store.yml") -> Callable[[Tree], object]:
    return lambda tree: tree["files"].__setitem__(where, {variable: value})


BREACHES: dict[str, Callable[[Tree], object]] = {
    "ten minutes for connections on one host": _host_file("nftables_timeouts", {"established": 600}),
    "ten minutes for connections of one group": _host_file("nftables_timeouts", {"established": 600}, "group_vars/stores.yml"),
    "kept alive every ten minutes": _host_file("sysctl_settings", {"net.ipv4.tcp_keepalive_time": 600}),
    "a role's variable misspelt": _host_file("nftables_timeuots", {"established": 600}),
    "a role's variable of another type": _host_file("mail_store_hibernate_timeout", "soon"),
    "a template that fails": lambda tree: tree["all"].__setitem__("lemonstand_public_name", "{{ nobody_knows_this }}"),
    "hosts without a kind": lambda tree: tree["hosts"]["all"].__setitem__("hosts", {"stray": {}}),
    "no host": lambda tree: tree["hosts"].__setitem__("all", {}),
}
"""Spoilings that the samples have not; each is refused by both."""
GIVEN: dict[str, Callable[[Tree], object]] = {
    "a waiver": lambda tree: tree["all"].__setitem__(
        "lemonstand_waivers",
        [{"id": "SITE-1", "title": "an old modem", "controls": ["LEM-7-01"], "reason": "gone next year", "owner": "ops team",
          "date": "2026-11-01", "expires": "2999-01-01"}],
    ),
    "another number on one host": _host_file("nftables_timeouts", {"established": 500000}),
    "a template": lambda tree: tree["all"].__setitem__("lemonstand_public_name", "{{ 'mail' ~ '.lemon.example' }}"),
}  # fmt: skip
"""What a site may well say; both accept it."""


def _site(folder: Path, spoil: Callable[[Tree], object]) -> Path:
    tree = sound_site()
    spoil(tree)
    return write_site(folder, tree)


@pytest.mark.parametrize("bad", BAD_SITES, ids=lambda bad: bad.name)
def test_both_refuse_a_spoilt_site_in_the_same_words(bad: Bad, tmp_path: Path) -> None:
    site = _site(tmp_path, bad.spoil)
    said = by_preflight(site)
    assert said == by_the_model(site)
    assert any(bad.what in fault for fault in said)


@pytest.mark.parametrize("name", BREACHES)
def test_both_refuse_what_breaks_a_promise(name: str, tmp_path: Path) -> None:
    site = _site(tmp_path, BREACHES[name])
    assert by_preflight(site) == by_the_model(site) != []


@pytest.mark.parametrize("name", GIVEN)
def test_both_accept_what_a_site_may_say(name: str, tmp_path: Path) -> None:
    site = _site(tmp_path, GIVEN[name])
    assert by_preflight(site) == by_the_model(site) == []


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
def test_both_say_the_same_of_what_ships(inventory: Path) -> None:
    assert by_preflight(inventory) == by_the_model(inventory)


# --- generated spoilings ---

WRONG = (None, True, 0, -1, 10**9, 0.5, "", "x", "{{ nothing_of_that_name }}", [], ["x"], {}, {"x": 1}, [{}], [None])
ROLES = ("nftables_timeouts", "sysctl_settings", "mail_store_idle_notify_interval", "mail_store_hibernate_timeout", "base_clock_is_ours")
PLACES = ("host_vars/store.yml", "host_vars/edge/site.yml", "group_vars/frontends.yml", "group_vars/relays/more.yml")


def _ways(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a value that something else could stand at."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [each for key, item in items for each in [(*way, key), *_ways(item, (*way, key))]]


@st.composite
def spoilings(draw: st.DrawFn) -> tuple[str, Tree]:
    """A sound site that is spoilt in one or two places, and what was done."""
    tree = sound_site()
    done = []
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["type", "unknown", "missing", "range", "moved", "role"]))
        way = draw(st.sampled_from(_ways(tree["all"]) + _ways(tree["hosts"]["all"]["children"], ("children",))))
        root = {**tree["all"], "children": tree["hosts"]["all"]["children"]}
        around = root
        for step in way[:-1]:
            around = around[step]
        if around is root:
            around = tree["all"] if way[0] != "children" else tree["hosts"]["all"]
        if kind == "type":
            around[way[-1]] = copy.deepcopy(draw(st.sampled_from(WRONG)))
        elif kind == "unknown" and isinstance(around, dict):
            around[f"{way[-1]}_"] = around[way[-1]]
        elif kind == "missing":
            del around[way[-1]]
        elif kind == "range":
            around[way[-1]] = draw(st.integers(-(10**6), 10**12))
        elif kind == "moved" and around is tree["all"]:
            tree["files"].setdefault(draw(st.sampled_from(PLACES)), {})[way[-1]] = around.pop(way[-1])
        else:
            value = draw(st.sampled_from([*WRONG, {"established": 600}, {"net.ipv4.tcp_keepalive_time": 9}, 10800]))
            tree["files"].setdefault(draw(st.sampled_from(PLACES)), {})[draw(st.sampled_from(ROLES))] = value
        done.append(f"{kind} at {'.'.join(map(str, way))}")
    return ", ".join(done), tree


@settings(max_examples=60, suppress_health_check=list(HealthCheck), derandomize=True)
@given(spoilings())
def test_both_judge_generated_spoilings_alike(spoilt: tuple[str, Tree]) -> None:
    name, tree = spoilt
    with tempfile.TemporaryDirectory() as folder:
        site = write_site(Path(folder), tree)
        said = by_the_model(site)
        try:
            assert by_preflight(site) == said, name
        except AnsibleError:
            assert said, f"Ansible can't read it, and the model accepts it: {name}"


# --- the tests above can fail ---


def test_a_judge_of_its_own_in_preflight_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: preflight without the rule on timers, as a second judge would lack it."""
    site = _site(tmp_path, BREACHES["ten minutes for connections on one host"])
    fewer = tuple(rule for rule in rules.RULES if rule is not rules.timers_agree)

    def lenient(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lemonstand.site.load, "RULES", fewer)
            return lemonstand.site.load.judge(*arguments)

    monkeypatch.setattr(preflight, "judge", lenient)
    assert by_preflight(site) == [] != by_the_model(site)


def test_a_variable_that_preflight_does_not_hand_on_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: preflight that leaves a host's own file out, and one that does not know waivers."""
    site = _site(tmp_path, BREACHES["a role's variable misspelt"])
    taken = preflight.RawSite.from_plain

    def without(data: Any) -> Any:
        for host in data["hosts"].values():
            host["values"] = {name: value for name, value in host["values"].items() if not name.startswith("nftables_")}
        return taken(data)

    monkeypatch.setattr(preflight.RawSite, "from_plain", without)
    said = by_preflight(site)
    monkeypatch.undo()
    assert said == [] != by_the_model(site)
