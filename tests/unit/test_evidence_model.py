"""What results say about controls: nothing is proven that a check did not answer, and nothing is hidden."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from lemonstand.evidence.model import (
    AnswerClass,
    Awaited,
    Circumstances,
    Outcome,
    Result,
    Standing,
    counts,
    judge,
    superfluous,
)
from lemonstand.policy.controls import Control, Controls, Reason
from lemonstand.policy.waivers import GivenWaiver

TODAY = dt.date(2026, 11, 25)


def control(name: str, *parts: str, exempt: str | None = None) -> Control:
    return Control(
        id=name,
        section="3",
        level="MUST",
        statement=f"about {name}",
        sources=("RFC 5383",),
        binds=("edge",),
        not_applicable=exempt,
        enforced_by=(),
        made_of=parts,
    )


CATALOGUE = Controls(
    reasons={
        "clients": Reason(where="everywhere", text="for those who write clients"),
        "foreign": Reason(where="no-edges", text="the border is somebody else's"),
    },
    controls=(
        control("LEM-1-01", "LEM-1-02", "LEM-1-03"),
        control("LEM-1-02"),
        control("LEM-1-03"),
        control("LEM-1-04", exempt="clients"),
        control("LEM-1-05", exempt="foreign"),
    ),
)


def waiver(**changes: Any) -> GivenWaiver:
    data = {
        "id": "W-1",
        "title": "a thing we lack",
        "controls": ["LEM-1-02"],
        "reason": "nobody has it",
        "owner": "us",
        "date": "2026-01-01",
        "expires": "2027-01-01",
        "origin": "lemonstand",
    }
    return GivenWaiver.model_validate(data | changes)


def result(
    outcome: Outcome, answer: AnswerClass = "configuration", *, names: tuple[str, ...] = ("LEM-1-02",), supports: bool = False
) -> Result:
    answers, supported = ((), names) if supports else (names, ())
    return Result(f"test_x.py::test_{outcome}_{answer}", answer, outcome, answers, supported, message="" if outcome == "pass" else outcome)


def standing(*results: Result, name: str = "LEM-1-02", **around: Any) -> Standing:
    circumstances = Circumstances(today=TODAY, **around)
    return next(each for each in judge(CATALOGUE, results, circumstances) if each.control.id == name)


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ((), "not-measured"),
        (("pass",), "proven"),
        (("pass", "fail"), "failed"),
        (("invalid", "fail", "pass"), "failed"),
        (("pass", "invalid"), "invalid"),
        (("pass", "not-measurable"), "not-measurable"),
        (("pass", "not-measured"), "not-measured"),
        (("pass", "not-applicable"), "proven"),
        (("not-applicable",), "not-measurable"),
    ],
)
def test_the_worst_check_counts(outcomes: tuple[Outcome, ...], status: str) -> None:
    found = standing(*(result(outcome) for outcome in outcomes))
    assert found.status == status
    assert (found.best is None) == (status != "proven")
    assert bool(found.reason) == (status != "proven")


def test_every_class_is_reported_best_first() -> None:
    found = standing(result("pass", "configuration"), result("pass", "scaled"))
    assert found.classes == ("scaled", "configuration")
    assert found.best == "scaled"
    assert standing(result("pass", "scaled"), result("pass", "live")).best == "live"


def test_support_breaks_and_never_answers() -> None:
    assert standing(result("pass", supports=True)).status == "not-measured"
    assert standing(result("pass"), result("fail", supports=True)).status == "failed"
    assert standing(result("pass"), result("invalid", supports=True)).status == "invalid"
    assert standing(result("pass"), result("not-measurable", supports=True)).status == "proven"
    assert standing(result("pass", "live", supports=True), result("pass", "configuration")).best == "configuration"


def test_a_composed_control_is_as_good_as_its_parts() -> None:
    whole = "LEM-1-01"
    assert standing(result("pass"), name=whole).status == "not-measured"
    both = (result("pass", "live"), result("pass", "configuration", names=("LEM-1-03",)))
    assert standing(*both, name=whole).best == "configuration"
    assert standing(*both, result("fail"), name=whole).status == "failed"
    waived = standing(*both, result("fail"), name=whole, waivers=(waiver(),))
    assert (waived.status, waived.waiver, waived.reason) == ("waived", "W-1", "LEM-1-02: nobody has it")


@pytest.mark.parametrize("awaited", [("disruptive",), ("soak",), ("soak", "disruptive"), ("selection",)])
def test_what_waits_is_not_measured_and_says_for_what(awaited: tuple[Awaited, ...]) -> None:
    found = standing(held_back={"LEM-1-02": awaited})
    assert (found.status, set(found.awaits)) == ("not-measured", set(awaited))
    assert standing(result("pass"), held_back={"LEM-1-02": awaited}).awaits == ()
    assert standing(result("fail"), held_back={"LEM-1-02": awaited}).status == "failed"


def test_without_a_host_outside_it_awaits_one() -> None:
    assert standing(result("not-measured", "live"), held_back={"LEM-1-02": ("disruptive",)}).awaits == ("disruptive", "vantage")


def test_a_waiver_covers_a_failure_and_what_nothing_answers() -> None:
    assert standing(result("fail"), waivers=(waiver(),)).status == "waived"
    assert standing(waivers=(waiver(),)).status == "waived"
    assert standing(result("pass", supports=True), waivers=(waiver(),)).reason == "nobody has it"
    assert standing(result("invalid"), waivers=(waiver(),)).status == "invalid"
    assert standing(result("fail"), waivers=(waiver(controls=["LEM-1-03"]),)).status == "failed"


def test_a_waiver_of_a_part_leaves_the_rest_to_be_measured() -> None:
    part = waiver(part="only half of it")
    assert standing(result("pass"), waivers=(part,)).status == "proven"
    assert standing(result("pass"), waivers=(part,)).waiver == "W-1"
    assert standing(waivers=(part,)).status == "not-measured"
    assert standing(result("fail"), waivers=(part,)).status == "failed", "what the checks find broken is the rest"


def test_an_ended_waiver_fails_its_control() -> None:
    over = waiver(expires="2026-11-25")
    assert standing(result("fail"), waivers=(over,)).status == "failed"
    assert standing(result("pass"), waivers=(over,)).reason == "waiver W-1: it expired on 2026-11-25"
    assert standing(waivers=(over, waiver(id="W-2"))).status == "waived", "another one holds"
    fixed = waiver(until={"package": "dovecot-core", "version": "2.4.3"})
    old, new = {"store": {"dovecot-core": "1:2.4.1+dfsg1-6"}}, {"store": {"dovecot-core": "1:2.4.3-1"}}
    assert standing(waivers=(fixed,), packages=old).status == "waived"
    assert standing(waivers=(fixed,), packages=new).status == "failed"


def test_a_waiver_that_is_not_needed_says_so() -> None:
    around = Circumstances(today=TODAY, waivers=(waiver(),))
    assert superfluous(waiver(), judge(CATALOGUE, [result("pass")], around))
    assert not superfluous(waiver(), judge(CATALOGUE, [result("fail")], around))
    assert not superfluous(waiver(part="half"), judge(CATALOGUE, [result("pass")], around))


def test_reasons_hold_where_they_say() -> None:
    assert standing(name="LEM-1-04").reason == "for those who write clients"
    assert standing(name="LEM-1-05", groups={"edges", "stores"}).status == "not-measured"
    assert standing(name="LEM-1-05", groups={"stores"}).status == "not-applicable"
    named = ("LEM-1-05",)
    assert standing(result("not-applicable", names=named), name="LEM-1-05", groups={"stores"}).status == "not-applicable"
    assert standing(result("pass", names=named), name="LEM-1-05", groups={"stores"}).status == "proven"
    assert standing(result("fail", names=named), name="LEM-1-05", groups={"stores"}).status == "failed", "a failure is never hidden"


def test_the_count_adds_up() -> None:
    found = counts(judge(CATALOGUE, [result("pass", "live")], Circumstances(today=TODAY)))
    words = ("proven", "failed", "invalid", "waived", "not-applicable", "not-measurable", "not-measured")
    assert found["controls"] == sum(found[word] for word in words) == 5
    assert found["proven"] == found["live"] == 1
