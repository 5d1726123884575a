"""What a verification is made of: the results of checks, and what they say about each control."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from lemonstand.policy.controls import Control, Controls

SCHEMA_VERSION = 1

Outcome = Literal["pass", "fail", "invalid", "not-measurable"]
Status = Literal["pass", "fail", "invalid", "not-measurable", "unanswered"]
AnswerClass = Literal["live", "scaled", "configuration"]
"""live: seen over the wire in real time. scaled: seen with shortened timers. configuration: read from the running host."""

CLASSES: tuple[AnswerClass, ...] = get_args(AnswerClass)
"""Best first."""
OUTCOMES: tuple[Outcome, ...] = ("fail", "invalid", "not-measurable", "pass")
"""Worst first."""


@dataclass(frozen=True)
class Measurement:
    """A number or a text that a check saw."""

    name: str
    value: float | int | bool | str | None
    unit: str = ""


@dataclass
class Result:
    """What one check found on one host.

    Args:
        check: its id, `test_network.py::test_timeouts[edge]`.
        answer: its class.
        controls: the controls it answers.
        supports: controls it can break and does not answer.
        host: inventory name, or None if it is about several.
        message: why it did not pass, in a line or a few.
        seen, expected, remedy: the same in parts, where the check gave them.
        seconds: how long it took.
    """

    check: str
    answer: AnswerClass
    outcome: Outcome
    controls: tuple[str, ...]
    supports: tuple[str, ...] = ()
    host: str | None = None
    measured: list[Measurement] = field(default_factory=list)
    message: str = ""
    seen: str = ""
    expected: str = ""
    remedy: str = ""
    seconds: float = 0.0

    @property
    def topic(self) -> str:
        """The module without its prefix: `network`."""
        return self.check.split("::")[0].rsplit("/", 1)[-1].removeprefix("test_").removesuffix(".py")

    def plain(self) -> dict[str, Any]:
        """For JSON: with `class` for the answer's class."""
        data = asdict(self)
        data["class"] = data.pop("answer")
        data["controls"], data["supports"] = list(self.controls), list(self.supports)
        data["seconds"] = round(self.seconds, 3)
        return data


@dataclass(frozen=True)
class Standing:
    """What all checks together say about a control.

    Args:
        status: the worst of its checks; `unanswered` if none that answers it ran.
        classes: the classes of the checks that answered it and passed, best first.
        checks: the ids of its checks, supporting ones included.
    """

    control: Control
    status: Status
    classes: tuple[AnswerClass, ...]
    checks: tuple[str, ...]

    @property
    def best(self) -> AnswerClass | None:
        """The best class it was answered with, None unless it passed."""
        return self.classes[0] if self.status == "pass" and self.classes else None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.control.id,
            "section": self.control.section,
            "level": self.control.level,
            "statement": self.control.statement,
            "status": self.status,
            "class": self.best,
            "classes": list(self.classes),
            "checks": list(self.checks),
        }


def judge(catalogue: Controls, results: Sequence[Result]) -> list[Standing]:
    """What the results say about every control of the catalogue.

    A control passes only if every check that answers it passed and no check that supports it failed; a check that could not be measured
    here keeps it from passing. A control made of others takes the worst of them and is unanswered while one of them is.

    Args:
        catalogue: all controls.
        results: all results.

    Returns:
        One standing a control, in the catalogue's order.
    """
    known = catalogue.by_id()
    done: dict[str, Standing] = {}
    for control in sorted(catalogue.controls, key=lambda each: bool(each.made_of)):
        if control.made_of:
            done[control.id] = _composed(control, [done[part] for part in control.made_of])
        else:
            done[control.id] = _standing(control, results)
    return [done[name] for name in known]


def _standing(control: Control, results: Iterable[Result]) -> Standing:
    answering = [result for result in results if control.id in result.controls]
    supporting = [result for result in results if control.id in result.supports]
    checks = tuple(result.check for result in (*answering, *supporting))
    # What a supporting check can't measure here says nothing about the control; what it found broken does.
    outcomes = {result.outcome for result in answering} | {result.outcome for result in supporting if result.outcome in {"fail", "invalid"}}
    passed = {result.answer for result in answering if result.outcome == "pass"}
    classes = tuple(name for name in CLASSES if name in passed)
    status: Status = next((outcome for outcome in OUTCOMES if outcome in outcomes), "unanswered")
    return Standing(control, status, classes, checks)


def _composed(control: Control, parts: Sequence[Standing]) -> Standing:
    order: tuple[Status, ...] = ("fail", "invalid", "unanswered", "not-measurable", "pass")
    status = next(name for name in order if any(part.status == name for part in parts))
    # It is seen only as well as the part that was seen worst.
    worst = max((CLASSES.index(part.best) for part in parts if part.best), default=len(CLASSES))
    return Standing(
        control, status, CLASSES[worst : worst + 1] if status == "pass" else (), tuple(dict.fromkeys(c for p in parts for c in p.checks))
    )
