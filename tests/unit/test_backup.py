"""The program that backs up a host: what it takes for equal, for newer, and for a user."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lemonstand.admin import health
from lemonstand.cli.backup import age, size
from programs import load

backup = load("roles/backup/files/backup.py")
LDIF = """dn: o=x
objectClass: organization
contextCSN: 20261130000000.000000Z#000000#000#000000
entryCSN: 20261130000001.000000Z#000000#000#000000

dn:: dWlkPcOkLG89eA==
uid: a long
  line
entryCSN: 20261130000002.000000Z#000000#000#000000

"""


def test_entries_are_compared_without_what_only_counts_where_it_is() -> None:
    found = backup.blocks(LDIF)
    assert list(found) == ["o=x", "dWlkPcOkLG89eA=="]
    assert "contextCSN" not in found["o=x"] and "uid: a long line" in found["dWlkPcOkLG89eA=="]
    assert found == backup.blocks(
        LDIF.replace("objectClass: organization\n", "").replace("dn: o=x\n", "dn: o=x\nobjectClass: organization\n")
    )
    assert found != backup.blocks(LDIF.replace("a long", "another"))


def test_the_newest_change_is_found() -> None:
    assert backup.changed_at(LDIF).startswith("20261130000002")
    assert not backup.changed_at("")


@pytest.mark.parametrize("name", ["", "a", "a@", "@x", "../../etc@x", "a@..", "a@x/y", ".hidden@x", "a\0@x"])
def test_a_name_that_leads_elsewhere_is_no_user(name: str) -> None:
    with pytest.raises(backup.Failed):
        backup.spool_of(name)


def test_a_user_has_one_place() -> None:
    assert backup.spool_of("o'hara@lemon.test") == backup.SPOOL / "lemon.test" / "o'hara"


def test_homes_leave_out_what_was_set_aside(tmp_path: Path) -> None:
    for each in ("x.test/alice", ".set-aside/x.test", "x.test/.tmp"):
        (tmp_path / each).mkdir(parents=True)
    assert [user for user, _ in backup.homes(tmp_path)] == ["alice@x.test"]
    assert not list(backup.homes(tmp_path / "nowhere"))


def test_an_order_that_can_not_be_done_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backup, "FOLDER", tmp_path)
    answer = backup.answer({"action": "status"})
    assert answer["error"] == "this host is not backed up" and "lemonstand_services" in answer["remedy"]


def test_two_at_a_time_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATE", "RUN", "SCRATCH"):
        monkeypatch.setattr(backup, name, tmp_path / name.lower())
    with backup.alone(), pytest.raises(backup.Failed, match="under way"), backup.alone():
        pass


def test_a_program_that_fails_says_its_last_word() -> None:
    with pytest.raises(backup.Failed, match="out of paper") as caught:
        backup.call([sys.executable, "-c", "import sys; sys.exit('out of paper')"])
    assert backup.code_of(caught.value) == 1


def _alarms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, word: dict[str, Any] | None, timer: str = "active") -> list[str]:
    given, said = tmp_path / "settings.json", tmp_path / "state.json"
    given.write_text(json.dumps({"oldest": 3600}), encoding="utf-8")
    if word is not None:
        said.write_text(json.dumps(word), encoding="utf-8")
    monkeypatch.setattr(health, "BACKUP_SETTINGS", given)
    monkeypatch.setattr(health, "BACKUP_WORD", said)
    monkeypatch.setattr(health, "show", lambda _: {"ActiveState": timer})
    return [each["details"] for each in health.backups(60)]


def test_alarms_name_what_is_wrong_with_backups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = time.time()
    good = {"made": {"at": now - 60}, "proven": {"at": now - 50}}
    assert not _alarms(monkeypatch, tmp_path, good)
    assert ["timer=inactive" in each for each in _alarms(monkeypatch, tmp_path, good, "inactive")] == [True]
    (old,) = _alarms(monkeypatch, tmp_path, {**good, "made": {"at": now - 7200}})
    assert "the last backup is 2.0h old, 1h at the most" in old
    (unproven,) = _alarms(monkeypatch, tmp_path, {"made": good["made"]})
    assert "no proof that it comes back" in unproven
    (failed,) = _alarms(monkeypatch, tmp_path, {**good, "fault": {"at": now, "what": "no room"}})
    assert "no room" in failed


def test_never_a_backup_is_an_alarm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "there was no backup yet" in _alarms(monkeypatch, tmp_path, None)


def test_a_host_that_is_not_backed_up_has_no_alarm_of_backups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(health, "BACKUP_SETTINGS", tmp_path / "nothing")
    assert not list(health.backups(60))


def test_sizes_and_ages_are_shown_as_people_read_them() -> None:
    assert [size(each) for each in (0, 1023, 1536, 3 << 30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]
    assert [age(each) for each in (None, 3600, 86400 * 3)] == ["never", "1.0 h ago", "3.0 d ago"]
