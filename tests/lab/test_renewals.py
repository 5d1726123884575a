"""Certificates renew by themselves: what is due and nothing else, a timer, a year of it in little time; and CAs with an overlap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lemonstand import lab as labs
from lemonstand.measure import Vantage, open_vantage
from lemonstand.measure.crowd import woken
from lemonstand.paths import lab_dir
from lemonstand.remote.endpoints import families_of
from lemonstand.site import Site

from .conftest import Command

MINUTE = 1 / 1440
LIFE_MINUTES, DUE_MINUTES = 12, 9
"""Of certificates: renewed after a quarter of their life, so that slow machines come in time; of 90 days it is two thirds."""
SHORT = ("-e", f"certificates_days={LIFE_MINUTES * MINUTE:.6f}", "-e", f"certificates_renew_days={DUE_MINUTES * MINUTE:.6f}")
EVERY = "*:0/2"
RENEWALS = int(os.environ.get("LEMONSTAND_TEST_RENEWALS", "6"))
"""Of each certificate: six are a year, and take half an hour and more."""
MOST_MINUTES = 75
CROWD = 100
"""Sessions in each IP version."""

Serials = dict[tuple[str, str], str]


def serials(lemonstand: Command, lab: str) -> Serials:
    """The number of each certificate on each host."""
    rows = json.loads(lemonstand("certificates", "list", "--lab", lab, "--json", code=(0, 1)).stdout)
    return {(row["host"], row["certificate"]): row["serial"] for row in rows if row["host"] != "controller"}


def authorities(lab: str) -> dict[str, bytes]:
    """The CAs on the controller."""
    return {path.parent.name: path.read_bytes() for path in (lab_dir(lab) / "pki").glob("*/ca.crt")}


def operations(lemonstand: Command, lab: str) -> list[str]:
    """What the site remembers of renewals."""
    runs = json.loads(lemonstand("log", "--lab", lab, "--last", "500", "--json").stdout)["runs"]
    return [run["result"] for run in runs if "--due" in run["command"]]


@pytest.mark.long
def test_what_is_due_is_renewed_and_nothing_else(
    deployed: str, lemonstand: Command, on: Callable[..., str], last_run: Callable[[], dict[str, Any]]
) -> None:
    before, remembered = serials(lemonstand, deployed), operations(lemonstand, deployed)
    assert "nothing is due" in lemonstand("certificates", "renew", "--due", "--lab", deployed).stdout
    assert serials(lemonstand, deployed) == before and operations(lemonstand, deployed) == remembered, "a look leaves no trace"

    # One host's certificates end soon; another one has a file that an apply would bring back.
    lemonstand("certificates", "renew", "--lab", deployed, "--limit", "relay", "-e", "certificates_days=20")
    on("store", "sed -i '$a # by hand' /etc/dovecot/dovecot.conf")
    # As if the last run had been cut off before services were told.
    on("frontend", "touch -d '1 minute' /etc/lemonstand/pki/public.crt")
    before = serials(lemonstand, deployed)
    workers = {host: on(host, "systemctl", "show", "-P", "MainPID", unit) for host, unit in (("relay", "postfix"), ("frontend", "dovecot"))}
    said = lemonstand("certificates", "renew", "--due", "--lab", deployed).stdout
    after = serials(lemonstand, deployed)
    assert {host for (host, _), serial in after.items() if serial != before[host, _]} == {"relay"}
    assert "relay: certificate relay: it ends" in said and "relay: reload postfix.service" in said and "frontend: reload dovecot" in said
    assert workers == {
        host: on(host, "systemctl", "show", "-P", "MainPID", unit) for host, unit in (("relay", "postfix"), ("frontend", "dovecot"))
    }
    assert operations(lemonstand, deployed) == ["ok", *remembered]
    assert "# by hand" in on("store", "cat", "/etc/dovecot/dovecot.conf"), "that is for an apply"
    lemonstand("apply", "--lab", deployed)
    assert {change["host"] for change in last_run()["changes"]} == {"store"}
    lemonstand("verify", "--lab", deployed, "-k", "what_is_served or renewed_long_before or cas_in_force")


@pytest.mark.long
def test_who_is_away_is_named_and_the_rest_is_renewed(deployed: str, lemonstand: Command) -> None:
    before = serials(lemonstand, deployed)
    container = labs.topology_of(deployed).container("relay")
    subprocess.run(["podman", "stop", "--time", "5", container], check=True, capture_output=True, timeout=60)
    try:
        done = lemonstand("certificates", "renew", "--due", "--within", "89.999", "--lab", deployed, code=1)
        assert "relay: could not be reached; its certificates wait" in done.stderr
    finally:
        lemonstand("lab", "up", "--name", deployed)
    after = serials(lemonstand, deployed)
    assert {host for (host, _), serial in after.items() if serial == before[host, _]} == {"relay"}
    lemonstand("certificates", "renew", "--due", "--within", "89.999", "--lab", deployed, "--limit", "relay")
    assert {key for key in after if serials(lemonstand, deployed)[key] != after[key]} == {key for key in after if key[0] == "relay"}
    lemonstand("verify", "--lab", deployed, "-k", "what_is_served")


@pytest.mark.long
def test_what_another_ca_signed_is_left_alone_and_named(deployed: str, lemonstand: Command) -> None:
    before = serials(lemonstand, deployed)
    pki = lab_dir(deployed) / "pki"
    (pki / "hosts").rename(pki / "hosts.true")
    try:
        said = lemonstand("certificates", "renew", "--due", "--within", "89.999", "--lab", deployed, "--limit", "store", code=1)
        assert "is that another site's directory?" in said.stderr
        assert not (pki / "hosts").exists()
    finally:
        (pki / "hosts.true").rename(pki / "hosts")
    changed = {key for key, serial in serials(lemonstand, deployed).items() if serial != before[key]}
    assert ("store", "mail-store") not in changed


@pytest.mark.long
def test_a_change_of_cas_goes_on_where_it_was_cut_off(deployed: str, lemonstand: Command) -> None:
    first = authorities(deployed)
    rotation = lab_dir(deployed) / "pki" / "rotation.json"
    words = [sys.executable, "-m", "lemonstand", "certificates", "rotate", "--lab", deployed, "-e", "certificates_rotation_seconds=5"]
    # Between each two steps, as soon as one has begun.
    for step in ("trust", "sign", "drop"):
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        with subprocess.Popen(words, **quiet) as run:
            until = time.monotonic() + 300
            while time.monotonic() < until and not (rotation.exists() and json.loads(rotation.read_text())["step"] == step):
                time.sleep(0.02)
            run.kill()
        # Who keeps Ansible ends it as well.
        time.sleep(10)
        lemonstand("unlock", "--lab", deployed, code=(0, 1, 2))
        assert "is not finished" in lemonstand("certificates", "list", "--lab", deployed, code=(0, 1)).stdout
        lemonstand("verify", "--lab", deployed, "-k", "test_every_leg_is_encrypted_and_verified or cas_in_force", code=(0, 1))
        lemonstand("mail", "send", "--lab", deployed, "--from", "alice@lemon.test", "--to", "bob@lemon.test", "--subject", step)
    # An apply in between does what the step says.
    lemonstand("apply", "--lab", deployed)
    lemonstand(*words[3:])
    assert not rotation.exists()
    last = authorities(deployed)
    assert last["public"] == first["public"] and not [name for name in first if name != "public" and last[name] == first[name]]
    lemonstand("apply", "--lab", deployed)
    lemonstand("verify", "--lab", deployed, "-k", "what_is_served or every_leg or cas_in_force or fit_the_cas or keys_are_the_sites_own")


@pytest.mark.long
def test_nobody_is_refused_while_cas_are_changed(deployed: str, lemonstand: Command) -> None:
    lemonstand("verify", "--lab", deployed, "--disruptive", "-k", "test_nobody_is_refused_while_cas_are_changed", timeout=1800)


START = """
set -e
mkdir -p "$GROUP"; echo $$ >"$GROUP/cgroup.procs"
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
(sleep 3; umount /run/systemd) &
exec /lib/systemd/systemd --user
"""
"""A manager of the user's own on a machine that systemd did not boot: only it sees what looks as if it had."""


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A systemd of the user's, which runs timers as it does anywhere."""
    if not Path("/lib/systemd/systemd").exists():
        pytest.skip("no systemd on this machine")
    groups = next(path for path in (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup")) if path.is_dir())
    own = groups / f"lemonstand-{os.getpid()}"
    # Sockets lie there, whose paths have to be short.
    monkeypatch.setenv("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="ls-"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", START], env={**os.environ, "GROUP": str(own)}) as manager:
        try:
            for _ in range(100):
                if subprocess.run(["systemctl", "--user", "show-environment"], capture_output=True, check=False).returncode == 0:
                    break
                time.sleep(0.2)
            time.sleep(4)
            yield
        finally:
            subprocess.run(["systemctl", "--user", "exit"], check=False, timeout=30)
            try:
                manager.wait(timeout=60)
            except subprocess.TimeoutExpired:
                manager.kill()
    for path in sorted([own, *own.rglob("*")], reverse=True):
        if path.is_dir():
            path.rmdir()


def ending(lemonstand: Command, lab: str) -> list[str]:
    """The alarms about certificates."""
    return [line for line in lemonstand("alarms", "--since", "5m", "--lab", lab, code=(0, 1)).stdout.splitlines() if "certificate" in line]


@pytest.mark.long
def test_a_year_of_renewals_drops_nobody_and_one_that_is_withheld_is_told(
    deployed: str, lab_site: Site, lemonstand: Command, systemd: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lemonstand("certificates", "renew", "--lab", deployed, *SHORT)
    remembered = len(operations(lemonstand, deployed))
    with open_vantage(lab_site) as vantage:
        ways = [vantage.endpoints(family) for family in families_of(lab_site)]
        within = MOST_MINUTES * 60
        with vantage.start(
            "idle-crowd", seconds=within + 300, endpoints=ways, accounts=vantage.accounts[:2], count=CROWD, within=within
        ) as crowd:
            assert crowd.wait("idling").values["opened"] == CROWD * len(ways)
            told = lemonstand("certificates", "schedule", "--user", "--calendar", EVERY, "--lab", deployed, *SHORT).stdout
            assert "the first run went well" in told
            seen = _watched(lemonstand, deployed, vantage)
            found = woken(vantage, crowd, 60)
    shown = lemonstand("certificates", "list", "--lab", deployed, code=(0, 1)).stdout
    assert "timer of this controller" in shown or "lemonstand-renew-lab-" in shown
    assert not found["ended"] and found["pushed"] == found["answered"] == found["opened"] == CROWD * len(ways), found["ended"]
    assert min(len(numbers) for numbers in seen.values()) > RENEWALS
    renewals = operations(lemonstand, deployed)[: -remembered or None]
    assert set(renewals) == {"ok"} and len(renewals) <= RENEWALS + 3, "runs that found nothing to do are not remembered"

    assert "is gone" in lemonstand("certificates", "unschedule", "--lab", deployed).stdout
    until = time.monotonic() + LIFE_MINUTES * 60
    while not (alarms := ending(lemonstand, deployed)) and time.monotonic() < until:
        time.sleep(20)
    assert alarms, "nobody was told"
    lemonstand("verify", "--lab", deployed, "-k", "renewed_long_before", code=1)
    assert "lemonstand-renew" not in lemonstand("certificates", "renew", "--due", "--lab", deployed).stdout
    assert not ending(lemonstand, deployed)
    lemonstand("verify", "--lab", deployed, "-k", "renewed_long_before or what_is_served")
    lemonstand("apply", "--lab", deployed)


def _watched(lemonstand: Command, lab: str, vantage: Vantage) -> dict[tuple[str, str], set[str]]:
    """The numbers each certificate had, until every one was renewed as often as in a year; no alarm may come meanwhile."""
    seen: dict[tuple[str, str], set[str]] = {}
    until = time.monotonic() + (MOST_MINUTES - 5) * 60
    while time.monotonic() < until:
        for key, serial in serials(lemonstand, lab).items():
            seen.setdefault(key, set()).add(serial)
        assert not ending(lemonstand, lab)
        if min(len(numbers) for numbers in seen.values()) > RENEWALS:
            break
        sent = vantage.ask("deliver", endpoint=vantage.endpoints(), account=vantage.accounts[0], recipient=vantage.accounts[2]["user"])
        assert sent["code"] == 250
        time.sleep(45)
    return seen
