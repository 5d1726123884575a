"""Who is served where: what hosts remember, what follows from it on stores and relays, and who may bring a copy."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import importlib.util
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lemonstand.admin.placement import newest, serving

ROLES = Path(__file__).parents[2] / "roles"
MEMBERS = {"store1": ["store1", "standby1"], "store2": ["store2"]}
USERS = {"alice@lemon.test": "store1", "bob@lemon.test": "store2", "o'hara@lemon.test": "store1"}
ADDRESSES = {"store1": ["10.83.4.10"], "standby1": ["10.83.4.12"], "store2": ["10.83.4.11"]}
LIST = (
    "# who\n"
    "alice@lemon.test:::::/srv/vmail/lemon.test/alice::userdb_sieve_user_email=alice@lemon.test\n"
    "bob@lemon.test:::::/srv/vmail/lemon.test/bob::userdb_sieve_user_email=bob@lemon.test\n"
    "o\\'hara@lemon.test:::::/srv/vmail/lemon.test/o'hara::userdb_sieve_user_email=o'hara@lemon.test\n"
    "a.liddell@lemon.test:::::/srv/vmail/lemon.test/alice::userdb_user=alice@lemon.test userdb_sieve_user_email=alice@lemon.test\n"
)
HEAD = (
    b"Return-Path: <x@peer.test>\nReceived: from mx.peer.test\n"
    b"\tby mx.lemon.test (Postfix) with ESMTPS id 4jdVRR1L6XzDm1y; now\nSubject: x\n"
)


def _load(role: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROLES / role / "files" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


placement = _load("base", "placement")
served = _load("mail_store", "served_users")
names = _load("mail_store", "home_names")
commands = _load("mail_store", "home_commands")
standby = _load("mail_store", "mail_standby")
relay = _load("mail_relay", "relay_placement")
way = _load("mail_store", "relay_way")


def told(generation: int = 0, **changes: Any) -> dict[str, Any]:
    """A placement."""
    aliases = {"a.liddell@lemon.test": "alice@lemon.test"}
    return {**placement.EMPTY, "generation": generation, "users": dict(USERS), "aliases": aliases, **changes}


PROMOTED = {"store1": {"host": "standby1", "since": 3}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a host keeps its placement."""
    for name, value in {"PLACE": tmp_path / "placement.json", "LOCK": tmp_path / "lock", "FOLLOWERS": tmp_path / "followers"}.items():
        monkeypatch.setattr(placement, name, value)
    for function, arguments in ((placement.read, 0), (placement.write, 1)):
        defaults = function.__defaults__
        assert defaults is not None and len(defaults) == 1, arguments
        monkeypatch.setattr(function, "__defaults__", (tmp_path / "placement.json",))
    return tmp_path / "placement.json"


# --- what a host remembers ----------------------------------------------------------------------------------------------------------


def test_who_has_a_place_keeps_it_whatever_the_inventory_says() -> None:
    before = told(4, active=PROMOTED, edition=2, said=USERS)
    after = placement.seeded(before, {**USERS, "alice@lemon.test": "store2", "new@lemon.test": "store2"}, {}, None)
    assert after["users"]["alice@lemon.test"] == "store1"
    assert after["users"]["new@lemon.test"] == "store2"
    assert after["said"]["alice@lemon.test"] == "store2"
    assert (after["generation"], after["active"], after["edition"]) == (4, PROMOTED, 2)


def test_the_inventory_seeds_a_name_once_and_takes_nobody_away() -> None:
    seeded = placement.seeded(placement.EMPTY, USERS, {"a@lemon.test": "alice@lemon.test"}, None)
    assert (seeded["users"], seeded["aliases"], seeded["edition"]) == (USERS, {"a@lemon.test": "alice@lemon.test"}, 0)
    gone = {**seeded, "users": {"carol@lemon.test": "store1"}, "aliases": {"bob@lemon.test": "carol@lemon.test"}, "edition": 3}
    again = placement.seeded(gone, {**USERS, "dan@lemon.test": "store1"}, {"a@lemon.test": "alice@lemon.test"}, None)
    assert again["users"] == {"carol@lemon.test": "store1", "dan@lemon.test": "store1"}, "deleted and renamed people stay so"
    assert again["aliases"] == {"bob@lemon.test": "carol@lemon.test"}
    assert placement.seeded(again, {}, {}, None) == again, "who left the inventory stays"


def test_a_version_without_aliases_gets_them_from_the_inventory_once() -> None:
    before = told(2, aliases={})
    after = placement.seeded(before, USERS, {"a@lemon.test": "alice@lemon.test", "x@lemon.test": "nobody@lemon.test"}, None)
    assert after["aliases"] == {"a@lemon.test": "alice@lemon.test"} and after["edition"] == 0
    assert placement.seeded({**after, "aliases": {}}, USERS, {"a@lemon.test": "alice@lemon.test"}, None)["aliases"] == {}


@pytest.mark.parametrize(("mine", "theirs", "wins"), [(2, 3, 3), (3, 2, 3), (0, 1, 1)])
def test_a_rebuilt_host_takes_the_newest_word(mine: int, theirs: int, wins: int) -> None:
    other = told(theirs, users={"alice@lemon.test": "store2"}) if theirs > mine else told(theirs)
    after = placement.seeded(told(mine), USERS, {}, other)
    assert after["generation"] == wins
    assert after["users"]["alice@lemon.test"] == ("store2" if theirs > mine else "store1")


def test_who_serves_and_who_there_is_are_numbered_apart() -> None:
    mine, theirs = told(5, active=PROMOTED, edition=1), told(3, edition=4, users={"new@lemon.test": "store1"})
    for after in (placement.merged(mine, theirs), placement.merged(theirs, mine)):
        assert (after["generation"], after["active"]) == (5, PROMOTED)
        assert (after["edition"], after["users"]) == (4, {"new@lemon.test": "store1"})


def test_a_change_of_people_is_taken_by_who_has_what_it_changes(place: Path) -> None:
    placement.write(told(1, edition=4, aliases={}))
    digest = placement.digest(told(1, edition=4, aliases={}))
    change = {"edition": 5, "since": 4, "digest": digest, "users": {"new@lemon.test": "store2", "bob@lemon.test": None}}
    change |= {"aliases": {"n@lemon.test": "new@lemon.test"}, "ids": {"new@lemon.test": "x"}, "locked": {"alice@lemon.test": True}}
    assert placement.take_people({**change, "digest": "another"})["behind"]
    assert placement.take_people({**change, "since": 3})["behind"]
    after = placement.take_people(change)
    assert (after["behind"], after["edition"]) == (False, 5)
    said = json.loads(place.read_text(encoding="utf-8"))
    assert set(said["users"]) == {"alice@lemon.test", "o'hara@lemon.test", "new@lemon.test"}
    assert (said["aliases"], said["ids"], said["locked"]) == (change["aliases"], change["ids"], ["alice@lemon.test"])
    assert after["digest"] == placement.digest(said) and after["counts"] == {"store1": 2, "store2": 1}
    whole = {"edition": 6, "all": {"users": {"bob@lemon.test": "store2"}}}
    assert not placement.take_people(whole)["behind"]
    said = json.loads(place.read_text(encoding="utf-8"))
    assert (said["users"], said["aliases"], said["generation"]) == ({"bob@lemon.test": "store2"}, {}, 1)
    assert not placement.take_people(change)["behind"], "an older word changes nothing"
    assert json.loads(place.read_text(encoding="utf-8")) == said


def test_an_older_word_replaces_nothing(place: Path) -> None:
    assert placement.put(told(5, active=PROMOTED))
    assert not placement.put(told(4))
    assert not placement.put(told(5))
    assert json.loads(place.read_text(encoding="utf-8"))["active"] == PROMOTED


def test_a_placement_that_is_cut_off_is_no_empty_one(place: Path) -> None:
    place.write_text('{"generation": 3, "us', encoding="utf-8")
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        placement.read()


# --- stores -------------------------------------------------------------------------------------------------------------------------


def _served(me: str, words: dict[str, Any], *, logins: bool = False) -> dict[str, bool]:
    settings = {"me": me, "members": MEMBERS, "directory": "/srv/vmail"}
    lines = served.lines_of(words, settings, logins=logins)
    return {line.partition(":")[0]: "userdb_tempfail=yes" not in line for line in lines}


def test_dovecots_list_says_where_homes_are_and_whose_an_alias_is() -> None:
    lines = [line for _, _, line in served.everybody(told(), "/srv/vmail")]
    assert lines == LIST.splitlines()[1:]


def test_who_is_locked_gets_mail_and_gets_in_nowhere() -> None:
    words = told(locked=["alice@lemon.test"])
    assert not _served("store1", words, logins=True)["alice@lemon.test"]
    assert not _served("store1", words, logins=True)["a.liddell@lemon.test"]
    assert _served("store1", words)["alice@lemon.test"]


def test_a_store_serves_its_own_users_and_puts_off_all_others() -> None:
    found = _served("store1", told())
    assert found["alice@lemon.test"] and found["a.liddell@lemon.test"] and found["o\\'hara@lemon.test"]
    assert found["bob@lemon.test"] is False


def test_a_standby_serves_nobody_until_it_is_promoted() -> None:
    assert not any(here for name, here in _served("standby1", told()).items() if not name.endswith(".kept"))
    assert _served("standby1", told(3, active=PROMOTED))["alice@lemon.test"]
    assert not _served("store1", told(3, active=PROMOTED))["alice@lemon.test"]


def test_both_of_a_pair_have_a_shelf_and_nobody_else() -> None:
    for name in ("store1", "standby1"):
        assert _served(name, told())["a.liddell@lemon.test.store1.kept"]
    assert not [name for name in _served("store2", told()) if name.endswith(".kept")]


def test_a_user_of_no_store_is_served_nowhere() -> None:
    assert not _served("store1", told(users={"alice@lemon.test": "store9"}))["alice@lemon.test"]


def _pair(tmp_path: Path, me: str = "standby1") -> Any:
    settings = {"me": me, "store": "store1", "members": MEMBERS, "addresses": ADDRESSES, "directory": str(tmp_path), "interval": 5}
    return standby.Pair(settings)


@pytest.mark.parametrize(
    ("caller", "user", "since", "words"),
    [
        ("store2", "alice@lemon.test", 0, told()),
        ("", "alice@lemon.test", 0, told()),
        ("store1", "bob@lemon.test", 0, told()),
        ("store1", "nobody@lemon.test", 0, told()),
        ("store1", "alice@lemon.test", 1, told()),
        ("store1", "alice@lemon.test", 0, told(3, active=PROMOTED)),
        ("store1", "alice@lemon.test", 3, told(3, active=PROMOTED)),
        ("store1", "alice@lemon.test", 2, told(5, active={"store1": {"host": "store1", "since": 5}})),
    ],
)
def test_nobody_else_brings_a_copy(caller: str, user: str, since: int, words: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(standby.Refused):
        standby.allowed(_pair(tmp_path), words, caller, user, since)


def test_each_mailbox_goes_on_behind_what_clients_may_have_seen(tmp_path: Path) -> None:
    given: list[list[str]] = []

    def run(words: list[str]) -> str:
        given.append(words)
        rows = [
            {"mailbox": "INBOX", "uidnext": "7", "highestmodseq": "90"},
            {"mailbox": "a name with blanks", "uidnext": "1", "highestmodseq": "1"},
        ]
        return json.dumps(rows) if "status" in words else ""

    assert commands.leave_gap("alice@lemon.test", tmp_path, run) == 2
    whose = ["env", "USER=alice@lemon.test", "doveadm", "-o", f"mail_home={tmp_path}"]
    assert given == [
        [*whose, "-f", "json", "mailbox", "status", "--no-userdb-lookup", "uidnext highestmodseq", "*"],
        [*whose, "mailbox", "update", "--no-userdb-lookup", "--min-next-uid", "1000007", "--min-highest-modseq", "1000090", "INBOX"],
        [
            *whose, "mailbox", "update", "--no-userdb-lookup", "--min-next-uid", "1000001", "--min-highest-modseq", "1000001",
            "a name with blanks",
        ],
    ]  # fmt: skip


def test_nothing_is_brought_to_who_is_about_to_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "TAKING_OVER", tmp_path / "taking-over")
    assert standby.allowed(_pair(tmp_path), told(), "store1", "alice@lemon.test", 0)
    with (tmp_path / "taking-over").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(standby.Refused, match="about to serve"):
            standby.allowed(_pair(tmp_path), told(), "store1", "alice@lemon.test", 0)
    assert standby.allowed(_pair(tmp_path), told(), "store1", "alice@lemon.test", 0)


def test_the_store_that_serves_brings_it_and_says_since_when(tmp_path: Path) -> None:
    assert standby.allowed(_pair(tmp_path), told(), "store1", "alice@lemon.test", 0) == "store1:0"
    back = told(5, active={"store1": {"host": "store1", "since": 5}})
    assert standby.allowed(_pair(tmp_path), back, "store1", "alice@lemon.test", 5) == "store1:5"


def test_who_moves_here_is_taken_from_where_he_was_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "EXPECTED", tmp_path)
    (tmp_path / "bob@lemon.test").write_text("store2:4", encoding="utf-8")
    pair = _pair(tmp_path, "store1")
    assert standby.allowed(pair, told(), "store2", "bob@lemon.test", 0) == "moved from store2:4"
    with pytest.raises(standby.Refused):
        standby.allowed(pair, told(), "standby1", "bob@lemon.test", 0)
    here = told(4, users={**USERS, "bob@lemon.test": "store1"})
    assert standby.allowed(pair, here, "store2", "bob@lemon.test", 0, merge=True) == ""
    with pytest.raises(standby.Refused):  # he is served here by now: nobody replaces what he has
        standby.allowed(pair, here, "store2", "bob@lemon.test", 0)


@pytest.mark.parametrize("name", ["../alice@lemon.test", "alice@..", "a/b@lemon.test", ".kept@lemon.test", "alice", "al\0ice@lemon.test"])
def test_no_name_leads_out_of_the_directory(name: str) -> None:
    with pytest.raises(standby.Refused):
        standby.home_of({"directory": "/srv/vmail"}, name)


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files stay whose they are: the tests' user is no root."""
    monkeypatch.setattr(shutil, "chown", lambda *_: None)


@pytest.mark.usefixtures("owned")
def test_what_is_no_copy_goes_aside_whole_and_a_copy_stays(tmp_path: Path) -> None:
    home = tmp_path / "lemon.test" / "alice"
    (home / "Maildir" / "new").mkdir(parents=True)
    (home / "Maildir" / "new" / "1").write_text("alone here", encoding="utf-8")
    standby.prepare(home, tmp_path, "store1:0")
    (aside,) = (tmp_path / standby.ASIDE).glob("*/lemon.test/alice/Maildir/new/1")
    assert aside.read_text(encoding="utf-8") == "alone here"
    (home / "mail").write_text("copied", encoding="utf-8")
    standby.prepare(home, tmp_path, "store1:0")
    assert (home / "mail").exists()
    standby.prepare(home, tmp_path, "standby1:7")
    assert not (home / "mail").exists()


def _message(home: Path, name: str = "1", box: str = "") -> Path:
    path = home / "Maildir" / box / "new" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEAD)
    return path


def test_a_message_is_known_by_the_relays_line_wherever_it_lies(tmp_path: Path) -> None:
    _message(tmp_path, box=".Work")
    known_by = standby.identity(HEAD)
    assert b"id 4jdVRR1L6XzDm1y" in known_by
    assert standby.holds(tmp_path, known_by, time.time() - 60)
    assert not standby.holds(tmp_path, known_by.replace(b"4jd", b"5jd"), time.time() - 60)
    assert standby.identity(HEAD.replace(b"x@peer.test", b"y@peer.test")) == known_by


def test_changes_are_seen(tmp_path: Path) -> None:
    def changed(what: Callable[[], object]) -> bool:
        before = standby.signature(tmp_path)
        time.sleep(0.02)
        what()
        return bool(standby.signature(tmp_path) != before)

    _message(tmp_path)
    (tmp_path / "Maildir" / "cur").mkdir()
    assert not changed(lambda: None)
    assert changed(lambda: _message(tmp_path, "2"))
    assert changed(lambda: (tmp_path / "Maildir/new/2").rename(tmp_path / "Maildir/cur/2:2,S"))
    assert changed(lambda: _message(tmp_path, "3", ".Work"))
    assert changed(lambda: (tmp_path / "Maildir/subscriptions").write_text("Work\n", encoding="utf-8"))
    assert changed(lambda: (tmp_path / "dovecot-attributes").write_text("x\n", encoding="utf-8"))
    assert changed(lambda: (tmp_path / ".dovecot.sieve").symlink_to("sieve/main.sieve"))


@pytest.mark.parametrize("size", [1, 70_000, 5_000_000])
def test_octets_come_through_both_ways(size: int, tmp_path: Path) -> None:
    """By TLS, more than any buffer holds."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run([*words, "-subj", "/CN=x", "-days", "1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    left, right = socket.socketpair()
    plain, ours = socket.socketpair()
    sent = os.urandom(size)

    def echo() -> None:
        with context.wrap_socket(left, server_side=True) as far:
            got = b""
            while len(got) < size:
                got += far.recv(65536)
            far.sendall(got)
            far.recv(1)

    threads = [threading.Thread(target=echo, daemon=True)]
    threads[0].start()
    secure = trusting.wrap_socket(right)
    threads.append(threading.Thread(target=standby.pump, args=(secure, plain), daemon=True))
    threads[1].start()
    threading.Thread(target=ours.sendall, args=(sent,), daemon=True).start()
    back = b""
    ours.settimeout(20)
    while len(back) < size:
        back += ours.recv(65536)
    assert back == sent
    ours.close()
    threads[1].join(10)
    assert not threads[1].is_alive()
    for each in (secure, plain):
        each.close()


# --- relays -------------------------------------------------------------------------------------------------------------------------


def _tables(words: dict[str, Any], postmaster: str = "alice@lemon.test") -> dict[str, dict[str, str]]:
    settings = {
        "members": MEMBERS,
        "addresses": ADDRESSES,
        "domains": ["lemon.test"],
        "hostname": "mx.lemon.test",
        "postmaster": postmaster,
        "port": 24,
    }
    found = relay.tables(words, settings)
    return {name: dict(line.split(" ", 1) for line in text.splitlines()) for name, text in found.items()}


def test_everybody_gets_mail_and_sends_from_his_own_addresses() -> None:
    found = _tables(told())
    assert set(found["recipients"]) == {*USERS, "a.liddell@lemon.test"} == set(found["senders"])
    assert found["senders"]["a.liddell@lemon.test"] == "alice@lemon.test"
    assert list(found)[-1] == "recipients", "nobody gets mail before everything else knows him"
    assert set(_tables(told(users={"bob@lemon.test": "store2"}))["recipients"]) == {"bob@lemon.test"}


def test_what_domains_owe_the_world_goes_to_somebody_who_is_there() -> None:
    assert _tables(told())["roles"]["abuse@lemon.test"] == "alice@lemon.test"
    assert _tables(told(), postmaster="gone@lemon.test")["roles"]["root@mx.lemon.test"] == "a.liddell@lemon.test"
    assert "postmaster@lemon.test" not in _tables(told(aliases={"postmaster@lemon.test": "bob@lemon.test"}))["roles"]


def _way(found: dict[str, dict[str, str]], address: str) -> str:
    """Where mail for an address goes: its own entry, or its domain's."""
    return found["transport"].get(address) or found["transport"][address.partition("@")[2]]


def test_mail_goes_to_who_serves_and_its_copy_to_the_other() -> None:
    before, after = _tables(told()), _tables(told(3, active=PROMOTED))
    for address in ("alice@lemon.test", "a.liddell@lemon.test"):
        assert _way(before, address) == "lmtp:[10.83.4.10]:24"
        assert _way(after, address) == "lmtp:[10.83.4.12]:24"
    assert before["transport"][".store1.kept"] == "lmtp:[10.83.4.12]:24"
    assert after["transport"][".store1.kept"] == "lmtp:[10.83.4.10]:24"
    assert _way(before, "bob@lemon.test") == _way(after, "bob@lemon.test") == "lmtp:[10.83.4.11]:24"


def test_who_moved_gets_his_mail_there() -> None:
    moved = _tables(told(4, users={**USERS, "alice@lemon.test": "store2"}))
    assert _way(moved, "a.liddell@lemon.test") == "lmtp:[10.83.4.11]:24"
    assert "alice@lemon.test" not in moved["kept"]


def test_copies_of_what_somebody_else_reads_go_to_his_standby() -> None:
    found = _tables(told())
    assert found["kept"]["abuse@lemon.test"] == "abuse@lemon.test.all.kept"
    assert found["kept_aliases"]["abuse@lemon.test.all.kept"] == "alice@lemon.test.store1.kept"
    assert "abuse@lemon.test" not in _tables(told(), postmaster="bob@lemon.test")["kept"]


# --- homes and the people they are of -----------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store's mail, with what is told to Dovecot left out."""
    monkeypatch.setattr(served, "HOMES", tmp_path / "homes.json")
    monkeypatch.setattr(served, "RUN", tmp_path / "run")
    monkeypatch.setattr(served, "UNDER_WAY_SECONDS", 0)
    monkeypatch.setattr(shutil, "chown", lambda *_, **__: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", ""))
    return tmp_path / "mail"


def _follow(store: Path, **people: Any) -> None:
    settings = {"me": "store1", "members": {"store1": ["store1"]}, "directory": str(store), "lists": str(store.parent / "lists")}
    served.follow({**placement.EMPTY, **people}, settings)


def _mail_of(store: Path, user: str) -> Path:
    local, _, domain = user.partition("@")
    path = store / domain / local / "Maildir" / "new" / "1"
    path.parent.mkdir(parents=True)
    path.write_text(user, encoding="utf-8")
    return path


def test_mail_goes_where_its_owner_goes_whatever_names_are_given_again(store: Path) -> None:
    _mail_of(store, "alice@x.org"), _mail_of(store, "bob@x.org")
    _follow(store, users={"alice@x.org": "store1", "bob@x.org": "store1"})
    _follow(store, users={"carol@x.org": "store1", "bob@x.org": "store1"}, ids={"carol@x.org": "alice@x.org"})
    assert (store / "x.org/carol/Maildir/new/1").read_text(encoding="utf-8") == "alice@x.org"
    assert not (store / "x.org/alice").exists()
    # Two exchange their names, and the first name of all is somebody else's now.
    users = {"bob@x.org": "store1", "carol@x.org": "store1", "alice@x.org": "store1"}
    ids = {"bob@x.org": "alice@x.org", "carol@x.org": "bob@x.org", "alice@x.org": "alice@x.org 2"}
    _follow(store, users=users, ids=ids)
    assert (store / "x.org/bob/Maildir/new/1").read_text(encoding="utf-8") == "alice@x.org"
    assert (store / "x.org/carol/Maildir/new/1").read_text(encoding="utf-8") == "bob@x.org"
    assert not (store / "x.org/alice").exists()


def test_mail_of_who_is_gone_goes_aside_and_whoever_gets_the_name_finds_nothing(store: Path) -> None:
    _mail_of(store, "alice@x.org")
    _follow(store, users={"alice@x.org": "store1"})
    _follow(store, users={"alice@x.org": "store1"}, ids={"alice@x.org": "alice@x.org 18"})
    assert not (store / "x.org/alice").exists()
    (aside,) = (store / ".deleted").glob("*/x.org/alice/Maildir/new/1")
    deleted = _load("mail_store", "deleted_mail")
    (kept,) = deleted.kept(store / ".deleted")
    assert (kept["name"], kept["messages"]) == ("alice@x.org", 1)
    with pytest.raises(ValueError, match="no home that went aside"):
        deleted.remove(store / ".deleted", [kept["home"], "../x.org/alice"])
    assert aside.exists()
    assert deleted.remove(store / ".deleted", [kept["home"]]) == [kept["home"]]
    assert not any((store / ".deleted").iterdir())


def test_a_home_that_was_there_and_is_lost_is_remembered(store: Path) -> None:
    _mail_of(store, "alice@x.org")
    _follow(store, users={"alice@x.org": "store1", "bob@x.org": "store1"})
    shutil.rmtree(store / "x.org/alice")
    _follow(store, users={"alice@x.org": "store1", "bob@x.org": "store1"})
    assert json.loads((store.parent / "homes.json").read_text(encoding="utf-8"))["there"] == ["alice@x.org"]


def test_submissions_go_to_the_first_relay_that_greets() -> None:
    async def session() -> tuple[bytes, list[str]]:
        async def greets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 here\r\n")
            await writer.drain()

        async def busy(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"421 full\r\n")
            writer.close()

        living = await asyncio.start_server(greets, "127.0.0.2", 0)
        port = living.sockets[0].getsockname()[1]
        full = await asyncio.start_server(busy, "127.0.0.3", port)
        relays = way.Relays(["127.0.0.4", "127.0.0.3", "127.0.0.2"], port)  # nobody listens at the first
        _, writer, greeting = await relays.greet()
        order = relays.order()
        writer.close()
        for server in (living, full):
            server.close()
        return greeting, order

    greeting, order = asyncio.run(session())
    assert greeting == b"220 here\r\n"
    assert order[0] == "127.0.0.2"


def test_without_any_relay_the_client_is_told_to_come_later() -> None:
    async def session() -> bytes:
        relays = way.Relays(["127.0.0.4"], 1)
        server = await asyncio.start_server(lambda reader, writer: way.carry(relays, reader, writer), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        said = await reader.read()
        writer.close()
        server.close()
        return said

    assert asyncio.run(session()).startswith(b"421 4.3.2")


@pytest.mark.parametrize(("known", "alone", "status"), [({}, True, 1), ({}, False, 0), (told(2), True, 0)])
def test_a_host_that_was_told_nothing_does_not_guess(
    known: dict[str, Any], alone: bool, status: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = {"users": USERS, "aliases": {}, "known": known, "alone": alone, "check": False}
    packed = base64.b64encode(json.dumps(order).encode()).decode()
    assert placement.main_encoded(packed) == status
    assert ("without --limit" in capsys.readouterr().err) == bool(status)
    assert place.exists() == (not status)
    if not status:  # and what it has been told it keeps, alone or not
        assert placement.main_encoded(base64.b64encode(json.dumps({**order, "alone": True, "known": {}}).encode()).decode()) == 0


def test_who_serves_and_who_there_is_are_taken_from_whoever_knows_it_newest() -> None:
    told = {
        "store1": {"generation": 7, "active": {"store1": {"host": "standby1"}}, "edition": 3, "users": {"old@x": "store1"}},
        "relay1": {"generation": 6, "active": {}, "edition": 4, "users": {"new@x": "store1"}},
    }
    found = newest(told)
    assert serving(found, "store1") == "standby1"
    assert found["users"] == {"new@x": "store1"}


def test_an_anvil_that_spins_is_ended_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was at work for all of twenty seconds; not one that had much to do before, nor another program."""
    ticks, ended, now = os.sysconf("SC_CLK_TCK"), list[int](), [1000.0]

    def at_work(process: int, name: str, seconds: float) -> None:
        (tmp_path / str(process)).mkdir(exist_ok=True)
        fields = ["S", *["0"] * 10, str(int(seconds * ticks)), "0", "0"]
        (tmp_path / str(process) / "stat").write_text(f"{process} ({name}) {' '.join(fields)}\n")

    monkeypatch.setattr(standby.os, "kill", lambda process, _: ended.append(process))
    monkeypatch.setattr(standby.time, "monotonic", lambda: now[0])
    anvil = standby.Anvil(tmp_path)
    for process, name in ((5, "anvil"), (6, "anvil"), (7, "imap")):
        at_work(process, name, 100.0)
    assert anvil.look() == []
    now[0] += anvil.PATIENCE_SECONDS + 1
    for process, name, seconds in ((5, "anvil", 120.0), (6, "anvil", 101.0), (7, "imap", 121.0)):
        at_work(process, name, seconds)
    assert anvil.look() == [5] == ended
    now[0] += anvil.PATIENCE_SECONDS + 1
    assert anvil.look() == [], "what works no more is left alone"
