"""What a host's connection tracking (conntrack) knows."""

from __future__ import annotations

import re
from typing import Any

from lemonstand.probes.hosts.commands import command


def tracked(ports: list[int]) -> list[dict[str, Any]]:
    """Connections to some ports that conntrack of this host knows: `state`, seconds `left`, `source`, `target`, `port`, `family`."""
    found = []
    for family in ("ipv4", "ipv6"):
        for line in command("conntrack", "-L", "-f", family, "-p", "tcp", "-o", "extended", check=False).splitlines():
            words = re.search(r"tcp\s+6 (\d+) ([A-Z_0-9]+) src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)", line)
            if words and int(words.group(6)) in ports:
                found.append(
                    {
                        "family": family, "left": int(words.group(1)), "state": words.group(2), "source": words.group(3),
                        "target": words.group(4), "sport": int(words.group(5)), "port": int(words.group(6)),
                    }
                )  # fmt: skip
    return found


def forget(ports: list[int]) -> int:
    """Drops what conntrack of this host knows of connections to some ports, as a restart of it would; how many there were."""
    known = tracked(ports)
    for entry in known:
        command(
            "conntrack", "-D", "-f", entry["family"], "-p", "tcp", "--src", entry["source"], "--dst", entry["target"],
            "--sport", str(entry["sport"]), "--dport", str(entry["port"]), check=False,
        )  # fmt: skip
    left = {(entry["source"], entry["sport"]) for entry in tracked(ports)}
    return sum((entry["source"], entry["sport"]) not in left for entry in known)
