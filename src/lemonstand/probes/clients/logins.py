"""Many logins, one after another and side by side: how many fail, how many stall."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint


def logins(
    endpoint: Endpoint, accounts: list[Account], count: int, parallel: int, stall: float, *, service: str = "imap"
) -> dict[str, Any]:
    """Opens sessions, logs in, asks once whether the mailbox answers, and leaves.

    Args:
        endpoint: the frontend.
        accounts: used in turn.
        count: how many sessions.
        parallel: how many at a time.
        stall: seconds after which an answer counts as stalled.
        service: `imap` or `submission`.

    Returns:
        `stalled` and `failed` (texts), `seconds` (of all), and per session `median`, `slowest` in seconds.
    """
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        results = list(pool.map(lambda number: _one(endpoint, accounts[number % len(accounts)], stall, service), range(count)))
    took = sorted(seconds for seconds, _ in results)
    return {
        "count": count,
        "stalled": [fault for _, fault in results if fault.startswith("stalled")],
        "failed": [fault for _, fault in results if fault and not fault.startswith("stalled")],
        "seconds": round(time.monotonic() - started, 3),
        "median": round(took[len(took) // 2], 4),
        "slowest": round(took[-1], 4),
    }


def _one(endpoint: Endpoint, account: Account, stall: float, service: str) -> tuple[float, str]:
    started = time.monotonic()
    try:
        for step in _imap(endpoint, account, stall) if service == "imap" else _submission(endpoint, account, stall):
            if step:
                return time.monotonic() - started, step
    except TimeoutError:
        return time.monotonic() - started, f"stalled: no answer within {stall} s"
    except (OSError, ValueError) as fault:
        return time.monotonic() - started, f"{type(fault).__name__}: {fault}"
    return time.monotonic() - started, ""


def _imap(endpoint: Endpoint, account: Account, stall: float) -> Iterator[str]:
    session = Imap.open(endpoint, account, timeout=stall, again_after=())
    try:
        answer = session.command("STATUS INBOX (MESSAGES)")
        yield "" if answer.ok and answer.lines("STATUS") else f"STATUS: {answer.status} {answer.text}"
    finally:
        session.quit()


def _submission(endpoint: Endpoint, account: Account, stall: float) -> Iterator[str]:
    session = Smtp.open(endpoint, account, timeout=stall, again_after=())
    try:
        reply = session.envelope(account["user"], [account["user"]])
        yield "" if reply.ok else f"RCPT: {reply.code} {reply.text}"
    finally:
        session.quit()


def storm(endpoint: Endpoint, account: Account, other: Account, *, clients: int, duration: float, timeout: float) -> dict[str, Any]:
    """Many clients of one user that reconnect as fast as they can, while another user logs in again and again.

    Args:
        endpoint: the frontend.
        account: whose clients storm.
        other: whom it must not concern.
        clients: how many storm.
        duration: seconds it goes on.
        timeout: seconds an answer may take.

    Returns:
        `storm` and `others`: logins that worked; `refused`: what the others were answered that was no login; `storm_refused`: the same of
        the storm; `slowest`: seconds of the others' slowest login.
    """
    until = time.monotonic() + duration
    lock = threading.Lock()
    worked = {"storm": 0, "others": 0}
    refused: dict[str, list[str]] = {"storm": [], "others": []}
    slowest = 0.0

    def go(kind: str, who: Account, pause: float) -> None:
        nonlocal slowest
        while time.monotonic() < until:
            started = time.monotonic()
            try:
                session = Imap.open(endpoint, timeout=timeout)
                answer = session.plain(who)
                said = "" if answer.ok else f"{answer.status} {answer.text}"
                session.quit()
            except (OSError, ValueError) as fault:
                said = f"{type(fault).__name__}: {fault}"
            took = time.monotonic() - started
            with lock:
                worked[kind] += not said
                refused[kind] += [said] if said else []
                slowest = max(slowest, took) if kind == "others" else slowest
            time.sleep(pause)

    with ThreadPoolExecutor(clients + 2) as pool:
        running = [pool.submit(go, "storm", account, 0.0) for _ in range(clients)]
        running += [pool.submit(go, "others", other, 0.5) for _ in range(2)]
        for each in running:
            each.result()
    return {
        "storm": worked["storm"],
        "others": worked["others"],
        "refused": refused["others"][:10],
        "storm_refused": refused["storm"][:10],
        "slowest": round(slowest, 2),
    }
