"""When a copy of a mailbox counts as different, though users write all the while; which clock is waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lemonstand.checks import test_time as clocks
from lemonstand.checks.test_standbys import REST_SECONDS, Looks
from lemonstand.outcomes import NotMeasurable


def _seen(pairs: list[tuple[str, str]], every: float = 4.0) -> Looks:
    """Looks at one user, whose store and standby had these values of one kind, one look after the other."""
    looks = Looks(["alice"])
    for number, (here, there) in enumerate(pairs):
        looks.saw("alice", {"scripts": here}, {"scripts": there}, number * every, number * every + 0.5)
    return looks


REST = int(REST_SECONDS / 4) + 2


def test_a_difference_counts_once_the_store_has_stood_still() -> None:
    assert not _seen([("a", "b")] * (REST - 3)).wrong
    assert _seen([("a", "b")] * REST).wrong == {"alice": {"scripts": ["a", "b"]}}


def test_what_changes_all_the_while_is_neither_right_nor_wrong() -> None:
    looks = _seen([(f"new {number}", f"new {number - 1}") for number in range(3 * REST)])
    assert (looks.wrong, looks.left, looks.same) == ({}, ["alice"], 0)


def test_a_change_begins_the_rest_anew() -> None:
    assert not _seen([("a", "b")] * (REST - 3) + [("c", "b")] * (REST - 3)).wrong
    assert _seen([("a", "b")] * (REST - 3) + [("c", "b")] * REST).wrong


def test_who_was_the_same_once_is_done_with() -> None:
    looks = _seen([("a", "b"), ("a", "a")])
    assert (looks.open, looks.same) == (False, 1)


class _Host:
    """A host whose chronyd follows a source after some questions.

    Args:
        age: seconds chronyd has run.
        good_after: questions until it follows a source.
    """

    def __init__(self, age: float, good_after: int) -> None:
        self._age, self._good_after = age, good_after
        self.asked = 0

    def run(self, command: str) -> Any:
        if command == clocks.AGE:
            return SimpleNamespace(stdout=f"{self._age + 100:.2f} 100000000\n")
        self.asked += 1
        return SimpleNamespace(stdout=_tracking("Normal" if self.asked >= self._good_after else "Not synchronised"))


def _tracking(leap: str) -> str:
    return ",".join(["7F7F0101", "192.0.2.1", "3", *["0.0"] * (clocks.FIELDS - 4), leap])


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(clocks.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def _settled(host: _Host) -> list[str]:
    return clocks._settled(lambda _: host, "store", _tracking("Not synchronised").split(","))


def test_a_clock_that_was_just_started_is_waited_for() -> None:
    assert _settled(_Host(10, 5))[-1] == "Normal"


def test_a_clock_that_has_had_its_time_is_judged_at_once() -> None:
    host = _Host(clocks.YOUNG_SECONDS + 1, 5)
    assert _settled(host)[-1] == "Not synchronised"
    assert host.asked == 1, "the facts are minutes old by now, so it is asked once more, and no more"


def test_a_young_clock_that_finds_nothing_is_not_judged() -> None:
    with pytest.raises(NotMeasurable, match="started 10 s ago"):
        _settled(_Host(10, 1000))
