"""Tell of the sessions a frontend proxies which have a mark, and end some: those with certain marks, or those to certain stores.

Runs on a frontend as root, from standard input; `main_encoded` takes one order:

    {"action": "marks"}                                     which marks there are
    {"action": "end", "marks": [...], "to": [addresses]}

`doveadm kick` asks each login process to end a session. One that has its one session, as it is with a process a session, no longer listens
for that and says so to nobody: Dovecot counts it as ended, and it goes on. Such a process is told to end (SIGTERM): its session is all it
has, and both sides are told.
"""

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

WAIT_SECONDS = 0.5
"""For what was asked to end."""


class Session(NamedTuple):
    """One session as Dovecot counts it.

    Args:
        pid: the process that has it.
        to: the store's address.
        mark: what the password check gave it (`user_device`); empty if nothing.
    """

    pid: int
    to: str
    mark: str


def sessions(said: str) -> list[Session]:
    """Return the sessions `doveadm -f tab who -1 -f user_device` prints."""
    heading, *rows = [line.split("\t") for line in said.splitlines() if line] or [[]]
    found = [dict(zip(heading, row, strict=False)) for row in rows]
    return [Session(int(each["pid"]), each.get("dest_ip", ""), each.get("user_device", "")) for each in found]


def chosen(order: dict[str, Any]) -> Callable[[Session], bool]:
    """Return what tells of a session whether it is one of those an order names: `marks`, or `to` (addresses)."""
    marks, addresses = set(order.get("marks", [])), set(order.get("to", []))
    return lambda session: session.mark in marks or session.to in addresses


def alone(there: list[Session], wanted: Callable[[Session], bool]) -> list[int]:
    """Return the processes that have no session but such ones."""
    others = {each.pid for each in there if not wanted(each)}
    return sorted({each.pid for each in there if wanted(each)} - others)


def _there() -> list[Session]:
    done = subprocess.run(["doveadm", "-f", "tab", "who", "-1", "-f", "user_device"], capture_output=True, text=True, check=True)
    return sessions(done.stdout)


def _kick(order: dict[str, Any]) -> None:
    for words in [["-f", "user_device", mark] for mark in order.get("marks", [])] + [
        ["-h", address, "*"] for address in order.get("to", [])
    ]:
        subprocess.run(["doveadm", "kick", *words], capture_output=True, check=False)


def end(order: dict[str, Any]) -> dict[str, int]:
    """End the sessions an order names; return how many were `ended` and how many are `left`."""
    wanted = chosen(order)
    before = sum(map(wanted, _there()))
    if before:
        _kick(order)
        time.sleep(WAIT_SECONDS)
        for pid in alone(_there(), wanted):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        time.sleep(WAIT_SECONDS)
    left = sum(map(wanted, _there())) if before else 0
    return {"ended": max(0, before - left), "left": left}


def main_encoded(text: str) -> int:
    """Answer an order in base64."""
    order = json.loads(base64.b64decode(text))
    found = {"marks": sorted({each.mark for each in _there()} - {""})} if order["action"] == "marks" else end(order)
    print(json.dumps(found))
    return 0
