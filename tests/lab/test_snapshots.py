"""Snapshots bring a lab's hosts back whole, and mutants are noticed, mended and leave nothing behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from lemonstand import lab as labs
from lemonstand.breaking.table import check_form, table_path
from lemonstand.paths import lab_dir

from .conftest import Command

SAMPLE = 5
"""Mutants a run of the suite tries; another five tomorrow."""

On = Callable[..., str]


@pytest.fixture(scope="module")
def snapshot(deployed: str, lemonstand: Command) -> str:
    """The deployed lab, kept."""
    lemonstand("lab", "snapshot", "suite", "--name", deployed, "--replace")
    return "suite"


def test_a_restore_brings_back_what_was_there(deployed: str, snapshot: str, lemonstand: Command, on: On) -> None:
    addresses = on("relay", "ip", "-br", "addr")
    installed = on("relay", "dpkg-query -W | sha256sum")
    on(
        "relay",
        "apt-get -q -y purge chrony >/dev/null 2>&1; rm -rf /etc/postfix/main.cf; echo gone >/etc/hosts",
    )
    on("relay", "nft add table inet stranger; sysctl -q -w net.ipv4.tcp_retries2=3; systemctl stop postfix; mkdir -p /srv/mail")
    on("store", "rm -rf /srv/vmail")
    lemonstand("lab", "restore", snapshot, "--name", deployed)
    assert on("relay", "systemctl", "is-active", "postfix", "chrony", "lemonstand-nftables").split() == ["active"] * 3
    assert "stranger" not in on("relay", "nft", "list", "tables")
    assert on("relay", "sysctl", "-n", "net.ipv4.tcp_retries2").strip() == "15"
    assert on("relay", "dpkg-query -W | sha256sum") == installed
    assert on("relay", "ip", "-br", "addr") == addresses
    on("relay", "test", "!", "-e", "/srv/mail")
    on("store", "test", "-d", "/srv/vmail")
    lemonstand("verify", "--lab", deployed, "-k", "test_every_flow_gets_through or test_settings_survive_a_boot or isolation")
    # An apply would change nothing.
    assert "nothing would change" in lemonstand("plan", "--lab", deployed).stdout


def test_a_refused_restore_ends_no_connection(deployed: str, lemonstand: Command) -> None:
    command = ["ssh", "-F", str(lab_dir(deployed) / "ssh" / "config"), "store", "echo there; sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as held:
        try:
            assert held.stdout is not None
            assert held.stdout.readline() == "there\n"
            lemonstand("lab", "restore", "nothing-of-this-name", "--name", deployed, code=2)
            with pytest.raises(subprocess.TimeoutExpired):
                held.wait(2)
        finally:
            held.kill()


def test_snapshots_are_listed_and_unknown_ones_named(deployed: str, snapshot: str, lemonstand: Command) -> None:
    assert "suite" in lemonstand("lab", "status", "--name", deployed).stdout
    done = lemonstand("lab", "restore", "suit", "--name", deployed, code=2)
    assert "did you mean 'suite'?" in done.stderr
    assert "--replace" in lemonstand("lab", "snapshot", "suite", "--name", deployed, code=2).stderr
    assert "can't name a snapshot" in lemonstand("lab", "snapshot", "../x", "--name", deployed, code=2).stderr
    lemonstand("lab", "snapshots", "--drop", "suite", "--name", deployed)
    assert labs.kept(deployed) == []


@pytest.mark.long
def test_a_sample_of_mutants_is_noticed(deployed: str, lemonstand: Command) -> None:
    done = lemonstand("mutate", "--lab", deployed, "--sample", str(SAMPLE), timeout=1800)
    assert "--seed" in done.stdout
    assert f"{SAMPLE} of {SAMPLE} mutants noticed and mended" in done.stdout
    check_form(json.loads(table_path().read_text(encoding="utf-8")))
    assert labs.kept(deployed) == []
