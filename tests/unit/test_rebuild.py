"""A lost host: what takes a machine for fresh, who is added back to an older directory, and whose SSH key is taken."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lemonstand.admin import holdings
from lemonstand.admin.people import Change, Person, changes_to, lists_of
from lemonstand.admin.rebuild import Rebuild, Source
from lemonstand.errors import InputError, LemonstandError
from lemonstand.remote import host_keys
from lemonstand.remote.connections import Connection

HOSTS = {"store1": "store1.inner", "store2": "store2.inner"}
PAIRS = {host: store for store, host in HOSTS.items()}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(holdings, "ROOT", tmp_path)
    return tmp_path


def _put(root: Path, name: str, text: str = "x") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_fresh_machine_holds_nothing(root: Path) -> None:
    _put(root, "var/lib/lemonstand/operations/history.jsonl")  # as soon as the site's lock was taken there
    _put(root, "etc/debian_version")
    assert holdings.answer({"action": "look"}) == {"holds": [], "mark": None}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("srv/vmail/lemon.test/alice/Maildir/cur/1", "1 mailboxes (alice@lemon.test)"),
        ("srv/vmail/.deleted/20261130T000000Z/lemon.test/bob/x", "1 mailboxes"),
        ("var/lib/ldap/lemonstand/data.mdb", "a directory"),
        ("etc/lemonstand/ticket/private/active.pem", "keys that sign tickets"),
        ("var/spool/postfix/deferred/A/ABC", "1 messages in a queue"),
        ("etc/lemonstand/backup/key", "settings of lemonstand"),
        ("var/lib/lemonstand/stamp.json", "it was set up by lemonstand 1"),
    ],
)
def test_what_a_machine_holds_is_named(root: Path, name: str, said: str) -> None:
    _put(root, name, json.dumps({"version": "1"}) if name.endswith("json") else "x")
    (found,) = holdings.answer({"action": "look"})["holds"]
    assert found.startswith(said)


def test_how_far_it_is_stands_on_the_machine(root: Path) -> None:
    assert holdings.answer({"action": "mark", "mark": {"phase": "back"}})["mark"] == {"phase": "back"}
    assert holdings.answer({"action": "done"})["mark"] is None
    assert holdings.answer({"action": "done"})["mark"] is None


def _person(name: str, **more: Any) -> Person:
    return Person(**{"name": name, "store": HOSTS["store1"], "id": name, **more})


def test_an_older_directory_is_brought_to_what_hosts_were_told() -> None:
    """Added, renamed, deleted, locked, unlocked, another alias and another quota since; a name that is somebody else's now."""
    before = {
        each.name: each
        for each in (
            _person("kept@x.org"),
            _person("old@x.org", aliases=("o@x.org",)),
            _person("gone@x.org"),
            _person("taken@x.org"),
            _person("in@x.org", locked=True),
            _person("out@x.org"),
            _person("more@x.org", quota=5),
        )
    }
    since = [
        Change(rename=[{"name": "old@x.org", "to": "new@x.org"}], delete=["gone@x.org", "taken@x.org"]),
        Change(set=[{"name": "more@x.org", "quota": 9, "aliases": ["m@x.org"]}], lock=["out@x.org"], unlock=["in@x.org"]),
        Change(add=[{"name": "taken@x.org", "id": "taken@x.org 1", "store": HOSTS["store2"], "aliases": [], "quota": 0, "locked": True}]),
    ]
    after = before
    for change in since:
        after = change.after(after)
    told = lists_of(after.values(), PAIRS)
    found = changes_to(before, told, HOSTS)
    again = before
    for change in found:
        again = change.after(again)
    assert lists_of(again.values(), PAIRS) == told
    assert [each["name"] for change in found for each in change.add] == ["taken@x.org"]
    assert all("password" not in each for change in found for each in change.add)
    assert changes_to(after, told, HOSTS) == []


def _way(tmp_path: Path, known: str) -> Connection:
    (tmp_path / "known").write_text(known, encoding="utf-8")
    return Connection("ssh://root@192.0.2.1", f"-F /dev/null -o UserKnownHostsFile={tmp_path / 'known'}", sudo=False)


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, str]:
    """A public key and its fingerprint."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True).stdout.split()[1]
    return " ".join((tmp_path / "key.pub").read_text(encoding="ascii").split()[:2]), shown


def test_a_key_is_taken_by_its_fingerprint_and_the_old_one_goes(
    tmp_path: Path, key: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    public, shown = key
    monkeypatch.setattr(host_keys, "_presented", lambda _host, _way: f"192.0.2.1 {public}")
    other = "192.0.2.2 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIvCBFXkXDOCuVZ2yT5qVqjXXxVTkfHJXuEX6rEJLpDm"
    old = "auth,192.0.2.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIvCBFXkXDOCuVZ2yT5qVqjXXxVTkfHJXuEX6rEJLpDm"
    way = _way(tmp_path, f"{other}\n{old}\n")
    assert host_keys.accept("auth", way, shown)
    assert (tmp_path / "known").read_text(encoding="utf-8").splitlines() == [other, f"192.0.2.1 {public}"]
    assert not host_keys.accept("auth", way, shown)


def test_another_key_changes_nothing(tmp_path: Path, key: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    public, shown = key
    monkeypatch.setattr(host_keys, "_presented", lambda _host, _way: f"192.0.2.1 {public}")
    way = _way(tmp_path, "")
    with pytest.raises(InputError, match="no fingerprint"):
        host_keys.accept("auth", way, shown[:-1])
    with pytest.raises(LemonstandError, match="another key") as fault:
        host_keys.accept("auth", way, "SHA256:" + "A" * 43)
    assert shown not in str(fault.value), "who copies it has compared nothing"
    assert (tmp_path / "known").read_text(encoding="utf-8") == ""


def test_what_ssh_says_of_a_machine_it_does_not_know() -> None:
    assert host_keys.is_unknown("Host key verification failed.\r\n")
    assert not host_keys.is_unknown("ssh: connect to host 192.0.2.1 port 22: Connection refused")


class Site:
    """The hosts of a site of two of each, and whether it is backed up."""

    def __init__(self, *, backed: bool = True) -> None:
        groups = {"auths": ("auth1", "auth2"), "stores": ("store1", "standby1"), "relays": ("relay",), "edges": ("edge",), "frontends": ()}
        self.inventory = Path("site")
        self.pairs = {"store1": ("store1", "standby1")}
        self.hosts = {name: SimpleNamespace(name=name, groups=(group,)) for group, names in groups.items() for name in names}
        backup = SimpleNamespace(name="backup.test") if backed else None
        self.settings = SimpleNamespace(services=SimpleNamespace(backup=backup), internal_domain="inner")

    def group(self, name: str) -> tuple[Any, ...]:
        return tuple(host for host in self.hosts.values() if name in host.groups)


class Asked:
    """Hosts of which some answer."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def run(self, host: str, *_: Any, **__: Any) -> str:
        if host not in self.answers:
            raise LemonstandError("no answer", host, "")
        return self.answers[host]

    def run_on(self, hosts: list[str], *_: Any, **__: Any) -> dict[str, Any]:
        return {host: self.answers.get(host, LemonstandError("no answer", host, "")) for host in hosts}


def _told(serves: str) -> str:
    return json.dumps({"generation": 3, "edition": 1, "active": {"store1": {"host": serves, "since": 3}}, "users": {}})


SOURCES = {
    "a twin that has people": ("auth1", {"auth2": '{"users": [{}], "edition": 1}'}, Source("twin", "auth2")),
    "a twin that lost them too": ("auth1", {"auth2": '{"users": [], "edition": 0}'}, Source("backup")),
    "no twin": ("auth1", {}, Source("backup")),
    "a standby that does not serve yet": (
        "store1",
        {"standby1": _told("store1"), "relay": _told("store1")},
        Source("pair", "standby1", promote=True),
    ),
    "a standby that serves": ("store1", {"standby1": _told("standby1")}, Source("pair", "standby1")),
    "the standby is lost": ("standby1", {"store1": _told("store1")}, Source("pair", "store1")),
    "both of a pair are lost": ("store1", {"relay": _told("store1")}, Source("backup")),
    "a relay": ("relay", {}, Source("nothing")),
    "an edge": ("edge", {}, Source("nothing")),
}


@pytest.mark.parametrize("case", SOURCES)
def test_where_what_a_host_had_comes_from(case: str) -> None:
    host, answers, source = SOURCES[case]
    work = Rebuild(cast("Any", Site()), cast("Any", Asked(answers)), host, lambda _: None)
    assert work.source() == source
    assert work.plan(source, "")[-1] == f"see that {host} answers"
    assert work.runs_on[0] == host


def test_without_backups_a_lone_store_has_nothing() -> None:
    work = Rebuild(cast("Any", Site(backed=False)), cast("Any", Asked({})), "store1", lambda _: None)
    assert work.source() == Source("nothing")
    assert work.lost(Source("nothing"), "") == ["all its mail"]
    with pytest.raises(InputError, match="no host that can be rebuilt"):
        Rebuild(cast("Any", Site()), cast("Any", Asked({})), "nobody", lambda _: None)
