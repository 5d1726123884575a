"""Asks a name server (RFC 1035, RFC 2782) over TCP: enough for the records a mail client looks for."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from pathlib import Path

TYPES = {"A": 1, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33}
SECONDS = 5.0


def lookup(questions: list[tuple[str, str]], server: str = "") -> list[dict[str, object]]:
    """Looks names up.

    Args:
        questions: (name, type), types as in `TYPES`.
        server: address of a name server; empty: the first of this host.

    Returns:
        For each question `name`, `type`, `code` (0 no error, 3 no such name) and `records` as text, such as `0 1 143 mail.example.org`; of
        TXT the strings of each record, put together.
    """
    return [{"name": name, "type": kind, **_ask(server or _resolver(), name, TYPES[kind])} for name, kind in questions]


def _resolver() -> str:
    for line in Path("/etc/resolv.conf").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            return words[1]
    raise LookupError("this host has no name server in /etc/resolv.conf")


def _ask(server: str, name: str, kind: int) -> dict[str, object]:
    number = secrets.randbelow(65536)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    packet = struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)
    with socket.create_connection((server, 53), SECONDS) as connection:
        connection.sendall(struct.pack("!H", len(packet)) + packet)
        with connection.makefile("rb") as stream:
            answer = stream.read(struct.unpack("!H", stream.read(2))[0])
    if answer[:2] != packet[:2]:
        raise ValueError("an answer to another question")
    return read(answer, kind)


def read(answer: bytes, kind: int) -> dict[str, object]:
    """The code and the records of one type in an answer."""
    _, flags, questions, answers, _, _ = struct.unpack_from("!6H", answer)
    place = 12
    for _ in range(questions):
        place = _name(answer, place)[1] + 4
    records = []
    for _ in range(answers):
        place = _name(answer, place)[1]
        that, _, _, size = struct.unpack_from("!HHIH", answer, place)
        place += 10
        if that == kind:
            records.append(_shown(answer, kind, place, size))
        place += size
    return {"code": flags & 15, "records": sorted(records)}


def _shown(answer: bytes, kind: int, place: int, size: int) -> str:
    if kind in {TYPES["A"], TYPES["AAAA"]}:
        return str(ipaddress.ip_address(answer[place : place + size]))
    if kind == TYPES["TXT"]:
        text, end = b"", place + size
        while place < end:
            text += answer[place + 1 : place + 1 + answer[place]]
            place += 1 + answer[place]
        return text.decode("utf-8", "replace")
    count = {TYPES["SRV"]: 3, TYPES["MX"]: 1}.get(kind, 0)
    numbers = struct.unpack_from(f"!{count}H", answer, place)
    return " ".join([*map(str, numbers), _name(answer, place + 2 * count)[0]])


def _name(answer: bytes, place: int) -> tuple[str, int]:
    """A name and the place behind it; follows pointers (RFC 1035 section 4.1.4), each to an earlier place."""
    labels: list[str] = []
    end = 0
    while answer[place]:
        if answer[place] >= 0xC0:
            target = struct.unpack_from("!H", answer, place)[0] & 0x3FFF
            end = end or place + 2
            if target >= place:
                raise ValueError("a pointer that leads on")
            place = target
            continue
        labels.append(answer[place + 1 : place + 1 + answer[place]].decode("ascii", "replace"))
        place += 1 + answer[place]
    return ".".join(labels), end or place + 1
