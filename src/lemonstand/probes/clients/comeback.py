"""Clients in IDLE that come back when their session ends, as phones do: how often each has to, and how long it was away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.probes.events import ENOUGH, emit
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.wire import Account, Endpoint

LOOK_SECONDS = 2.0
"""How often a waiting session looks whether anybody still waits for it."""
AGAIN_SECONDS = 0.5
"""From a try to come back that failed to the next."""
OPENERS = 6
"""First logins side by side: enough to be quick, too few to be an attack."""


def comebacks(endpoints: list[Endpoint], accounts: list[Account], count: int, within: float) -> dict[str, Any]:
    """Idles in sessions, and logs in again in each that ends, until it is told that that is enough.

    Tells `idling` once all of them do.

    Args:
        endpoints: the frontend's addresses; `count` sessions at each.
        accounts: used in turn.
        count: sessions at each endpoint.
        within: seconds after which it stops.

    Returns:
        `clients`: of each, `where`; `back`, how often it logged in again; `away`, the longest it was without a session, in seconds;
        `ended`, why its sessions ended; `answered`, whether the last one answers in the end.
    """
    jobs = [(endpoint, accounts[number % len(accounts)]) for number in range(count) for endpoint in endpoints]
    with ThreadPoolExecutor(max_workers=OPENERS) as pool:
        sessions = list(pool.map(lambda job: _idling(*job), jobs))
    emit("idling", opened=len(sessions))
    until = time.monotonic() + within
    # One thread a session: they sleep.
    with ThreadPoolExecutor(max_workers=max(1, len(jobs))) as pool:
        living = [pool.submit(_live, *job, *session, until) for job, session in zip(jobs, sessions, strict=True)]
    return {"clients": [each.result() for each in living]}


def _idling(endpoint: Endpoint, account: Account) -> tuple[Imap, str]:
    session = Imap.open(endpoint, account)
    session.command("SELECT INBOX")
    tag = session.begin("IDLE")
    first = session.response()
    if not first.startswith(b"+"):
        raise ValueError(f"IDLE: {first[:100]!r}")
    return session, tag


def _live(endpoint: Endpoint, account: Account, session: Imap, tag: str, until: float) -> dict[str, Any]:
    seen: dict[str, Any] = {"where": endpoint["address"], "back": 0, "away": 0.0, "ended": [], "answered": False}
    while not ENOUGH.is_set() and time.monotonic() < until:
        try:
            line = session.response(LOOK_SECONDS)
            if not line.upper().startswith(b"* BYE"):
                continue
            why = line.decode("utf-8", "replace")
        except TimeoutError:
            continue
        except (OSError, ValueError) as fault:
            why = f"{type(fault).__name__}: {fault}"
        seen["ended"].append(why[:100])
        lost, again = time.monotonic(), None
        while again is None and time.monotonic() < until:
            try:
                again = _idling(endpoint, account)
            except (OSError, ValueError):
                time.sleep(AGAIN_SECONDS)
        seen["away"] = max(seen["away"], round(time.monotonic() - lost, 2))
        if again is None:
            return seen
        session, tag = again
        seen["back"] += 1
    try:
        seen["answered"] = session.done(tag).ok and session.command("NOOP").ok
        session.quit()
    except (OSError, ValueError) as fault:
        seen["ended"].append(f"{type(fault).__name__}: {fault}"[:100])
    return seen
