"""What hosts share of an inventory is read once, and goes to the judge's process once; what reads it is started quickly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.template import Templar

from lemonstand.paths import data_dir
from lemonstand.site.raw import RawSite, packed, unpacked
from lemonstand.site.reader import read
from sample_site import sound_site, write_site

PLAYBOOKS = data_dir("playbooks")
USERS = "lemonstand_users"


def _values(data: dict[str, Any], variable: str) -> list[Any]:
    return [host["values"][variable] for host in data["hosts"].values()]


@pytest.mark.parametrize("template", [False, True], ids=["plain", "with a template"])
def test_hosts_share_what_is_the_same_for_all(template: bool, tmp_path: Path) -> None:
    tree = sound_site()
    if template:
        tree["all"][USERS][0]["aliases"] = ["{{ 'post' ~ 'master' }}@lemon.example"]
    data = read(write_site(tmp_path, tree), PLAYBOOKS)
    first, *others = _values(data, USERS)
    assert first[0]["aliases"] == ["postmaster@lemon.example"]
    assert others and all(other is first for other in others)


def test_what_differs_by_host_is_each_hosts_own(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"]["lemonstand_foreign_tables"] = ["inet {{ inventory_hostname }}"]
    data = read(write_site(tmp_path, tree), PLAYBOOKS)
    assert {name: host["values"]["lemonstand_foreign_tables"] for name, host in data["hosts"].items()} == {
        name: [f"inet {name}"] for name in data["hosts"]
    }


def test_an_omitted_part_is_left_out(tmp_path: Path) -> None:
    tree = sound_site()
    tree["all"][USERS][1]["store"] = "{{ omit }}"
    data = read(write_site(tmp_path, tree), PLAYBOOKS)
    assert "store" not in data["hosts"]["edge"]["values"][USERS][1]


def test_many_users_are_templated_no_oftener_than_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of reading grows by users and by hosts, not by both together."""
    calls: list[object] = []
    template = Templar.template

    def counted(self: Templar, variable: Any, *more: Any, **named: Any) -> Any:
        calls.append(variable)
        return template(self, variable, *more, **named)

    monkeypatch.setattr(Templar, "template", counted)
    counts = []
    for number in (1, 500):
        calls.clear()
        tree = sound_site()
        tree["all"][USERS] = [{"name": f"user{each}@lemon.example"} for each in range(number)]
        read(write_site(tmp_path / str(number), tree), PLAYBOOKS)
        counts.append(len(calls))
    assert counts[0] == counts[1]


def test_packing_keeps_everything_and_says_it_once(tmp_path: Path) -> None:
    data = read(write_site(tmp_path, sound_site()), PLAYBOOKS)
    text = json.dumps(packed(data))
    assert text.count("correct horse") == 1, "a password goes over the pipe once"
    back = unpacked(json.loads(text))
    assert RawSite.from_plain(back) == RawSite.from_plain(json.loads(json.dumps(data)))
    first, *others = _values(back, USERS)
    assert all(other is first for other in others)


def test_places_of_values_without_marks_are_those_of_their_keys(tmp_path: Path) -> None:
    tree = sound_site()
    tree["files"]["host_vars/store.yml"] = "lemonstand_clock_is_ours:\n  true\nlemonstand_review:\n"
    store = RawSite.from_plain(read(write_site(tmp_path, tree), PLAYBOOKS)).hosts["store"]
    assert store.origin(("lemonstand_clock_is_ours",)).endswith("host_vars/store.yml:1")
    assert store.origin(("lemonstand_review",)).endswith("host_vars/store.yml:3")
    assert store.origin(("lemonstand_users", "1", "name")).partition(":")[0].endswith("group_vars/all/site.yml")


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("lemonstand.site.reader", ("pydantic", "lemonstand.site.model", "lemonstand.policy")),
        ("lemonstand.remote.connections", ("pydantic", "lemonstand.site.model", "lemonstand.policy")),
        ("lemonstand.cli", ("ansible", "ansible_runner", "jsonschema", "jinja2", "pytest", "testinfra", "cryptography")),
    ],
)
def test_what_starts_with_each_command_loads_what_it_uses(module: str, without: tuple[str, ...]) -> None:
    """These processes are started again and again: what only some of them need is loaded where it is needed."""
    program = f"import {module}, sys; print([name for name in {without!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
