"""The numbers along the path from handset to store, what was seen of each, and the relations that must hold between them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lemonstand.policy.timers import OPERATORS

Evidence = Mapping[str, Any]

STATES = ("established", "unack", "retrans", "fin_wait", "close_wait", "syn_sent", "syn_recv", "last_ack", "time_wait", "close")
"""How nftables calls the states of a connection: timers with these names are a packet filter's memory."""
ALIASES = {"imap_idle_notify_interval": "idle_notify", "smtpd_timeout": "smtp_server_timeout"}
"""What programs call our timers."""
COUNT = re.compile(r"(retries\d?|probes)$")
"""Names of timers that are counts, not seconds."""
LONGEST = 10 * 86400
"""Seconds: the right end of the scale."""
SCALE = 180


@dataclass
class Number:
    """One timer at one hop.

    Args:
        name: of the timer.
        wanted: what the profile says; None where others decide and we only ask.
        at_least: the floor we ask for, where others decide.
        seen: values by host, as measured.
    """

    name: str
    wanted: int | None
    at_least: int | None = None
    seen: dict[str, set[float]] = field(default_factory=dict)

    @property
    def is_count(self) -> bool:
        """Whether it counts something, rather than seconds."""
        return COUNT.search(self.name) is not None

    @property
    def agrees(self) -> bool | None:
        """Whether what was seen is what was wanted, None if nothing was seen."""
        values = {value for found in self.seen.values() for value in found}
        if not values:
            return None
        if self.wanted is None:
            return self.at_least is None or min(values) >= self.at_least
        return values == {float(self.wanted)}


@dataclass
class Hop:
    """One station of the path."""

    name: str
    title: str
    says: str
    numbers: list[Number]

    @property
    def rows(self) -> list[list[Number]]:
        """Its numbers, those that say the same together."""
        found: dict[tuple[object, ...], list[Number]] = {}
        for number in self.numbers:
            key = (number.wanted, number.at_least, number.is_count, number.agrees, tuple(number.seen))
            found.setdefault(key, []).append(number)
        return list(found.values())


@dataclass(frozen=True)
class Held:
    """A relation with its numbers.

    Args:
        holds: whether it holds for the configured numbers.
        deviation: why the profile breaks it on purpose, if it does.
        seen: the values of the left timer that were measured; empty if none.
        seen_holds: whether it holds for each of them, None if none was measured.
        marks: where both ends stand on the scale, None for counts.
    """

    left: str
    op: str
    right: str
    left_value: int
    right_value: int
    reason: str
    control: str
    holds: bool
    deviation: str
    seen: tuple[float, ...]
    seen_holds: bool | None
    is_count: bool
    marks: tuple[float, float] | None

    @property
    def sign(self) -> str:
        """The relation as it is printed in books."""
        return {">=": "≥", "<=": "≤"}.get(self.op, self.op)

    @property
    def is_named(self) -> bool:
        """Whether the right side is a timer, rather than a number."""
        return self.right != str(self.right_value)


@dataclass(frozen=True)
class Chain:
    """The path and its relations."""

    hops: tuple[Hop, ...]
    relations: tuple[Held, ...]


def chain(evidence: Evidence) -> Chain:
    """The chain of an evidence document.

    Args:
        evidence: of schema 2.
    """
    timers: Mapping[str, int] = evidence["policy"]["timers"]
    seen = _seen(evidence, timers)
    groups = {name: set(host["groups"]) for name, host in evidence["hosts"].items()}

    def numbers(names: Sequence[str], group: str | None) -> list[Number]:
        found = []
        for name in names:
            if name in timers:
                there = {host: values for host, values in seen.get(name, {}).items() if group is None or group in groups[host]}
                found.append(Number(name, timers[name], seen=there))
        return found

    floors: dict[str, int] = {}
    for relation in evidence["policy"]["relations"]:
        if relation["op"] == ">=" and isinstance(relation["right"], int):
            floors[relation["left"]] = max(relation["right"], floors.get(relation["left"], 0))
    asked = [Number(name, None, floors[name]) for name in ("established", "syn_sent") if name in floors]
    kernel = [name for name in timers if name.startswith("tcp_")]
    alive = [name for name in kernel if "keepalive" in name]
    others = [name for name in kernel if name not in alive]
    sleeping = ["idle_notify", "imap_autologout", *alive[:1]]
    hops = [
        Hop("handset", "Handset", "sleeps, and sends nothing while nothing happens", numbers(["idle_notify"], "handsets")),
        Hop("carrier", "Carrier's translator", "is not ours: this is asked of it", asked),
        *_middleboxes(evidence, outside=True),
        Hop("edge", "Edge", "remembers each connection, by its state", numbers(STATES, "edges")),
        Hop("frontend", "Frontend", "passes the session on, and probes the silent", numbers([*alive, "imap_autologout"], "frontends")),
        *_middleboxes(evidence, outside=False),
        Hop("inner", "Inner leg", "opens, sends again and gives up as late", numbers(others, "frontends")),
        Hop("store", "Store", "speaks to who idles before anybody forgets him", numbers(sleeping, "stores")),
    ]
    placed = {number.name for hop in hops for number in hop.numbers}
    rest = [name for name in timers if name not in placed]
    if rest:
        hops.append(Hop("beside", "Beside the path", "submission, relay and the like", numbers(rest, None)))
    told = [
        each
        for each in evidence["policy"]["relations"]
        if all(isinstance(end, int) or end in timers for end in (each["left"], each["right"]))
    ]
    relations = tuple(_held(relation, timers, seen) for relation in told)
    return Chain(tuple(hop for hop in hops if hop.numbers or hop.name == "handset"), relations)


def _middleboxes(evidence: Evidence, *, outside: bool) -> list[Hop]:
    """Devices of others on the path that the site names, with what it says of them: towards the Internet, or within."""
    found = []
    for box in evidence["policy"]["middleboxes"]:
        if ("internet" in box["between"]) is outside:
            numbers = [Number(name, box[name]) for name in ("established", "transitory") if box[name] is not None]
            found.append(
                Hop(f"box-{box['name']}", box["name"], f"stands between {' and '.join(box['between'])}, by the inventory", numbers)
            )
    return found


def _seen(evidence: Evidence, timers: Mapping[str, int]) -> dict[str, dict[str, set[float]]]:
    """What was measured of each timer: {timer: {host: values}}. The last word of a measurement's name says which timer it is."""
    found: dict[str, dict[str, set[float]]] = {}
    for result in evidence["results"]:
        for each in result["measured"]:
            last = each["name"].split()[-1]
            name = ALIASES.get(last, last)
            number = each["value"]
            if name not in timers or isinstance(number, bool):
                continue
            host = result["host"] or next((word for word in each["name"].split() if word in evidence["hosts"]), None)
            try:
                seen = float(number)
            except (TypeError, ValueError):
                continue
            if host is not None and host in evidence["hosts"]:
                found.setdefault(name, {}).setdefault(host, set()).add(seen)
    return found


def _held(relation: Mapping[str, Any], timers: Mapping[str, int], seen: Mapping[str, Mapping[str, set[float]]]) -> Held:
    left, right = relation["left"], relation["right"]
    right_value = right if isinstance(right, int) else timers[right]
    compare = OPERATORS[relation["op"]]
    values = tuple(sorted({value for found in seen.get(left, {}).values() for value in found}))
    is_count = COUNT.search(left) is not None
    # A timer that was measured is compared with the other as it was measured, if that was.
    others: set[float] = set()
    if isinstance(right, str):
        others = {value for found in seen.get(right, {}).values() for value in found}
    return Held(
        left=left,
        op=relation["op"],
        right=str(right),
        left_value=timers[left],
        right_value=right_value,
        reason=relation["reason"],
        control=relation["control"],
        holds=compare(timers[left], right_value),
        deviation=relation.get("deviation", ""),
        seen=values,
        seen_holds=all(compare(int(one), int(other)) for one in values for other in others or {right_value}) if values else None,
        is_count=is_count,
        marks=None if is_count else (_place(timers[left]), _place(right_value)),
    )


def _place(number: float) -> float:
    """Where a span stands on a scale that grows by factors, from a second to ten days."""
    return round(SCALE * math.log(min(max(number, 1), LONGEST)) / math.log(LONGEST), 1)
