"""From empty hosts to a running site, and again: nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import shipped_lab
from lemonstand import lab as labs
from lemonstand.lab.shell import run
from lemonstand.lab.topology import Topology

from .conftest import PREFIX, Command

UNITS = {
    "edge": ["chrony", "lemonstand-nftables"],
    "frontend": ["chrony", "dovecot", "lemonstand-nftables"],
    "auth": ["chrony", "slapd", "ticket-issuer", "lemonstand-nftables"],
    "store": ["chrony", "dovecot", "lemonstand-nftables"],
    "relay": ["chrony", "postfix", "lemonstand-nftables"],
}
TASK_BUDGET = 25
INNER6 = f"fd6c:656d:{PREFIX.partition('.')[2]}"


def test_every_host_runs_systemd_without_a_failed_unit(new_lab: str) -> None:
    states = {row["host"]: row["systemd"] for row in labs.status(new_lab)}
    assert states == dict.fromkeys(shipped_lab.hosts(), "running")


def test_a_plan_of_empty_hosts_names_changes_and_makes_none(planned: str, new_lab: str) -> None:
    assert "would change  frontend" in planned
    assert "would change  store" in planned


def test_the_first_apply_brings_up_every_service(deployed: str, on: Callable[..., str]) -> None:
    for host, units in UNITS.items():
        assert on(host, "systemctl", "is-active", *units).split() == ["active"] * len(units), host
        assert on(host, "systemctl", "list-units", "--failed", "--plain", "--no-legend").strip() == "", host


def test_a_second_apply_changes_nothing(deployed: str, lemonstand: Command, last_run: Callable[[], dict[str, Any]]) -> None:
    # A variable of the command line that says what holds anyway: it has to reach Ansible.
    lemonstand("apply", "--lab", deployed, "-e", '{"lemonstand_tls_profile": "both"}')
    record = last_run()
    assert record["changes"] == []
    assert {host: tally["tasks"] for host, tally in record["hosts"].items() if tally["tasks"] > TASK_BUDGET} == {}
    assert {host: tally["changed"] for host, tally in record["hosts"].items()} == dict.fromkeys(record["hosts"], 0)


def test_what_a_died_run_left_undone_the_next_one_does(deployed: str, lemonstand: Command, on: Callable[..., str]) -> None:
    on("frontend", "sed -i '$a # changed by hand' /etc/dovecot/dovecot.conf; systemctl stop ticket-issuer 2>/dev/null; true")
    before = on("frontend", "systemctl", "show", "-P", "MainPID", "dovecot").strip()
    lemonstand("apply", "--lab", deployed, "--limit", "frontend", "--stage", "configure")
    assert "changed by hand" not in on("frontend", "cat", "/etc/dovecot/dovecot.conf")
    lemonstand("apply", "--lab", deployed, "--limit", "frontend")
    assert on("frontend", "systemctl", "show", "-P", "MainPID", "dovecot").strip() == before, "an idle session must survive a routine run"


def test_what_somebody_put_in_force_by_hand_is_taken_out_of_force(deployed: str, lemonstand: Command, on: Callable[..., str]) -> None:
    greeting = "import socket; print(socket.create_connection(('127.0.0.1', 143), 10).recv(999))"
    for verb in ("restart", "reload"):
        on("store", f"sed -i 's/^login_greeting = ready/login_greeting = by hand/' /etc/dovecot/dovecot.conf && systemctl {verb} dovecot")
        assert "by hand" in on("store", f'sleep 1; python3 -c "{greeting}"')
        lemonstand("apply", "--lab", deployed, "--limit", "store")
        assert "by hand" not in on("store", f'sleep 1; python3 -c "{greeting}"')


def test_a_service_somebody_stopped_is_started(deployed: str, lemonstand: Command, on: Callable[..., str]) -> None:
    on("auth", "systemctl", "stop", "slapd")
    lemonstand("apply", "--lab", deployed, "--limit", "auth", "--stage", "activate")
    assert on("auth", "systemctl", "is-active", "slapd").strip() == "active"


def test_a_lost_auth_host_stops_itself_alone_and_comes_back_with_all_it_held(
    deployed: str, lemonstand: Command, on: Callable[..., str], last_run: Callable[[], dict[str, Any]]
) -> None:
    """One host down: the others are brought to the inventory, stores keep their ticket keys; `lab up` starts it again, empty of nothing."""
    keys = on("store", "ls", "/etc/lemonstand/ticket-keys/default/RS256")
    users = on("auth", "slapcat")
    run(["podman", "stop", "--time", "0", Topology(deployed, PREFIX).container("auth")])
    try:
        done = lemonstand("apply", "--lab", deployed, code=1)
        record = last_run()
    finally:
        lemonstand("lab", "up", "--name", deployed)
    assert "could not be reached: auth" in done.stdout
    assert {failure["host"] for failure in record["failures"]} == {"auth"}
    assert record["changes"] == []
    assert {"Activate"} <= {task["stage"] for task in record["tasks"]}
    assert on("store", "ls", "/etc/lemonstand/ticket-keys/default/RS256") == keys
    assert on("auth", "slapcat") == users
    assert on("auth", "systemctl", "is-active", *UNITS["auth"]).split() == ["active"] * len(UNITS["auth"])
    lemonstand("apply", "--lab", deployed)
    assert last_run()["changes"] == []


def test_a_second_lab_may_not_take_the_same_network(new_lab: str, lemonstand: Command) -> None:
    done = lemonstand("lab", "up", "--name", "clash", "--prefix", PREFIX, code=1)
    assert "uses" in done.stderr + done.stdout
    assert "--prefix" in done.stderr + done.stdout


def test_the_machine_has_no_address_in_any_zone(new_lab: str) -> None:
    import json  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    addresses = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, text=True, check=True).stdout)
    mine = [info["local"] for link in addresses for info in link["addr_info"]]
    assert not [address for address in mine if address.startswith((f"{PREFIX}.", INNER6))]


def test_inner_hosts_have_no_route_to_the_internet(new_lab: str, on: Callable[..., str]) -> None:
    for host in ("auth", "store"):
        for family, peer in (("-4", f"{PREFIX}.1.25"), ("-6", f"{INNER6}:1::25")):
            on(host, "ip", family, "route", "get", peer, code=2)


def test_a_stranger_on_a_port_of_ours_is_named_before_anything_changes(
    deployed: str, lemonstand: Command, on: Callable[..., str], last_run: Callable[[], dict[str, Any]]
) -> None:
    on("relay", "systemctl", "stop", "postfix")
    on("relay", "systemd-run", "--quiet", "--unit=squatter", "python3", "-m", "http.server", "25")
    try:
        done = lemonstand("apply", "--lab", deployed, code=1)
    finally:
        on("relay", "systemctl", "stop", "squatter")
        on("relay", "systemctl", "start", "postfix")
    assert "relay" in done.stdout
    assert "port 25 is taken by python3" in done.stdout
    assert last_run()["changes"] == []
