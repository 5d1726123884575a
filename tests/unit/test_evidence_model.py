"""What results say about controls: nothing passes that a check did not answer."""

from __future__ import annotations

import pytest

from lemonstand.evidence.model import AnswerClass, Outcome, Result, Standing, judge
from lemonstand.policy.controls import Control, Controls


def control(name: str, *parts: str) -> Control:
    return Control(
        id=name,
        section="3",
        level="MUST",
        statement=f"about {name}",
        sources=("RFC 5383",),
        enforced_by=(),
        mutant="it breaks",
        made_of=parts,
    )


CATALOGUE = Controls(controls=(control("LEM-1-01", "LEM-1-02", "LEM-1-03"), control("LEM-1-02"), control("LEM-1-03")))


def result(
    outcome: Outcome, answer: AnswerClass = "configuration", *, names: tuple[str, ...] = ("LEM-1-02",), supports: bool = False
) -> Result:
    answers, supported = ((), names) if supports else (names, ())
    return Result(f"test_x.py::test_{outcome}_{answer}", answer, outcome, answers, supported)


def standing(*results: Result, name: str = "LEM-1-02") -> Standing:
    return next(each for each in judge(CATALOGUE, results) if each.control.id == name)


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ((), "unanswered"),
        (("pass",), "pass"),
        (("pass", "fail"), "fail"),
        (("invalid", "fail", "pass"), "fail"),
        (("pass", "invalid"), "invalid"),
        (("pass", "not-measurable"), "not-measurable"),
    ],
)
def test_the_worst_check_counts(outcomes: tuple[Outcome, ...], status: str) -> None:
    found = standing(*(result(outcome) for outcome in outcomes))
    assert found.status == status
    assert (found.best is None) == (status != "pass")


def test_every_class_is_reported_best_first() -> None:
    found = standing(result("pass", "configuration"), result("pass", "scaled"))
    assert found.classes == ("scaled", "configuration")
    assert found.best == "scaled"
    assert standing(result("pass", "scaled"), result("pass", "live")).best == "live"


def test_support_breaks_and_never_answers() -> None:
    assert standing(result("pass", supports=True)).status == "unanswered"
    assert standing(result("pass"), result("fail", supports=True)).status == "fail"
    assert standing(result("pass"), result("invalid", supports=True)).status == "invalid"
    assert standing(result("pass"), result("not-measurable", supports=True)).status == "pass"
    assert standing(result("pass", "live", supports=True), result("pass", "configuration")).best == "configuration"


def test_a_composed_control_is_as_good_as_its_parts() -> None:
    whole = "LEM-1-01"
    assert standing(result("pass"), name=whole).status == "unanswered"
    both = (result("pass", "live"), result("pass", "configuration", names=("LEM-1-03",)))
    assert standing(*both, name=whole).best == "configuration"
    assert standing(*both, result("fail"), name=whole).status == "fail"
