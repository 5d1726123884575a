"""Shells, scripts and logs of a lab's hosts."""

from __future__ import annotations

import subprocess

from lemonstand.errors import LemonstandError
from lemonstand.lab.seeds import become_password
from lemonstand.lab.state import require, topology_of
from lemonstand.lab.topology import ROOT
from lemonstand.paths import lab_dir

SCRIPT_SECONDS = 90


def ssh(name: str, host: str, argv: list[str]) -> int:
    """Opens a shell on a host, or runs a command there; returns its exit status."""
    require(name)
    topology_of(name).machine(host)
    return subprocess.run(["ssh", "-F", str(lab_dir(name) / "ssh" / "config"), host, *argv], check=False).returncode


def run_on(name: str, host: str, script: str) -> str:
    """Runs a shell script on a host as root and returns what it printed.

    Raises:
        LemonstandError: it failed, or took longer than `SCRIPT_SECONDS`.
    """
    item = topology_of(name).machine(host)
    shell, given = ("sh -s", "") if item.account == ROOT else ("sudo -n sh -s", "")
    if item.asks:
        shell, given = "sudo -k -S -p '' sh -s", f"{become_password(name)}\n"
    command = ["ssh", "-F", str(lab_dir(name) / "ssh" / "config"), host, shell]
    try:
        done = subprocess.run(command, input=given + script, capture_output=True, text=True, timeout=SCRIPT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise LemonstandError(f"commands took more than {SCRIPT_SECONDS} s", host, "see what the host waits for") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LemonstandError(f"commands failed: {said}", host, f"lemonstand apply --lab {name} mends the host")
    return done.stdout


def logs(name: str, host: str | None = None) -> int:
    """Prints a host's journal, or without a host where the logs of the lab lie."""
    if host is None:
        for path in sorted(lab_dir(name).glob("**/*.log")):
            print(path)
        return 0
    return ssh(name, host, ["journalctl", "--no-pager", "-n", "200"])
