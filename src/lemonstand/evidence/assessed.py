"""One row a control, with all that an auditor asks of it: what the summary, the table and the exchange formats are made from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lemonstand.evidence.model import HEADLINE
from lemonstand.policy.assessment import Assessment, Severity

Evidence = Mapping[str, Any]


@dataclass(frozen=True)
class Deviation:
    """What stands between a control and the text that asks for it.

    Args:
        id: of a waiver, or of what the timer profile does less.
        by, date: who at the site has accepted it, and when; empty while it is proposed.
        asked: whether the evidence says anything about that.
    """

    id: str
    by: str = ""
    date: str = ""
    asked: bool = True

    def __str__(self) -> str:
        """For instance `PRO-W1 (proposed)`."""
        if self.by:
            return f"{self.id} (accepted by {self.by}, {self.date})"
        return f"{self.id} (proposed)" if self.asked else self.id


@dataclass(frozen=True)
class Assessed:
    """One control.

    Args:
        control: as the evidence has it.
        severity: the rule that decides it; None for a control that this version does not know.
        mapped: ids of other catalogues, by its key.
        results: the results that answer or support it.
        deviations: its waivers and deviations.
    """

    control: Mapping[str, Any]
    severity: Severity | None
    mapped: Mapping[str, tuple[str, ...]]
    results: tuple[Mapping[str, Any], ...]
    deviations: tuple[Deviation, ...]

    @property
    def id(self) -> str:
        """The control's id."""
        return str(self.control["id"])

    @property
    def level(self) -> str:
        """How much is at stake; empty if this version does not know."""
        return self.severity.level if self.severity else ""

    @property
    def status(self) -> str:
        """In words, with the class of what is proven: `proven (live)`."""
        word = HEADLINE[self.control["status"]]
        return f"{word} ({self.control['class']})" if self.control["status"] == "proven" else word

    @property
    def runs(self) -> tuple[str, ...]:
        """The kinds of runs that looked at it."""
        return tuple(dict.fromkeys(str(result["run"]) for result in self.results))

    @property
    def seen(self) -> tuple[str, str]:
        """When it was looked at for the first and the last time; empty if it never was."""
        times = sorted(str(result["time"]) for result in self.results if result["time"])
        return (times[0], times[-1]) if times else ("", "")


def assess(evidence: Evidence, assessment: Assessment) -> list[Assessed]:
    """All controls of the evidence, in its order.

    Args:
        evidence: of schema 2.
        assessment: severities and mappings of this version.
    """
    results: dict[str, list[Mapping[str, Any]]] = {}
    for result in evidence["results"]:
        results.setdefault(result["check"], []).append(result)
    deviations = _deviations(evidence)
    return [
        Assessed(
            control,
            assessment.of(control["id"]),
            {key: assessment.mapped(control["id"], key) for key in assessment.frameworks},
            tuple(result for check in dict.fromkeys(control["checks"]) for result in results.get(check, ())),
            tuple(deviations.get(control["id"], ())),
        )
        for control in evidence["controls"]
    ]


def _deviations(evidence: Evidence) -> dict[str, list[Deviation]]:
    found: dict[str, list[Deviation]] = {}
    for each in evidence["waivers"]:
        for control in each["controls"] if not each["ended"] else ():
            found.setdefault(control, []).append(_deviation(each))
    for each in evidence.get("deviations", ()):
        found.setdefault(each["control"], []).append(_deviation(each))
    return found


def _deviation(each: Mapping[str, Any]) -> Deviation:
    accepted = each.get("accepted") or {"by": "", "date": ""}
    return Deviation(str(each["id"]), accepted["by"], accepted["date"], "accepted" in each)
