"""What the issuer lets one address or network have: connections that do not go on, and names that are none. Runs on a frontend."""

from __future__ import annotations

import secrets
import socket
import ssl
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.probes.clients.tickets import InnerServices, _ask, _inner, fresh_network
from lemonstand.probes.protocols.wire import Account

PORT = 8443
KINDS = ("silent", "handshake", "header", "body")
"""Where a connection stops: before its first octet, within the handshake, the header, the body. All but the first go on slowly."""
OPENING_SECONDS = 3.0
WAVE, WAVES = 40, 12
"""Questions with what is no name: side by side, and how often at most."""


def slow_questions(inner_services: InnerServices, account: Account, count: int, within: float, other: str = "") -> dict[str, Any]:
    """Opens connections that stop half-way, asks for tickets beside them, and waits until the issuer ends them.

    Args:
        count: connections, a quarter of each kind.
        within: seconds to wait.
        other: another address of the issuer, in another IP version: it is asked there as another frontend would.

    Returns:
        `held`: how many were open for a second; `asked`: what tickets brought meanwhile; `longest`: by kind, the seconds after which the
        last was ended; `left`: by kind, how many were still open in the end.
    """
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=min(count, 24)) as pool:
        opened = list(pool.map(lambda number: _half(inner_services, KINDS[number % len(KINDS)]), range(count)))
    since = {connection: (kind, at) for kind, at, connection in opened if connection is not None}
    beside: InnerServices = {**inner_services, "issuer_address": other or inner_services["issuer_address"]}
    ended: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    held = 0
    with ThreadPoolExecutor(max_workers=1) as pool:
        asking = pool.submit(lambda: [_short(_ask(beside, account["user"], account["password"])) for _ in range(3)])
        while since and time.monotonic() - began < within:
            for connection, (kind, at) in list(since.items()):
                if _is_over(connection, kind):
                    ended[kind] = max(ended[kind], time.monotonic() - at)
                    connection.close()
                    del since[connection]
            held = held or len(since)
            time.sleep(1)
        left = Counter(kind for kind, _ in since.values())
        # What is left goes, so that who asks beside it is answered in the end.
        asked_in_time = asking.done()
        for connection in since:
            connection.close()
        asked = asking.result()
    return {
        "held": held,
        "asked": asked if asked_in_time else [*asked, {"status": 0, "error": f"no answer in {within} s"}],
        "longest": {kind: round(seconds, 1) for kind, seconds in ended.items()},
        "left": dict(left),
    }


def reset_beside(inner_services: InnerServices, account: Account, rounds: int, count: int) -> list[dict[str, Any]]:
    """Asks for tickets, and while each question is under way opens connections and resets them: what the questions brought."""
    answers = []
    with ThreadPoolExecutor(max_workers=1) as pool:
        for _ in range(rounds):
            asking = pool.submit(_ask, inner_services, account["user"], account["password"])
            for _ in range(count):
                with socket.create_connection((inner_services["issuer_address"], PORT), OPENING_SECONDS) as connection:
                    connection.sendall(b"\x16\x03\x01")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            answers.append(_short(asking.result()))
    return answers


def _short(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key in {"status", "seconds", "error"}}


def _half(inner_services: InnerServices, kind: str) -> tuple[str, float, socket.socket | None]:
    """A connection that stops in a kind of step, and since when; None in its place if it was refused."""
    connection: socket.socket | None = None
    try:
        connection = socket.create_connection((inner_services["issuer_address"], PORT), OPENING_SECONDS)
        if kind == "handshake":
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")
        if kind in {"header", "body"}:
            connection = _inner("issuer-client").wrap_socket(connection, server_hostname=inner_services["issuer"])
            connection.sendall(b"POST /token HTTP/1.1\r\nHost: issuer\r\n")
        if kind == "body":
            connection.sendall(b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 4000\r\n\r\ngrant_type=")
        connection.setblocking(False)
    except OSError:
        if connection is not None:
            connection.close()
        return kind, time.monotonic(), None
    return kind, time.monotonic(), connection


def _is_over(connection: socket.socket, kind: str) -> bool:
    """Sends one octet more and tells whether the other side has ended it. An answer to half a question is an end as well."""
    try:
        if kind != "silent":
            connection.sendall(b"0")
        while connection.recv(4096):
            pass
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    except OSError:
        return True
    return True


def closed_network(inner_services: InnerServices, accounts: list[Account]) -> dict[str, Any]:
    """Asks under what is no name until a network is not heard any more, then with names, there and elsewhere.

    Args:
        accounts: two; the first got in from that network before.

    Returns:
        `refused`, `later`: how many of the first kind were answered so; then `{status, seconds}` of `invented` (a name nobody has), `known`
        and `stranger` (wrong passwords of the two), `known right`, and from another network `elsewhere` (the second's right password).
    """
    here, away = fresh_network(), fresh_network()
    known, stranger = accounts[0], accounts[1]
    first = _ask(inner_services, known["user"], known["password"], client=here)
    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(max_workers=WAVE) as pool:
        for _ in range(WAVES):
            wave = list(
                pool.map(lambda _: _ask(inner_services, f"no name {secrets.token_hex(4)}", "x", client=here)["status"], range(WAVE))
            )
            statuses.update(wave)
            if set(wave) == {429}:
                break
    invented = f"nobody-{secrets.token_hex(6)}@{known['user'].partition('@')[2]}"
    questions = {
        "invented": (invented, "wrong", here), "known": (known["user"], "not" + known["password"], here),
        "stranger": (stranger["user"], "not" + stranger["password"], here), "known right": (known["user"], known["password"], here),
        "elsewhere": (stranger["user"], stranger["password"], away),
    }  # fmt: skip
    found: dict[str, Any] = {"first": _short(first), "refused": statuses[400], "later": statuses[429]}
    for case, (user, password, client) in questions.items():
        found[case] = _short(_ask(inner_services, user, password, client=client))
    found["other answers"] = sum(statuses.values()) - statuses[400] - statuses[429]
    return found
