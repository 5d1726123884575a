"""TCP segments as a host's own interface shows them: who sent what, and why it was on the air."""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass

ETHER_ANY = 3
TCP = 6
FIN, SYN, RST = 0x01, 0x02, 0x04
WAKE_SECONDS = 2.0
"""Segments closer together than this find the radio awake: they count as one wake-up."""


@dataclass(frozen=True)
class Segment:
    """One TCP segment.

    Args:
        source, target: addresses in network form.
        length: octets it carries, without headers.
        size: octets of the IP packet.
    """

    source: bytes
    target: bytes
    sport: int
    dport: int
    sequence: int
    acknowledged: int
    flags: int
    length: int
    size: int


def parse(packet: bytes) -> Segment | None:
    """The TCP segment of an IP packet; None for anything else."""
    if packet[:1] and packet[0] >> 4 == 4 and packet[9] == TCP:
        start, source, target = (packet[0] & 15) * 4, packet[12:16], packet[16:20]
        size = int.from_bytes(packet[2:4]) or len(packet)
    elif packet[:1] and packet[0] >> 4 == 6 and packet[6] == TCP:
        start, source, target = 40, packet[8:24], packet[24:40]
        size = 40 + int.from_bytes(packet[4:6])
    else:
        return None
    if len(packet) < start + 20:
        return None
    sport, dport, sequence, acknowledged, offset_flags = struct.unpack_from("!HHIIH", packet, start)
    length = size - start - (offset_flags >> 12) * 4
    return Segment(source, target, sport, dport, sequence, acknowledged, offset_flags & 0x3F, max(0, length), size)


class Capture(threading.Thread):
    """Notes each segment of one connection of this host, until it is stopped.

    Args:
        port: the connection's own port on this host.

    Attributes:
        seen: `(when, theirs, kind, octets of the IP packet)` of each; kinds are `data`, `again` (sent before), `keep-alive`,
            `acknowledgement`, `opening or end`.

    Raises:
        PermissionError: capturing needs root.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._next: dict[bool, int] = {}
        self._over = threading.Event()
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER_ANY))
        self._wire.settimeout(0.2)
        self.seen: list[tuple[float, bool, str, int]] = []
        self.start()

    def run(self) -> None:
        """Listens."""
        while not self._over.is_set():
            try:
                packet = self._wire.recv(65535)
            except TimeoutError:
                continue
            segment = parse(packet)
            if segment is not None and self._port in {segment.sport, segment.dport}:
                theirs = segment.dport == self._port
                self.seen.append((time.monotonic(), theirs, self._kind(theirs, segment), segment.size))
        self._wire.close()

    def stop(self) -> None:
        """Ends it."""
        self._over.set()
        self.join()

    def _kind(self, theirs: bool, segment: Segment) -> str:
        if segment.flags & (FIN | SYN | RST):
            return "opening or end"
        after = (segment.sequence + segment.length) & 0xFFFFFFFF
        known = self._next.get(theirs)
        # What one side acknowledges the other has sent, even if it was not seen.
        told = self._next.get(not theirs)
        if told is None or (segment.acknowledged - told) & 0x80000000 == 0:
            self._next[not theirs] = segment.acknowledged
        if known is not None and segment.length <= 1 and segment.sequence == (known - 1) & 0xFFFFFFFF:
            return "keep-alive"
        if known is None or (after - known) & 0x80000000 == 0:
            self._next[theirs] = after
        if segment.length == 0:
            return "acknowledgement"
        return "data" if known is None or (after != known and (after - known) & 0x80000000 == 0) else "again"


def wake_ups(times: list[float]) -> int:
    """How often a radio that falls asleep `WAKE_SECONDS` after each segment was woken."""
    ordered = sorted(times)
    return sum(now - before > WAKE_SECONDS for before, now in zip([float("-inf"), *ordered], ordered, strict=False))
