"""A host that can't be reached stops itself and no other; what is in the way of the plan stops all."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lemonstand.deploy import RunResult, run_playbook

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
GROUPS = {"edges": "edge", "frontends": "frontend", "auths": "auth", "stores": "store", "relays": "relay"}


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine that somebody listens on."""
    with socket.socket() as door:
        door.bind(("0.0.0.0", 0))  # noqa: S104 - loopback alone is nobody's port
        door.listen()
        yield door.getsockname()[1]


STRANGERS_ONLY = """

def judge(facts, order):
    return list(judge_listeners(facts, order))


if __name__"""
"""The hosts of these tests are this machine, which is no Debian host of a site: only its ports are looked at."""


def _run(folder: Path, lost: tuple[str, ...] = (), ports: dict[str, int] | None = None) -> RunResult:
    """The preflight of the hosts, then a play that leaves a file for each host it came to."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
    away = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_become": False}
    hosts: dict[str, Any] = {}
    for group, name in GROUPS.items():
        asked = [{"protocol": "tcp", "ports": [ports[name]]}] if ports and name in ports else []
        hosts[group] = {"hosts": {name: {**(away if name in lost else here), "nftables_input": asked, "lemonstand_pki_dir": str(folder)}}}
    (folder / "hosts.yml").write_text(json.dumps({"all": {"children": hosts}}), encoding="ascii")
    after = {"name": "Leave a file", "ansible.builtin.file": {"path": f"{folder}/{{{{ inventory_hostname }}}}.came", "state": "touch"}}
    play = {"name": "Work", "hosts": "all", "gather_facts": False, "strategy": "free", "tasks": [{**after, "vars": {}}]}
    shutil.copytree(PLAYBOOKS, folder / "playbooks", ignore=shutil.ignore_patterns("group_vars"))
    program = folder / "playbooks" / "files" / "host_state.py"
    program.write_text(program.read_text(encoding="utf-8").replace("\n\nif __name__", STRANGERS_ONLY), encoding="utf-8")
    plays = [{"import_playbook": "playbooks/preflight_hosts.yml"}, play]
    (folder / "all.yml").write_text(yaml.safe_dump(plays, sort_keys=False), encoding="ascii")
    return run_playbook(folder / "hosts.yml", [folder / "all.yml"], runs=folder / "runs")


@pytest.mark.parametrize("lost", [("edge",), ("auth",), ("store", "relay"), ("frontend", "auth", "store", "relay")], ids="+".join)
def test_the_others_go_on(tmp_path: Path, lost: tuple[str, ...]) -> None:
    result = _run(tmp_path, lost)
    assert result.exit_code == 1
    assert {failure.host for failure in result.record.failures} == set(lost)
    assert all(failure.unreachable for failure in result.record.failures)
    assert {path.stem for path in tmp_path.glob("*.came")} == set(GROUPS.values()) - set(lost)


def test_a_stranger_on_a_port_stops_all(tmp_path: Path, taken: int) -> None:
    result = _run(tmp_path, lost=("edge",), ports={"relay": taken})
    assert result.exit_code == 1
    assert not list(tmp_path.glob("*.came"))


def test_a_play_of_one_kind_of_host_ends_no_run() -> None:
    """Where all hosts of a play fail, Ansible ends the run: a single store must not be a whole play between two others."""
    plays = yaml.safe_load((PLAYBOOKS / "site.yml").read_text(encoding="utf-8"))
    inner = [play for play in plays if "hosts" in play]
    # Several groups by name, or every kind of host that plays set up, by the data.
    assert all(":" in play["hosts"] or play["hosts"].startswith("{{ 'deployed' | lemonstand_pattern ") for play in inner)
    assert not any(play.get("any_errors_fatal") for play in inner)
