"""Turns: questions that cost a processor wait here, so that no more are under way than there are processors, and nobody is passed over.

Waiting questions stand in a tree of paths (frontend, kind of place, user). On each level the next branch has its turn, so that whoever
asks a lot waits for himself. A question that is already waiting is not asked twice: who comes with the same one gets the same answer. It
must not have begun: the answer of one that began before the other came could be of a password that was changed in between.
"""

import collections
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any


class Busy(Exception):
    """The turn did not come in time, or one user has too many questions waiting."""


class Rotation:
    """A tree of queues from which items are taken branch by branch, on each level in turn."""

    def __init__(self) -> None:
        self._branches: collections.OrderedDict[str, Any] = collections.OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._branches)

    def push(self, path: tuple[str, ...], item: Any) -> None:
        """Put an item at the end of its path."""
        first, rest = path[0], path[1:]
        branch: Any = self._branches.get(first)
        if branch is None:
            branch = self._branches[first] = Rotation() if rest else collections.deque()
        if rest:
            branch.push(rest, item)
        else:
            branch.append(item)

    def pop(self) -> Any:
        """Take the item whose turn it is; its branch comes last then."""
        first, branch = next(iter(self._branches.items()))
        item = branch.pop() if isinstance(branch, Rotation) else branch.popleft()
        if branch:
            self._branches.move_to_end(first)
        else:
            del self._branches[first]
        return item


class _Question:
    def __init__(self, key: Hashable, work: Callable[[int], Any], lock: threading.Lock) -> None:
        self.key = key
        self.work = work
        self.askers = 0
        self.begun = self.done = False
        self.answer: Any = None
        self.fault: BaseException | None = None
        self.told = threading.Condition(lock)


class Turns:
    """Answers questions, some at a time, each in its turn.

    Args:
        slots: questions under way at the same time.
        patience: seconds after which a question whose turn has not come is given up.
        per_user: the most that may wait on one path. A user has one for where he got in before, and no
            stranger fills that.
        beat: seconds between two calls of `waiting`.
    """

    def __init__(self, slots: int, patience: float, per_user: int, beat: float = 3.0) -> None:
        self._slots = slots
        self._patience = patience
        self._per_user = per_user
        self._beat = beat
        self._lock = threading.Lock()
        self._came = threading.Condition(self._lock)
        self._waiting = Rotation()
        self._open: dict[Hashable, _Question] = {}
        self._on: collections.Counter[tuple[str, ...]] = collections.Counter()
        self._hands = 0
        self._idle = 0

    def ask(self, path: tuple[str, ...], key: Hashable, work: Callable[[int], Any], waiting: Callable[[], None]) -> Any:
        """Wait for one's turn and return what `work` returned, or raise what it raised.

        Args:
            path: whose turns are counted together, from the outside in; the last is the user.
            key: what makes a question the same as another one.
            work: is called once, with the number of those who asked the same.
            waiting: is called from time to time while there is no answer; if it fails with OSError, whoever asked is gone.

        Raises:
            Busy: no turn in time, or too many of this user.
        """
        until = time.monotonic() + self._patience
        with self._lock:
            if self._on[path] >= self._per_user:
                raise Busy("too many of this user are waiting")
            question = self._open.get(key)
            if question is None:
                question = self._open[key] = _Question(key, work, self._lock)
                self._waiting.push(path, question)
                self._call()
            question.askers += 1
            self._on[path] += 1
        try:
            return self._wait(question, until, waiting)
        finally:
            with self._lock:
                self._on[path] -= 1
                if not self._on[path]:
                    del self._on[path]

    def _wait(self, question: _Question, until: float, waiting: Callable[[], None]) -> Any:
        while True:
            with self._lock:
                if not question.done:
                    question.told.wait(self._beat if question.begun else max(0.0, min(self._beat, until - time.monotonic())))
                if question.done:
                    if question.fault is not None:
                        raise question.fault
                    return question.answer
                if not question.begun and time.monotonic() >= until:
                    self._leave(question)
                    raise Busy("its turn did not come in time")
            try:
                waiting()
            except OSError:
                with self._lock:
                    self._leave(question)
                raise Busy("whoever asked is gone") from None

    def _leave(self, question: _Question) -> None:
        """One who asked goes. A question nobody waits for is passed over when its turn comes."""
        question.askers -= 1
        if not question.askers and self._open.get(question.key) is question:
            del self._open[question.key]

    def _call(self) -> None:
        """Have somebody at work on what waits: threads are made at need, and stay."""
        if self._idle:
            self._idle -= 1
            self._came.notify()
        elif self._hands < self._slots:
            self._hands += 1
            threading.Thread(target=self._work, name="turn", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._waiting:
                    self._idle += 1
                    self._came.wait()
                question = self._waiting.pop()
                if not question.askers:
                    continue
                question.begun = True
                del self._open[question.key]
                askers = question.askers
            try:
                question.answer = question.work(askers)
            except BaseException as fault:  # whoever asked has to get it
                question.fault = fault
            with self._lock:
                question.done = True
                question.told.notify_all()
