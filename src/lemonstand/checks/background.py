"""Measurements: what checks look at over the wire, begun together when the checks begin and kept for all that look at them.

Most of a measurement is waiting. So all that this run's checks want are begun at once, and a check waits for its own alone. A plugin of the
checks, as `live` is.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest

from lemonstand import observations
from lemonstand.measure import Vantage
from lemonstand.outcomes import Unanswered
from lemonstand.remote.endpoints import FAMILIES

WIDTH = 6
"""How many measurements are under way together. Each has processes on hosts of its own; more would load them until answers come late."""


@dataclass(frozen=True)
class Measurement:
    """What is measured, and when.

    Args:
        ask: `ask(vantage, version)` for each IP version, or `ask(vantage)`.
        by_version: which of the two.
        first: it counts seconds: all others wait until it is over.
        waits: here it does little but wait (for time to pass, or for processes of its own that take long), so it takes no place among those
            that are under way together and is begun before them.
        after: names of fixtures whose measurements would disturb it: it waits for them.
        held: it holds sessions for minutes and needs others to leave them alone: begun when the first check comes that does
            (it uses the fixture `sessions_held`), not when the checks begin.
    """

    ask: Callable[..., Any]
    by_version: bool
    first: bool
    waits: bool
    after: tuple[str, ...]
    held: bool

    @property
    def fixture(self) -> str:
        """The name of its fixture."""
        return self.ask.__name__

    def name(self, version: int | None) -> str:
        """Under which name its answer is kept."""
        return f"{self.ask.__module__}.{self.fixture}" + (f" by IPv{version}" if version else "")


def measurement(
    *, first: bool = False, waits: bool = False, after: Sequence[str] = (), held: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Makes a function that measures a fixture: checks that name it as a parameter get what it returned, or end as it ended.

    A function of `(vantage, version)` is asked in both IP versions; the fixture is the answer in the one that the check's `family` names.

        @measurement()
        def submitted(vantage: Vantage, version: int) -> dict[str, Any]:
            return vantage.ask("deliver", endpoint=vantage.endpoints(version), …)

        def test_it_is_taken(submitted: dict[str, Any], family: int) -> None: …
    """

    def make(ask: Callable[..., Any]) -> Any:
        spec = Measurement(ask, len(inspect.signature(ask).parameters) > 1, first, waits, tuple(after), held)

        def by_version(answers: Answers, vantage: Vantage, family: int) -> Any:
            return answers(spec.name(family), functools.partial(ask, vantage, family))

        def alone(answers: Answers, vantage: Vantage) -> Any:
            return answers(spec.name(None), functools.partial(ask, vantage))

        fixture: Any = by_version if spec.by_version else alone
        fixture.__name__, fixture.__doc__, fixture.measurement = ask.__name__, ask.__doc__, spec
        return pytest.fixture(fixture)

    return make


class Answers:
    """What measurements brought: several checks look at one answer."""

    def __init__(self) -> None:
        self._kept: dict[str, Future[Any]] = {}
        self._notes: dict[str, observations.Notes] = {}
        self._asks: dict[str, Callable[[], Any]] = {}
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._workers = 0

    def plan(self, name: str, ask: Callable[[], Any]) -> None:
        """Announces a measurement; whoever wants its answer waits until somebody begins it."""
        with self._lock:
            if name not in self._kept:
                self._kept[name], self._notes[name], self._asks[name] = Future(), {}, ask

    def begin(self, names: Iterable[str]) -> None:
        """Begins measurements that are planned, as many side by side as is good, and does not wait."""
        for name in names:
            self._waiting.put(name)
            if self._workers < WIDTH:
                self._workers += 1
                threading.Thread(target=self._work, daemon=True).start()

    def begin_alone(self, name: str) -> None:
        """Begins one that is planned beside all others, and does not wait."""
        threading.Thread(target=self._measure, args=(name,), daemon=True).start()

    def wait(self, names: Iterable[str]) -> None:
        """Waits until measurements are over, however they end."""
        futures.wait([self._kept[name] for name in names if name in self._kept])

    def __call__(self, name: str, ask: Callable[[], Any]) -> Any:
        """What a measurement returned or raised; asks now if it was not planned."""
        with self._lock:
            planned = name in self._kept
        if not planned:
            self.plan(name, ask)
            self.begin_alone(name)
        try:
            return self._kept[name].result()
        finally:
            observations.repeat(self._notes[name])

    def _work(self) -> None:
        while True:
            self._measure(self._waiting.get())

    def _measure(self, name: str) -> None:
        with self._lock:
            ask = self._asks.pop(name, None)
        if ask is None:
            return
        try:
            self._kept[name].set_result(observations.apart(self._notes[name], ask))
        except BaseException as fault:  # it belongs to whoever asks for the result
            self._kept[name].set_exception(fault)


@pytest.fixture(scope="session")
def answers() -> Answers:
    """Answers that are shared."""
    return Answers()


@pytest.fixture(scope="session", autouse=True)
def _begun(request: pytest.FixtureRequest, answers: Answers) -> None:
    """Begins the measurements that any check of this run wants."""
    wanted = [spec for spec in _wanted(request.session.items) if not spec.held]
    if wanted:
        # Checks that can't be measured here say so themselves.
        with contextlib.suppress(Unanswered):
            _plan(answers, request.getfixturevalue("vantage"), wanted)
            threading.Thread(target=_begin, args=(answers, wanted), daemon=True).start()


@pytest.fixture(scope="session")
def sessions_held(request: pytest.FixtureRequest, answers: Answers) -> None:
    """For what takes long and disturbs no session that is held: what holds some, if any check wants it, is measured meanwhile."""
    wanted = [spec for spec in _wanted(request.session.items) if spec.held]
    with contextlib.suppress(Unanswered):
        if wanted:
            _plan(answers, request.getfixturevalue("vantage"), wanted)
            for spec in wanted:
                for name in _names(spec):
                    answers.begin_alone(name)


@pytest.fixture
def undisturbed(request: pytest.FixtureRequest, answers: Answers) -> None:
    """For checks that count seconds: waits until nothing is under way but what waits for hosts to fall asleep."""
    for spec in _wanted(request.session.items):
        if not spec.held and not spec.after:
            answers.wait(_names(spec))


def _wanted(items: Iterable[pytest.Item]) -> list[Measurement]:
    """The measurements of checks, each once, in their order."""
    found: dict[Measurement, None] = {}
    for item in items:
        found |= dict.fromkeys(_measurements(item))
    return list(found)


def _measurements(item: pytest.Item) -> Iterator[Measurement]:
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for each in definitions.values():
        spec = getattr(each[-1].func, "measurement", None)
        if spec is not None:
            yield spec


def _names(spec: Measurement) -> list[str]:
    return [spec.name(version) for version in (FAMILIES if spec.by_version else (None,))]


def _plan(answers: Answers, vantage: Vantage, wanted: Iterable[Measurement]) -> None:
    for spec in wanted:
        if spec.by_version:
            for version in vantage.families:
                answers.plan(spec.name(version), functools.partial(spec.ask, vantage, version))
        else:
            answers.plan(spec.name(None), functools.partial(spec.ask, vantage))


def _begin(answers: Answers, wanted: Sequence[Measurement]) -> None:
    """Begins planned measurements in the order that they allow."""
    disturbing = {name for spec in wanted for name in spec.after}
    early = [spec for spec in wanted if spec.fixture in disturbing]
    first = [spec for spec in wanted if spec.first and spec not in early]
    for name in (name for spec in (*first, *early) for name in _names(spec)):
        answers.begin_alone(name)
    answers.wait(name for spec in first for name in _names(spec))
    for spec in wanted:
        if spec.after:
            before = [name for each in early if each.fixture in spec.after for name in _names(each)]
            threading.Thread(target=_begin_after, args=(answers, before, _names(spec)), daemon=True).start()
    rest = [spec for spec in wanted if spec not in (*first, *early) and not spec.after]
    for name in (name for spec in rest if spec.waits for name in _names(spec)):
        answers.begin_alone(name)
    answers.begin(name for spec in rest if not spec.waits for name in _names(spec))


def _begin_after(answers: Answers, before: Sequence[str], names: Sequence[str]) -> None:
    answers.wait(before)
    for name in names:
        answers.begin_alone(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Topics that only read hosts come first, then those that measure, those that want to be undisturbed, and what waits longest.

    What disturbs comes after all of them: first what breaks connections, then what leaves held ones alone, then what holds them.
    """
    ranks: dict[Any, int] = {}
    for item in items:
        specs = list(_measurements(item))
        calm = not item.get_closest_marker("disruptive") and not item.get_closest_marker("soak")
        alone = "undisturbed" in getattr(item, "fixturenames", ())
        rank = 3 if any(spec.after for spec in specs) else 2 if alone else 1 if specs else 0
        ranks[item.path] = max(ranks.get(item.path, 0), rank if calm else 0)

    def turn(item: pytest.Item) -> tuple[bool, bool, bool, bool, int]:
        soak, disruptive = (bool(item.get_closest_marker(name)) for name in ("soak", "disruptive"))
        held = any(spec.held for spec in _measurements(item))
        return soak, disruptive, held, "sessions_held" in getattr(item, "fixturenames", ()), ranks[item.path]

    items.sort(key=turn)
