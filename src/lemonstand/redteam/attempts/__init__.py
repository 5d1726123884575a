"""The code behind each attempt of `attempts.yml`: a function from the lab to what was seen."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from lemonstand.redteam.context import LabUnderAttack, Seen

AttemptCode = Callable[[LabUnderAttack], Seen]
MODULES = ("abuse", "availability", "credentials", "inner_network", "mail", "outside")
"""They register their attempts when they are imported."""
CODE: dict[str, AttemptCode] = {}


def code_of(*names: str) -> Callable[[AttemptCode], AttemptCode]:
    """Registers a function as the code of attempts."""

    def keep(function: AttemptCode) -> AttemptCode:
        for name in names:
            if name in CODE:
                raise ValueError(f"two moves for {name}")
            CODE[name] = function
        return function

    return keep


def load_code() -> dict[str, AttemptCode]:
    """All moves by the id of their attempt."""
    for name in MODULES:
        importlib.import_module(f"{__name__}.{name}")

    return CODE
