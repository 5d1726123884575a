"""Kinds of hosts and defaults as data: one more kind is one entry, and broken entries are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir
from lemonstand.policy.kinds import load_kinds
from lemonstand.policy.settings import load_defaults, load_options
from lemonstand.site.shipped import filter_plugin

Change = Callable[[dict[str, Any]], object]


def _changed(folder: Path, change: Change) -> Path:
    data = yaml.safe_load((data_dir("playbooks") / "kinds.yml").read_text(encoding="utf-8"))
    change(data)
    path = folder / "kinds.yml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def test_one_more_kind_is_one_entry(tmp_path: Path) -> None:
    kinds = load_kinds(_changed(tmp_path, lambda data: data["kinds"].update(scanners={"one": "scanner", "zones": ["dmz", "management"]})))
    assert kinds.groups == (*load_kinds().groups, "scanners")
    assert "scanners" in kinds.endpoints
    assert "scanners" in kinds.deployed
    assert kinds.kinds["scanners"].home == "dmz"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: data["kinds"]["stores"].update(zones=["stroe", "management"]), "unknown zones: stroe"),
        (lambda data: data["kinds"]["stores"].update(zones=["store", "dmz", "management"]), "do not join zones"),
        (lambda data: data["kinds"]["stores"].update(needs=True), "needs"),
        (lambda data: data.pop("lists"), "lists"),
    ],
)
def test_broken_entries_are_refused(change: Change, word: str, tmp_path: Path) -> None:
    with pytest.raises(LemonstandError, match=word):
        load_kinds(_changed(tmp_path, change))


def test_only_a_kind_that_joins_zones_has_no_home() -> None:
    assert {name for name, kind in load_kinds().kinds.items() if kind.home is None} == {"edges"}


def test_plays_name_every_kind() -> None:
    pattern = filter_plugin("lemonstand").pattern
    assert pattern("site").split(":") == list(load_kinds().groups)
    assert pattern("deployed").split(":") == list(load_kinds().deployed)


def test_a_broken_file_of_defaults_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.yml"
    path.write_text("options: {}\n", encoding="ascii")
    with pytest.raises(LemonstandError, match="defaults can't be read"):
        load_defaults(path)
    assert "certificates_new_authorities" in load_options()


# --- what plays make of a site's variables without templating them ---


class Vars(dict[str, Any]):
    """Ansible's hostvars, as far as the filters know them."""

    def __init__(self, raw: dict[str, dict[str, Any]], worth: dict[str, dict[str, Any]]) -> None:
        super().__init__(worth)
        self.raw_get = raw.__getitem__


USERS = [
    {"name": "alice@lemon.test", "aliases": ["Post@lemon.test", "post@lemon.test", "bob@lemon.test", "both@lemon.test"]},
    {"name": "bob@lemon.test", "store": "two", "aliases": ["both@lemon.test", "b@lemon.test"], "password_hash": "{SSHA}x"},
]


@pytest.fixture
def users() -> str:
    text: str = filter_plugin("lemonstand").as_json(Vars({"auth": {"u": USERS}}, {}), "auth", "u")
    return text


def test_users_go_to_their_stores(users: str) -> None:
    filters = filter_plugin("lemonstand")
    assert filters.count(users) == 2
    assert filters.users_of(users, "one", ["one", "two"]) == ["alice@lemon.test"]
    assert filters.users_of(users, "two", ["one", "two"]) == ["bob@lemon.test"]
    assert [user["store"] for user in filters.accounts(users, ["one", "two"], "in.test")] == ["one.in.test", "two.in.test"]
    assert filters.accounts(users, ["one", "two"], "in.test")[1]["password_hash"] == "{SSHA}x"
    assert all(
        set(user) == {"name", "aliases", "store"} for user in filters.accounts(users, ["one"], "in.test", ["name", "aliases", "store"])
    )


def test_an_alias_of_two_or_of_a_name_is_nobodys(users: str) -> None:
    filters = filter_plugin("lemonstand")
    assert filters.aliases_of(users, "one", ["one", "two"]) == {"post@lemon.test": "alice@lemon.test"}
    assert filters.aliases_of(users, "two", ["one", "two"]) == {"b@lemon.test": "bob@lemon.test"}


def test_templates_are_worked_out_and_plain_values_are_taken_as_they_are() -> None:
    filters = filter_plugin("lemonstand")
    raw = {"store": {"lemonstand_interfaces": {"dmz": {"ipv4": "{{ first }}"}}, "lemonstand_zones": {"dmz": {"ipv4": "192.0.2.0/24"}}}}
    worth = {"store": {"lemonstand_interfaces": {"dmz": {"ipv4": "192.0.2.1"}}, "lemonstand_zones": "never asked for"}}
    found = yaml.safe_load(filters.members(Vars(raw, worth), {"stores": ["store"]}))
    assert found == {
        "store": {"lemonstand_interfaces": {"dmz": {"ipv4": "192.0.2.1"}}, "lemonstand_zones": {"dmz": {"ipv4": "192.0.2.0/24"}}}
    }
