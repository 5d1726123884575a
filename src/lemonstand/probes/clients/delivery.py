"""Messages on their way: submitted, taken in by the MX, found in a mailbox."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple

from lemonstand.probes.events import Refused
from lemonstand.probes.protocols.imap import Imap, Literal
from lemonstand.probes.protocols.messages import Message, message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint, Wire, context

POLL_SECONDS = 0.1
LONG_LINE = b"This message may be deleted. " * 200 + b"\r\n"
EIGHT_BIT = "Grüße aus der Wartung: für Löschen freigegeben.\r\n".encode()


def deliver(endpoint: Endpoint, account: Account, recipient: str, how: str = "data", *, report: bool = False) -> dict[str, Any]:
    """Submits a message.

    Args:
        how: `data`; `chunks` (BDAT, three of them); `eightbit` (8-bit text, RFC 6152); `long` (a line of more than 998 octets).
        report: ask for a report of success (RFC 3461).
    """
    session = Smtp.open(endpoint, account)
    mime = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    parameters = "RET=HDRS ENVID=lemonstand" if report else ""
    if how == "eightbit":
        sample = message(account["user"], recipient, body=EIGHT_BIT, headers=mime)
        parameters = f"BODY=8BITMIME {parameters}".strip()
    else:
        sample = message(account["user"], recipient, body=LONG_LINE) if how == "long" else message(account["user"], recipient)
    reply = session.envelope(account["user"], [recipient], parameters, "NOTIFY=SUCCESS" if report else "")
    if reply.ok and how == "chunks":
        third = len(sample.data) // 3
        for start, last in ((0, False), (third, False), (2 * third, True)):
            reply = session.chunk(sample.data[start:] if last else sample.data[start : start + third], last)
    elif reply.ok:
        reply = session.data(sample.data)
    session.quit()
    longest = max(len(line) for line in sample.data.split(b"\r\n"))
    return {**reply.plain(), "ident": sample.ident, "longest": longest, "transcript": session.wire.transcript}


def foreign_mx(endpoint: Endpoint, *, sender: str, recipient: str, elsewhere: str) -> dict[str, Any]:
    """Delivers a message to an MX as any host of the Internet may, and tries what none may.

    Args:
        endpoint: the MX; its name is what its certificate must hold.
        sender: an address outside the site.
        recipient: a mailbox of the site.
        elsewhere: an address the site is not responsible for.
    """
    wire = Wire.to(endpoint, 25)
    session = Smtp(wire)
    seen: dict[str, Any] = {"banner": session.greeting.text, "before_tls": session.ehlo()}
    seen["starttls"] = session.command("STARTTLS").plain()
    wire.starttls(context(endpoint["ca"]), endpoint["name"])
    seen["tls"], seen["after_tls"] = wire.tls(), session.ehlo()
    seen["auth"] = session.command("AUTH PLAIN", shown="AUTH PLAIN").plain()
    for case, envelope in {
        "relay": (sender, elsewhere),
        "relay_percent": (sender, f"{elsewhere.replace('@', '%')}@{recipient.partition('@')[2]}"),
        "relay_as_local": (recipient, elsewhere),
        "nobody": (sender, f"nobody-{secrets.token_hex(4)}@{recipient.partition('@')[2]}"),
    }.items():
        seen[case] = session.envelope(envelope[0], [envelope[1]]).plain()
        session.command("RSET")
    sample = message(sender, recipient)
    reply = session.envelope(sender, [recipient])
    seen["accepted"] = (session.data(sample.data) if reply.ok else reply).plain()
    session.quit()
    return {**seen, "ident": sample.ident, "transcript": wire.transcript}


def wait_for(
    endpoint: Endpoint, account: Account, ident: str, within: float, *, report: bool = False, field: str = "Message-ID"
) -> dict[str, Any]:
    """Waits until a message is in INBOX, reads it and removes it.

    Args:
        ident: its Message-ID.
        within: seconds.
        report: wait for a report about that message instead.
        field: the header field that holds `ident`.

    Returns:
        `seconds` it took (None: it did not come), `size`, `header`, `sha256` of its body, and `bits`: 7 or 8.
    """
    session = Imap.open(endpoint, account)
    try:
        return wait_in(session, ident, within, report=report, field=field)
    finally:
        session.quit()


def wait_in(session: Imap, ident: str, within: float, *, report: bool = False, field: str = "Message-ID") -> dict[str, Any]:
    """`wait_for` in a session that is logged in."""
    session.command("SELECT INBOX")
    started = time.monotonic()
    sought = f'NOT HEADER Message-ID "{ident}" BODY "{ident}"' if report else f'HEADER {field} "{ident}"'
    while True:
        found = session.command(f"UID SEARCH {sought}").lines("SEARCH")
        numbers = found[0].split()[1:] if found else []
        if numbers:
            break
        if time.monotonic() - started > within:
            return {"seconds": None}
        time.sleep(POLL_SECONDS)
        session.command("NOOP")
    took = round(time.monotonic() - started, 3)
    answer = session.command(f"UID FETCH {numbers[-1]} (RFC822.SIZE BODY.PEEK[])")
    whole = next(line for line in answer.untagged if b"BODY[]" in line)
    size = re.search(rb"RFC822\.SIZE (\d+)", whole)
    octets = re.search(rb"BODY\[\] \{(\d+)\}\r\n", whole)
    data = whole[octets.end() : octets.end() + int(octets.group(1))] if octets else b""
    header, _, body = data.partition(b"\r\n\r\n")
    session.command(f"UID STORE {numbers[-1]} +FLAGS.SILENT (\\Deleted)")
    session.command(f"UID EXPUNGE {numbers[-1]}")
    return {
        "seconds": took,
        "size": int(size.group(1)) if size else 0,
        "header": header.decode("utf-8", "replace")[:4000],
        "sha256": hashlib.sha256(body).hexdigest(),
        "bits": 7 if body.isascii() else 8,
        "copies": len(numbers),
    }


def maildir(folder: str, ident: str, within: float) -> dict[str, Any]:
    """Waits until a message is in one of the Maildirs of a folder on this host, reads its header and removes it.

    Returns:
        `found`, `header`, and `longest`: octets of its longest line.
    """
    until = time.monotonic() + within
    wanted = ident.encode()
    while time.monotonic() < until:
        for path in Path(folder).glob("*/new/*"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # others take theirs from there at the same time
                continue
            if wanted in data.partition(b"\n\n")[0]:
                path.unlink()
                longest = max(len(line.rstrip(b"\r")) for line in data.split(b"\n"))
                return {"found": True, "header": data.partition(b"\n\n")[0].decode("utf-8", "replace")[:4000], "longest": longest}
        time.sleep(POLL_SECONDS)
    return {"found": False}


class Stored(NamedTuple):
    """Where a message lies in a mailbox."""

    mailbox: str
    validity: str
    uid: str

    @property
    def path(self) -> str:
        """Its part of a URL (RFC 5092)."""
        return f"/{self.mailbox};UIDVALIDITY={self.validity}/;UID={self.uid}"


def append(session: Imap, mailbox: str, sample: Message) -> Stored:
    """Stores a message.

    Raises:
        Refused: the server refused.
    """
    answer = session.command("APPEND", mailbox, Literal(sample.data), shown=f"APPEND {mailbox} <{len(sample.data)} bytes>")
    found = re.match(r"APPENDUID (\d+) (\d+)", answer.code)
    if not found:
        raise Refused(f"APPEND: {answer.status} {answer.text}")
    return Stored(mailbox, found.group(1), found.group(2))
