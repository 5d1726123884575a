"""A server that lies about TLS: what do clients of a leg tell it? And what does such a server get from our own clients?

On a host it stands in front of the real service: packets from outside to the service's port are led to it by a table of its own, which goes
away with the probe, and by a timer of systemd if the probe can't. It never answers a command with success that would bring it a secret, and
keeps no word a client says but the first of each command.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from lemonstand.probes.events import ENOUGH, emit

TABLE = "lemonstand_probe"
SAFETY = "lemonstand-rogue-end"
SAFETY_SECONDS = 30
RULES = "/etc/lemonstand/nftables.nft"
IMAP_OFFER = "IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN AUTH=OAUTHBEARER"
GREETINGS = {
    "imap-stripped": f"* OK [CAPABILITY {IMAP_OFFER}] ready",
    "imap-preauth": f"* PREAUTH [CAPABILITY {IMAP_OFFER}] you are logged in",
    "imap-injected": f"* OK [CAPABILITY {IMAP_OFFER} STARTTLS] ready",
    "smtp-stripped": "220 rogue.invalid ESMTP",
    "smtp-injected": "220 rogue.invalid ESMTP",
    "lmtp-stripped": "220 rogue.invalid LMTP",
}
"""How each kind greets. `stripped`: TLS is not offered; `preauth`: the client is told that it is logged in (RFC 9051 section 7.1.4);
`injected`: more is said in the clear, right behind the leave to start TLS (CVE-2021-38371)."""
OFFERS = {
    "smtp-stripped": ["PIPELINING", "AUTH PLAIN LOGIN EXTERNAL", "XCLIENT NAME ADDR LOGIN"],
    "smtp-injected": ["STARTTLS"],
    "lmtp-stripped": ["PIPELINING", "ENHANCEDSTATUSCODES"],
}
HARMLESS = {"CAPABILITY", "ID", "NOOP", "STARTTLS", "LOGOUT", "EHLO", "HELO", "LHLO", "QUIT", "RSET"}
"""What a client may say to a server it has not verified."""


def answer(kind: str, line: str) -> tuple[str, list[str]]:
    """What a rogue replies.

    Args:
        kind: see `GREETINGS`.
        line: what the client said.

    Returns:
        The command's first word, and the lines.
    """
    return _imap(kind, line.split()) if kind.startswith("imap") else _smtp(kind, line.split())


def _imap(kind: str, words: list[str]) -> tuple[str, list[str]]:
    tag, command = (words[0], words[1].upper()) if len(words) > 1 else ("*", "?")
    if command == "CAPABILITY":
        offer = GREETINGS[kind].partition("[")[2].partition("]")[0]
        return command, [f"* {offer}", f"{tag} OK"]
    if command == "STARTTLS" and kind == "imap-injected":
        return command, [f"{tag} OK begin", f"* CAPABILITY {IMAP_OFFER} LOGINDISABLED"]
    return command, [f"{tag} OK" if command in {"ID", "NOOP", "LOGOUT"} else f"{tag} BAD no"]


def _smtp(kind: str, words: list[str]) -> tuple[str, list[str]]:
    command = words[0].upper() if words else "?"
    if command in {"EHLO", "LHLO"}:
        lines = ["rogue.invalid", *OFFERS[kind]]
        return command, [f"250{' ' if number == len(lines) - 1 else '-'}{text}" for number, text in enumerate(lines)]
    if command == "STARTTLS" and kind == "smtp-injected":
        return command, ["220 begin", "250 injected"]
    return command, ["221 bye" if command == "QUIT" else "502 no"]


class Rogue:
    """A listening rogue; `with Rogue(kind) as rogue:` serves until the end of the block.

    Attributes:
        port: where it listens, on all addresses of both families.
        commands: the first word of each command it was told, in order; `?` for what was no line of text, such as a handshake.
        connections: how many came.
    """

    def __init__(self, kind: str, host: str = "::") -> None:
        self._kind = kind
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::")
        self.port = int(self._listener.getsockname()[1])
        self.commands: list[str] = []
        self.connections = 0

    def __enter__(self) -> Rogue:
        """Itself, listening."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rwb") as stream:
            connection.settimeout(20)
            stream.write(GREETINGS[self._kind].encode() + b"\r\n")
            stream.flush()
            while line := stream.readline(65536):
                text = line.decode("ascii", "replace").strip()
                if not text.isprintable():
                    self.commands.append("?")
                    return
                command, lines = answer(self._kind, text)
                self.commands.append(command if command.isalpha() else "?")
                # Together, so that what is injected comes in the same segment.
                stream.write("".join(f"{each}\r\n" for each in lines).encode())
                stream.flush()


def rogue(kind: str, port: int, within: float) -> dict[str, Any]:
    """Stands in front of a service of this host for a while; tells `lying` when it does.

    Args:
        kind: see `GREETINGS`.
        port: the service's.
        within: seconds, if the asker has not seen enough before.

    Returns:
        `connections`, `commands`: first words of what it was told.
    """
    with Rogue(kind) as liar, _in_front(port, liar.port, within):
        emit("lying")
        ENOUGH.wait(within)
    return {"connections": liar.connections, "commands": liar.commands[:200]}


@contextlib.contextmanager
def _in_front(port: int, own: int, within: float) -> Iterator[None]:
    rules = f"""table inet {TABLE} {{
      chain lead {{
        type nat hook prerouting priority -101; policy accept;
        tcp dport {port} redirect to :{own}
      }}
    }}"""
    away = f"nft delete table inet {TABLE}; nft -f {RULES}"
    _run("systemctl", "stop", f"{SAFETY}.timer", check=False)
    _run("systemd-run", "--quiet", f"--unit={SAFETY}", f"--on-active={int(within) + SAFETY_SECONDS}", "sh", "-c", away)
    try:
        # The host's own filter lets nobody to other ports; its rules are loaded anew at the end.
        _run("nft", "insert", "rule", "inet", "lemonstand", "input", "tcp", "dport", str(own), "accept")
        _run("nft", "-f", "-", data=rules)
        yield
    finally:
        _run("sh", "-c", away, check=False)
        _run("systemctl", "stop", f"{SAFETY}.timer", check=False)


def _run(*command: str, data: str | None = None, check: bool = True) -> None:
    done = subprocess.run(command, input=data, capture_output=True, text=True, timeout=30, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])}: {done.stderr.strip()[:300]}")
