"""Alarms: what a running site has to tell an operator, from all its hosts, and which of them could not be asked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lemonstand.admin import health
from lemonstand.admin.access import Hosts
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site import Site

SPAN = re.compile(r"(\d{1,4})(m|h|d)")
UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Alarm:
    """One line.

    Args:
        at: when it happened, or when it was seen if it goes on.
        kind: `guessing`, `connections`, `sending`, `limits-file` (limits, as services say), `standby`, `relay` (of stores), `failed`,
            `restarting`, `not-running`, `restarted`, `disk`, `read-only`, `queue`, `clock`, `certificate`, `twin` (an auth host that is
            out of step), `backup`; of edges `silent`, `two-edges`, `alone`, `no-twin`, `hand-over`.
        details: the rest of it.
    """

    at: datetime
    host: str
    kind: str
    details: str


@dataclass(frozen=True)
class Alarms:
    """What was found, and whom one could not ask.

    Args:
        found: the oldest first.
        unasked: `(host, why)`; no alarm there does not mean that there was none.
    """

    found: tuple[Alarm, ...]
    unasked: tuple[tuple[str, str], ...]


def read_alarms(site: Site, hosts: Hosts, since: str) -> Alarms:
    """The alarms of all hosts of a site.

    Args:
        since: how far back: `30m`, `24h`, `7d`.

    Raises:
        InputError: `since` is no such span.
    """
    span = SPAN.fullmatch(since)
    if not span:
        raise InputError(f"'{since}' is no span of time", "--since", "write minutes, hours or days as 30m, 24h or 7d")
    seconds = int(span.group(1)) * UNIT_SECONDS[span.group(2)]
    names = [each.name for each in site.hosts.values() if each.role_groups]
    program = Path(health.__file__).read_text(encoding="utf-8")
    found: list[Alarm] = []
    unasked: list[tuple[str, str]] = []
    for host, answer in hosts.run_on(names, ["/usr/bin/python3", "-", str(seconds)], program).items():
        try:
            alarms, faults = _understood(host, answer)
        except LemonstandError as error:
            unasked.append((host, error.what))
            continue
        found += alarms
        unasked += [(host, f"{part}: {why}") for part, why in faults.items()]
    return Alarms(tuple(sorted(found, key=lambda alarm: alarm.at)), tuple(unasked))


def _understood(host: str, answer: str | LemonstandError) -> tuple[list[Alarm], dict[str, str]]:
    """The answer of a host. What is not marked as one is none, whatever the exit status was."""
    if isinstance(answer, LemonstandError):
        raise answer
    lines = [line for line in answer.splitlines() if line.startswith(health.MARK)]
    try:
        said = json.loads(lines[-1].removeprefix(health.MARK))
        alarms = [Alarm(datetime.fromtimestamp(each["at"], UTC), host, each["kind"], each["details"]) for each in said["alarms"]]
        return alarms, dict(said["faults"])
    except (IndexError, KeyError, TypeError, ValueError):
        last = (answer.strip().splitlines() or ["nothing"])[-1]
        raise LemonstandError(f"no answer that can be read: {last[:100]}", host, f"run `ansible {host} -b -m ping`") from None
