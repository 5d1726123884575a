"""A ManageSieve client (RFC 5804) that says what each step brought."""

from __future__ import annotations

import base64
import contextlib
import secrets
from typing import Any

from lemonstand.probes.events import Refused
from lemonstand.probes.protocols.wire import Account, Closed, Endpoint, Wire, context

PORT = 4190
SCRIPT = 'require ["fileinto"];\r\nkeep;\r\n'
ENDINGS = (b"OK", b"NO", b"BYE")


class Sieve:
    """A session behind STARTTLS and login.

    Attributes:
        offered: the extensions announced in SIEVE.
    """

    def __init__(self, wire: Wire, offered: list[str]) -> None:
        self._wire = wire
        self.offered = offered

    @classmethod
    def open(cls, endpoint: Endpoint, account: Account) -> Sieve:
        """A session of an account.

        Raises:
            Refused: the server refused.
        """
        wire, said = _tried(endpoint, account)
        if said[0] != "OK":
            raise Refused(f"login of {account['user']} at ManageSieve: {said}")
        wire.send(b"CAPABILITY\r\n")
        return cls(wire, _capabilities(_answer(wire)).get("SIEVE", "").split())

    def command(self, line: str) -> list[str]:
        """`[OK or NO, text]`."""
        self._wire.send(f"{line}\r\n".encode())
        return _brief(_answer(self._wire))

    def put(self, name: str, script: str) -> list[str]:
        """Stores a script: `[OK or NO, text]`."""
        data = script.encode()
        self._wire.send(f'PUTSCRIPT "{name}" {{{len(data)}+}}\r\n'.encode() + data + b"\r\n", shown=f"PUTSCRIPT {name}")
        return _brief(_answer(self._wire))

    def quit(self) -> None:
        """Says goodbye; never fails."""
        with contextlib.suppress(OSError, ValueError):
            self.command("LOGOUT")
        self._wire.close()


def sieve_login(endpoint: Endpoint, account: Account) -> list[str]:
    """One login behind STARTTLS: `[OK or NO, text]`."""
    wire, said = _tried(endpoint, account)
    wire.close()
    return said


def sieve_session(endpoint: Endpoint, account: Account) -> dict[str, Any]:
    """What a client does: look, STARTTLS, a wrong password, the right one, store a script, list it, take it away.

    Returns:
        `before_tls` and `after_tls`: capabilities by name; `early`, `wrong`, `right`, `put`, `listed`, `deleted`: `[OK or NO, text]`;
        `script`: the name of the one stored, which no other session has; `scripts`: the names listed; `tls`.
    """
    script = f"probe-{secrets.token_hex(4)}"
    wire = Wire.to(endpoint, PORT)
    try:
        before = _capabilities(_answer(wire))
        early = _authenticate(wire, account)
        wire.send(b"STARTTLS\r\n")
        starttls = _answer(wire)
        wire.starttls(context(endpoint["ca"]), endpoint["name"])
        after = _capabilities(_answer(wire))
        wrong = _authenticate(wire, {"user": account["user"], "password": account["password"] + "x"})
        right = _authenticate(wire, account)
        wire.send(f'PUTSCRIPT "{script}" {{{len(SCRIPT)}+}}\r\n{SCRIPT}\r\n'.encode())
        put = _answer(wire)
        wire.send(b"LISTSCRIPTS\r\n")
        listed = _answer(wire)
        wire.send(f'DELETESCRIPT "{script}"\r\n'.encode())
        deleted = _answer(wire)
        wire.send(b"LOGOUT\r\n")
        return {
            "before_tls": before, "early": _brief(early), "starttls": _brief(starttls), "tls": wire.tls(), "after_tls": after,
            "wrong": _brief(wrong), "right": _brief(right), "put": _brief(put), "listed": _brief(listed), "deleted": _brief(deleted),
            "script": script, "scripts": [line.split('"')[1] for line in listed[:-1] if '"' in line],
        }  # fmt: skip
    finally:
        wire.close()


def _tried(endpoint: Endpoint, account: Account) -> tuple[Wire, list[str]]:
    """A connection behind STARTTLS, and what a login brought."""
    wire = Wire.to(endpoint, PORT)
    _answer(wire)
    wire.send(b"STARTTLS\r\n")
    _answer(wire)
    wire.starttls(context(endpoint["ca"]), endpoint["name"])
    _answer(wire)
    return wire, _brief(_authenticate(wire, account))


def _authenticate(wire: Wire, account: Account) -> list[str]:
    secret = base64.b64encode(f"\0{account['user']}\0{account['password']}".encode()).decode()
    wire.send(f'AUTHENTICATE "PLAIN" "{secret}"\r\n'.encode(), shown=f'AUTHENTICATE "PLAIN" <{account["user"]}>')
    return _answer(wire)


def _answer(wire: Wire) -> list[str]:
    """The lines of an answer; the last one begins with OK, NO or BYE."""
    lines: list[str] = []
    while True:
        try:
            line = wire.line()
        except Closed:
            return [*lines, "BYE (closed)"]
        lines.append(line.decode("utf-8", "replace"))
        if line.upper().startswith(ENDINGS):
            return lines


def _capabilities(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines[:-1]:
        words = line.split('"')
        if len(words) > 1:
            found[words[1].upper()] = words[3] if len(words) > 3 else ""
    return found


def _brief(lines: list[str]) -> list[str]:
    word, _, text = lines[-1].partition(" ")
    return [word.upper(), text[:200]]
