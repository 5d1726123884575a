"""What is asked once and shared: questions that several checks look at, begun ahead and beside others, and the order that follows from it.

A plugin of the checks, as `vantage` is.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import Future
from typing import Any

import pytest

from lemonstand import observations
from lemonstand.outcomes import Unanswered
from lemonstand.remote.endpoints import FAMILIES

LONG = {"attempts", "client_keepalive", "matrix"}
"""Fixtures whose question takes seconds and disturbs nobody; `ask_NAME` returns the function that asks."""
QUIET = {"quiet"}
"""Fixtures whose question holds sessions for minutes and needs others to leave them alone. It is asked when the first check comes that does
(it names the fixture `beside`), after all that break connections; `ask_NAME` as above."""
InBoth = Callable[[str, int, Callable[[int], Any]], Any]


class Once:
    """Keeps what a long question brought: several checks look at one answer."""

    def __init__(self) -> None:
        self._kept: dict[str, Future[Any]] = {}
        self._notes: dict[str, observations.Notes] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, make: Callable[[], Any]) -> None:
        """Asks, and does not wait."""
        with self._lock:
            if name not in self._kept:
                asked = self._notes.setdefault(name, {})
                self._kept[name] = _begin(functools.partial(observations.apart, asked, make))

    def begin_after(self, names: Iterable[str], asks: dict[str, Callable[[], Any]]) -> None:
        """Asks once other answers are there, and does not wait; whoever needs one sooner asks himself."""
        first = [self._kept[name] for name in names if name in self._kept]

        def work() -> None:
            futures.wait(first)
            for name, ask in asks.items():
                self.begin(name, ask)

        threading.Thread(target=work, daemon=True).start()

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned or raised the first time."""
        self.begin(name, make)
        try:
            return self._kept[name].result()
        finally:
            observations.repeat(self._notes[name])


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest) -> Once:
    """Answers that are shared; the long ones are asked for at once if any check wants them."""
    kept = Once()
    _begin_wanted(request, kept, LONG)
    asks: dict[str, Callable[[], Any]] = {}
    for mark in filter(None, (item.get_closest_marker("ahead") for item in request.session.items)):
        with contextlib.suppress(Unanswered):
            asks |= _asks(mark, request.getfixturevalue("look"))
    kept.begin_after(LONG, asks)  # they load the machine, and what dials the matrix counts the seconds
    return kept


def _begin_wanted(request: pytest.FixtureRequest, kept: Once, names: set[str]) -> None:
    """Asks the questions of fixtures that any check of this run names."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for name in names & wanted:
        # A check that can't be measured here says so itself.
        with contextlib.suppress(Unanswered):
            kept.begin(name, request.getfixturevalue(f"ask_{name}"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What disturbs waits until all is answered that was asked beside; topics with checks that ask ahead come late.

    Of what disturbs, what breaks connections comes first, then what leaves them alone, then what needed that.
    """
    patient = {item.path for item in items if item.get_closest_marker("ahead")}

    def turn(item: pytest.Item) -> tuple[bool, bool, bool, bool, bool]:
        soak, disruptive = (bool(item.get_closest_marker(name)) for name in ("soak", "disruptive"))
        fixtures = set(getattr(item, "fixturenames", ()))
        return soak, disruptive, bool(QUIET & fixtures), "beside" in fixtures, item.path in patient

    items.sort(key=turn)


@pytest.fixture(scope="session")
def beside(request: pytest.FixtureRequest, once: Once) -> None:
    """For what takes long and disturbs no session that is held: what needs quiet, if any check wants it, is asked meanwhile."""
    _begin_wanted(request, once, QUIET)


@pytest.fixture
def ahead(request: pytest.FixtureRequest, once: Once) -> Any:
    """What the check's mark `ahead` asks: `ask(look, version)`, or `ask(look)` where it names no version."""
    mark = request.node.get_closest_marker("ahead")
    asks = _asks(mark, request.getfixturevalue("look"))
    name = _ask_name(mark, request.getfixturevalue("family") if mark.args[1:] else None)
    return once(name, asks[name])


def _asks(mark: pytest.Mark, look: Any) -> dict[str, Callable[[], Any]]:
    ask, *versions = mark.args
    if not versions:
        return {_ask_name(mark, None): functools.partial(ask, look)}
    return {_ask_name(mark, version): functools.partial(ask, look, version) for version in versions}


def _ask_name(mark: pytest.Mark, version: int | None) -> str:
    return f"{mark.args[0].__module__}.{mark.args[0].__qualname__}" + (f" by IPv{version}" if version else "")


def _begin(make: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except Exception as fault:  # it belongs to whoever asks for the result
            future.set_exception(fault)

    threading.Thread(target=work, daemon=True).start()
    return future


@pytest.fixture(scope="session")
def in_both_families(once: Once) -> InBoth:
    """`in_both_families(name, family, ask)`: what `ask(family)` returned; the first call asks in both IP versions, side by side."""

    def get(name: str, wanted: int, ask: Callable[[int], Any]) -> Any:
        for each in FAMILIES:
            once.begin(f"{name} by IPv{each}", functools.partial(ask, each))
        return once(f"{name} by IPv{wanted}", functools.partial(ask, wanted))

    return get
