"""What checks asked, noted on the way: commands, settings and probes, with the beginning of each answer.

Those who ask (hosts, facts, probes) call `note`. Notes go to whoever listens in this thread: a check, a fixture that several checks share,
or an answer that is kept for several. Threads that nobody prepared note for the thread that runs the checks.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

LONGEST_ANSWER = 240
LONGEST_QUESTION = 300
MOST = 60
"""How many questions of one check are kept; what is beyond is counted."""


@dataclass(frozen=True)
class Observation:
    """One thing that was asked, and the beginning of the answer.

    Args:
        how: `command`, `setting`, or `packets` where a probe spoke over the network.
        host: where it was asked.
        what: the command, the setting's name, or the probe with what it was told.
        answer: trimmed.
    """

    how: Literal["command", "setting", "packets"]
    host: str
    what: str
    answer: str


Notes = dict[tuple[str, str, str], Observation]
"""Each question once, in order."""
MOST_LOAD = 8.0
"""Processes a CPU: with more, what takes milliseconds takes seconds, and seconds say nothing of a service."""
_loads: dict[str, tuple[float, int]] = {}
_local = threading.local()
_main: list[Notes] = []
"""The listeners of the thread that runs the checks, innermost last."""
T = TypeVar("T")


def note(how: Literal["command", "setting", "packets"], host: str, what: str, answer: object) -> None:
    """Notes a question and its answer, if anybody listens."""
    stack: list[Notes] = getattr(_local, "stack", _main)
    if stack:
        asked = Observation(how, host, _short(what, LONGEST_QUESTION), _short(_text(answer), LONGEST_ANSWER))
        stack[-1].setdefault((how, host, asked.what), asked)


def strained(host: str, load: float, cpus: int) -> None:
    """Notes how busy a host was when it was asked.

    Args:
        host: its name.
        load: processes that run or wait to, on average of the last minute.
        cpus: what it has for them.
    """
    _loads[host] = (load, cpus)


def strain() -> str:
    """Which machine is too busy to say anything about time, in words; empty: none of those that were asked, and not this one."""
    loads = {**_loads, "the controller": (os.getloadavg()[0], os.cpu_count() or 1)}
    host, (load, cpus) = max(loads.items(), key=lambda each: each[1][0] / each[1][1])
    return f"load {load:.0f} on {cpus} CPUs of {host}" if load / cpus > MOST_LOAD else ""


def repeat(notes: Notes) -> None:
    """Notes again what was asked elsewhere, for an answer that is used here."""
    stack: list[Notes] = getattr(_local, "stack", _main)
    if stack:
        for key, asked in notes.items():
            stack[-1].setdefault(key, asked)


@contextlib.contextmanager
def listening(notes: Notes | None = None) -> Iterator[Notes]:
    """Collects what is asked in this thread until the end of the block."""
    notes = {} if notes is None else notes
    stack: list[Notes] = getattr(_local, "stack", _main)
    stack.append(notes)
    try:
        yield notes
    finally:
        # By identity: two empty collections are equal.
        del stack[max(place for place, each in enumerate(stack) if each is notes)]


def apart(notes: Notes, work: Callable[[], T]) -> T:
    """Runs `work` in a thread of its own notes: for answers that are asked for in the background."""
    _local.stack = [notes]
    try:
        return work()
    finally:
        del _local.stack


def carried(function: Callable[..., T]) -> Callable[..., T]:
    """A function that notes for whoever listens now, whichever thread it runs in."""
    stack: list[Notes] = getattr(_local, "stack", _main)
    target = stack[-1] if stack else None

    def run(*args: Any, **options: Any) -> T:
        return function(*args, **options) if target is None else apart(target, lambda: function(*args, **options))

    return run


class Pool(ThreadPoolExecutor):
    """Threads that note for whoever listens where work is handed to them."""

    def submit(self, function: Callable[..., T], /, *args: Any, **options: Any) -> Future[T]:
        """As of any pool."""
        return super().submit(carried(function), *args, **options)


def kept(notes: Notes) -> list[Observation]:
    """What evidence keeps of them."""
    every = list(notes.values())
    if len(every) <= MOST:
        return every
    rest = every[MOST:]
    return [*every[:MOST], Observation("command", rest[0].host, f"and {len(rest)} more", "")]


def without_secrets(args: Mapping[str, Any]) -> str:
    """What a probe was told, without passwords, tickets and certificates."""
    return json.dumps(_bare(dict(args)), ensure_ascii=False, separators=(", ", ": "))


SECRET_WORDS = ("password", "secret", "ticket", "token", "spoilt", "key", "needle")


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "…" if isinstance(inner, str | list) and any(word in name.lower() for word in SECRET_WORDS) else _bare(inner)
            for name, inner in value.items()
            if name != "ca"
        }
    if isinstance(value, list | tuple):
        return [_bare(each) for each in value[:4]] + (["…"] if len(value) > 4 else [])
    return value


def _text(answer: object) -> str:
    if isinstance(answer, str):
        return answer
    try:
        return json.dumps(answer, ensure_ascii=False, separators=(", ", ": "), default=str)
    except (TypeError, ValueError):
        return str(answer)


def _short(text: str, longest: int) -> str:
    text = text.strip()
    return text if len(text) <= longest else text[: longest - 2].rstrip() + " …"
