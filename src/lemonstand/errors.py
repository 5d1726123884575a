"""The errors a user sees: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence


class LemonstandError(Exception):
    """Something went wrong that a user can act on.

    Args:
        what: the fault, one sentence, no full stop.
        where: file and line, host, key or command it was found at.
        remedy: what to do next.
    """

    exit_code = 1
    """What the command line returns: 1 failed, 2 (see `InputError`) wrong input."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """Three short lines."""
        return f"error:  {self.what}\nwhere:  {self.where}\nremedy: {self.remedy}"


class InputError(LemonstandError):
    """What the user gave (inventory, option, file) is wrong; nothing was touched."""

    exit_code = 2


class InputErrors(InputError):
    """All the faults of one input, found in one go.

    Args:
        problems: at least one fault, in the order to show them.
    """

    def __init__(self, problems: Sequence[LemonstandError]) -> None:
        first = problems[0]
        super().__init__(first.what, first.where, first.remedy)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """Three lines a fault, a blank line between, and the number of faults at the end."""
        text = "\n\n".join(str(problem) for problem in self.problems)
        return text if len(self.problems) == 1 else f"{text}\n\n{len(self.problems)} faults in all"
