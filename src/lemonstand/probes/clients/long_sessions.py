"""IMAP sessions that last while something happens to the network."""

from __future__ import annotations

import secrets
import time
from typing import Any

from lemonstand.probes.events import Refused, emit
from lemonstand.probes.protocols.imap import Imap, Literal
from lemonstand.probes.protocols.messages import large
from lemonstand.probes.protocols.wire import Account, Endpoint

FETCH_EVERY = 0.5
LATE_SECONDS = 0.2
"""A client that reads late lets the server's data gather, and gathered data travels in packets as large as they may be."""


def closings(endpoint: Endpoint, account: Account, within: float) -> None:
    """Leaves connections in each state a silent one can be in; tells `there` when they are, then waits.

    One idles, one was closed by the server alone, one by both sides.

    Args:
        within: seconds they are left so.

    Raises:
        Refused: the server closes nothing after LOGOUT.
    """
    idle, half, closed = (Imap.open(endpoint, account) for _ in range(3))
    if not (_left(half) and _left(closed)):
        raise Refused("the server does not close the connection after LOGOUT")
    closed.wire.close()
    time.sleep(0.5)
    emit("there")
    time.sleep(within)
    half.wire.close()
    idle.quit()


def _left(session: Imap) -> bool:
    """Says goodbye and reads up to the end; closes nothing. What is left unread would make the kernel reset the connection."""
    session.command("LOGOUT")
    session.wire.socket.settimeout(10)
    try:
        return session.wire.socket.recv(1) == b""
    except OSError:
        return False


def fetch_through(endpoint: Endpoint, account: Account, size: int, within: float) -> dict[str, Any]:
    """Stores a large message, tells `stored`, then fetches it again and again on the same connection.

    Args:
        size: octets.
        within: seconds it goes on.

    Returns:
        `fetched`: how often all of it came; `slowest`: seconds one took to read; `octets` of one; `ended`: what ended the session.
    """
    session = Imap.open(endpoint, account)
    box = f"probe-{secrets.token_hex(6)}"
    session.command("CREATE", box)
    sample = large(account["user"], account["user"], size)
    session.command("APPEND", box, Literal(sample.data), shown="APPEND <message>")
    session.command("SELECT", box)
    emit("stored")
    until = time.monotonic() + within
    ended, fetched, slowest = "", 0, 0.0
    try:
        while time.monotonic() < until and not ended:
            tag = session.begin("FETCH 1 (BODY.PEEK[])")
            time.sleep(LATE_SECONDS)
            started = time.monotonic()
            answer = session.finish(tag)
            slowest = max(slowest, time.monotonic() - started)
            whole = answer.ok and max((len(line) for line in answer.untagged), default=0) >= len(sample.data)
            fetched += whole
            ended = "" if whole else f"{answer.status} {answer.text}"
            time.sleep(FETCH_EVERY)
    except OSError as fault:
        ended = f"{type(fault).__name__}: {fault}"
    session.wire.close()
    session = Imap.open(endpoint, account)
    session.command("DELETE", box)
    session.quit()
    return {"fetched": fetched, "slowest": round(slowest, 2), "octets": len(sample.data), "ended": ended}


def talk(endpoint: Endpoint, account: Account, within: float, every: float) -> dict[str, Any]:
    """A session that says NOOP again and again; tells `talking` after the first answer.

    Returns:
        `answered`: how many; `ended`: what ended it, empty if nothing did; `longest`: seconds the longest answer took; `seconds`: how
        long it lasted.
    """
    session = Imap.open(endpoint, account)
    session.wire.socket.settimeout(within)
    began = time.monotonic()
    until = began + within
    answered, longest, ended = 0, 0.0, ""
    while time.monotonic() < until and not ended:
        started = time.monotonic()
        try:
            answer = session.command("NOOP")
        except OSError as fault:
            ended = f"{type(fault).__name__}: {fault}"
            break
        if not answer.ok:
            ended = f"{answer.status} {answer.text}"
        answered += answer.ok
        longest = max(longest, time.monotonic() - started)
        if answered == 1:
            emit("talking")
        time.sleep(every)
    session.quit()
    return {"answered": answered, "ended": ended, "longest": round(longest, 3), "seconds": round(time.monotonic() - began, 1)}
