"""One TCP connection of a probe: TLS at any point of it, a transcript without secrets, and counts of what it carried."""

from __future__ import annotations

import socket
import ssl
import struct
import time
import zlib
from typing import Any, TypedDict

from lemonstand.probes.events import Refused

TIMEOUT = 20.0
"""Seconds a probe waits for an answer, unless it is told otherwise."""
AGAIN_AFTER = (1.0, 3.0, 8.0)
"""Seconds after which a login is tried again that a server put off: a busy moment is nothing to those who ask about something else."""
LINES, COLUMNS = 60, 160
LONGEST_LINE = 1 << 20


class Endpoint(TypedDict):
    """Where a service is: the name its certificate must hold, the address to dial, the CA to trust (PEM; empty: the system's)."""

    name: str
    address: str
    ca: str


class Account(TypedDict):
    """Who logs in."""

    user: str
    password: str


class Closed(ConnectionError):
    """The other side closed the connection."""


class Wire:
    """A connection.

    Args:
        address: what is dialled.
        port: TCP port.
        timeout: seconds each step may take.
        source: the address of this host to come from; empty: the usual one.

    Attributes:
        sent, received: bytes of application data, before compression and TLS.
        transcript: the last lines, `C:` ours and `S:` theirs, secrets left out.
    """

    def __init__(self, address: str, port: int, timeout: float = TIMEOUT, source: str = "") -> None:
        self.socket: socket.socket = socket.create_connection((address, port), timeout, (source, 0) if source else None)
        self.sent = 0
        self.received = 0
        self.transcript: list[str] = []
        self._buffer = bytearray()  # grows by pieces up to tens of megabytes: bytes would be copied for each
        self._deflate: Any = None
        self._inflate: Any = None

    @classmethod
    def to(cls, endpoint: Endpoint, port: int, timeout: float = TIMEOUT, source: str = "") -> Wire:
        """A connection to a endpoint: to its address, or by its name where it has none; the rest as for `Wire`."""
        return cls(endpoint["address"] or endpoint["name"], port, timeout, source)

    def starttls(self, context: ssl.SSLContext, name: str) -> None:
        """Goes over to TLS; drops nothing that came before it, so that an early answer is seen."""
        timeout = self.socket.gettimeout()
        self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self.socket.settimeout(timeout)
        self._note("--", self.tls()["version"])

    def nothing_early(self) -> None:
        """Makes sure that nothing was said in the clear beyond the leave to start TLS.

        Raises:
            Refused: something was.
        """
        if self._buffer:
            raise Refused(f"plain text behind the leave to start TLS: {bytes(self._buffer[:80])!r}")

    def tls(self) -> dict[str, Any]:
        """Version, cipher and the DNS names of the certificate; empty texts while there is none."""
        if not isinstance(self.socket, ssl.SSLSocket):
            return {"version": "", "cipher": "", "names": []}
        cipher = self.socket.cipher()
        names = [str(pair[1]) for pair in (self.socket.getpeercert() or {}).get("subjectAltName", ()) if pair[0] == "DNS"]
        return {"version": self.socket.version() or "", "cipher": cipher[0] if cipher else "", "names": names}

    def compress(self) -> None:
        """Goes over to raw DEFLATE in both directions (RFC 4978)."""
        self._deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._buffer = bytearray(self._inflate.decompress(self._buffer))

    def send(self, data: bytes, shown: str | None = None) -> None:
        """Sends data.

        Args:
            data: the bytes.
            shown: what stands in the transcript in its place.
        """
        self._note("C:", data.decode("utf-8", "replace") if shown is None else shown)
        self.sent += len(data)
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self.socket.sendall(data)

    def line(self, timeout: float | None = None) -> bytes:
        """The next line without its end.

        Raises:
            Closed: there is none.
            TimeoutError: it did not come in time; `timeout` seconds are for this line only.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LONGEST_LINE:
                raise ValueError(f"a line of more than {LONGEST_LINE} bytes")
            self._more(until)
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        self._note("S:", line.decode("utf-8", "replace"))
        return line

    def has_more(self) -> bool:
        """Whether something is here already that was not asked for yet: no wait on the socket would tell."""
        return bool(self._buffer) or (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0)

    def exactly(self, count: int) -> bytes:
        """The next bytes."""
        while len(self._buffer) < count:
            self._more(None)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def kernel_bytes(self) -> dict[str, int]:
        """What TCP carried, headers apart, both directions (struct tcp_info of Linux 4.19 and later)."""
        raw = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if len(raw) < 208:
            return {}
        return {"sent": struct.unpack_from("=Q", raw, 200)[0], "received": struct.unpack_from("=Q", raw, 128)[0]}

    def close(self) -> None:
        """Closes it; never fails."""
        try:
            self.socket.close()
        except OSError:
            return

    def _more(self, until: float | None) -> None:
        before = self.socket.gettimeout()
        if until is not None:
            self.socket.settimeout(max(0.001, until - time.monotonic()))
        try:
            data = self.socket.recv(65536)
        finally:
            if until is not None:
                self.socket.settimeout(before)
        if not data:
            raise Closed("the other side closed the connection")
        if self._inflate is not None:
            data = self._inflate.decompress(data)
        self.received += len(data)
        self._buffer += data

    def _note(self, who: str, text: str) -> None:
        for line in text.rstrip("\r\n").split("\n")[:3]:
            self.transcript.append(f"{who} {line.rstrip()[:COLUMNS]}")
        del self.transcript[:-LINES]


def context(ca: str, certificate: str = "", key: str = "") -> ssl.SSLContext:
    """What a careful client uses: TLS 1.2 or later, the chain and the name verified.

    Args:
        ca: PEM of the only CA to trust; empty: the system's.
        certificate: file with a client certificate, with `key`.
    """
    made = ssl.create_default_context(cadata=ca or None)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        made.load_cert_chain(certificate, key)
    return made
