"""What a verification is made of: the results of checks, and what they say about each control."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from lemonstand.observations import Observation
from lemonstand.policy.controls import Control, Controls
from lemonstand.policy.waivers import GivenWaiver, Packages

SCHEMA_VERSION = 2

Outcome = Literal["pass", "fail", "invalid", "not-measurable", "not-measured", "not-applicable"]
Status = Literal["proven", "failed", "invalid", "waived", "not-applicable", "not-measurable", "not-measured"]
AnswerClass = Literal["live", "scaled", "configuration"]
"""live: seen over the wire in real time. scaled: seen with shortened timers. configuration: read from the running host."""
Kind = Literal["plain", "disruptive", "soak"]
"""What was asked for in a run."""
Awaited = Literal["disruptive", "soak", "vantage", "selection"]
"""What would measure a control that is not measured."""

CLASSES: tuple[AnswerClass, ...] = get_args(AnswerClass)
"""Best first."""
KINDS: tuple[Kind, ...] = get_args(Kind)
AWAITED: tuple[Awaited, ...] = get_args(Awaited)
OUTCOMES: tuple[Outcome, ...] = ("fail", "invalid", "not-measured", "not-measurable", "not-applicable", "pass")
"""Worst first, for the phases of one check."""
WEIGHTS: tuple[Outcome, ...] = ("fail", "invalid", "not-measured", "not-measurable", "pass", "not-applicable")
"""Weightiest first, for the checks of one control: a check with nothing to look at says nothing beside one that passed."""
STATUSES: tuple[Status, ...] = ("failed", "invalid", "not-measured", "not-measurable", "waived", "not-applicable", "proven")
"""Worst first: what a control made of others takes from them."""
HEADLINE: Mapping[Status, str] = {
    "proven": "proven",
    "failed": "failed",
    "invalid": "could not be measured",
    "waived": "waived",
    "not-applicable": "not applicable",
    "not-measurable": "not measurable here",
    "not-measured": "not measured",
}
"""What a headline calls each status, in the order in which it tells them; two of them are told even if they are none."""
BROKEN = {"fail", "invalid"}
AWAITS_WORDS: Mapping[Awaited, str] = {
    "disruptive": "`lemonstand verify --disruptive`",
    "soak": "`make soak`",
    "vantage": "a host outside (group `handsets`) and `lemonstand_probe_users`",
    "selection": "a run that selects it",
}
NO_CHECK = "no check answers it"


@dataclass(frozen=True)
class Measurement:
    """A number or a text that a check saw.

    Args:
        volatile: whether it differs from run to run without meaning anything.
    """

    name: str
    value: float | int | bool | str | None
    unit: str = ""
    volatile: bool = False


@dataclass
class Result:
    """What one check found on one host.

    Args:
        check: its id, `test_network.py::test_timeouts[edge]`.
        answer: its class.
        controls: the controls it answers.
        supports: controls it can break and does not answer.
        host: inventory name, or None if it is about several.
        run: the kind of run it belongs to.
        time: when it began, UTC.
        message: why it did not pass, in a line or a few.
        seen, expected, remedy: the same in parts, where the check gave them.
        seconds: how long it took.
        tables, series: what a number can't show, in the schema's form.
    """

    check: str
    answer: AnswerClass
    outcome: Outcome
    controls: tuple[str, ...]
    supports: tuple[str, ...] = ()
    host: str | None = None
    run: Kind = "plain"
    time: str = ""
    measured: list[Measurement] = field(default_factory=list)
    asked: list[Observation] = field(default_factory=list)
    message: str = ""
    seen: str = ""
    expected: str = ""
    remedy: str = ""
    seconds: float = 0.0
    tables: list[dict[str, Any]] = field(default_factory=list)
    series: list[dict[str, Any]] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """For JSON: with `class` for the answer's class."""
        data = asdict(self)
        data["class"] = data.pop("answer")
        data["controls"], data["supports"] = list(self.controls), list(self.supports)
        data["seconds"] = round(self.seconds, 3)
        for name in ("tables", "series"):
            if not data[name]:
                del data[name]
        return data


def topic(check: str) -> str:
    """The module of a check's id without its prefix: `network`."""
    return check.partition("::")[0].rsplit("/", 1)[-1].removeprefix("test_").removesuffix(".py")


@dataclass(frozen=True)
class Standing:
    """What all checks together say about a control.

    Args:
        status: see docs/decisions/0015.
        classes: the classes of the checks that answered it and passed, best first.
        reason: why it is not proven.
        awaits: what would measure it.
        waiver: the id of the waiver that covers it, in part or whole.
        checks: the ids of its checks, supporting ones included.
    """

    control: Control
    status: Status
    classes: tuple[AnswerClass, ...] = ()
    reason: str = ""
    awaits: tuple[Awaited, ...] = ()
    waiver: str | None = None
    checks: tuple[str, ...] = ()

    @property
    def best(self) -> AnswerClass | None:
        """The best class it was proven with, None unless it is."""
        return self.classes[0] if self.status == "proven" and self.classes else None

    def plain(self, mutants: Collection[str] = ()) -> dict[str, Any]:
        """For JSON.

        Args:
            mutants: the names of those that break it.
        """
        control = self.control
        return {
            "id": control.id,
            "section": control.section,
            "level": control.level,
            "statement": control.statement,
            "sources": list(control.sources),
            "differs": list(control.differs),
            "binds": list(control.binds),
            "status": self.status,
            "class": self.best,
            "classes": list(self.classes),
            "reason": self.reason,
            "awaits": list(self.awaits),
            "waiver": self.waiver,
            "checks": list(self.checks),
            "mutants": list(mutants),
            "made_of": list(control.made_of),
        }


@dataclass(frozen=True)
class Circumstances:
    """What else decides about a control, beside the results of checks.

    Args:
        groups: those the site has hosts in, each as often as it has hosts there.
        waivers: all that are granted.
        today: the day of the verification.
        packages: what is installed.
        held_back: control to what its checks wait for, of those that did not run.
    """

    groups: Collection[str] = ("edges",)
    waivers: tuple[GivenWaiver, ...] = ()
    today: dt.date = field(default_factory=lambda: dt.datetime.now(dt.UTC).date())
    packages: Packages = field(default_factory=dict)
    held_back: Mapping[str, Collection[Awaited]] = field(default_factory=dict)

    def in_force(self, control: str) -> GivenWaiver | None:
        """The waiver that covers a control today."""
        return next((each for each in self.waivers if control in each.controls and not each.ended(self.today, self.packages)), None)

    def ended(self, control: str) -> str:
        """Why a control's waiver holds no longer; empty if it has none, or one that holds."""
        if self.in_force(control):
            return ""
        over = [(each.id, each.ended(self.today, self.packages)) for each in self.waivers if control in each.controls]
        return "; ".join(f"waiver {name}: {why}" for name, why in over)


def judge(catalogue: Controls, results: Sequence[Result], around: Circumstances | None = None) -> list[Standing]:
    """What the results say about every control of the catalogue.

    A control is proven only if every check that answers it passed and no check that supports it failed; a check that could not be measured
    here keeps it from being proven. A control made of others takes the worst of them.

    Args:
        catalogue: all controls.
        results: all results.
        around: what else decides.

    Returns:
        One standing a control, in the catalogue's order.
    """
    around = around or Circumstances()
    known = catalogue.by_id()
    done: dict[str, Standing] = {}
    for control in sorted(catalogue.controls, key=lambda each: bool(each.made_of)):
        if control.made_of:
            done[control.id] = _composed(control, [done[part] for part in control.made_of])
        else:
            done[control.id] = _standing(control, results, around, catalogue.reason(control, around.groups))
    return [done[name] for name in known]


def superfluous(waiver: GivenWaiver, standings: Iterable[Standing]) -> bool:
    """Whether all that a waiver covers is proven without it. One that covers a part can't be told from outside."""
    mine = [each for each in standings if each.control.id in waiver.controls]
    return not waiver.part and bool(mine) and all(each.status == "proven" for each in mine)


def _standing(  # noqa: PLR0911 - one line a status, the weightiest first
    control: Control, results: Iterable[Result], around: Circumstances, exempt: str
) -> Standing:
    answering = [result for result in results if control.id in result.controls]
    supporting = [result for result in results if control.id in result.supports]
    checks = tuple(result.check for result in (*answering, *supporting))
    # What a supporting check can't measure here says nothing about the control; what it found broken does.
    looked = [*answering, *(result for result in supporting if result.outcome in BROKEN)]
    worst = next((outcome for outcome in WEIGHTS if any(result.outcome == outcome for result in looked)), "not-applicable")
    messages = "; ".join(dict.fromkeys(result.message for result in looked if result.outcome == worst and result.message))
    passed = {result.answer for result in answering if result.outcome == "pass"}
    classes = tuple(name for name in CLASSES if name in passed)
    waiver, over = around.in_force(control.id), around.ended(control.id)
    # One in part says what the checks leave out: what they find broken is the rest, and nobody answers for that.
    whole = waiver if waiver and not waiver.part else None
    held = tuple(each for each in AWAITED if each in around.held_back.get(control.id, ()))

    def standing(status: Status, reason: str = "", awaits: tuple[Awaited, ...] = ()) -> Standing:
        return Standing(control, status, classes, reason, awaits, waiver.id if waiver else None, checks)

    if over:
        return standing("failed", over)
    if worst == "fail":
        return standing("waived", whole.reason) if whole else standing("failed", messages)
    if worst == "invalid":
        return standing("invalid", messages)
    if worst == "pass":
        return standing("proven")
    if whole:
        return standing("waived", whole.reason)
    if exempt:
        return standing("not-applicable", exempt)
    if worst == "not-measured":
        return standing("not-measured", messages, tuple(dict.fromkeys((*held, "vantage"))))
    if held:
        return standing("not-measured", f"awaits {' or '.join(AWAITS_WORDS[each] for each in held)}", held)
    if looked:
        return standing("not-measurable", messages or "nothing here shows it")
    return standing("not-measured", NO_CHECK)


def _composed(control: Control, parts: Sequence[Standing]) -> Standing:
    parts = [part for part in parts if part.status != "not-applicable"] or parts
    status = next(name for name in STATUSES if any(part.status == name for part in parts))
    least = [part for part in parts if part.status == status]
    # It is seen only as well as the part that was seen worst.
    worst = max((CLASSES.index(part.best) for part in parts if part.best), default=len(CLASSES))
    checks = tuple(dict.fromkeys(check for part in parts for check in part.checks))
    if status == "proven":
        return Standing(control, status, CLASSES[worst : worst + 1], checks=checks)
    reason = "; ".join(f"{part.control.id}: {part.reason}" for part in least)
    awaits = tuple(each for each in AWAITED if any(each in part.awaits for part in least))
    return Standing(control, status, (), reason, awaits, next((part.waiver for part in least if part.waiver), None), checks)


def counts(standings: Sequence[Standing]) -> dict[str, int]:
    """Controls by status, and the proven ones by class."""
    tally = {status: sum(each.status == status for each in standings) for status in STATUSES}
    return {
        "controls": len(standings),
        "proven": tally["proven"],
        **{name: sum(each.best == name for each in standings) for name in CLASSES},
        "failed": tally["failed"],
        **{name: tally[name] for name in ("invalid", "waived", "not-applicable", "not-measurable", "not-measured")},
    }


def headline(count: Mapping[str, int]) -> str:
    """All controls in a line: each status with its number, so that nothing is left out of the sum.

    Args:
        count: as `counts` makes it.
    """
    how = ", ".join(f"{count[name]} {'by configuration' if name == 'configuration' else name}" for name in CLASSES if count[name])
    told = [
        f"{count[status]} {word}{f' ({how})' if status == 'proven' and how else ''}"
        for status, word in HEADLINE.items()
        if count[status] or status in {"proven", "failed"}
    ]
    return f"{count['controls']} controls: {', '.join(told)}"


def proposed(evidence: Mapping[str, Any]) -> list[str]:
    """The deviations in force that nobody at the site has accepted, by id; none for evidence from before that was asked."""
    waivers = [each for each in evidence["waivers"] if not each["ended"]]
    return [str(each["id"]) for each in (*waivers, *evidence.get("deviations", ())) if "accepted" in each and each["accepted"] is None]
