"""App passwords: their form, what the issuer tries them on, and what operators are told."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lemonstand import admin
from lemonstand.admin import app_passwords
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site import load_site
from programs import ROOT, load
from sample_site import sound_site, write_site

ALICE = "alice@lemon.test"
STORED = {"name": ALICE, "id": "k7rq", "device": "Telephone", "made": "20261201030000Z", "used": ""}


@pytest.fixture(scope="module")
def issuer() -> ModuleType:
    return load("roles/ticket_issuer/files/ticket_issuer.py")


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load("roles/directory/files/directory_users.py")


@pytest.fixture(scope="module")
def sessions() -> ModuleType:
    return load("roles/imap_frontend/files/proxied_sessions.py")


def test_all_three_programs_know_the_form(issuer: ModuleType, program: ModuleType) -> None:
    made = {app_passwords.generate_app_password() for _ in range(200)}
    assert len({each[:4] for each in made}) > 150
    for text in made:
        form = issuer.APP_PASSWORD.fullmatch(text)
        assert form and form[1] == text[:4]
        assert program.FORM.fullmatch(text)
    assert not issuer.APP_PASSWORD.fullmatch(admin.generate_password())
    assert not program.FORM.fullmatch("correct horse battery")


def test_no_users_own_password_has_that_form(program: ModuleType) -> None:
    text = app_passwords.generate_app_password()
    with pytest.raises(program.SeedError, match="form of an app password") as caught:
        program.check_password(text, ALICE, 12)
    assert text not in str(caught.value)


def test_one_password_is_tried_on_one_entry(issuer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = issuer.LdapDirectory("ldap://x", "ldapi://x", "dc=x", 1)
    known: set[str] = set()
    asked: list[str] = []

    def looked_up(dn: str) -> dict[str, Any] | None:
        asked.append(dn)
        return {} if dn in known else None

    monkeypatch.setattr(directory, "_looked_up", looked_up)
    text = app_passwords.generate_app_password()
    own, device = f"uid={ALICE},ou=people,dc=x", f"cn={text[:4]},uid={ALICE},ou=people,dc=x"
    assert directory._whose(ALICE, "correct horse battery") == ("", own)
    assert not asked, "what is no app password costs no question"
    assert directory._whose(ALICE, text) == ("", own)
    known.add(device)
    assert directory._whose(ALICE, text) == (text[:4], device)


def test_uses_are_written_down_once_an_hour_and_read_by_operators(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket_uses, path = load("roles/ticket_issuer/files/ticket_uses.py"), tmp_path / "uses.sqlite"
    stored = load("roles/directory/files/directory_app_passwords.py")
    monkeypatch.setattr(stored, "USES", path)
    assert stored.uses() == {}
    moment = 1_764_561_600.0  # 2025-12-01 04:00:00 UTC
    uses = ticket_uses.Uses(str(path), lambda: moment)
    uses.note(ALICE, "k7rq")
    moment += 1800
    uses.note(ALICE, "k7rq")
    assert stored.uses() == {(ALICE, "k7rq"): "20251201040000Z"}
    moment += 1800
    uses.note(ALICE, "k7rq")
    assert stored.uses() == {(ALICE, "k7rq"): "20251201050000Z"}


def test_a_file_that_fails_stops_no_login(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load("roles/ticket_issuer/files/ticket_uses.py").Uses(str(tmp_path / "missing" / "uses.sqlite")).note(ALICE, "k7rq")
    assert "is not written down" in caplog.text


class Hosts:
    """Answers as auth hosts and frontends would, and remembers what they were told."""

    def __init__(self, there: list[dict[str, str]], away: dict[str, str] | None = None) -> None:
        self.there = there
        self.away = away or {}
        self.orders: list[dict[str, Any]] = []
        self.ended: list[tuple[str, str]] = []
        self.left = 0
        self.marks: list[str] = []

    def run(self, _: str, command: Any, given: str = "", *, codes: Any = (0,)) -> str:
        order = json.loads(given)
        self.orders.append(order)
        assert not [word for word in command if order.get("password", "x") in word], "a password in a command's words"
        if order["action"] == "revoke":
            self.there = [each for each in self.there if each["id"] not in order["ids"]]
        return json.dumps({"done": "done"})

    def run_on(self, hosts: Any, command: Any, given: str = "", *, codes: Any = (0,)) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for host in hosts:
            if host in self.away:
                answers[host] = LemonstandError(self.away[host], host, "see that it is up")
            elif command[-1] == "-":
                order = json.loads(base64.b64decode(given.splitlines()[-1].split('"')[1]))
                if order["action"] == "marks":
                    answers[host] = json.dumps({"marks": self.marks})
                    continue
                self.ended += [(host, mark) for mark in order["marks"]]
                answers[host] = json.dumps({"ended": len(order["marks"]), "left": self.left})
            else:
                answers[host] = json.dumps({"app_passwords": self.there})
        return answers


@pytest.fixture
def said() -> list[str]:
    return []


def _ours(tmp_path: Path, hosts: Hosts, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(app_passwords, "UNDER_WAY_SECONDS", 0)
    return app_passwords.AppPasswords(load_site(write_site(tmp_path, sound_site())), hosts, said.append)  # type: ignore[arg-type]


def test_one_is_made_and_kept_nowhere(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts([])
    text = _ours(tmp_path, hosts, said, monkeypatch).add("Alice@Lemon.Test", " Telephone ")
    (order,) = hosts.orders
    assert order == {"action": "app-password", "name": ALICE, "device": "Telephone", "password": text}
    assert text not in " ".join(said)


def test_a_list_says_when_each_was_used_last(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts([STORED, {**STORED, "id": "aaaa", "device": "laptop", "used": "20261201040000.123456Z"}])
    laptop, telephone = _ours(tmp_path, hosts, said, monkeypatch).of(ALICE)
    assert (laptop.device, laptop.used) == ("laptop", datetime(2026, 12, 1, 4, tzinfo=UTC))
    assert (telephone.made, telephone.used) == (datetime(2026, 12, 1, 3, tzinfo=UTC), None)


@pytest.mark.parametrize("typed", ["telephone", "Telephone", "k7rq"])
def test_one_that_is_revoked_ends_its_sessions_alone(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    hosts = Hosts([STORED, {**STORED, "id": "aaaa", "device": "laptop"}])
    _ours(tmp_path, hosts, said, monkeypatch).revoke(ALICE, typed)
    assert [order["ids"] for order in hosts.orders] == [["k7rq"]]
    assert {mark for _, mark in hosts.ended} == {f"k7rq/{ALICE}"}
    assert [each["device"] for each in hosts.there] == ["laptop"]


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts([STORED])
    with pytest.raises(InputError, match="no app password of 'telefone'") as caught:
        _ours(tmp_path, hosts, said, monkeypatch).revoke(ALICE, "telefone")
    assert "Telephone" in caught.value.remedy
    assert not hosts.orders


def test_what_a_command_that_was_cut_off_left_ends_with_the_next_one(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = Hosts([STORED])
    hosts.marks = [f"k7rq/{ALICE}", f"gone/{ALICE}", "gone/bob@lemon.test"]
    with pytest.raises(InputError, match="no app password of 'tablet'; sessions of one that is gone were ended: 1"):
        _ours(tmp_path, hosts, said, monkeypatch).revoke(ALICE, "tablet")
    assert {mark for _, mark in hosts.ended} == {f"gone/{ALICE}"}, "neither another's nor one that is there"
    assert not hosts.orders


def test_a_frontend_that_is_away_is_told_of(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts([STORED], {"frontend": "no route"})
    with pytest.raises(LemonstandError, match="it is revoked, and not all of its sessions on frontend could be ended: no route") as caught:
        _ours(tmp_path, hosts, said, monkeypatch).revoke(ALICE, "Telephone")
    assert not hosts.there
    assert "lemonstand user lock" in caught.value.remedy


def test_sessions_that_go_on_are_told_of(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts([STORED])
    hosts.left = 2
    with pytest.raises(LemonstandError, match="on frontend could be ended: 2 go on"):
        _ours(tmp_path, hosts, said, monkeypatch).revoke(ALICE, "Telephone")


WHO = """username\tservice\tpid\tip\tdest_ip\tuser_device
alice@lemon.test\timap-login\t11\t192.0.2.1\t192.0.2.20\tk7rq/alice@lemon.test
alice@lemon.test\timap-login\t12\t192.0.2.1\t192.0.2.20\t
bob@lemon.test\timap-login\t13\t192.0.2.1\t192.0.2.21\tk7rq/bob@lemon.test
alice@lemon.test\tsubmission-login\t13\t192.0.2.1\t192.0.2.20\tk7rq/alice@lemon.test
"""


def test_no_process_with_others_sessions_is_ended(sessions: ModuleType) -> None:
    there = sessions.sessions(WHO)
    assert [each.pid for each in there] == [11, 12, 13, 13]
    assert sessions.alone(there, sessions.chosen({"marks": ["k7rq/alice@lemon.test"]})) == [11]
    assert sessions.alone(there, sessions.chosen({"to": ["192.0.2.20"]})) == [11, 12]
    assert sessions.alone(there, sessions.chosen({"to": ["192.0.2.20", "192.0.2.21"]})) == [11, 12, 13]
    assert sessions.alone(there, sessions.chosen({})) == []
    assert sessions.sessions("") == []


def test_the_frontend_keeps_what_revoke_ends_by() -> None:
    lua = (ROOT / "roles/imap_frontend/templates/etc/dovecot/ticket.lua.j2").read_text(encoding="utf-8")
    assert re.search(r'user_device = device and \(device \.\. "/" \.\. user\)', lua)
    assert app_passwords.session_mark(ALICE, "k7rq") == f"k7rq/{ALICE}"
