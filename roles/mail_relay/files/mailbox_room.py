"""Whether a mailbox has room for mail: a policy service for Postfix (SMTPD_POLICY_README), asked at every recipient on port 25 (OPS-12).

It asks the user's store as a delivery would, by LMTP over TLS, and goes no further than RCPT: there Dovecot says whether he is at his
quota. The sender is then told to try again later (452, RFC 5321 section 4.2.2), while he is still on the line. Whatever else comes, or
nothing within seconds, is no reason to refuse: mail waits in the queue for a store that is away. Answers are good for half a minute.

Dovecot's own service for this (quota-status) speaks no TLS and needs a port of its own on stores; Postfix's address verification puts all
mail off while a store is away. The standard library is all it needs.
"""

import asyncio
import contextlib
import json
import re
import ssl
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import policy_service

CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 5.0
"""For a connection to one address; for all of an answer. Postfix waits a little longer than that."""
GOOD_SECONDS = 30.0
MOST_ANSWERS = 10_000
MOST_AT_ONCE = 50
FULL = "4.2.2 The mailbox is full; try again later"
HOP = re.compile(r"\[([^\]]+)\]:([0-9]+)")
OVER_QUOTA = re.compile(r"[45]52[ -][45]\.2\.2 ")
"""Enhanced status X.2.2, mailbox full (RFC 3463 section 3.3)."""


class Table:
    """A table of Postfix's in a text file, read anew when it changes."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._read: tuple[int, int] | None = None
        self._rows: dict[str, str] = {}

    def get(self, key: str) -> str:
        """Return the value of a key; empty without one."""
        try:
            found = self._path.stat()
            if (found.st_mtime_ns, found.st_ino) != self._read:
                lines = self._path.read_text(encoding="utf-8").splitlines()
                rows = (line.partition(" ") for line in lines if not line.startswith("#"))
                self._rows = {key: value.strip() for key, _, value in rows}
                self._read = (found.st_mtime_ns, found.st_ino)
        except OSError:
            return ""
        return self._rows.get(key, "")


class Room:
    """What stores say of their users.

    Args:
        settings: `transport` (the table that says where a user's mail goes), `delimiter`, `names` ({address: a store's name, as in its
            certificate}), `ca` (file), `me` (what it says it is).
        clock: seconds.
    """

    def __init__(self, settings: Mapping[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._transport = Table(str(settings["transport"]))
        self._delimiter = str(settings["delimiter"])
        self._names: dict[str, str] = dict(settings["names"])
        self._ca, self._me = str(settings["ca"]), str(settings["me"])
        self._clock = clock
        self._answers: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._turn = asyncio.Semaphore(MOST_AT_ONCE)

    def hops(self, recipient: str) -> list[tuple[str, int, str]]:
        """Return address, port and name of where his mail goes, in the order they are tried; none if it does not go to one user's store."""
        local, _, domain = recipient.lower().rpartition("@")
        plain = local.split(self._delimiter)[0] if self._delimiter else local
        # As Postfix does (transport(5)): the address, the same without its tag, the domain.
        where = next(filter(None, map(self._transport.get, (f"{local}@{domain}", f"{plain}@{domain}", domain))), "")
        if not where.startswith("lmtp:"):
            return []
        found = [(address, int(port)) for address, port in HOP.findall(where)]
        return [(address, port, self._names[address]) for address, port in found if address in self._names]

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Whom a store's certificate has to be of; the service starts anew when that changes."""
        return ssl.create_default_context(cafile=self._ca)

    async def is_full(self, recipient: str) -> bool:
        """Say whether a store has told, now or a moment ago, that it takes no more for a user."""
        key, hops = recipient.lower(), self.hops(recipient)
        if not hops:
            return False
        known = self._answers.get(key)
        if known and self._clock() - known[0] < GOOD_SECONDS:
            return known[1]
        full = False
        with contextlib.suppress(OSError, ValueError, EOFError, TimeoutError, ssl.SSLError):
            async with asyncio.timeout(ANSWER_SECONDS), self._turn:
                full = await self._ask(recipient, hops)
        self._answers[key] = (self._clock(), full)
        self._answers.move_to_end(key)
        while len(self._answers) > MOST_ANSWERS:
            self._answers.popitem(last=False)
        return full

    async def _ask(self, recipient: str, hops: list[tuple[str, int, str]]) -> bool:
        for address, port, name in hops:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    reader, writer = await asyncio.open_connection(address, port)
            except (OSError, TimeoutError):
                continue
            try:
                await _reply(reader)
                for order in (f"LHLO {self._me}", "STARTTLS"):
                    await _order(reader, writer, order)
                await writer.start_tls(self._trust, server_hostname=name)
                for order in (f"LHLO {self._me}", "MAIL FROM:<>"):
                    await _order(reader, writer, order)
                answer = await _order(reader, writer, f"RCPT TO:<{recipient}>")
                writer.write(b"QUIT\r\n")
                return OVER_QUOTA.match(answer) is not None
            finally:
                writer.close()
        return False


async def _order(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: str) -> str:
    writer.write(words.encode() + b"\r\n")
    await writer.drain()
    return await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> str:
    """Return the last line of a reply (RFC 5321 section 4.2.1)."""
    while True:
        line = (await reader.readline()).decode("utf-8", "replace")
        if not line:
            raise EOFError("the store ended the conversation")
        if line[3:4] != "-":
            return line


async def answer(room: Room, request: Mapping[str, str]) -> str:
    """Return what Postfix is told."""
    recipient = request.get("recipient", "")
    # Nothing that could end a line of LMTP's gets into one.
    if request.get("protocol_state") != "RCPT" or "@" not in recipient or not recipient.isprintable() or set(recipient) & set(" <>"):
        return "DUNNO"
    return f"452 {FULL}" if await room.is_full(recipient) else "DUNNO"


async def serve(settings: Mapping[str, Any]) -> None:
    """Listen for good."""
    room = Room(settings)
    await policy_service.serve(int(str(settings["port"])), lambda request: answer(room, request))


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
