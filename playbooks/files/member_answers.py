"""Waits until this host is at work: its services run, and what its kind says to who connects is said. Changes nothing.

Order: `doors`, a list of `{port, says}` as `kinds.yml` has it; `addresses`, where the host itself may be asked; `seconds` to wait.
Prints what is still missing on standard error, a line each, and ends with exit status 1 when the time is up. Standard library only: the
text travels to each host.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONVERGED = Path("/var/lib/lemonstand/converge")
"""One file a unit that a role has brought to its configuration."""
ANSWER_SECONDS = 10
"""For one connection: a relay lets a stranger wait for six before it greets."""
PAUSE_SECONDS = 0.5
LEARNING_SECONDS = 3
EXTERNAL = re.compile(r"cache external:\s+current active connections:\s+(\d+)")
CONNECTIONS = "conntrackd.service"
"""An edge of two has to have been told of the other one's connections before that one may stand still."""


def said(*words: str) -> str:
    """What a program printed; nothing if it does not end in time."""
    try:
        return subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=ANSWER_SECONDS, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""


def asleep(units: list[str]) -> Iterator[str]:
    """Units that are not at work."""
    if not units:
        yield "no unit was ever brought to its configuration here"
        return
    for block in said("systemctl", "show", *units, "-p", "Id,ActiveState,MainPID").strip().split("\n\n"):
        state = dict(line.partition("=")[::2] for line in block.splitlines())
        name = state.get("Id", "?")
        if state.get("ActiveState") not in {"active", "reloading", "refreshing"}:
            yield f"{name} is {state.get('ActiveState', '?')}"
        elif is_stopped(state.get("MainPID", "0")):
            yield f"{name} was stopped by a signal"


def is_stopped(pid: str) -> bool:
    """Whether a process was stopped by a signal (proc_pid_stat(5): state T)."""
    with contextlib.suppress(OSError, IndexError):
        return Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "T"
    return False


def fault(address: str, port: int, says: str) -> str:
    """Why nobody answers there as one should; empty: somebody does."""
    try:
        with socket.create_connection((address, port), timeout=ANSWER_SECONDS) as wire:
            if says == "tls":
                # Whoever it is, it is this host: certificates are for who comes from elsewhere.
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                with context.wrap_socket(wire):
                    return ""
            line = wire.makefile("rb").readline(1000).decode(errors="replace").strip()
            return "" if line.startswith(says) else f"port {port} says {line[:80]!r}"
    except OSError as problem:
        return f"port {port}: {problem}"


def missing(order: dict[str, Any]) -> Iterator[str]:
    """What is not there yet, a line each."""
    units = sorted(path.name.removesuffix(".json") for path in CONVERGED.glob("*.json"))
    yield from asleep(units)
    for door in order["doors"]:
        # One address is enough: which ones a service has to take is for the verification.
        faults = [fault(address, int(door["port"]), door["says"]) for address in order["addresses"]]
        if all(faults):
            yield "; ".join(faults) or "this host has no address to be asked at"
    if CONNECTIONS in units and is_learning():
        yield "the other edge's connections are still coming in"


def is_learning() -> bool:
    """Whether the other edge still tells of its connections: a daemon that starts asks for all, and they come at once."""
    since = said("systemctl", "show", CONNECTIONS, "-p", "ActiveEnterTimestampMonotonic", "--value").strip()
    if time.monotonic() - int(since or 0) / 1e6 < LEARNING_SECONDS:
        return True
    before = known()
    time.sleep(PAUSE_SECONDS)
    return known() > before + max(10, before / 20)


def known() -> int:
    """How many connections of the other edge are known here."""
    return sum(int(count) for count in EXTERNAL.findall(said("conntrackd", "-s")))


def main_encoded(text: str) -> int:
    """Answers an order in base64, as plays send it; returns the exit status."""
    order = json.loads(base64.b64decode(text).decode())
    until = time.monotonic() + order["seconds"]
    left = list(missing(order))
    while left and time.monotonic() < until:
        time.sleep(PAUSE_SECONDS)
        left = list(missing(order))
    print("\n".join(left), file=sys.stderr)
    return 1 if left else 0
