"""The shipped checks as they are written (read by importing them, nothing is run), and what one of them says when it is asked."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from lemonstand import checks

PREFIX = "test_"


@dataclass(frozen=True)
class Check:
    """One check function, or one case of it where cases answer different controls.

    Args:
        topic: its module without the prefix: `network`.
        function: its name.
        case: the id of the case, empty if it stands for all.
        controls: those it answers.
        supports: those it can break and does not answer.
        answer: live, scaled or configuration.
        disruptive: whether it disturbs the site.
    """

    topic: str
    function: str
    case: str
    controls: frozenset[str]
    supports: frozenset[str]
    answer: str
    disruptive: bool

    @property
    def name(self) -> str:
        """As a mutant names it."""
        return f"{self.function}[{self.case}]" if self.case else self.function


@dataclass(frozen=True)
class Answer:
    """What one check said.

    Args:
        topic, function: the check.
        case: what stands in its brackets: host, IP version and so on.
        outcome: pass, fail, invalid or not-measurable.
        host: the host it looked at, if it was one.
        message: why it did not pass.
        seen: what it saw, whole.
    """

    topic: str
    function: str
    case: str
    outcome: str
    host: str | None
    message: str
    seen: str = ""

    @property
    def check(self) -> str:
        """`topic/function`."""
        return f"{self.topic}/{self.function}"


@cache
def shipped() -> tuple[Check, ...]:
    """All checks that ship with lemonstand, by topic."""
    folder = Path(checks.__file__).parent
    found: list[Check] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # outside a verification pytest does not know our marks
        for path in sorted(folder.glob(f"{PREFIX}*.py")):
            found += _checks_of(importlib.import_module(f"{checks.__name__}.{path.stem}"), path.stem.removeprefix(PREFIX))
    return tuple(found)


def _checks_of(module: ModuleType, topic: str) -> Iterator[Check]:
    shared = getattr(module, "pytestmark", [])
    shared = shared if isinstance(shared, list) else [shared]
    for name, function in vars(module).items():
        if not name.startswith(PREFIX) or getattr(function, "__module__", "") != module.__name__:
            continue
        marks = [*getattr(function, "pytestmark", []), *(getattr(mark, "mark", mark) for mark in shared)]
        controls, supports = _ids(marks, "control"), _ids(marks, "supports")
        answer = next(str(mark.args[0]) for mark in marks if mark.name == "answer")
        disruptive = any(mark.name == "disruptive" for mark in marks)
        cases = {
            str(value.id): (_ids(value.marks, "control"), _ids(value.marks, "supports"))
            for mark in marks
            if mark.name == "parametrize"
            for value in mark.args[1]
            if getattr(value, "marks", None)
        }
        nothing: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        for case, (own, helped) in (cases or {"": nothing}).items():
            yield Check(topic, name, case, controls | own, supports | helped, answer, disruptive)


def _ids(marks: Any, name: str) -> frozenset[str]:
    return frozenset(str(each) for mark in marks for each in getattr(mark, "mark", mark).args if getattr(mark, "mark", mark).name == name)
