"""Connections to the issuer: how many one address may have, and how long each step of one may take. Standard library alone.

A deadline is of a step as a whole (the handshake, the header, the body), however many pieces it comes in: a timeout of each read is a wait
without end for who sends an octet now and then.
"""

import collections
import errno
import ipaddress
import socket
import ssl
import struct
import threading
import time
from typing import Any


class Shares:
    """Counts connections by address, so that nobody takes the part of others.

    Args:
        most: connections one address may have at a time.
        quiet: seconds between two reports about one address.
    """

    def __init__(self, most: int, quiet: float = 60.0) -> None:
        self._most = most
        self._quiet = quiet
        self._lock = threading.Lock()
        self._open: collections.Counter[str] = collections.Counter()
        self._told: dict[str, float] = {}

    def take(self, address: str) -> tuple[bool, bool]:
        """Return whether one more is taken, and if not, whether that is to be reported now."""
        with self._lock:
            if self._open[address] < self._most:
                self._open[address] += 1
                return True, False
            now = time.monotonic()
            report = now - self._told.get(address, -self._quiet) >= self._quiet
            if report:
                self._told[address] = now
            return False, report

    def give_back(self, address: str) -> None:
        """Count a connection that ended."""
        with self._lock:
            self._open[address] -= 1
            if self._open[address] <= 0:
                del self._open[address]


class Bounded(ssl.SSLSocket):
    """A TLS connection whose steps have deadlines. What comes too late is as if the other side had gone."""

    until = 0.0
    SEND_SECONDS = 10.0

    def within(self, seconds: float) -> None:
        """Begin a step that has to be over after that time."""
        self.until = time.monotonic() + seconds

    def handshake_within(self, seconds: float) -> None:
        """Shake hands.

        Raises:
            OSError: it failed, or was not over in time.
        """
        # The timeout of a handshake is of the whole of it, that of a read is not.
        self.settimeout(seconds)
        self.do_handshake()

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive what comes before the deadline of the step."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise ConnectionResetError(errno.ECONNRESET, "it took too long")
        self.settimeout(left)
        try:
            return super().recv(buflen, flags)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "it took too long") from None

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send, in a time of its own."""
        self.settimeout(self.SEND_SECONDS)
        super().sendall(data, flags)


def plain_address(address: str) -> str:
    """Return an address as it is known: one of IPv4 that came to an IPv6 socket as IPv4."""
    try:
        mapped = ipaddress.IPv6Address(address.partition("%")[0]).ipv4_mapped
    except ValueError:
        return address
    return str(mapped) if mapped else address


def reset(connection: socket.socket) -> None:
    """End a connection at once: no packet filter on the way has to remember it."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        connection.close()
