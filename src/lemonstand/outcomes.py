"""How a check ends other than by passing: words that evidence understands. Checks take them from `lemonstand.checks`."""

from __future__ import annotations

from typing import NoReturn, TypeVar

from lemonstand.observations import strain

Service = TypeVar("Service")


class Unanswered(Exception):
    """A question has no answer: neither a pass nor a failure. Which of the three kinds it is says why."""


class Invalid(Unanswered):
    """The question could not be asked, so there is no answer: never a pass."""


class NotMeasurable(Unanswered):
    """This place can't show it (a kernel setting of the machine below a container): neither a pass nor a failure."""


class NotMeasured(NotMeasurable):
    """Nobody gave what is needed to look: a host outside, accounts for checks."""


class NotApplicable(Unanswered):
    """The site has nothing that the check could look at."""


class Unmet(AssertionError):
    """A control does not hold.

    Args:
        what: one sentence.
        seen: what the host or the wire showed.
        expected: what should have been there.
        remedy: what to do; empty for the usual advice (see what enforces the control, apply again).
    """

    def __init__(self, what: str, seen: str, expected: str, remedy: str = "") -> None:
        super().__init__(f"{what}: saw {seen}; expected {expected}")
        self.what = what
        self.seen = seen
        self.expected = expected
        self.remedy = remedy


def invalid(reason: str) -> NoReturn:
    """Ends the check: it could not be measured.

    Args:
        reason: what was missing.

    Raises:
        Invalid: always.
    """
    raise Invalid(reason)


def not_measurable(reason: str) -> NoReturn:
    """Ends the check: not measurable here.

    Args:
        reason: why this place can't show it.

    Raises:
        NotMeasurable: always.
    """
    raise NotMeasurable(reason)


def named(service: Service | None, otherwise: str) -> Service:
    """What a site names, such as a smarthost.

    Args:
        service: it, or None.
        otherwise: how the site does without it.

    Raises:
        NotMeasurable: it names none, so there is nothing to look at.
    """
    if service is None:
        not_measurable(f"{otherwise} (lemonstand_services)")
    return service


def expect(holds: bool, what: str, *, seen: object, expected: object, remedy: str = "", late: bool = False) -> None:
    """Asserts, and says in the evidence what was seen and what should have been.

    Args:
        holds: the condition.
        what: what is wrong if it does not hold.
        seen: what was read.
        expected: what would have been right.
        remedy: what to do about it, if it is more than to apply the inventory again.
        late: the condition is about time: where a machine that took part is too busy to be in time, nothing is said of the service.

    Raises:
        Unmet: it does not hold.
        Invalid: it does not hold, is about time, and a machine was too busy.
    """
    if not holds and late and (busy := strain()):
        raise Invalid(f"{what}: saw {shown(seen)}; out of time at {busy}, so that nothing is said of the service")
    if not holds:
        raise Unmet(what, shown(seen), shown(expected), remedy)


def shown(value: object) -> str:
    """A value as evidence shows it: lists without brackets, nothing as `nothing`."""
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return "; ".join(shown(item) for item in items) or "nothing"
    if isinstance(value, dict):
        return "; ".join(f"{key} = {shown(item)}" for key, item in value.items()) or "nothing"
    return "nothing" if value is None or value == "" else str(value)
