"""Alarms: lines of priority "warning" that the parts of this product write when a limit is reached."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from lemonstand.admin.hosts import Hosts
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site import Site

UNITS = {"auths": "ticket-issuer", "relays": "submission-limits"}
"""The unit that writes alarms, by group of hosts."""
MOST = 1000
SPAN = re.compile(r"(\d{1,4})(m|h|d)")
WORDS = {"m": "minutes", "h": "hours", "d": "days"}
NOTHING_FOUND = 1
"""What `journalctl --grep` says if no line matches."""


@dataclass(frozen=True)
class Alarm:
    """One line.

    Args:
        kind: what its `alarm=` says: `guessing`, `sending`, `limits-file`.
        details: the rest of it.
    """

    at: datetime
    host: str
    kind: str
    details: str


def read_alarms(site: Site, hosts: Hosts, since: str) -> list[Alarm]:
    """The alarms of all hosts, oldest first.

    Args:
        since: how far back: `30m`, `24h`, `7d`.

    Raises:
        InputError: `since` is no such span.
        LemonstandError: a host gave no answer: no alarm there does not mean that there was none.
    """
    span = SPAN.fullmatch(since)
    if not span:
        raise InputError(f"'{since}' is no span of time", "--since", "write minutes, hours or days as 30m, 24h or 7d")
    ago = f"-{span.group(1)}{WORDS[span.group(2)]}"
    found: list[Alarm] = []
    for group, unit in UNITS.items():
        command = ["journalctl", "-u", unit, "-p", "warning", "-o", "json", "--since", ago, "-n", str(MOST), "--grep", "^alarm="]
        for host, answer in hosts.run_on([each.name for each in site.group(group)], command, codes=(0, NOTHING_FOUND)).items():
            if isinstance(answer, LemonstandError):
                raise answer
            found += [_alarm(host, json.loads(line)) for line in answer.splitlines() if line.startswith("{")]
    return sorted(found, key=lambda alarm: alarm.at)


def _alarm(host: str, entry: dict[str, str]) -> Alarm:
    kind, _, details = str(entry["MESSAGE"]).removeprefix("alarm=").partition(" ")
    return Alarm(datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, UTC), host, kind, details)
