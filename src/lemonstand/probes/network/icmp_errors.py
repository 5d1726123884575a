"""ICMP errors that end no connection (soft errors, RFC 1122 section 4.2.3.9), quoted in window."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from typing import Any

from lemonstand.probes.network.segments import ETHER_ANY, TCP, parse

SOFT = {4: [(3, 0), (3, 1), (3, 5), (11, 0), (12, 0)], 6: [(1, 0), (1, 3), (3, 0), (4, 0)]}
"""ICMP (type, code) that end no connection: unreachable 0, 1, 5, time exceeded, parameter problem (RFC 1122 section 4.2.3.9)."""
QUIET_SECONDS, QUIET_LIMIT = 0.3, 10.0
ICMP, ICMP6 = 1, 58


def soft_errors(targets: list[str], ports: list[int], within: float) -> dict[str, Any]:
    """Listens for connections between hosts of ours and others, then sends the hosts soft errors about them.

    An error counts only if it quotes a sequence number the host has sent and that lies in its window: on a connection that is silent right
    now, the next number. It is learnt from the other side's acknowledgements.

    Args:
        targets: addresses of the hosts that are to get errors.
        ports: TCP ports of the connections, at either end.
        within: seconds to listen first.

    Returns:
        `sent`: errors by target; `connections`: how many were seen.
    """
    wanted = {ipaddress.ip_address(address).packed for address in targets}
    next_of: dict[tuple[bytes, bytes, int, int], int] = {}
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER_ANY)) as wire:
        wire.settimeout(0.05)
        heard = time.monotonic()
        until = heard + within
        # The last words must have been said a moment ago: then the next number is what it was when it was learnt.
        while time.monotonic() < until or (time.monotonic() < until + QUIET_LIMIT and time.monotonic() - heard < QUIET_SECONDS):
            try:
                packet = wire.recv(65535)
            except TimeoutError:
                continue
            seen = parse(packet)
            if seen is None or not {seen.sport, seen.dport} & set(ports):
                continue
            heard = time.monotonic()
            # What the others acknowledge to a host of ours is the number it will use next.
            if seen.target in wanted and seen.flags & 0x10 and not seen.flags & 0x07:
                next_of[seen.target, seen.source, seen.dport, seen.sport] = seen.acknowledged
    sent: dict[str, int] = {}
    for (host, other, host_port, other_port), sequence in next_of.items():
        version = 4 if len(host) == 4 else 6
        address = str(ipaddress.ip_address(host))
        quoted = _quoted(host, other, host_port, other_port, sequence)
        for kind, code in SOFT[version]:
            _send_error(address, kind, code, quoted)
            sent[address] = sent.get(address, 0) + 1
            time.sleep(0.002)
    return {"sent": sent, "connections": len(next_of)}


def _quoted(host: bytes, other: bytes, host_port: int, other_port: int, sequence: int) -> bytes:
    """The start of a segment from a host of ours, as an error quotes it."""
    segment = struct.pack("!HHIIHHHH", host_port, other_port, sequence, 0, 0x5010, 1024, 0, 0)
    if len(host) == 16:
        return struct.pack("!IHBB", 0x60000000, len(segment), TCP, 60) + host + other + segment
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 60, TCP, 0) + host + other
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + segment


def _send_error(address: str, kind: int, code: int, quoted: bytes) -> None:
    version = 6 if ":" in address else 4
    family, protocol = (socket.AF_INET6, ICMP6) if version == 6 else (socket.AF_INET, ICMP)
    message = struct.pack("!BBHI", kind, code, 0, 0) + quoted
    if version == 4:
        message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]
    with socket.socket(family, socket.SOCK_RAW, protocol) as out:
        out.sendto(message, (address, 0))


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
