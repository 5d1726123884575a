"""New connections, one after the other, while something happens to a site: how long each takes to be greeted."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

from lemonstand.probes.events import ENOUGH, emit
from lemonstand.probes.hosts.commands import command

PATIENCE = 15.0
"""Seconds until a client gives up."""
GREETING_SECONDS = 3.0
"""How long it waits for a greeting before it connects anew: who was let in by a host that fell silent in that moment is lost with it."""
PAUSE = 0.2


def openings(targets: list[tuple[str, int]], within: float, every: float) -> list[dict[str, Any]]:
    """Opens connections to each of some services at short intervals; tells `opening` when it begins.

    By IPv4 they come from all addresses of this host in turn, as clients of several addresses do.

    Args:
        targets: addresses and ports.
        within: seconds; it ends sooner if the asker has seen enough.
        every: seconds from one to the next.

    Returns:
        For each target `address`, `port`, `opened`, `failed`, `longest` (seconds until a greeting came), and `faults`, the first few.
    """
    seen: list[list[tuple[float, str]]] = [[] for _ in targets]
    sources = {address: own_towards(address) for address, _ in targets}
    threads = []
    until = time.monotonic() + within
    emit("opening")
    turn = 0
    while time.monotonic() < until and not ENOUGH.is_set():
        for number, (address, port) in enumerate(targets):
            own = sources[address]
            source = own[turn % len(own)] if own else ""
            threads.append(threading.Thread(target=_one, args=(address, port, source, seen[number])))
            threads[-1].start()
        turn += 1
        ENOUGH.wait(every)
    for thread in threads:
        thread.join()
    return [
        {
            "address": address, "port": port, "opened": sum(not fault for _, fault in tries),
            "failed": sum(bool(fault) for _, fault in tries), "longest": round(max((took for took, _ in tries), default=0.0), 2),
            "faults": [fault for _, fault in tries if fault][:3],
        }
        for (address, port), tries in zip(targets, seen, strict=True)
    ]  # fmt: skip


def own_towards(address: str) -> list[str]:
    """This host's IPv4 addresses on the link that leads to an address; none for IPv6."""
    if ":" in address:
        return []
    device = json.loads(command("ip", "-j", "route", "get", address))[0]["dev"]
    links = json.loads(command("ip", "-j", "-4", "addr", "show", "dev", device, "scope", "global"))
    return [str(each["local"]) for link in links for each in link.get("addr_info", []) if "local" in each]


def _one(address: str, port: int, source: str, seen: list[tuple[float, str]]) -> None:
    began = time.monotonic()
    fault = "no greeting"
    while fault and (left := began + PATIENCE - time.monotonic()) > 0:
        try:
            with socket.create_connection((address, port), left, (source, 0) if source else None) as connection:
                connection.settimeout(GREETING_SECONDS)
                fault = "" if connection.recv(512) else "closed without a word"
        except OSError as problem:
            fault = f"{type(problem).__name__}: {problem}"
            if time.monotonic() - began < PATIENCE:
                time.sleep(PAUSE)
    seen.append((time.monotonic() - began, fault))
