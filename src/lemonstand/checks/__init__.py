"""The shipped checks: pytest tests that read a deployed site and answer the controls of RFC 5383, each with the class of its answer.

A check carries two marks. `control(...)` names the controls it answers (`supports(...)`: it can break them, but proves too little to
answer them); `answer(...)` gives its class: live, scaled or configuration. It ends in one of four ways: it passes, an assertion fails, or
it calls `invalid` or `not_measurable`.
"""

from __future__ import annotations

from lemonstand.evidence.signals import (
    Invalid,
    NotApplicable,
    NotMeasurable,
    NotMeasured,
    Unanswered,
    Unmet,
    expect,
    invalid,
    not_measurable,
    shown,
)

__all__ = [
    "Invalid",
    "NotApplicable",
    "NotMeasurable",
    "NotMeasured",
    "Unanswered",
    "Unmet",
    "expect",
    "invalid",
    "not_measurable",
    "shown",
]
