"""Makes mutants one after the other, asks the checks that must notice, mends, and proves that each check passes without the mutant.

A check that failed is *red* until it was seen to pass again. No mutant is made while one of its own checks is red: then all red checks are
asked first. One question thus proves many restorations at once. At the start all are red that disturb nobody; those that do are slow, and a
failure with a mutant that is a pass without it says as much when the pass comes after it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, Protocol

from lemonstand.breaking.catalogue import Mutant
from lemonstand.breaking.shipped_checks import Answer, Check, shipped
from lemonstand.errors import LemonstandError

BAD = {"fail", "invalid"}
"""Outcomes after which a check is red; what could not or need not be measured here can't notice anything either."""
Word = Literal["noticed", "missed", "not mended", "not asked"]


@dataclass(frozen=True)
class Verdict:
    """What came of one mutant.

    Args:
        noticed: the named checks that failed.
        others: further checks that failed.
        missed: named checks that did not fail; of a placebo, checks that did.
        mended: whether all that failed passed afterwards.
        fault: why it could not be tried, or not be mended.
        seconds: for breaking, asking and mending.
    """

    mutant: Mutant
    noticed: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    mended: bool = False
    fault: str = ""
    seconds: float = 0.0

    @property
    def word(self) -> Word:
        """In a word."""
        if self.missed:
            return "missed"
        if not self.mended:
            return "not mended" if self.noticed else "not asked"
        return "noticed"

    @property
    def good(self) -> bool:
        """Every named check noticed (of a placebo: none did), and the lab is as before."""
        return self.word == "noticed"


class Asks(Protocol):
    """Asks checks of a lab."""

    def ask(self, checks: Iterable[Check]) -> list[Answer]:
        """See `ask.Asker`."""
        ...


class Hands(Protocol):
    """Breaks and mends a lab's hosts."""

    def spoil(self, mutant: Mutant) -> None:
        """Makes a mutant."""

    def mend(self, mutant: Mutant) -> None:
        """Unmakes it."""

    def rescue(self) -> None:
        """Brings the whole lab back to what it was before the first mutant."""


class Run:
    """A run over some mutants.

    Args:
        asker: asks the checks.
        hands: breaks and mends.
        all_checks: ask every check that disturbs nobody about every mutant, to learn who else notices.
        say: told what is going on, a line at a time.
    """

    def __init__(self, asker: Asks, hands: Hands, *, all_checks: bool = False, say: Callable[[str], None] = lambda _: None) -> None:
        self._asker, self._hands, self._say = asker, hands, say
        self._all = all_checks
        self._red: set[str] = set()
        self._pending: list[tuple[Verdict, set[str]]] = []

    def over(self, mutants: Sequence[Mutant]) -> Iterator[Verdict]:
        """Tries mutants and tells each verdict once its restoration is proven or refuted.

        Raises:
            LemonstandError: a check is named that does not exist, or the lab can't be brought back.
        """
        left = list(mutants)
        self._red = {_place(check) for mutant in left for check in self._asked(mutant) if not check.disruptive}
        while left:
            mutant = next((each for each in left if not self._places(each) & self._red), None)
            if mutant is None:
                yield from self._settle()
                mutant = left[0]
                if still := sorted(self._places(mutant) & self._red):
                    left.remove(mutant)
                    yield Verdict(mutant, fault=f"fails without any mutant: {', '.join(still)}")
                    continue
            left.remove(mutant)
            self._try(mutant)
        yield from self._settle()

    def together(self, mutants: Sequence[Mutant]) -> Iterator[Verdict]:
        """Makes all of these at once, asks, and mends all: whether one hides another.

        Args:
            mutants: those that can be together.

        Raises:
            LemonstandError: a host can't be broken, or the lab can't be brought back.
        """
        began = time.monotonic()
        at_once = [_joined(host, [each for each in mutants if each.host == host]) for host in dict.fromkeys(each.host for each in mutants)]
        answers: list[Answer] = []
        fault = ""
        try:
            for each in at_once:
                self._hands.spoil(each)
            answers = self._asker.ask(check for mutant in mutants for check in self._named(mutant))
        except LemonstandError as error:
            fault = error.what
        finally:
            for each in at_once:
                try:
                    self._hands.mend(each)
                except LemonstandError as error:
                    fault = f"{error.what} (mending)"
                    self._hands.rescue()
                    break
        self._red = _bad(answers)
        for mutant in mutants:
            verdict = replace(judged(mutant, answers), fault=fault, others=(), seconds=(time.monotonic() - began) / len(mutants))
            self._pending.append((verdict, self._places(mutant) & self._red))
        yield from self._settle()

    def _named(self, mutant: Mutant) -> list[Check]:
        return [check for name in mutant.noticed_by for check in named(name)]

    def _places(self, mutant: Mutant) -> set[str]:
        return {_place(check) for check in self._named(mutant)}

    def _asked(self, mutant: Mutant) -> list[Check]:
        """The named checks, and those that come with them almost for nothing: a topic's configuration checks read the same answers."""
        asked = self._named(mutant)
        if self._all:
            return [*asked, *(check for check in shipped() if not check.disruptive)]
        topics = {check.topic for check in asked if check.answer == "configuration"}
        same_topic = (check for check in shipped() if check.answer == "configuration" and not check.disruptive)
        return [*asked, *(check for check in same_topic if check.topic in topics)]

    def _try(self, mutant: Mutant) -> None:
        began = time.monotonic()
        fault = ""
        answers: list[Answer] = []
        try:
            self._hands.spoil(mutant)
            answers = self._asker.ask(self._asked(mutant))
        except LemonstandError as error:
            fault = error.what
        finally:
            try:
                self._hands.mend(mutant)
            except LemonstandError as error:
                fault = f"{error.what} (mending)"
                self._hands.rescue()
        failed = _bad(answers) if answers else {_place(check) for check in self._asked(mutant)}
        self._red |= failed
        verdict = replace(judged(mutant, answers), fault=fault, seconds=time.monotonic() - began)
        self._pending.append((verdict, failed))
        self._say(f"{mutant.name}: {fault or f'{len(verdict.noticed)} of {len(mutant.noticed_by)} noticed'}")
        for answer in answers:
            if any(_is(name, answer) for name in verdict.missed):
                self._say(f"  {_told(answer)}")

    def _settle(self) -> Iterator[Verdict]:
        """Asks everything red; what passes is green, and mutants whose checks all are have been mended."""
        lost: set[str] = set()
        if self._red:
            self._say(f"asking {len(self._red)} checks without any mutant")
            self._ask_red()
        if self._red:
            self._say("once more, what did not pass")
            self._ask_red()
        if self._red and self._pending:
            self._say("the lab is brought back to before the first mutant")
            lost = set(self._red)
            self._hands.rescue()
            self._ask_red()
        for verdict, failed in self._pending:
            unmended, anyway = sorted(failed & lost - self._red), sorted(failed & self._red)
            faults = [verdict.fault] if verdict.fault else []
            faults += [f"still fails after it was mended: {', '.join(unmended)}"] if unmended else []
            faults += [f"fails without any mutant: {', '.join(anyway)}"] if anyway else []
            yield replace(verdict, mended=not faults, fault="; ".join(faults))
        self._pending = []

    def _ask_red(self) -> None:
        answers = self._asker.ask(check for check in shipped() if _place(check) in self._red)
        self._red = _bad(answers)
        for answer in answers:
            if answer.outcome in BAD:
                self._say(f"  {_told(answer)}")


def _joined(host: str, mutants: Sequence[Mutant]) -> Mutant:
    """Several mutants of one host as one, whose ways back are gone in the other direction."""
    return mutants[0].model_copy(
        update={
            "name": f"together-on-{host}",
            "files": tuple(dict.fromkeys(path for each in mutants for path in each.files)),
            "change": "\n".join(each.change for each in mutants),
            "apply": "\n".join(dict.fromkeys(each.apply for each in mutants if each.apply)),
            "mend": "\n".join(each.mend for each in reversed(mutants) if each.mend),
        }
    )


def judged(mutant: Mutant, answers: Sequence[Answer]) -> Verdict:
    """What the answers say about a mutant, its restoration aside."""
    failed = [answer for answer in answers if answer.outcome == "fail"]
    if mutant.placebo:
        loud = tuple(sorted({_told(answer) for answer in answers if answer.outcome in BAD}))
        quiet = bool(answers) and not loud
        return Verdict(mutant, noticed=mutant.noticed_by if quiet else (), missed=loud)
    noticed = tuple(name for name in mutant.noticed_by if _noticed(name, mutant, answers))
    by_name = {answer for answer in failed for name in mutant.noticed_by if _is(name, answer)}
    return Verdict(
        mutant,
        noticed=noticed,
        others=tuple(sorted({answer.check for answer in failed if answer not in by_name})),
        missed=tuple(name for name in mutant.noticed_by if name not in noticed),
    )


def _noticed(name: str, mutant: Mutant, answers: Sequence[Answer]) -> bool:
    """Whether a named check failed, named what is wrong, and where it looks at each host by itself, failed for the host that was broken."""
    mine = [answer for answer in answers if _is(name, answer)]
    there = [answer for answer in mine if answer.host == mutant.host]
    return any(answer.outcome == "fail" and mutant.names in answer.seen for answer in there or mine)


def _is(name: str, answer: Answer) -> bool:
    function, _, case = name.rpartition("/")[2].partition("[")
    topic = name.rpartition("/")[0]
    # The IP version is a case of its own, before or behind the other.
    own = re.sub(r"^IPv[46]-|-IPv[46]$", "", answer.case)
    return function == answer.function and topic in {"", answer.topic} and (not case or case.removesuffix("]") == own)


def _bad(answers: Iterable[Answer]) -> set[str]:
    """The checks that failed or could not look."""
    return {answer.check for answer in answers if answer.outcome in BAD}


def _told(answer: Answer) -> str:
    return f"{answer.check}[{answer.case}] ({answer.outcome}: {answer.message.splitlines()[0] if answer.message else ''})"


def _place(check: Check) -> str:
    return f"{check.topic}/{check.function}"


@cache
def named(name: str) -> tuple[Check, ...]:
    """The checks that a mutant's word for them means.

    Raises:
        LemonstandError: there is none.
    """
    topic, _, rest = name.rpartition("/")
    function, _, case = rest.partition("[")
    found = tuple(
        check
        for check in shipped()
        if check.function == function and topic in {"", check.topic} and (not case or check.case in {"", case.removesuffix("]")})
    )
    if not found:
        raise LemonstandError(f"there is no check '{name}'", "mutants", "name a function of lemonstand/checks")
    return found
