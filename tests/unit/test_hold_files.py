"""The program that compares a host's files with what they should be and brings them there."""

from __future__ import annotations

import base64
import grp
import hashlib
import json
import os
import pwd
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from programs import load

OWNER, GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


@pytest.fixture
def program() -> ModuleType:
    return load("plugins/plugin_utils/on_host/hold_files.py")


def entry(path: Path, text: str = "new\n", **more: Any) -> dict[str, Any]:
    """A file as the controller orders it."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    found = {"path": str(path), "state": "file", "owner": OWNER, "group": GROUP, "mode": "0640", "sha256": digest, "text": text}
    return {**found, "validate": "", "in_place": False, "secret": False, **more}


def order(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"accounts": [], "entries": list(entries), "diff": False, "write": True, **more}


def test_what_differs_is_named_and_nothing_is_touched(program: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert program.differences(entry(path)) == ["absent"]
    path.write_text("old\n")
    path.chmod(0o600)
    assert program.differences(entry(path)) == ["content", "mode"]
    assert program.differences(entry(path, "old\n", mode="0600")) == []
    assert program.differences(entry(path, "old\n", mode="0600", owner="nobody", group="nogroup")) == ["owner", "group"]
    assert program.differences({**entry(path), "state": "directory"}) == ["type"]
    assert program.differences({**entry(path), "state": "absent"}) == ["present"]
    link = tmp_path / "link"
    link.symlink_to(path)
    assert program.differences(entry(link, "old\n")) == ["type"], "a link is no file"
    assert path.read_text() == "old\n"


def test_a_file_is_written_once(program: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert program.hold(order(entry(path)))["changed"] == [str(path)]
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new\n", 0o640)
    before = path.stat().st_mtime_ns
    assert program.hold(order(entry(path))) == {"accounts": {}, "changed": [], "faults": []}
    path.chmod(0o666)
    assert program.hold(order(entry(path)))["changed"] == [str(path)]
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_mtime_ns == before, "a mode is mended without writing the file: services would be reloaded for it"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_refused_text_leaves_the_old_file_and_the_others_are_written(program: Any, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_text("old\n")
    done = program.hold(
        order(entry(bad, validate="sh -c 'echo line 3 is wrong >&2; exit 2' sh %s"), entry(good, validate="grep -q new %s"))
    )
    assert bad.read_text() == "old\n" and good.read_text() == "new\n"
    assert done["changed"] == [str(good)]
    assert len(done["faults"]) == 1 and "bad" in done["faults"][0] and "line 3 is wrong" in done["faults"][0]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bad", "good"], "nothing is left behind"


def test_the_text_to_be_judged_is_for_nobody_else(program: Any, tmp_path: Path) -> None:
    program.validate(entry(tmp_path / "file", validate=f'sh -c \'stat -c %a "$(dirname "$1")" >{tmp_path}/mode\' sh %s', mode="0600"))
    assert (tmp_path / "mode").read_text().strip() == "700"


def test_an_unknown_owner_is_named(program: Any, tmp_path: Path) -> None:
    done = program.hold(order(entry(tmp_path / "file", owner="no-such-user"), entry(tmp_path / "other", group="no-such-group")))
    assert done["changed"] == [] and list(tmp_path.iterdir()) == []
    assert "no user no-such-user" in done["faults"][0] and "no group no-such-group" in done["faults"][1]


def test_what_a_died_run_left_is_removed(program: Any, tmp_path: Path) -> None:
    (tmp_path / ".file.lemonstand-x").write_text("half")
    program.hold(order(entry(tmp_path / "file")))
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_mount_is_overwritten_where_that_is_allowed(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hosts"
    path.write_text("old\n")

    def busy(_self: Path, _target: Path) -> Path:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    assert "busy" in program.hold(order(entry(path)))["faults"][0]
    assert path.read_text() == "old\n"
    assert program.hold(order(entry(path, in_place=True)))["faults"] == []
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new\n", 0o640)
    assert [each.name for each in tmp_path.iterdir()] == ["hosts"]


def test_directories_are_made_and_hold_nothing_stale(program: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    wanted = {"path": str(keys), "state": "directory", "owner": OWNER, "group": GROUP, "mode": "0750", "sha256": None, "only": ["a"]}
    assert program.hold(order(wanted, entry(keys / "a")))["changed"] == [str(keys), str(keys / "a")]
    (keys / "b").write_text("stale")
    assert program.compare(order(wanted, entry(keys / "a")))["stale"] == [str(keys / "b")]
    assert program.hold(order(wanted, entry(keys / "a")))["changed"] == [str(keys / "b")]
    assert [each.name for each in keys.iterdir()] == ["a"]


def test_what_is_to_be_absent_goes(program: Any, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "inner").mkdir(parents=True)
    gone = {**entry(folder), "state": "absent"}
    assert program.hold(order(gone))["changed"] == [str(folder)]
    assert program.hold(order(gone))["changed"] == []


def test_a_diff_shows_no_secret(program: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old\n")
    (shown,) = program.compare(order(entry(path), diff=True))["differing"]
    assert shown["text"] == "old\n"
    for hidden in (order(entry(path, secret=True), diff=True), order(entry(path))):
        assert program.compare(hidden)["differing"][0]["text"] is None


def test_accounts_are_known_by_number(program: Any) -> None:
    asked = order(accounts=[{"name": OWNER, "home": "/"}, {"name": "no-such-user", "home": "/"}])
    assert program.compare(asked)["accounts"] == {
        OWNER: {"uid": os.getuid(), "gid": pwd.getpwuid(os.getuid()).pw_gid},
        "no-such-user": None,
    }


def test_an_order_comes_as_base64(program: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = base64.b64encode(json.dumps(order(entry(tmp_path / "file"), write=False)).encode()).decode()
    assert program.main_encoded(text) == 0
    assert json.loads(capsys.readouterr().out)["differing"][0]["what"] == ["absent"]
    assert list(tmp_path.iterdir()) == []
