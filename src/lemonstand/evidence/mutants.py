"""Mutants as evidence tells of them. Which there are and what came of them is handed in by who runs the checks (`Recorder.mutants`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNTRIED = "not tried"
"""What came of a mutant that no lab of this user had in its present form."""


def came_of(mutant: Mapping[str, Any]) -> str:
    """What came of a mutant, from its entry in evidence: a verdict or `UNTRIED`."""
    tried = mutant.get("tried")
    return str(tried["verdict"]) if tried else UNTRIED
