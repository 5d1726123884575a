"""Changes of people: what is refused, what the directory and the lists are told, and that what was cut off is done by the same command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from test_placement import placement

from lemonstand import cli
from lemonstand.admin import People, roster
from lemonstand.admin.people import Change, Person, lists_of, steps_between
from lemonstand.cli.base import TOPICS
from lemonstand.errors import InputError, InputErrors, LemonstandError
from lemonstand.site import Site as SiteModel
from lemonstand.site import load_site
from sample_site import sound_site, write_site

ALICE, BOB, NEW = "alice@lemon.example", "bob@lemon.example", "new@lemon.example"
HOST = "store.site.lemon.example"


class Site:
    """The hosts of a site: a directory, and stores and relays that keep what they are told."""

    def __init__(self, model: SiteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.people: dict[str, dict[str, Any]] = {}
        self.edition = 0
        self.told: dict[str, dict[str, Any]] = {}
        self.away: set[str] = set()
        self.orders: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.cut_after = ""
        monkeypatch.setattr(placement, "followed", lambda: "")
        monkeypatch.setattr(placement, "LOCK", tmp_path / "lock")
        self.changes = People(model, self, self.said.append)  # type: ignore[arg-type]
        for name, aliases in ((ALICE, ["a@lemon.example"]), (BOB, [])):
            self.people[name] = vars(Person(name, HOST, tuple(aliases), id=name))
        seeded = {ALICE: "store", BOB: "store"}
        for host in ("store", "relay"):
            self.told[host] = placement.seeded(placement.EMPTY, seeded, {"a@lemon.example": ALICE}, None)

    def run(self, host: str, _command: Any, given: str = "", *, codes: Any = (0,)) -> str:
        order = json.loads(given)
        self.orders.append((host, order["action"]))
        if order["action"] == "people":
            self._change(order)
            return '{"done": "changed"}'
        wanted = order.get("names")
        found = [each for each in self.people.values() if wanted is None or {each["name"], *each["aliases"]} & set(wanted)]
        return json.dumps({"users": found, "edition": self.edition})

    def _change(self, order: dict[str, Any]) -> None:
        self.edition = order["edition"]
        there = {name: Person.of(each) for name, each in self.people.items()}
        change = Change(**{key: value for key, value in order.items() if key in vars(Change())})
        self.people = {name: vars(person) for name, person in change.after(there).items()}
        if self.cut_after == "directory":
            raise KeyboardInterrupt

    def run_on(self, hosts: Any, _command: Any, given: str = "", *, codes: Any = (0,)) -> dict[str, Any]:
        return {host: self._tell(host, json.loads(given)) for host in hosts}

    def _tell(self, host: str, order: dict[str, Any]) -> str | LemonstandError:
        if host in self.away:
            return LemonstandError("no route to host", host, "see whether it is up")
        self.orders.append((host, order["action"]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(placement, "read", lambda: self.told[host])
            patch.setattr(placement, "write", lambda after: self.told.update({host: after}))
            answer = placement.summary(self.told[host]) if order["action"] == "summary" else placement.take_people(order)
        if self.cut_after == host and order["action"] == "people":
            raise KeyboardInterrupt
        return json.dumps(answer)

    def in_step(self) -> bool:
        """Whether stores and relays have what the directory has."""
        lists = lists_of((Person.of(each) for each in self.people.values()), {HOST: "store"})
        return all({key: told[key] for key in lists} == lists for told in self.told.values())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SiteModel:
    return load_site(write_site(tmp_path_factory.mktemp("site"), sound_site()))


@pytest.fixture
def site(model: SiteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(model, tmp_path, monkeypatch)


def test_a_user_is_in_the_directory_first_then_at_stores_then_at_relays(site: Site) -> None:
    assert site.changes.add(NEW, aliases=["n@lemon.example"], quota=5) == "store"
    wrote = [(host, action) for host, action in site.orders if action == "people"]
    assert [host for host, _ in wrote] == ["auth", "store", "relay"]
    assert site.in_step() and site.told["relay"]["aliases"]["n@lemon.example"] == NEW
    assert site.edition == 1 == site.told["store"]["edition"]


def test_mail_is_refused_before_the_store_forgets_who_is_deleted(site: Site) -> None:
    site.changes.delete(BOB)
    assert [host for host, action in site.orders if action == "people"] == ["auth", "relay", "store"]
    assert site.in_step() and BOB not in site.told["store"]["users"]


def test_who_is_renamed_stays_who_he_is_and_keeps_his_old_name_as_an_alias(site: Site) -> None:
    site.changes.rename(ALICE, NEW)
    assert site.people[NEW]["aliases"] == ("a@lemon.example", ALICE)
    assert site.told["store"]["ids"] == {NEW: ALICE} and site.told["relay"]["aliases"][ALICE] == NEW
    assert site.in_step()
    # Whoever is added under a name somebody had is somebody else.
    site.changes.alias(NEW, remove=[ALICE])
    site.changes.add(ALICE)
    assert site.told["store"]["ids"][ALICE] != ALICE and site.in_step()


def test_locks_go_to_stores_so_that_no_ticket_of_before_opens(site: Site) -> None:
    site.changes.lock(BOB, locked=True)
    assert site.told["store"]["locked"] == [BOB] and site.in_step()
    site.changes.lock(BOB, locked=False)
    assert site.told["store"]["locked"] == [] and site.in_step()


@pytest.mark.parametrize(
    ("name", "more", "why", "remedy"),
    [
        (ALICE, {}, "is a user already", "user passwd"),
        ("a@lemon.example", {}, f"is an alias of {ALICE}", "--remove a@lemon.example"),
        (NEW, {"aliases": [BOB]}, f"{BOB} is a user", "another address"),
        ("x+y@lemon.example", {}, "no mail address here", "begins a tag"),
        ("x@elsewhere.example", {}, "in no mail domain", "lemon.example"),
        (NEW, {"store": "stor"}, "no store 'stor'", "did you mean 'store'"),
    ],
)
def test_what_can_not_be_is_refused_with_what_to_do_and_nothing_is_changed(site: Site, name: str, more: Any, why: str, remedy: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        site.changes.add(name, **more)
    assert remedy in caught.value.remedy
    assert site.edition == 0 and site.in_step()


def test_nobody_is_added_whose_store_gives_no_answer(site: Site) -> None:
    site.away = {"store"}
    with pytest.raises(LemonstandError, match="gives no answer"):
        site.changes.add(NEW)
    assert NEW not in site.people


def test_a_relay_that_was_away_is_named_and_told_later(site: Site) -> None:
    site.away = {"relay"}
    with pytest.raises(LemonstandError, match="relay could not be told") as caught:
        site.changes.add(NEW)
    assert "users push" in caught.value.remedy and NEW in site.told["store"]["users"]
    site.away = set()
    assert site.changes.push() == ["relay"]
    assert site.in_step() and site.changes.push() == []


def test_a_directory_that_lost_its_people_takes_nobodys_mailbox_away(site: Site) -> None:
    site.people = {}
    with pytest.raises(LemonstandError, match="nobody was told"):
        site.changes.push()
    assert site.told["store"]["users"]
    assert site.changes.push(sure=True) == ["relay", "store"] and site.in_step()


@pytest.mark.parametrize("where", ["directory", "store", "relay"])
@pytest.mark.parametrize("what", ["add", "rename", "delete", "alias", "lock"])
def test_what_was_cut_off_is_done_by_the_same_command(site: Site, what: str, where: str) -> None:
    def command() -> None:
        if what == "add":
            site.changes.add(NEW)
        elif what == "rename":
            site.changes.rename(ALICE, NEW)
        elif what == "delete":
            site.changes.delete(BOB)
        elif what == "alias":
            site.changes.alias(BOB, add=["b@lemon.example"])
        else:
            site.changes.lock(BOB, locked=True)

    site.cut_after = where
    with pytest.raises(KeyboardInterrupt):
        command()
    site.cut_after = ""
    try:
        command()
    except InputError as fault:  # all of it was done
        assert where in {"relay", "store"} and fault.what
    assert site.in_step()


def test_the_next_command_whatever_it_is_ends_what_another_left(site: Site) -> None:
    site.cut_after = "directory"
    with pytest.raises(KeyboardInterrupt):
        site.changes.rename(ALICE, NEW)
    site.cut_after = ""
    site.changes.lock(BOB, locked=True)
    assert site.in_step() and site.told["store"]["ids"] == {NEW: ALICE}


def test_steps_between_lists_are_only_what_differs() -> None:
    before = lists_of([Person(ALICE, HOST, ("a@x",), 7, id=ALICE), Person(BOB, HOST, id=BOB, locked=True)], {HOST: "store"})
    after = lists_of([Person(ALICE, HOST, ("b@x",), id=ALICE), Person(NEW, HOST, quota=9, id=BOB)], {HOST: "store"})
    assert steps_between(before, after) == {
        "users": {BOB: None, NEW: "store"},
        "aliases": {"a@x": None, "b@x": ALICE},
        "ids": {NEW: BOB},
        "quotas": {ALICE: None, NEW: 9},
        "locked": {BOB: None},
    }


def _planned(site: Site, tmp_path: Path, text: str, name: str = "people.yml", **more: Any) -> roster.Plan:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    told, _ = site.changes.summaries()
    return roster.plan(roster.read(path, site.changes), site.changes.everybody(), site.changes, told, **more)


def test_a_file_says_who_there_is_to_be(site: Site, tmp_path: Path) -> None:
    text = f"- {{name: {ALICE}, aliases: [b@lemon.example], quota: 5G}}\n- {{name: {NEW}, locked: true}}\n"
    plan = _planned(site, tmp_path, text)
    assert [user["name"] for user in plan.change.add] == [NEW] and plan.missing == [BOB] and plan.change.delete == []
    assert plan.change.set == [{"name": ALICE, "aliases": ["b@lemon.example"], "quota": 5 << 30}]
    assert any("stays without --delete-missing" in line for line in plan.lines)
    assert _planned(site, tmp_path, text, delete_missing=True).change.delete == [BOB]
    assert _planned(site, tmp_path, text, only_add=True).change.set == []


@pytest.mark.parametrize("form", ["yaml", "csv"])
def test_what_is_exported_changes_nothing_when_it_comes_back(site: Site, tmp_path: Path, form: str) -> None:
    site.changes.add(NEW, aliases=["n@lemon.example"], quota=7)
    site.changes.lock(BOB, locked=True)
    text = roster.written(site.changes.everybody().values(), site.changes, form)
    plan = _planned(site, tmp_path, text, f"people.{form}", delete_missing=True)
    assert plan.change.count == 0, plan.lines
    assert "password" not in text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- {name: a@lemon.example}\n- {name: a@lemon.example}\n", "listed twice"),
        (f"- {{name: {NEW}, aliases: [{ALICE}]}}\n- {{name: {ALICE}}}\n", "would be of"),
        (f"- {{name: {NEW}, aliases: [a@lemon.example]}}\n", "would be of"),
        (f"- {{name: {NEW}, alias: []}}\n", "no such key"),
        (f"- {{name: {NEW}, quota: much}}\n", "is no quota"),
        (f"- {{name: {NEW}, password_hash: plain}}\n", NEW),
        (f"- {{name: {NEW}, locked: perhaps}}\n", "locked is"),
        ("people: 5\n", "no list of people"),
    ],
)
def test_a_file_that_can_not_be_is_refused_whole(site: Site, tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises((InputError, InputErrors)) as caught:
        _planned(site, tmp_path, text)
    assert why in str(caught.value)


@pytest.mark.parametrize("word", ["user", "users"])
def test_a_command_about_people_loads_little_and_lacks_nothing(word: str) -> None:
    """What a process of its own shows of a group is what all modules together make of it."""
    group = cli.main.commands[word]
    shown = subprocess.run(
        [sys.executable, "-m", "lemonstand", word, "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    listed = [line.split()[0] for line in shown.partition("Commands:")[2].splitlines() if line.strip()]
    assert isinstance(group, click.Group) and sorted(group.commands) == sorted(listed)
    assert loaded(word, "--help") == {topic for topic, commands in TOPICS.items() if word in commands.split()}


def test_other_words_load_what_they_need() -> None:
    assert loaded("apply", "--help") == {"deploy"}
    for words in ([], ["--help"], ["aply"]):
        assert loaded(*words) == set(TOPICS)


LOADED = """
import contextlib, sys
from lemonstand.cli import main
with contextlib.suppress(Exception):  # without a word there is help, and click calls that an error
    main(sys.argv[1:], standalone_mode=False)
print(*sys.modules, sep="\\n")
"""


def loaded(*words: str) -> set[str]:
    """The modules of commands that a process with these words has loaded in the end."""
    shown = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True, timeout=60).stdout
    names = {line.removeprefix("lemonstand.cli.") for line in shown.splitlines() if line.startswith("lemonstand.cli.")}
    return names & set(TOPICS)
