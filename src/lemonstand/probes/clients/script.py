"""A long session, word for word: what a client stores and fetches must be the same octets on both sides of everything in between."""

from __future__ import annotations

import hashlib
import random
import re
from typing import Any

from lemonstand.probes.clients import delivery, tickets
from lemonstand.probes.clients.tickets import InnerServices
from lemonstand.probes.protocols.imap import Answer, Imap
from lemonstand.probes.protocols.messages import Message, message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint

LONG_LINE = 65_536
BINARY = 200_000
TIMES = re.compile(rb" \(\d+\.\d+ \+ \d+\.\d+(?: \+ \d+\.\d+)? secs\)")
"""How long a command took: differs from run to run."""
HINTS = re.compile(rb" ?\\(?:Un)?[Mm]arked")
"""Whether a mailbox may hold news (RFC 9051 section 7.3.1): a guess by times of the file system, which may change between two questions."""
COMMANDS = (
    "EXAMINE {box} (CONDSTORE)",  # without it HIGHESTMODSEQ is told only if somebody asked before, such as who brings the copy to a standby
    "STATUS {box} (MESSAGES UIDNEXT UIDVALIDITY)",
    "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)",
    "FETCH 1:* (BODY.PEEK[HEADER])",
    "FETCH 1:* (BODY.PEEK[TEXT])",
    "FETCH 1:* (BODY.PEEK[]<17.70000>)",
    "FETCH 1:* (BINARY.PEEK[1])",
    "FETCH 1:* (BODY.PEEK[])",
    "SEARCH CHARSET UTF-8 SUBJECT probe",
    "SORT (SIZE) UTF-8 ALL",
    'LIST "" "{box}%" RETURN (CHILDREN)',  # others come and go
    "CHECK",
    "UNSELECT",
    "THIS-IS-NO-COMMAND",
)
"""What is asked; the answers are those of the store, whoever passes them on."""


def samples(user: str) -> list[Message]:
    """Four messages that something that meddles would change: 8-bit text, every octet but NUL, very long lines, dots and CRs."""
    noise = random.Random(5383)  # noqa: S311 - ballast
    mime = "MIME-Version: 1.0\r\nContent-Type: {}\r\nContent-Transfer-Encoding: {}\r\n"
    octets = bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"")
    binary = bytes(noise.choice(octets) for _ in range(BINARY))
    return [
        message(user, user, body="Grüße ąęß 漢字 \U0001f4f1\r\n".encode() * 200, headers=mime.format("text/plain; charset=utf-8", "8bit")),
        message(user, user, body=binary + b"\r\n", headers=mime.format("application/octet-stream", "8bit")),
        message(user, user, body=(b"x" * (LONG_LINE - 2) + b"\r\n") * 4, headers=mime.format("text/plain", "8bit")),
        message(user, user, body=b".\r\n..\r\nFrom here\r\n STARTTLS\r\n250 mail\r\n* OK\r\n\r\n" * 50),
    ]


def store(endpoint: Endpoint, account: Account, box: str) -> dict[str, Any]:
    """Makes a mailbox and stores the samples in it.

    Returns:
        `sent`: SHA-256 of each, and `octets` of all.
    """
    session = Imap.open(endpoint, account)
    session.command("CREATE", box)
    made = samples(account["user"])
    for sample in made:
        delivery.append(session, box, sample)
    session.quit()
    return {"sent": [hashlib.sha256(sample.data).hexdigest() for sample in made], "octets": sum(len(sample.data) for sample in made)}


def remove(endpoint: Endpoint, account: Account, box: str) -> str:
    """Removes the mailbox."""
    session = Imap.open(endpoint, account)
    answer = session.command("DELETE", box)
    session.quit()
    return answer.status


def outside(endpoint: Endpoint, account: Account, box: str) -> dict[str, Any]:
    """Reads the whole script's answers as a client does; see `inside`."""
    return _play(Imap.open(endpoint, account), box)


def inside(inner_services: InnerServices, account: Account, box: str) -> dict[str, Any]:
    """Reads them from the store itself, asked by a frontend.

    Returns:
        `answers`: SHA-256 of the answer to each command, without how long it took; `got`: that of each message; `octets`: of all answers.
    """
    return _play(tickets.imap_by_ticket(inner_services, account), box)


def chunks(endpoint: Endpoint, account: Account) -> dict[str, Any]:
    """Sends each octet but NUL, CR and LF to oneself by BDAT in chunks that cut lines and characters, and reads what arrives.

    Returns:
        `code`, `sent` and `got`: SHA-256 of the body.
    """
    user = account["user"]
    mime = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    line = bytes(value for value in range(1, 256) if value not in b"\r\n")
    sample = message(user, user, body=(line + b"\r\n.\r\n..\r\n" + "Grüße\r\n".encode()) * 60, headers=mime)
    session = Smtp.open(endpoint, account)
    reply = session.envelope(user, [user], "BODY=8BITMIME")
    size = 997
    pieces = [sample.data[start : start + size] for start in range(0, len(sample.data), size)]
    for number, piece in enumerate(pieces, 1):
        if not reply.ok:
            break
        reply = session.chunk(piece, last=number == len(pieces))
    session.quit()
    got = delivery.wait_for(endpoint, account, sample.ident, 20.0) if reply.ok else {"sha256": ""}
    return {
        "code": reply.code, "text": reply.text[:200], "chunks": len(pieces), "octets": len(sample.data),
        "sent": hashlib.sha256(sample.data.partition(b"\r\n\r\n")[2]).hexdigest(), "got": got.get("sha256", ""),
    }  # fmt: skip


def _play(session: Imap, box: str) -> dict[str, Any]:
    answers: list[str] = []
    got: list[str] = []
    before = session.wire.received
    for command in COMMANDS:
        answer = session.command(command.format(box=box))
        answers.append(_digest(answer))
        if command == "FETCH 1:* (BODY.PEEK[])":
            got = [hashlib.sha256(_body(line)).hexdigest() for line in answer.untagged]
    received = session.wire.received - before
    session.quit()
    return {"answers": answers, "got": got, "octets": received}


def _digest(answer: Answer) -> str:
    tail = TIMES.sub(b"", f"{answer.status} {answer.text}".encode("utf-8", "surrogateescape"))
    lines = [HINTS.sub(b"", line) if line.startswith(b"LIST ") else line for line in answer.untagged]
    return hashlib.sha256(b"\r\n".join([*lines, tail])).hexdigest()


def _body(line: bytes) -> bytes:
    found = re.search(rb"BODY\[\] \{(\d+)\}\r\n", line)
    return line[found.end() : found.end() + int(found.group(1))] if found else b""
