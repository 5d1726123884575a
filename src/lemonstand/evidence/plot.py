"""Small plots of what was captured over time: what went over the wire while nothing happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lemonstand.derived.change_request import span

LEFT, RIGHT, ROW, WIDTH = 150, 24, 46, 900
STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 864000)
"""Seconds between two marks of the axis, the first that gives few enough."""
MOST_MARKS = 8
BAR = 260
COUNTED = "segments: "
"""How checks call what they counted by cause."""


@dataclass(frozen=True)
class Stem:
    """One point as a line from the axis: where it stands, how high it is, what it says, and that in short."""

    x: float
    top: float
    text: str
    label: str


@dataclass(frozen=True)
class Line:
    """One series: a name, the axis it stands on, its stems."""

    name: str
    base: float
    stems: tuple[Stem, ...]
    says: str


@dataclass(frozen=True)
class Plot:
    """The series of one result over one axis of time."""

    check: str
    height: float
    lines: tuple[Line, ...]
    marks: tuple[tuple[float, str], ...]
    says: str
    width: int = WIDTH


def plots(evidence: Mapping[str, Any]) -> list[Plot]:
    """A plot for each result that has series.

    Args:
        evidence: of schema 2.
    """
    found = []
    for result in evidence["results"]:
        series = [each for each in result.get("series", []) if each["points"]]
        if series:
            found.append(_plot(result["check"], series))
    return found


@dataclass(frozen=True)
class Tally:
    """What a capture counted, as bars.

    Args:
        bars: (what, how many, how wide).
        facts: what else the check measured, as (name, value, unit).
    """

    check: str
    bars: tuple[tuple[str, float, float], ...]
    facts: tuple[tuple[str, Any, str], ...]


def tallies(evidence: Mapping[str, Any]) -> list[Tally]:
    """Bars for each result that counted segments by their cause (`segments: CAUSE`), one a cause.

    Args:
        evidence: of schema 2.
    """
    found = []
    for result in evidence["results"]:
        counted = [each for each in result["measured"] if each["name"].startswith(COUNTED) and isinstance(each["value"], int | float)]
        if counted:
            most = max(1.0, *(float(each["value"]) for each in counted))
            bars = tuple((each["name"].removeprefix(COUNTED), each["value"], round(BAR * each["value"] / most, 1)) for each in counted)
            others = (each for each in result["measured"] if each not in counted)
            found.append(Tally(result["check"], bars, tuple((each["name"], each["value"], each["unit"]) for each in others)))
    return found


def _plot(check: str, series: Sequence[Mapping[str, Any]]) -> Plot:
    last = max(float(x) for each in series for x, _ in each["points"]) or 1.0
    room = WIDTH - LEFT - RIGHT
    lines = []
    for index, each in enumerate(series):
        base = 14 + (index + 1) * ROW
        highest = max((abs(float(y)) for _, y in each["points"])) or 1.0
        stems = tuple(
            Stem(
                round(LEFT + room * float(x) / last, 1),
                round(base - 6 - (ROW - 18) * abs(float(y)) / highest, 1),
                f"{float(x):g} s: {float(y):g} {each['unit']}".strip(),
                f"{float(y):g} {each['unit']}".strip(),
            )
            for x, y in each["points"]
        )
        total = sum(float(y) for _, y in each["points"])
        says = f"{len(stems)} points, {total:g} {each['unit']} in all".replace("  ", " ")
        lines.append(Line(str(each["name"]), base, stems, says))
    step = next((step for step in STEPS if last / step <= MOST_MARKS), STEPS[-1])
    marks = tuple((round(LEFT + room * at / last, 1), span(at)) for at in range(0, int(last) + 1, step))
    says = "; ".join(f"{line.name}: {line.says}" for line in lines)
    return Plot(check, 14 + len(series) * ROW + 24, tuple(lines), marks, says)
