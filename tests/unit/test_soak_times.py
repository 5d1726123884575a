"""What a soak makes of time when the controller was away: it judges by the vantage's clock, and asks nothing when it is too late."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonstand.checks import test_soak as soak
from lemonstand.outcomes import Invalid, Unmet
from lemonstand.remote.prober import Event

HELD = 7800
LASTED = {
    "arrived": True, "answered": True, "ended": "", "held": HELD + 1, "segments": {}, "lines": [[HELD, "* 1 EXISTS"]],
}  # fmt: skip


def _result(**values: Any) -> Event:
    """Heard an hour after it was told."""
    return Event("result", {"data": {**LASTED, **values}}, at=99_000.0, there=9_000.5)


def _check(session: dict[str, Any], *, absences: tuple[float, ...] = ()) -> dict[str, object]:
    seen: dict[str, object] = {}

    def measure(name: str, value: object, *_: object, **__: object) -> None:
        seen[name] = value

    brought: dict[str, Any] = {"idle IPv4": session, "absences": list(absences)}
    soak.test_a_silent_session_is_told_after_two_hours(brought, HELD, 4, "idle", measure)
    return seen


def test_a_push_is_timed_where_it_came_not_where_it_was_heard() -> None:
    session = soak._told(_result(), 9_000.0, late=False)
    assert session["after"] == 0.5
    seen = _check(session, absences=(3.0, 40.5))
    assert seen["times the way to the vantage was lost"] == 2 and seen["longest without it"] == 40.5
    assert seen["push after submission began"] == 0.5


@pytest.mark.parametrize("late", [False, True])
def test_a_session_that_gave_up_is_a_fault_unless_the_mail_was_late(*, late: bool) -> None:
    session = soak._told(_result(arrived=False, answered=True, lines=[]), 9_000.0, late=late)
    with pytest.raises(Invalid if late else Unmet):
        _check(session)


@pytest.mark.parametrize("late", [False, True])
def test_a_session_that_was_ended_is_a_fault_however_late_the_mail_was(*, late: bool) -> None:
    session = soak._told(_result(arrived=False, answered=False, ended="* BYE"), 9_000.0, late=late)
    with pytest.raises(Unmet):
        _check(session)


@pytest.mark.parametrize(
    ("times", "steps", "right"),
    [
        ((1740, 3480, 5220), (0, 0, 0), True), ((1740, 3449, 5189), (0, 31.3, 31.3), True), ((1740, 3511, 5251), (0, -31.0, -31.0), True),
        ((1740, 3449, 5189), (0, 0, 0), False), ((1740, 3449, 5189), (31.3, 31.3, 31.3), False),
        ((1740, 2610, 3480), (0, 31.3, 31.3), False),
    ],
)  # fmt: skip
def test_a_pace_is_judged_by_time_or_by_a_clock_that_was_put_forward(
    times: tuple[float, ...], steps: tuple[float, ...], right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "timer", lambda *_: 1740)
    lines = [[at, "* OK Still here"] for at in times]
    brought: dict[str, Any] = {"idle IPv4": {"lines": [*lines, [times[-1] + 9, "* 1 EXISTS"]], "steps": [*steps, steps[-1]]}}

    def judge() -> None:
        soak.test_the_server_speaks_once_an_interval(brought, HELD, 4, "idle", None, lambda *_, **__: None)  # type: ignore[arg-type]

    if right:
        judge()
    else:
        with pytest.raises(Unmet):
            judge()


class Clock:
    """Stands for the controller's clock; it jumps once, as that of a machine does that slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, asleep_at: float = 1e9, asleep: float = 0.0) -> None:
        self.now, self._asleep_at, self._asleep = 0.0, asleep_at, asleep
        monkeypatch.setattr(soak, "awake_or_not", lambda: self.now)
        monkeypatch.setattr("time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        """Time goes by."""
        self.now += seconds
        if self.now >= self._asleep_at:
            self.now, self._asleep_at = self.now + self._asleep, 1e9


class Asked:
    """Stands for a prober; a question takes its time."""

    def __init__(self, clock: Clock, takes: float) -> None:
        self.clock, self.takes = clock, takes

    def ask(self, _host: str, _probe: str, **_: object) -> list[float]:
        """When it was answered."""
        self.clock.sleep(self.takes)
        return [self.clock.now]


class Hosts:
    """Stands for a site of one host a kind."""

    def group(self, name: str) -> list[Any]:
        """Its one member."""
        return [type("Host", (), {"name": name})()]


@given(asleep_at=st.floats(0, HELD), asleep=st.floats(0, 3 * HELD), takes=st.floats(0, 120))
def test_no_host_is_asked_beyond_the_sessions_end(asleep_at: float, asleep: float, takes: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch, asleep_at, asleep)
        samples = soak._watch(Asked(clock, takes), Hosts(), HELD)  # type: ignore[arg-type]
        times = [at for sample in samples for at in [*sample["flows"], *(each[0] for each in sample["timers"].values())]]
        assert all(at < HELD - soak.LAST_SECONDS for at in times)
        assert clock.now >= HELD
        assert clock.now <= HELD + asleep + 3 * takes + soak.LOOK_SECONDS, "time asleep is waited for a second time"
        if not asleep and not takes:
            assert len(samples) == HELD // soak.SAMPLE_SECONDS
