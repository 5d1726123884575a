"""How edges spread new connections over several frontends and relays, as each edge says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from lemonstand.admin.access import Hosts
from lemonstand.errors import LemonstandError
from lemonstand.site import Site

WATCH = "/usr/local/lib/lemonstand/edge-watch"
"""Put on edges by the role `edge`."""


@dataclass(frozen=True)
class Spread:
    """One frontend or relay, as one edge has it.

    Args:
        edge: who says so.
        host: the frontend or relay.
        answers: whether it greets.
        gets: `yes`, or why it gets no new connections: `drained`, `no`.
        connections: established through this edge, or known to it.
        about: since when, and why.
    """

    edge: str
    host: str
    answers: bool
    gets: str
    connections: int
    about: str


@dataclass(frozen=True)
class Found:
    """What edges said, and `(edge, why)` of those that could not be asked."""

    members: tuple[Spread, ...]
    unasked: tuple[tuple[str, str], ...]


def read_spread(site: Site, hosts: Hosts) -> Found:
    """Asks every edge of a site that has several frontends or relays.

    Args:
        site: the site.
        hosts: its hosts.
    """
    if all(len(site.group(group)) < 2 for group in ("frontends", "relays")):
        return Found((), ())
    members: list[Spread] = []
    unasked: list[tuple[str, str]] = []
    for edge, answer in hosts.run_on([each.name for each in site.group("edges")], [WATCH, "status"]).items():
        if isinstance(answer, LemonstandError):
            unasked.append((edge, answer.what))
            continue
        try:
            said = json.loads(answer)
            members += [_member(edge, name, said) for name in said["members"]]
        except (KeyError, TypeError, ValueError):
            unasked.append((edge, f"no answer that can be read: {answer.strip()[:100]}"))
    return Found(tuple(members), tuple(unasked))


def _member(edge: str, name: str, said: dict[str, dict[str, dict[str, object]]]) -> Spread:
    seen, drained = said["members"][name], said["drained"].get(name)
    about = [] if seen["answers"] else [f"silent since {_when(seen['since'])}: {seen['why']}"]
    if drained:
        about.append(f"drained since {_when(drained['since'])}" + (f": {drained['reason']}" if drained["reason"] else ""))
    gets = "drained" if drained else "yes" if seen["answers"] else "no"
    return Spread(edge, name, bool(seen["answers"]), gets, int(str(said["connections"][name])), "; ".join(about))


def _when(seconds: object) -> str:
    return f"{datetime.fromtimestamp(float(str(seconds)), UTC):%Y-%m-%d %H:%M:%S}"
