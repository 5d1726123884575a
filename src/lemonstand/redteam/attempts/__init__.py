"""The code behind each attempt of `attempts.yml`: a function from the ground to what was seen."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from lemonstand.redteam.context import Ground, Seen

Move = Callable[[Ground], Seen]
MODULES = ("abuse", "credentials", "inner_network", "mail", "outside")
"""They register their attempts when they are imported."""
MOVES: dict[str, Move] = {}


def move(*names: str) -> Callable[[Move], Move]:
    """Registers a function as the code of attempts."""

    def keep(function: Move) -> Move:
        for name in names:
            if name in MOVES:
                raise ValueError(f"two moves for {name}")
            MOVES[name] = function
        return function

    return keep


def load_moves() -> dict[str, Move]:
    """All moves by the id of their attempt."""
    for name in MODULES:
        importlib.import_module(f"{__name__}.{name}")

    return MOVES
