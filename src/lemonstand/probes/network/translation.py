"""How a border translates: which address and port the outside sees for connections of one socket (RFC 5382, REQ-1 to REQ-3)."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from typing import Any

ENTRY = re.compile(
    r"tcp\s+6 \d+ [A-Z_0-9]+ src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+) (?:\[UNREPLIED\] )?src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)"
)


def one_source(source: str, targets: list[tuple[str, int]], timeout: float) -> dict[str, Any]:
    """Opens connections from one port of this host to several others, and closes them.

    Args:
        source: an address of this host.
        targets: addresses and TCP ports.
        timeout: seconds for each.

    Returns:
        `port`: the source port; `opened`: the targets that answered.
    """
    opened: list[tuple[str, int]] = []
    with contextlib.ExitStack() as held:
        port = 0
        for target in targets:
            made = held.enter_context(socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.settimeout(timeout)
            made.bind((source, port))
            port = port or int(made.getsockname()[1])
            with contextlib.suppress(OSError):
                made.connect(tuple(target))
                opened.append(target)
    return {"port": port, "opened": opened}


def translations(source: str, port: int) -> list[dict[str, Any]]:
    """What conntrack of this host knows of connections from an address and port.

    Returns:
        `target` and `dport` as the inside dials them; `seen_address` and `seen_port` as the outside sees the source.
    """
    done = subprocess.run(
        ["conntrack", "-L", "-p", "tcp", "--src", source, "-o", "extended"], capture_output=True, text=True, timeout=20, check=False
    )
    found = []
    for line in done.stdout.splitlines():
        words = ENTRY.search(line)
        if words and words.group(1) == source and int(words.group(3)) == port:
            target, dport, address, number = words.group(2, 4, 6, 8)
            found.append({"target": target, "dport": int(dport), "seen_address": address, "seen_port": int(number)})
    return found
