"""Reaches hosts by SSH and reads their state in one go."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import testinfra

from lemonstand.observations import apart, note
from lemonstand.outcomes import Invalid, Unanswered
from lemonstand.remote.connections import BECOME_REMEDY, Connection
from lemonstand.remote.facts import Facts
from lemonstand.remote.prober import Prober
from lemonstand.surroundings import environment

GATHER_SECONDS = 180


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


def gather_facts(prober: Prober, names: Sequence[str]) -> dict[str, Facts | Exception]:
    """Reads the state of hosts, all at once.

    Returns:
        Facts a host, or why it can't be read.
    """

    def take(name: str) -> Facts | Exception:
        if name not in prober.connections:
            return Invalid(f"the inventory has no host '{name}'")
        try:
            # Each setting that a check looks at is noted by itself.
            return Facts(name, apart({}, lambda: prober.ask(name, "facts", seconds=GATHER_SECONDS)))
        except (Unanswered, OSError) as problem:
            return Invalid(f"{name} can't be read: {problem}")

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
