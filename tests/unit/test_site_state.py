"""What hosts remember of a site's operation: stamp, lock, history, and migrations (record 0038)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from lemonstand.admin import operations
from lemonstand.policy.settings import load_options
from lemonstand.site.shipped import filter_plugin

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = filter_plugin("operation")
NOW = 1_800_000_000.0
ORDER: dict[str, Any] = {
    "id": "a", "who": "ann@one", "controller": "one", "process": "10/1", "living": ["10/1"], "command": "lemonstand apply", "limit": "",
    "version": "0.2.0", "commit": "c" * 40, "commit_time": 100, "dirty": False, "layout": 1, "lock": True, "check": False,
}  # fmt: skip
OTHER = {**ORDER, "id": "b", "who": "bob@two", "controller": "two", "process": "20/1", "living": ["20/1"]}
STAMP = {
    "version": "0.2.0",
    "commit": "c" * 40,
    "dirty": False,
    "layout": 1,
    "inventory": "i" * 64,
    "who": "ann@one",
    "run": "a",
    "result": "ok",
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program, on this machine in the place of a host."""
    module: ModuleType = PLUGIN._load(ROOT / "playbooks/files/site_state.py")
    monkeypatch.setattr(module, "STATE", tmp_path / "state")
    monkeypatch.setattr(module, "RUN", tmp_path / "run")
    yield module


def stamped(state: ModuleType, wanted: dict[str, Any], changes: int = 0, *, now: float = NOW, check: bool = False) -> list[str]:
    return list(state.stamp({"stamp": wanted, "changes": changes, "check": check}, now))


def test_a_stamp_is_written_once_and_its_time_follows_changes(state: ModuleType) -> None:
    path = state.stamp_path()
    assert "would write" in stamped(state, STAMP, check=True)[0] and not path.exists()
    assert stamped(state, STAMP)[0].startswith("changed: write ")
    assert path.stat().st_mode & 0o777 == 0o644
    assert stamped(state, {**STAMP, "run": "b", "who": "bob@two"}, now=NOW + 60) == []
    assert json.loads(path.read_text())["who"] == "ann@one"
    assert stamped(state, {**STAMP, "run": "b"}, changes=2, now=NOW + 60) == []
    assert json.loads(path.read_text())["run"] == "b" and json.loads(path.read_text())["when"] == state.utc(NOW + 60)
    (line,) = stamped(state, {**STAMP, "inventory": "j" * 64}, check=True)
    assert "inventory iiiiiiiiiiii -> jjjjjjjjjjjj" in line


def test_a_run_that_nobody_remembers_gives_way_to_one_that_somebody_does(state: ModuleType) -> None:
    """An edge is set up before whoever keeps the history can be reached through it."""

    def written(run: str, *, told: bool, check: bool = False) -> list[str]:
        return list(state.stamp({"stamp": {**STAMP, "run": run}, "changes": 0, "check": check, "told": told}, NOW))

    written("a", told=False)
    assert written("b", told=False) == []
    assert "run a, which nobody remembers -> c" in written("c", told=True, check=True)[0]
    assert written("c", told=True)[0].startswith("changed: write ")
    found = json.loads(state.stamp_path().read_text())
    assert found["run"] == "c" and "told" not in found
    assert written("d", told=True) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layout": "x"}', "\0"])
def test_a_stamp_that_can_not_be_read_is_none(state: ModuleType, text: str) -> None:
    state.STATE.mkdir()
    state.stamp_path().write_text(text)
    assert stamped(state, STAMP)


def test_a_dirty_controller_says_so(state: ModuleType) -> None:
    lines = stamped(state, {**STAMP, "dirty": True})
    assert lines[0].startswith("notice: this controller has changes that are in no commit")


def test_one_at_a_time(state: ModuleType) -> None:
    assert state.begin(ORDER, NOW) == {"held": None, "newer": None}
    refused = state.begin(OTHER, NOW + 1)["held"]
    assert refused["who"] == "ann@one" and refused["since"] == state.utc(NOW) and "controller" not in refused
    assert state.begin(ORDER, NOW + 2)["held"] is None, "it is its own"
    assert state.end({"id": "a", "result": "ok", "hosts": {}, "failed": {}}, NOW + 3) == {"freed": True}
    assert state.begin(OTHER, NOW + 4)["held"] is None
    assert state.end({"id": "a", "result": "ok", "hosts": {}, "failed": {}}, NOW + 5) == {"freed": False}, "only its own"


def test_in_check_mode_nothing_is_taken(state: ModuleType) -> None:
    state.begin({**ORDER, "check": True}, NOW)
    assert not state.lock_path().exists() and not state.lines()


def test_what_waits_for_nobody_is_held_by_nobody(state: ModuleType) -> None:
    state.begin(ORDER, NOW)
    assert state.begin({**OTHER, "lock": False}, NOW)["held"] is None
    state.end({"id": "b", "result": "ok", "hosts": {}, "failed": {}}, NOW)
    assert json.loads(state.lock_path().read_text())["id"] == "a"


def test_a_lock_ends_with_its_connection_or_its_process(state: ModuleType) -> None:
    def lock(sign: list[Any] | None, **more: Any) -> dict[str, Any]:
        return {**{key: ORDER[key] for key in ("id", "controller", "process")}, "sign": sign, "touched": NOW, **more}

    alive, gone = [os.getpid(), state.started(os.getpid())], [os.getpid(), 1]
    assert state.holds(lock(gone), OTHER, NOW + 590) and not state.holds(lock(gone), OTHER, NOW + 610)
    assert not state.holds(lock(None), OTHER, NOW + 610)
    assert state.holds(lock(alive), OTHER, NOW + 5 * 3600) and not state.holds(lock(alive), OTHER, NOW + 7 * 3600)
    # Its own controller knows that the run is dead, and need not wait.
    assert not state.holds(lock(alive), {**ORDER, "id": "c", "living": ["11/5"]}, NOW)
    assert state.holds(lock(alive), {**ORDER, "id": "c", "living": ["10/1", "11/5"]}, NOW)
    # Nonsense that somebody wrote is no lock for ever, and a clock that was set back makes none.
    assert not state.holds({"id": "x", "touched": "never", "sign": [1, None]}, OTHER, NOW)
    assert not state.holds(lock(alive, touched=NOW + 10 * 3600), OTHER, NOW)


@pytest.mark.parametrize(
    ("known", "newer"),
    [
        ({"version": "0.3.0", "commit": "d" * 40, "commit_time": 1, "layout": 1}, True),
        ({"version": "0.10.0", "commit": "", "commit_time": 0, "layout": 1}, True),
        ({"version": "0.2.0", "commit": "d" * 40, "commit_time": 101, "layout": 1}, True),
        ({"version": "0.1.0", "commit": "d" * 40, "commit_time": 999, "layout": 2}, True),
        ({"version": "0.2.0", "commit": "d" * 40, "commit_time": 99, "layout": 1}, False),
        ({"version": "0.1.9", "commit": "d" * 40, "commit_time": 999, "layout": 1}, False),
        ({"version": "0.2.0", "commit": "c" * 40, "commit_time": 999, "layout": 1}, False),
        (None, False),
    ],
)
def test_an_older_controller_is_told(state: ModuleType, known: dict[str, Any] | None, newer: bool) -> None:
    if known:
        state.write(state.newest_path(), json.dumps({**known, "who": "x@y", "when": "z"}), 0o600)
    answer = state.begin(ORDER, NOW)
    assert bool(answer["newer"]) == newer
    assert state.lock_path().exists() != newer
    why = PLUGIN.refusal([{"item": "auth", "answer": answer}])
    assert ("--older" in why and "x@y" in why) == newer
    assert state.begin({**ORDER, "older": True}, NOW)["newer"] is None
    assert json.loads(state.lines()[-1])["older"] == newer
    assert json.loads(state.newest_path().read_text())["commit"] == ORDER["commit"], "what goes back on purpose is the newest from then on"


def test_history_is_bounded_private_and_shows_what_was_taken_out(state: ModuleType) -> None:
    for number in range(state.LINES):
        state.append({"event": "begin", "id": str(number)}, NOW + number)
    state.append({"event": "begin", "id": "long", "command": "x" * 3 * state.LINE_OCTETS}, NOW + 1000)
    events, broken = state.history()
    assert len(events) == state.LINES and not broken and events[0]["id"] == "1" and events[-1]["cut"] is True
    assert state.history_path().stat().st_mode & 0o777 == 0o600 and state.history_path().parent.stat().st_mode & 0o777 == 0o700
    kept = state.lines()
    for spoiled in ([*kept[:5], *kept[6:]], [*kept[:5], kept[5].replace("begin", "begun"), *kept[6:]], [*kept[:5], "{", *kept[6:]]):
        state.history_path().write_text("\n".join(spoiled) + "\n")
        assert state.history()[1]


def test_runs_are_put_together_from_all_seats() -> None:
    begin = {
        "event": "begin",
        "id": "a",
        "time": "2026-11-30T10:00:00Z",
        "who": "ann@one",
        "command": "apply",
        "version": "0.2.0",
        "commit": "c",
    }
    end = {"event": "end", "id": "a", "time": "2026-11-30T10:05:00Z", "result": "failed", "hosts": {"auth": 2}, "failed": {"auth": ""}}
    later = {**end, "time": "2026-11-30T10:05:01Z", "failed": {"auth": "Activate: Bring"}}
    lost = {**begin, "id": "b", "time": "2026-11-30T11:00:00Z"}
    on = {**begin, "id": "c", "time": "2026-11-30T12:00:00Z", "older": True, "without": ["store"]}
    runs = operations._runs([[begin, end, later, lost], [begin, end, on, {"event": "freed", "id": "b", "by": "bob"}]], {"c"})
    assert [(run.id, run.result) for run in runs] == [("c", "going on"), ("b", "cut off"), ("a", "failed")]
    assert runs[2].failed == {"auth": "Activate: Bring"} and runs[2].hosts == {"auth": 2}
    assert runs[0].notes == ("an older controller, on purpose", "without store") and runs[1].notes == ("its lock was taken away by bob",)


def test_who_holds_a_lock_is_told_with_what_to_do() -> None:
    held = {"who": "ann@one", "command": "lemonstand apply", "limit": "", "since": "2026-11-30T10:00:00Z"}
    why = PLUGIN.refusal([{"item": "auth", "unreachable": True}, {"item": "store", "answer": {"held": held, "newer": None}}])
    assert "ann@one changes this site since 2026-11-30T10:00:00Z" in why and "says store" in why and "lemonstand unlock" in why
    assert PLUGIN.refusal([{"item": "auth", "unreachable": True}]) == ""
    assert "read-only" in PLUGIN.refusal([{"item": "auth", "rc": 1, "msg": "read-only"}])


def test_seats_stand_in_no_zone_the_internet_reaches() -> None:
    kinds = yaml.safe_load((ROOT / "playbooks/kinds.yml").read_text(encoding="utf-8"))["kinds"]
    groups = {name: [f"{name}-1", f"{name}-2"] for name in kinds}
    found = PLUGIN.seats(groups, ["stores-2"])
    assert found == ["auths-1", "auths-2", "stores-1"]
    assert all("dmz" not in kinds[name]["zones"] and "internet" not in kinds[name]["zones"] for name in PLUGIN.SEATS)


def test_the_digest_of_an_inventory_is_of_the_site_and_holds_no_secret() -> None:
    shared = [{"name": "a@x.test", "password": "one"}]
    site = {
        "auth": {"group_names": ["auths"], "lemonstand_users": shared, "lemonstand_pki_dir": "/here"},
        "store": {"group_names": ["stores"], "lemonstand_users": shared},
        "stranger": {"group_names": ["others"], "lemonstand_users": []},
    }
    first = PLUGIN.inventory_digest(site)
    same = json.loads(json.dumps(site).replace("one", "two").replace("/here", "/there"))
    assert PLUGIN.inventory_digest(same) == first
    assert PLUGIN.inventory_digest(json.loads(json.dumps(site).replace("a@x", "b@x"))) != first
    del site["stranger"]
    assert PLUGIN.inventory_digest(site) == first


def test_this_controller_knows_itself_and_its_code() -> None:
    known, me = PLUGIN.code(), PLUGIN.controller()
    assert known["layout"] == PLUGIN._load(ROOT / "playbooks/files/migrations.py").LAYOUT and known["version"]
    assert me["process"] in me["living"] and "@" in me["who"]
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "ansible-playbook"]) as process:
        time.sleep(0.3)
        number = f"{process.pid}/"
        assert not any(each.startswith(number) for each in PLUGIN.controller()["living"]), "a word further back is no program"
        process.kill()


def test_options_of_plays_are_known() -> None:
    assert {"site_older", "site_lock_without"} <= set(load_options())


def test_every_playbook_that_changes_a_site_begins_and_ends() -> None:
    for path in (ROOT / "playbooks").glob("*.yml"):
        plays = yaml.safe_load(path.read_text(encoding="utf-8"))
        changes_none = {"preflight.yml", "preflight_hosts.yml", "begin.yml", "end.yml", "signing-policy.yml"}
        if not isinstance(plays, list) or path.name in changes_none:
            continue
        imported = [play.get("ansible.builtin.import_playbook") for play in plays]
        first = next(number for number, name in enumerate(imported) if name != "preflight.yml")
        assert (imported[first], imported[-1]) == ("begin.yml", "end.yml"), path.name


# --- migrations ---


@pytest.fixture
def migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: ModuleType = PLUGIN._load(ROOT / "playbooks/files/migrations.py")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_steps_have_numbers_in_order(migrations: ModuleType) -> None:
    assert [number for number, _, _ in migrations.STEPS] == list(range(1, migrations.LAYOUT + 1))


def test_a_host_does_the_steps_after_its_stamp(migrations: ModuleType, tmp_path: Path) -> None:
    stamp = tmp_path / migrations.STAMP
    stamp.parent.mkdir(parents=True)
    for text, since in (("{", 0), ('{"layout": "7"}', 0), ('{"layout": 1}', 1), ("[]", 0)):
        stamp.write_text(text)
        assert migrations.layout() == since
    stamp.unlink()
    assert migrations.layout() == 0


def left_by_older(root: Path) -> None:
    """What a host has on which a version from before the kit was."""
    path = root / "usr/local/lib/lemonstand/differing-files"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")


@pytest.mark.parametrize("left", [left_by_older], ids=lambda each: each.__name__)
def test_what_older_versions_left_is_named_then_gone_then_no_news(
    migrations: ModuleType, tmp_path: Path, left: Callable[[Path], None]
) -> None:
    left(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    (line,) = migrations.migrate(0, True)
    assert line.startswith("changed: would remove") and "migration 1" in line and sorted(tmp_path.rglob("*")) == before
    (line,) = migrations.migrate(0, False)
    assert line.startswith("changed: remove")
    assert list(migrations.migrate(0, False)) == [], "again, as after a run that was cut off: nothing is left to do"
    left_again = tmp_path / "usr/local/lib/lemonstand/differing-files"
    left_again.write_text("x")
    assert list(migrations.migrate(migrations.LAYOUT, False)) == [] and left_again.exists(), "a host that is there does no step"
