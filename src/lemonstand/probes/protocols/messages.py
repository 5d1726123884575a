"""Messages of the probes: each can be found again by its Message-ID and says what it is."""

from __future__ import annotations

import base64
import random
import secrets
from dataclasses import dataclass

SUBJECT = "lemonstand probe"


@dataclass(frozen=True)
class Message:
    """A message and the id to find it by (without angle brackets)."""

    ident: str
    data: bytes


def ident() -> str:
    """A new Message-ID."""
    return f"{secrets.token_hex(12)}@probe.invalid"


def message(
    sender: str,
    recipient: str,
    *,
    body: bytes = b"This message may be deleted.\r\n",
    headers: str = "",
    subject: str = SUBJECT,
    name: str = "",
) -> Message:
    """A small message of 7-bit text unless told otherwise.

    Args:
        headers: further header lines, each with its end.
        name: its Message-ID; empty: a new one.
    """
    name = name or ident()
    head = (
        f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {subject}\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\n"
        f"Message-ID: <{name}>\r\n{headers}\r\n"
    )
    return Message(name, head.encode() + body)


def large(sender: str, recipient: str, size: int) -> Message:
    """A message of exactly `size` bytes (some hundred at least), with an attachment that nothing can compress."""
    bound = "lemonstand-boundary"
    headers = f"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary={bound}\r\n"

    def body(padding: int, lines: int) -> bytes:
        noise = base64.encodebytes(random.Random(size).randbytes(lines * _LINE_BYTES)).replace(b"\n", b"\r\n")  # noqa: S311 - ballast
        return (
            (
                f"--{bound}\r\nContent-Type: text/plain\r\n\r\nA large attachment follows.\r\n{'.' * padding}\r\n--{bound}\r\n"
                "Content-Type: application/octet-stream; name=large.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            ).encode()
            + noise
            + f"--{bound}--\r\n".encode()
        )

    lines, padding = divmod(size - len(message(sender, recipient, body=body(0, 0), headers=headers).data), _LINE_OCTETS)
    return message(sender, recipient, body=body(padding, lines), headers=headers)


_LINE_BYTES, _LINE_OCTETS = 57, 78
"""What a line of base64 holds, and its length with its end (RFC 2045 section 6.8)."""
