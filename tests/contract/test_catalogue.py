"""The catalogue, the checks, the mutants and the waivers fit each other: nothing is promised that nothing shows."""

from __future__ import annotations

from lemonstand.breaking import load_mutants
from lemonstand.breaking.runner import named
from lemonstand.breaking.shipped_checks import shipped
from lemonstand.policy.controls import load_controls
from lemonstand.policy.waivers import load_waivers

CONTROLS = load_controls()
CHECKS = shipped()
ANSWERED = {name for check in CHECKS for name in check.controls}
SUPPORTED = {name for check in CHECKS for name in check.supports}
WAIVED = {name for waiver in load_waivers() if not waiver.part for name in waiver.controls}


def test_every_control_has_a_check_a_waiver_or_a_reason() -> None:
    lacking = []
    for control in CONTROLS.controls:
        reason = CONTROLS.reasons.get(control.not_applicable or "")
        nowhere = reason is not None and reason.where == "everywhere"
        if not (control.id in ANSWERED or control.id in WAIVED or control.made_of or nowhere):
            lacking.append(control.id)
    assert not lacking


def test_what_applies_nowhere_is_answered_by_nothing() -> None:
    for control in CONTROLS.controls:
        reason = CONTROLS.reasons.get(control.not_applicable or "")
        if reason is not None and reason.where == "everywhere":
            assert control.id not in ANSWERED | SUPPORTED, control.id


def test_every_check_is_about_controls_that_exist() -> None:
    known = set(CONTROLS.by_id())
    assert len(CHECKS) > 80
    for check in CHECKS:
        named = check.controls | check.supports
        assert named or check.topic == "waivers", f"{check.topic}: {check.name} is about nothing"
        assert named <= known, f"{check.topic}: {check.name}"


def test_every_mutant_has_checks_of_its_controls() -> None:
    known = {check.function for check in CHECKS}
    for mutant in load_mutants():
        assert set(mutant.controls) <= set(CONTROLS.by_id()), mutant.name
        assert {check.function for name in mutant.noticed_by for check in named(name)} <= known, mutant.name


def test_composed_controls_have_no_check_of_their_own() -> None:
    assert not {control.id for control in CONTROLS.controls if control.made_of} & ANSWERED


def test_every_control_binds_hosts_and_names_sources() -> None:
    for control in CONTROLS.controls:
        assert control.binds, control.id
        assert all(source.startswith(("RFC ", "BCP ", "NIST SP ")) for source in (*control.sources, *control.differs)), control.id
    used = {control.not_applicable for control in CONTROLS.controls if control.not_applicable}
    assert used == set(CONTROLS.reasons), "no reason without a control, none without its text"
