"""Messages with long lines, long headers and odd octets: sent by a user and from outside, and compared octet by octet with what arrives."""

from __future__ import annotations

import base64
import random
import re
import time
from collections.abc import Iterable
from typing import Any

from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.messages import Message
from lemonstand.probes.protocols.smtp import Reply, Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint, Wire, context

LIMITS = (998, 1024, 2048, 4096, 65536)
"""Octets of a line without its end where programs on the way draw a line: RFC 5322, Dovecot, Postfix, and buffers of both."""
LONG_HEADER = 150_000
"""Octets of a header; Postfix cuts at 102400 unless it is told otherwise."""
POLL_SECONDS = 0.2
SIGNED = b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=signed-part\r\n'
SHOWN = 40
"""Octets around the first difference that are shown."""


def _text(rng: random.Random, length: int) -> bytes:
    """Words of a line, `length` octets, with no blank at either end."""
    line = bytearray(rng.choices(b"abcdefghijklmnopqrstuvwxyz0123456789<>/=. ", k=length))
    line[0] = line[-1] = ord("x")
    return bytes(line)


def _around(limits: Iterable[int]) -> list[int]:
    return [limit + step for limit in limits for step in (-1, 0, 1, 2)]


def _lines(rng: random.Random) -> bytes:
    return b"".join(_text(rng, length) + b"\r\n" for length in _around(LIMITS))


def _ends(rng: random.Random) -> bytes:
    """Line ends that fall on, before and after multiples of 512 octets of the body, and what Unix boxes and dots would change."""
    body = bytearray()
    for step in range(1, 40):
        to = step * 512 + step % 3 - 1 - len(body)
        body += _text(rng, to) + b"\r\n" if to > 1 else b"\r\n"
    odd = [b".", b"..", b"...x", b"." + _text(rng, 1200), b"From x", b">From x", b"ends in blanks   ", b"\t", b" ", b"", b"x" * 997 + b" y"]
    return bytes(body) + b"\r\n".join(odd) + b"\r\n\r\n\r\n"


def _signed(rng: random.Random) -> bytes:
    bound = b"signed-part"
    part = (
        b"Content-Type : text/html; charset=utf-8\r\nX-Long: " + _text(rng, 3000) + b"\r\n folded " + _text(rng, 1500)
        + b"\r\n\r\n<p>" + "Grüße ".encode() * 700 + b"</p>"
    )  # fmt: skip
    return (
        b"--" + bound + b"\r\n" + part + b"\r\n--" + bound
        + b"\r\nContent-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + bytes(rng.choices(b"ABCDEFabcdef0123456789+/", k=5000)) + b"\r\n--" + bound + b"--\r\n"
    )  # fmt: skip


def _folded(rng: random.Random, name: str, length: int) -> bytes:
    """A header of many addresses, folded as clients do."""
    header, number = bytearray(name.encode() + b": a@x.invalid"), 0
    while len(header) < length:
        number += 1
        header += b",\r\n  <%s%d@long.invalid>" % (bytes(rng.choices(b"abcdefgh", k=8)), number)
    return bytes(header) + b"\r\n"


def samples(sender: str, recipient: str, seed: int) -> dict[str, Message]:
    """What is sent, by name of its kind; the same for the same arguments, so that who receives it knows it too.

    Args:
        seed: another one makes other messages of the same kinds.
    """
    rng = random.Random(seed)  # noqa: S311 - ballast
    mime = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"
    kinds = {
        "long lines": (mime + b"Content-Type: text/html; charset=us-ascii\r\n", _lines(rng)),
        "a signed part": (mime + SIGNED, _signed(rng)),
        "a long To": (_folded(rng, "To", LONG_HEADER), b"short\r\n"),
        "a long Cc on one line": (b"Cc: " + b", ".join(b"n%d@x.invalid" % number for number in range(9000)) + b"\r\n", b"short\r\n"),
        "long lines of the header": (
            b"".join(b"X-Line-%d: %s\r\n" % (length, _text(rng, length)) for length in _around(LIMITS)),
            b"short\r\n",
        ),
        "ends of lines": (b"", _ends(rng)),
        "a base64 line": (mime, bytes(rng.choices(b"ABCDEFabcdef0123456789+/", k=200_000)) + b"\r\n"),
        "eight bits": (mime + b"Content-Type: text/plain; charset=utf-8\r\n", "Zürich€𝄞".encode() * 20_000 + b"\r\n"),
        "no body": (b"", b""),
    }
    made = {}
    for number, (name, (headers, body)) in enumerate(kinds.items()):
        ident = f"octets-{seed}-{number}@probe.invalid"
        to = b"" if headers.startswith(b"To:") else f"To: <{recipient}>\r\n".encode()
        head = f"From: <{sender}>\r\nSubject: lemonstand probe\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{ident}>\r\n"
        made[name] = Message(ident, head.encode() + to + headers + b"\r\n" + body)
    return made


def _data(session: Smtp, message: bytes) -> Reply:
    """DATA, and not an octet more than RFC 5321 4.5.2 asks for; the message ends in CRLF."""
    reply = session.command("DATA")
    if reply.code != 354:
        return reply
    session.wire.send(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n", shown=f"<message of {len(message)} bytes>")
    return session.reply()


def _send(session: Smtp, sender: str, recipient: str, message: bytes, how: str) -> Reply:
    keywords = "BODY=8BITMIME" if any(octet > 127 for octet in message) else ""
    reply = session.envelope(sender, [recipient], keywords)
    if reply.ok and how == "chunks":
        middle = len(message) // 2
        reply = session.chunk(message[:middle], last=False)
        reply = session.chunk(message[middle:], last=True) if reply.ok else reply
    elif reply.ok:
        reply = _data(session, message)
    if not reply.ok:
        session.command("RSET")
    return reply


def submit(endpoint: Endpoint, account: Account, recipient: str, seed: int) -> dict[str, Any]:
    """Sends all samples as a user does, by DATA and in chunks in turns, and what no line may hold.

    Returns:
        `sent` and `odd`: the answers (`code`, `text`) by name; `transcript`.
    """
    return _send_all(Smtp.open(endpoint, account), account["user"], recipient, seed)


def from_outside(endpoint: Endpoint, sender: str, recipient: str, seed: int) -> dict[str, Any]:
    """Sends the same as a mail host outside does; the answer as that of `submit`."""
    session = Smtp(Wire.to(endpoint, 25))
    session.ehlo()
    session.command("STARTTLS")
    session.wire.starttls(context(endpoint["ca"]), endpoint["name"])
    session.ehlo()
    return _send_all(session, sender, recipient, seed)


def _send_all(session: Smtp, sender: str, recipient: str, seed: int) -> dict[str, Any]:
    sent = {
        name: _send(session, sender, recipient, sample.data, "chunks" if number % 2 else "data").plain()
        for number, (name, sample) in enumerate(samples(sender, recipient, seed).items())
    }
    head = f"From: <{sender}>\r\nTo: <{recipient}>\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <odd-{seed}@probe.invalid>\r\n"
    odd = {
        name: _send(session, sender, recipient, head.encode() + rest, "data").plain()
        for name, rest in {
            "NUL in the body": b"\r\none\0two\r\n",
            "NUL in the header": b"Subject: one\0two\r\n\r\nx\r\n",
            "CR in the body": b"\r\none\rtwo\r\n",
            "CR in the header": b"Subject: one\rtwo\r\n\r\nx\r\n",
        }.items()
    }
    session.quit()
    return {"sent": sent, "odd": odd, "transcript": session.wire.transcript}


def arrived(endpoint: Endpoint, account: Account, sender: str, seed: int, within: float) -> dict[str, dict[str, Any]]:
    """Waits for all samples, compares and removes them.

    Args:
        sender: who sent them to the account.
        within: seconds.

    Returns:
        By name: `came`; `difference`: where what came differs from what was sent, empty if nowhere. Lines on top of a message are a relay's
        right (RFC 5321 4.4) and count for nothing.
    """
    return _await(endpoint, account, samples(sender, account["user"], seed), within)


def _await(endpoint: Endpoint, account: Account, sent: dict[str, Message], within: float) -> dict[str, dict[str, Any]]:
    session = Imap.open(endpoint, account)
    session.command("SELECT INBOX")
    until, found, waiting = time.monotonic() + within, {}, dict(sent)
    while waiting and time.monotonic() < until:
        for name, sample in list(waiting.items()):
            numbers = session.command(f'UID SEARCH HEADER Message-ID "{sample.ident}"').lines("SEARCH")[0].split()[1:]
            if numbers:
                found[name] = {"came": True, "difference": difference(sample.data, _whole(session, numbers[-1]))}
                session.command(f"UID STORE {','.join(numbers)} +FLAGS.SILENT (\\Deleted)")
                session.command(f"UID EXPUNGE {','.join(numbers)}")
                del waiting[name]
        time.sleep(POLL_SECONDS)
        session.command("NOOP")
    session.quit()
    return found | {name: {"came": False, "difference": ""} for name in waiting}


def carry(endpoint: Endpoint, account: Account, recipient: Account, ident: str, *, message: str, within: float) -> dict[str, Any]:
    """Sends one message and compares what arrives.

    Args:
        ident: its Message-ID.
        message: in base64.
        within: seconds.

    Returns:
        `code` of the answer; `came` and `difference` as of `arrived`.
    """
    data = base64.b64decode(message)
    session = Smtp.open(endpoint, account)
    reply = _send(session, account["user"], recipient["user"], data, "data")
    session.quit()
    found = _await(endpoint, recipient, {"": Message(ident, data)}, within) if reply.ok else {"": {"came": False, "difference": ""}}
    return {"code": reply.code, **found[""]}


def _whole(session: Imap, number: str) -> bytes:
    for line in session.command(f"UID FETCH {number} BODY.PEEK[]").untagged:
        octets = re.search(rb"BODY\[\] \{(\d+)\}\r\n", line)
        if octets:
            return line[octets.end() : octets.end() + int(octets.group(1))]
    return b""


def difference(sent: bytes, got: bytes) -> str:
    """Where a message differs from what was sent, lines on top of it apart; empty if nowhere."""
    if got.endswith(sent):
        return ""
    start = got.find(sent[:30])
    if start < 0:
        return f"nothing of it: {got[:SHOWN]!r}"
    rest = got[start:]
    at = next((place for place, (one, other) in enumerate(zip(sent, rest, strict=False)) if one != other), min(len(sent), len(rest)))
    begin = max(0, at - SHOWN // 2)
    return f"at octet {at} of {len(sent)}: {sent[begin : at + SHOWN]!r} became {rest[begin : at + SHOWN]!r}; {len(rest)} octets came"
