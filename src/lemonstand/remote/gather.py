"""Reaches hosts by SSH and reads their state in one go."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import testinfra

from lemonstand.observations import note, strain
from lemonstand.outcomes import Invalid
from lemonstand.remote.connections import BECOME_REMEDY, Connection
from lemonstand.remote.facts import Facts
from lemonstand.surroundings import environment

GATHER_SECONDS = 180
TIMED_OUT = 124
"""What timeout(1) exits with."""
_PROGRAM = Path(__file__).with_name("facts_program.py")


def reach(way: Connection) -> Any:
    """A testinfra host. What it runs is run as root, with the password that sudo wants if it wants one."""
    host = testinfra.get_host(way.target, ssh_extra_args=way.ssh_arguments)
    backend = host.backend
    plain = backend.get_command

    def get_command(command: str, *args: str) -> str:
        line = plain(command, *args)
        return way.as_root(["/bin/sh", "-c", line]) if way.sudo else str(line)

    def run_local(command: str, *args: str) -> Any:
        line = backend.quote(command, *args)
        done = subprocess.run(["sh", "-c", line], input=way.given().encode(), capture_output=True, check=False, env=environment())
        refusal = way.refusal(done.returncode, done.stderr.decode("utf-8", "replace"))
        if refusal:
            raise Invalid(f"{backend.host.name} can't be asked as root: {refusal}; {BECOME_REMEDY}")
        return backend.result(done.returncode, backend.encode(line), done.stdout, done.stderr)

    backend.get_command, backend.run_local = get_command, run_local
    return host


def noting(name: str, host: Any) -> Any:
    """The same host; what it runs is noted for the evidence."""
    run = host.backend.run

    def noted(command: str, *args: str, **options: Any) -> Any:
        done = run(command, *args, **options)
        said = done.stdout or done.stderr
        note("command", name, host.backend.quote(command, *args), f"exit {done.rc}: {said}" if done.rc else said)
        return done

    host.backend.run = noted
    return host


def gather_facts(connections: Mapping[str, Connection], names: Sequence[str]) -> dict[str, Facts | Exception]:
    """Reads the state of hosts, all at once.

    Returns:
        Facts a host, or why it can't be read.
    """
    program = base64.b64encode(_PROGRAM.read_bytes()).decode()

    def take(name: str) -> Facts | Exception:
        try:
            if name not in connections:
                return Invalid(f"the inventory has no host '{name}'")
            done = reach(connections[name]).run(f"echo {program} | base64 -d | timeout {GATHER_SECONDS} python3 -")
            if done.rc == TIMED_OUT and (busy := strain()):
                return Invalid(f"{name} could not be read within {GATHER_SECONDS} s, at {busy}")
            if done.rc != 0:
                said = (done.stderr.strip().splitlines() or ["no message"])[-1]
                return Invalid(f"{name} can't be read (exit {done.rc}): {said}")
            return Facts(name, json.loads(done.stdout))
        except (OSError, RuntimeError, ValueError) as problem:
            return Invalid(f"{name} can't be read: {_brief(problem)}")

    with ThreadPoolExecutor(max_workers=max(1, min(16, len(names)))) as pool:
        return dict(zip(names, pool.map(take, names), strict=True))


def described(facts: Facts) -> dict[str, Any]:
    """What evidence says about a host: its system, what is installed, what runs, and a hash of its state."""
    data = dict.copy(facts.data)
    release = dict(line.partition("=")[::2] for line in data["texts"].get("/etc/os-release", "").splitlines())
    return {
        "system": release.get("PRETTY_NAME", "").strip('"'),
        "kernel": data["kernel"],
        "container": data["virtualization"] if facts.in_container else "",
        "packages": dict(sorted(data["packages"].items())),
        "running": dict(sorted(data["running"].items())),
        "state": data["state"],
    }


def _brief(problem: Exception) -> str:
    """testinfra tells a failed connection with the whole command, which holds a whole program: what ssh said is enough."""
    found = re.search(r"exit_status=(\d+).*_?stderr=b?(['\"])(.*?)\2\)?", str(problem), re.DOTALL)
    return f"ssh exit {found.group(1)}: {found.group(3)[:300]}" if found else str(problem)[:300]
