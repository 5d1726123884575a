"""A mail host of 1982: it knows no extension but the greeting, so what it gets must be seven bits (RFC 6152 section 3).

Runs as root on a host outside that mail goes to. For as long as it listens, what one relay sends to port 25 reaches it.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from lemonstand.probes.events import emit
from lemonstand.probes.hosts.commands import command
from lemonstand.probes.network.interruptions import SAFETY_SECONDS, TABLE, away, safety

PORT = 2525
LARGEST = 1 << 20


def old_host(sources: list[str], recipient: str, within: float) -> dict[str, Any]:
    """Takes one message in place of this host's own server; tells `listening` when it can.

    Args:
        sources: addresses of the relay.
        recipient: whom the message is for. Mail for others is told to come again: it is somebody else's measurement.
        within: seconds it waits.

    Returns:
        `commands`: what the relay said (without the message), `header` and `body` of the message; `eight_bit`: octets above 127 in it.
    """
    rules = "\n".join(f"{'ip6' if ':' in each else 'ip'} saddr {each} tcp dport 25 redirect to :{PORT}" for each in sources)
    away()
    safety(int(within) + SAFETY_SECONDS, "nft", "delete", "table", "inet", TABLE)
    with socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        listener.settimeout(within)
        command("nft", "-f", "-", data=f"table inet {TABLE} {{ chain in {{ type nat hook prerouting priority -101;\n{rules}\n}}\n}}\n")
        try:
            emit("listening")
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(ConnectionError):  # who only knocks is nobody's message
                    connection.settimeout(within)
                    found = _take(connection, recipient)
                    if found["body"]:
                        return found
        finally:
            away()


def _take(connection: socket.socket, recipient: str) -> dict[str, Any]:
    stream = connection.makefile("rb")
    commands: list[str] = []
    data = b""

    def say(text: str) -> None:
        connection.sendall(text.encode() + b"\r\n")

    say("220 old.invalid ESMTP")
    while line := stream.readline(4096):
        commands.append(line.decode("utf-8", "replace").strip())
        verb = commands[-1][:4].upper()
        if verb == "DATA":
            say("354 go on")
            while (text := stream.readline(LARGEST)) not in {b".\r\n", b""}:
                data += text
            say("250 taken")
        elif verb == "QUIT":
            say("221 bye")
            break
        elif verb == "RCPT" and f"<{recipient}>" not in commands[-1]:
            say("451 come again")
        else:
            say("250 old.invalid" if verb in {"EHLO", "HELO"} else "250 fine")
    header, _, body = data.partition(b"\r\n\r\n")
    return {
        "commands": commands, "header": header.decode("utf-8", "replace")[:4000], "body": body.decode("latin-1")[:4000],
        "eight_bit": sum(octet > 127 for octet in data),
    }  # fmt: skip
