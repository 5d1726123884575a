"""Which ports of which addresses answer a SYN from here. Sends nothing else."""

from __future__ import annotations

import errno
import os
import pwd
import socket
from concurrent.futures import ThreadPoolExecutor

PARALLEL = 200


def reach(targets: list[tuple[str, int]], timeout: float) -> list[list[str | int]]:
    """Knocks once at every target.

    Args:
        targets: addresses and TCP ports.
        timeout: seconds to wait for an answer.

    Returns:
        `[address, port, what]`: `open`; `refused` (a reset came, so the packet got through); `silent`; `unreachable` (no route, or an ICMP
        error came); `blocked` (a packet filter of this host holds it back).
    """
    with ThreadPoolExecutor(max_workers=min(PARALLEL, max(1, len(targets)))) as pool:
        found = pool.map(lambda target: _knock(target[0], target[1], timeout), targets)
        return [[address, port, what] for (address, port), what in zip(targets, found, strict=True)]


def reach_as(user: str, targets: list[tuple[str, int]], timeout: float) -> list[list[str | int]]:
    """`reach` as a user without rights, which this process stays from then on: what one gets who broke a service of this host."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    return reach(targets, timeout)


def _knock(address: str, port: int, timeout: float) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as knocking:
        knocking.settimeout(timeout)
        try:
            knocking.connect((address, port))
        except TimeoutError:
            return "silent"
        except ConnectionRefusedError:
            return "refused"
        except PermissionError:
            return "blocked"
        except OSError as fault:
            if fault.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN}:
                return "unreachable"
            raise
    return "open"
