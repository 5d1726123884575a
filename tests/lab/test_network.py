"""Rules that somebody changed by hand, a controller that would lock itself out, settings after a boot, the switch for emergencies."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from lemonstand.breaking.asker import Asker
from lemonstand.breaking.runner import named
from lemonstand.derived import expected_matrix
from lemonstand.site import Site

from .conftest import INVENTORY, Command

FILTER = "/usr/local/lib/lemonstand/packet-filter"
ROLLBACK_SECONDS = 8


@pytest.mark.long
def test_plan_names_a_rule_put_in_by_hand_and_apply_takes_it_out(deployed: str, lemonstand: Command, on: Callable[..., str]) -> None:
    on("store", "nft", "insert", "rule", "inet", "lemonstand", "input", "tcp", "dport", "9999", "accept")
    planned = lemonstand("plan", "--lab", deployed, "--limit", "store").stdout
    assert "runs, and is not in the file: tcp dport 9999 accept" in planned
    failed = lemonstand("verify", "--lab", deployed, "-k", "what_runs_is_what_the_file_says", code=1).stdout
    assert "tcp dport 9999 accept" in failed
    lemonstand("apply", "--lab", deployed, "--limit", "store", "--stage", "activate")
    assert "9999" not in on("store", "nft", "list", "ruleset")
    lemonstand("verify", "--lab", deployed, "-k", "what_runs_is_what_the_file_says")


def test_rules_that_lock_the_controller_out_are_taken_back(deployed: str, lemonstand: Command, on: Callable[..., str]) -> None:
    shut = "! nft list ruleset | grep -q management-ssh"
    on("relay", f"sed -i '/management-ssh/d' /etc/lemonstand/nftables.nft && {FILTER} apply --rollback {ROLLBACK_SECONDS} && {shut}")
    time.sleep(ROLLBACK_SECONDS + 2)
    assert "management-ssh" in on("relay", "nft", "list", "ruleset")
    on("relay", FILTER, "confirm", code=1)
    lemonstand("apply", "--lab", deployed, "--limit", "relay")
    on("relay", FILTER, "confirm")


def test_settings_are_back_when_conntrack_came_late(deployed: str, on: Callable[..., str]) -> None:
    """What a boot does whose systemd-sysctl ran before the module was there: the kernel's defaults, then the filter's unit."""
    names = {"net.netfilter.nf_conntrack_tcp_timeout_unacknowledged": "300", "net.netfilter.nf_conntrack_tcp_timeout_close_wait": "60"}
    for name, default in names.items():
        on("edge", "sysctl", "-q", "-w", f"{name}={default}")
    on("edge", "systemctl", "restart", "lemonstand-nftables.service")
    assert on("edge", "sysctl", "-n", *names).split() == ["7440", "7440"]


@pytest.mark.long
def test_the_service_closes_alone_and_opens_again(
    deployed: str, lemonstand: Command, on: Callable[..., str], last_run: Callable[[], dict[str, Any]]
) -> None:
    try:
        closed = lemonstand("service", "close", "--lab", deployed, "--reason", "a drill").stdout
        assert "closed for clients: TCP 143, 587, 993, 465, 4190" in closed
        said = lemonstand("apply", "--lab", deployed, "--stage", "activate").stdout
        # Each says since when, which may be a second apart.
        told_by = re.findall(r"a drill \(([a-z, ]+)\)", " ".join(said.split()))
        assert sorted(", ".join(told_by).split(", ")) == ["edge", "frontend"]
        assert last_run()["changes"] == [], "what is closed stays closed, and that is no change"
        told = lemonstand("verify", "--lab", deployed, "-k", "the_service_is_open", code=1).stdout
        assert "a drill" in told
        assert "lemonstand service open" in told
    finally:
        lemonstand("service", "open", "--lab", deployed)
    lemonstand("verify", "--lab", deployed, "-k", "the_service_is_open or reaches_both_services or what_is_offered")


@pytest.mark.long
def test_each_flow_that_is_taken_out_of_force_is_named_and_no_other(lab_site: Site, on: Callable[..., str]) -> None:
    """Its rules leave every filter, one flow after the other; without the controller's own nobody could ask."""
    asker = Asker(INVENTORY)
    (check,) = named("test_every_flow_gets_through")
    kinds = {flow.name: flow.destination for flow in lab_site.active_flows}
    named_by_cells = {flow for cell, flow in expected_matrix(lab_site).items() if flow is not None and cell.protocol == "tcp"}
    dialled = {flow for flow in named_by_cells if kinds[flow].endswith("s") or kinds[flow] == "internet"}
    # A store that asks itself does so over its loopback device, which no cell of two hosts shows.
    flows = sorted(dialled - {"management-ssh", "submission-to-imap"})
    hosts = [host.name for host in lab_site.hosts.values() if host.role_groups]
    assert len(flows) > 10
    for flow in flows:
        try:
            for host in hosts:
                on(host, f"sed '/comment \"{flow}\"/d' /etc/lemonstand/nftables.nft | nft -f -")
            (answer,) = asker.ask([check])
        finally:
            for host in hosts:
                on(host, "nft -f /etc/lemonstand/nftables.nft")
        assert (answer.outcome, set(re.findall(r" \(([a-z0-9-]+)\): ", answer.message))) == ("fail", {flow}), flow
    (answer,) = asker.ask([check])
    assert answer.outcome == "pass", answer.message
