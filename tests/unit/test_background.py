"""Measurements that checks share: which are begun, in what order, and that each ends for itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lemonstand import observations
from lemonstand.checks import background
from lemonstand.checks.background import Answers, measurement
from lemonstand.outcomes import Invalid

VANTAGE: Any = SimpleNamespace(families=(4, 6))
LOG: list[str] = []


def _logged(name: str, seconds: float = 0.0) -> Any:
    LOG.append(f"{name} begins")
    time.sleep(seconds)
    LOG.append(f"{name} ends")
    return name


@measurement(first=True)
def dialled(vantage: Any) -> Any:
    """Counts seconds."""
    return _logged("dialled", 0.1)


@measurement()
def mailed(vantage: Any) -> Any:
    """Disturbs who sleeps."""
    return _logged("mailed", 0.2)


@measurement()
def session(vantage: Any, version: int) -> Any:
    """One in each IP version."""
    if version == 6:
        raise Invalid("no way by IPv6")
    observations.note("packets", "handset", "session", "fine")
    return _logged(f"session {version}")


@measurement(after=("mailed",))
def slept(vantage: Any) -> Any:
    """Comes when nobody sends mail any more."""
    return _logged("slept")


@measurement(held=True)
def held(vantage: Any) -> Any:
    """Begun by somebody else."""
    return _logged("held")


def _spec(fixture: Any) -> background.Measurement:
    function = getattr(fixture, "_fixture_function", fixture)
    return function.measurement  # type: ignore[no-any-return]


def _item(*fixtures: Any, path: str = "test_x.py", marks: tuple[str, ...] = (), names: tuple[str, ...] = ()) -> Any:
    definitions = {_spec(each).fixture: [SimpleNamespace(func=getattr(each, "_fixture_function", each))] for each in fixtures}
    return SimpleNamespace(
        _fixtureinfo=SimpleNamespace(name2fixturedefs=definitions),
        fixturenames=[*definitions, *names],
        path=Path(path),
        get_closest_marker=lambda name: name in marks,
    )


def _end(answers: Answers, name: str) -> Any:
    def never() -> Any:
        raise AssertionError("it is asked twice")

    return answers(name, never)


@pytest.fixture
def begun() -> Callable[..., Answers]:
    """Begins the measurements of some checks."""
    LOG.clear()

    def begin(*items: Any) -> Answers:
        answers = Answers()
        wanted = [spec for spec in background._wanted(items) if not spec.held]
        background._plan(answers, VANTAGE, wanted)
        threading.Thread(target=background._begin, args=(answers, wanted), daemon=True).start()
        return answers

    return begin


def test_what_counts_seconds_is_alone_and_what_is_disturbed_comes_after(begun: Callable[..., Answers]) -> None:
    answers = begun(_item(slept), _item(session, mailed), _item(dialled, session))
    assert [_end(answers, f"{__name__}.{name}") for name in ("slept", "dialled", "mailed", "session by IPv4")] == [
        "slept",
        "dialled",
        "mailed",
        "session 4",
    ]
    assert LOG.index("slept begins") > LOG.index("mailed ends")
    assert LOG.index("session 4 begins") > LOG.index("dialled ends")


def test_one_that_fails_fails_for_its_own_checks_alone(begun: Callable[..., Answers]) -> None:
    answers = begun(_item(session))
    for _ in range(2):
        with pytest.raises(Invalid, match="no way by IPv6"):
            _end(answers, f"{__name__}.session by IPv6")
    with observations.listening() as notes:
        assert _end(answers, f"{__name__}.session by IPv4") == "session 4"
    assert [each.what for each in notes.values()] == ["session"], "who looks at an answer tells what was asked for it"


def test_only_what_the_chosen_checks_want_is_begun(begun: Callable[..., Answers]) -> None:
    answers = begun(_item(mailed), _item(), _item(held))
    assert _end(answers, f"{__name__}.mailed") == "mailed"
    assert LOG == ["mailed begins", "mailed ends"]


def test_many_are_under_way_together_and_no_more_than_is_good() -> None:
    answers = Answers()
    under_way, most, lock = [0], [0], threading.Lock()

    def work() -> None:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.05)
        with lock:
            under_way[0] -= 1

    names = [str(number) for number in range(3 * background.WIDTH)]
    for name in names:
        answers.plan(name, work)
    answers.begin(names)
    answers.wait(names)
    assert most == [background.WIDTH]


def test_topics_that_wait_come_late_and_in_one_piece() -> None:
    items = [
        _item(slept, path="asleep"),
        _item(path="asleep"),
        _item(path="alone", names=("undisturbed",)),
        _item(session, path="over the wire"),
        _item(path="broken", marks=("disruptive",)),
        _item(path="over the wire"),
        _item(path="read"),
        _item(held, path="held", marks=("disruptive",)),
    ]
    background.pytest_collection_modifyitems(items)
    assert [str(item.path) for item in items] == [
        "read", "over the wire", "over the wire", "alone", "asleep", "asleep", "broken", "held",
    ]  # fmt: skip
