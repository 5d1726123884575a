"""A site that several controllers and versions change: stamps, migrations, lock and history, on a lab (record 0038)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lemonstand import lab as labs
from lemonstand.admin import Hosts
from lemonstand.admin.operations import ask, seats
from lemonstand.deploy import repeat_command
from lemonstand.lab.shell import run
from lemonstand.lab.topology import Topology
from lemonstand.paths import data_dir
from lemonstand.site import Site
from lemonstand.site.shipped import filter_plugin

from .conftest import INVENTORY, PREFIX, Command

STAMP = "/var/lib/lemonstand/stamp.json"
LEFT = "/usr/local/lib/lemonstand/differing-files"
On = Callable[..., str]


def stamp(on: On, host: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(on(host, "cat", STAMP))
    return found


def runs(lemonstand: Command, lab: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lemonstand("log", "--lab", lab, "--json").stdout)["runs"]
    return found


@pytest.fixture
def other(deployed: str, lab_site: Site) -> Iterator[Callable[..., dict[str, dict[str, Any]]]]:
    """Another controller takes the lock; it is given back in the end."""
    plugin = filter_plugin("operation")
    order = {
        **plugin.code(), "id": plugin.new_id(), "who": "bob@elsewhere", "controller": "elsewhere", "process": "1/1", "living": [],
        "command": "lemonstand apply", "limit": "", "lock": True, "older": True,
    }  # fmt: skip

    with Hosts(lab_site.inventory) as hosts:

        def take(**more: Any) -> dict[str, dict[str, Any]]:
            found = {}
            for seat in seats(lab_site):
                found[seat] = ask(hosts, seat, "begin", {**order, **more}) if seat not in more.get("not_on", ()) else {}
            return found

        yield take
        for seat in seats(lab_site):
            ask(hosts, seat, "end", {"id": order["id"], "result": "ok", "hosts": {}, "failed": {}})


def test_a_second_apply_leaves_the_stamps_and_is_remembered(deployed: str, lemonstand: Command, on: On) -> None:
    before = {host: on(host, "cat", STAMP) for host in ("edge", "frontend", "auth", "store", "relay")}
    lemonstand("apply", "--lab", deployed)
    assert {host: on(host, "cat", STAMP) for host in before} == before
    newest = runs(lemonstand, deployed)[0]
    assert (newest["result"], sum(newest["hosts"].values()), "apply" in newest["command"]) == ("ok", 0, True)
    assert set(newest["hosts"]) >= set(before)


@pytest.mark.long
def test_what_an_older_version_left_is_named_then_gone(deployed: str, lemonstand: Command, on: On) -> None:
    """A host as versions before stamps left it: the plan names what goes, and changes nothing; apply does it, once."""
    on("relay", f"rm {STAMP}; printf '#!/bin/sh\\n' >{LEFT}; chmod 755 {LEFT}")
    said = lemonstand("plan", "--lab", deployed, "--limit", "relay").stdout
    assert f"would remove {LEFT} (migration 1" in said and f"would write {STAMP}" in said
    on("relay", "test", "-e", LEFT)
    lemonstand("apply", "--lab", deployed, "--limit", "relay")
    on("relay", "test", "-e", LEFT, code=1)
    assert stamp(on, "relay")["layout"] >= 1
    assert "would" not in lemonstand("plan", "--lab", deployed, "--limit", "relay").stdout.replace("nothing would change", "")


def test_another_controller_is_refused_by_both_ways_and_waited_for_by_no_emergency(
    deployed: str, lemonstand: Command, other: Callable[..., dict[str, dict[str, Any]]], on: On
) -> None:
    other()
    before = {host: stamp(on, host) for host in ("edge", "relay")}
    done = lemonstand("apply", "--lab", deployed, code=1)
    assert "bob@elsewhere changes this site since" in done.stdout and "lemonstand unlock" in done.stdout
    env = labs.environment(deployed)
    plain = repeat_command(INVENTORY, [data_dir("playbooks") / "site.yml"], env=env)
    answer = subprocess.run(["sh", "-c", plain], capture_output=True, text=True, check=False, env={**os.environ, **env}, timeout=300)
    assert answer.returncode != 0 and "bob@elsewhere changes this site since" in answer.stdout
    lemonstand("service", "close", "--lab", deployed, "--reason", "a test")
    lemonstand("service", "open", "--lab", deployed)
    assert {host: stamp(on, host) for host in before} == before
    assert "bob@elsewhere" in lemonstand("unlock", "--lab", deployed).stdout
    lemonstand("apply", "--lab", deployed, "--limit", "edge")


def test_the_lock_holds_with_a_seat_down(deployed: str, lemonstand: Command, other: Callable[..., dict[str, dict[str, Any]]]) -> None:
    other(not_on=("auth",))
    run(["podman", "stop", "--time", "0", Topology(deployed, PREFIX).container("auth")])
    try:
        done = lemonstand("apply", "--lab", deployed, "--limit", "edge", code=1)
    finally:
        lemonstand("lab", "up", "--name", deployed)
    assert "bob@elsewhere changes this site since" in done.stdout and "says store" in done.stdout


@pytest.mark.long
def test_an_older_controller_goes_on_only_on_purpose(deployed: str, lemonstand: Command, on: On) -> None:
    newest = "/var/lib/lemonstand/operations/newest.json"
    for host in ("auth", "store"):
        on(host, f'sed -i \'s/"version": "[^"]*"/"version": "99.0.0"/; s/"commit": "/"commit": "0/\' {newest}')
    # What only a host of the DMZ says stops nobody; what inner hosts say stops apply and plan.
    for command in ("plan", "apply"):
        done = lemonstand(command, "--lab", deployed, "--limit", "edge", code=1)
        assert "lemonstand 99.0.0" in done.stdout and "this controller is older" in done.stdout and "--older" in done.stdout
    lemonstand("apply", "--lab", deployed, "--limit", "edge", "--older")
    assert "an older controller, on purpose" in runs(lemonstand, deployed)[0]["notes"]
    lemonstand("apply", "--lab", deployed, "--limit", "edge")


def test_own_settings_that_the_program_refuses_change_nothing(
    deployed: str, lemonstand: Command, last_run: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    own: list[dict[str, Any]] = [
        {"lemonstand_postfix_extra": {"no_such_setting": 1}},
        {"lemonstand_dovecot_extra": {"stores": {"no_such_setting": 1}}},
        {"lemonstand_drop_ins": {"stores": {"dovecot": "protocol imap {\n  no_such_setting = 1\n}\n"}}},
    ]
    for extra in own:
        done = lemonstand("apply", "--lab", deployed, "-e", json.dumps(extra), code=1)
        assert "does not take the site's own settings" in done.stdout and "no_such_setting" in done.stdout
        assert last_run()["changes"] == []
    unit = {"lemonstand_drop_ins": {"relays": {"postfix.service": "[Service]\nCPUWeight=many\n"}}}
    done = lemonstand("apply", "--lab", deployed, "-e", json.dumps(unit), code=1)
    assert "systemd does not take the site's own text for postfix.service: line 2: " in done.stdout
    assert last_run()["changes"] == []
