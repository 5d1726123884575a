"""Many clients in IDLE at once: how many sessions outlive what is done to the site, and whether each is told of new mail."""

from __future__ import annotations

import resource
import selectors
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lemonstand.probes.events import ENOUGH, emit
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.wire import Account, Endpoint

LOOK_SECONDS = 5.0
"""How often it is looked whether anybody still waits."""
PARTING = 256
"""Sessions that are ended side by side: each that is dead takes as long as a step may."""

OPENERS = 6
"""Logins side by side: enough to be quick, too few to be an attack."""
OTHER_FILES = 64
"""Descriptors beside the sessions'."""
TRIES, PAUSE = 3, 2.0
"""A client that is told to come later comes later: times, and seconds between. How many logins need that is no question here."""


@dataclass
class _Client:
    """One session of the crowd, and what became of it."""

    session: Imap
    where: str
    tag: str = ""
    pushed: bool = False
    answered: bool = False
    heard: int = 0
    ended: str = ""


def crowd(endpoints: list[Endpoint], accounts: list[Account], count: int, within: float) -> dict[str, Any]:
    """Opens sessions and idles in all of them until each learns of a new message; then each says a word of its own.

    Tells `idling` once all of them do.

    Args:
        endpoints: the frontend's addresses; `count` sessions at each.
        accounts: used in turn.
        count: sessions at each endpoint.
        within: seconds it waits for the messages.

    Returns:
        `opened`, `heard` (lines that came unasked, in all), `pushed` (learnt of a message), `answered` (DONE and NOOP were answered on the
        same connection), `ended`: what ended the others, `refused`: why sessions could not be opened, `seconds` it took to open them.

    Raises:
        ValueError: this host lets no process have that many descriptors.
    """
    _make_room(count * len(endpoints))
    started = time.monotonic()
    jobs = [(endpoint, accounts[number % len(accounts)]) for number in range(count) for endpoint in endpoints]
    with ThreadPoolExecutor(max_workers=OPENERS) as pool:
        opened = list(pool.map(lambda job: _open(*job), jobs))
    clients = [each for each in opened if isinstance(each, _Client)]
    refused = [each for each in opened if isinstance(each, str)]
    took = round(time.monotonic() - started, 1)
    emit("idling", opened=len(clients), seconds=took)
    if clients:
        _wait(clients, time.monotonic() + within)
        with ThreadPoolExecutor(max_workers=min(len(clients), PARTING)) as pool:
            list(pool.map(_part, clients))
    return {
        "opened": len(clients),
        "heard": sum(client.heard for client in clients),
        "pushed": sum(client.pushed for client in clients),
        "answered": sum(client.answered for client in clients),
        "ended": [f"{client.where}: {client.ended}" for client in clients if client.ended][:20],
        "refused": refused[:20],
        "seconds": took,
    }


def _make_room(sessions: int) -> None:
    """Raises the limit of descriptors as far as the sessions need it: a login shell has 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sessions + OTHER_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ValueError(f"{sessions} sessions need {needed} descriptors, this host gives a process {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


def _open(endpoint: Endpoint, account: Account) -> _Client | str:
    fault = ""
    for turn in range(TRIES):
        time.sleep(PAUSE if turn else 0)
        try:
            session = Imap.open(endpoint, account)
            session.command("SELECT INBOX")
            client = _Client(session, endpoint["address"])
            client.tag = session.begin("IDLE")
            first = session.response()
        except (OSError, ValueError) as problem:
            fault = f"{type(problem).__name__}: {problem}"
            if "[UNAVAILABLE]" in fault or isinstance(problem, TimeoutError):
                continue
            break
        if first.startswith(b"+"):
            return client
        fault = f"IDLE: {first[:100]!r}"
    return f"{endpoint['address']}: {fault}"


def _wait(clients: list[_Client], until: float) -> None:
    """Hears what sessions are told until each has learnt of a message or has ended, or nobody waits any more."""
    with selectors.DefaultSelector() as waiting:
        for client in clients:
            waiting.register(client.session.wire.socket, selectors.EVENT_READ, client)
        while waiting.get_map() and (left := until - time.monotonic()) > 0:
            ready = waiting.select(min(left, LOOK_SECONDS))
            for key, _ in ready:
                _hear(key.data)
                if key.data.pushed or key.data.ended:
                    waiting.unregister(key.fileobj)
            if not ready and ENOUGH.is_set():  # whoever asked has seen that nothing more can come
                return


def _hear(client: _Client) -> None:
    """Takes what a session has been sent, as far as it is there."""
    try:
        while not (client.pushed or client.ended):
            line = client.session.response(LOOK_SECONDS)
            client.heard += 1
            client.pushed = line.endswith(b" EXISTS")
            if line.upper().startswith(b"* BYE"):
                client.ended = line.decode("utf-8", "replace")
            if not client.session.wire.has_more():
                return
    except TimeoutError:
        return  # a part of TLS' own, or of a line: the rest comes
    except (OSError, ValueError) as fault:
        client.ended = f"{type(fault).__name__}: {fault}"


def _part(client: _Client) -> None:
    """Has a session say a word of its own, and ends it."""
    if client.ended:
        return
    try:
        done = client.session.done(client.tag)
        client.answered = done.ok and client.session.command("NOOP").ok
        if not client.answered:
            client.ended = f"{done.status} {done.text}"
        client.session.quit()
    except (OSError, ValueError) as fault:
        client.ended = f"{type(fault).__name__}: {fault}"
