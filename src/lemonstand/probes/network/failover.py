"""A host that falls silent as one without power does, and another one that takes its addresses. Runs as root on the host that is meant."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

from lemonstand.probes.events import ENOUGH, emit
from lemonstand.probes.hosts.commands import command
from lemonstand.probes.network.interruptions import SAFETY, SAFETY_SECONDS, safety

TABLE = "lemonstand_probe_silence"
LOOK_SECONDS = 0.05
WATCH = Path("/run/lemonstand/edge-watch.json")
CACHE = re.compile(r"cache (\w+):\s+current active connections:\s+(\d+)")


def silent(devices: list[str], within: float) -> dict[str, Any]:
    """Neither hears nor says anything by some links for a while, below all of IP: no reset, no ARP, no neighbour's answer. Tells `holding`.

    The links stay up, as they do for those behind a switch.

    Args:
        devices: the links; not the one the asker comes by.
        within: seconds; it ends sooner if the asker has seen enough.

    Returns:
        `seconds` it lasted.
    """
    chains = "\n".join(
        f'chain {way}_{number} {{ type filter hook {way} device "{device}" priority -500; policy drop; }}'
        for number, device in enumerate(devices)
        for way in ("ingress", "egress")
    )
    command("nft", "delete", "table", "netdev", TABLE, check=False)
    safety(int(within) + SAFETY_SECONDS, "nft", "delete", "table", "netdev", TABLE)
    began = time.monotonic()
    try:
        command("nft", "-f", "-", data=f"table netdev {TABLE} {{\n{chains}\n}}\n")
        emit("holding")
        ENOUGH.wait(within)
    finally:
        command("nft", "delete", "table", "netdev", TABLE, check=False)
        command("systemctl", "stop", f"{SAFETY}.timer", check=False)
    return {"seconds": round(time.monotonic() - began, 2)}


def takes_over(addresses: list[str], within: float) -> dict[str, Any]:
    """Waits until this host has all of some addresses; tells `waiting` when it begins and `held` when it has.

    Args:
        addresses: of whichever IP version.
        within: seconds it waits.

    Returns:
        `held`: whether it has them.
    """
    until = time.monotonic() + within
    emit("waiting")
    while time.monotonic() < until:
        if len(held(addresses)) == len(addresses):
            emit("held")
            return {"held": True}
        time.sleep(LOOK_SECONDS)
    return {"held": False}


def replicated() -> dict[str, int]:
    """Connections this host's conntrackd tells others of (`internal`), and those it was told of (`external`); none if it does not run."""
    shown = command("conntrackd", "-s", check=False)
    return {name: int(count) for name, count in CACHE.findall(shown)}


def watched() -> dict[str, Any]:
    """What the edge's own watch has written down: members that answer, whether it is alone, who else holds what it holds."""
    seen: dict[str, Any] = json.loads(WATCH.read_text(encoding="utf-8"))
    return seen


def held(addresses: list[str]) -> list[str]:
    """Which of some addresses this host has."""
    return [address for address in addresses if _has(address)]


def _has(address: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as own:
        try:
            own.bind((address, 0))
        except OSError:
            return False
    return True
