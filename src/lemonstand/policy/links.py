"""Which checks are about a control: read from their marks, never written down twice."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CONTROL = re.compile(r"\b(?:LEM|PRO)-[A-Z0-9.]+-[0-9]+[a-z]?\b")
CHECKS = Path(__file__).resolve().parent.parent / "checks"
GATES = ("disruptive", "soak")
"""Marks of checks that only run when they are asked for."""


@dataclass(frozen=True)
class CheckMarks:
    """What the marks of a check function say.

    Args:
        name: the function.
        topic: its module without prefix: `network`.
        controls: those it answers.
        supports: those it can break.
        gates: what has to be asked for to run it.
    """

    name: str
    topic: str
    controls: frozenset[str]
    supports: frozenset[str]
    gates: frozenset[str]


@cache
def check_marks(folder: Path = CHECKS) -> tuple[CheckMarks, ...]:
    """The marks of all checks, read from their text: nothing is imported or run."""
    found = []
    for path in sorted(folder.glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        shared = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"]
        everything = frozenset(CONTROL.findall(text))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [ast.unparse(each) for each in (*node.decorator_list, *shared)]
                found.append(
                    CheckMarks(
                        node.name,
                        path.stem.removeprefix("test_"),
                        _named(marks, "control", everything),
                        _named(marks, "supports", everything),
                        frozenset(gate for gate in GATES if any(f"mark.{gate}" in mark for mark in marks)),
                    )
                )
    return tuple(found)


def _named(marks: list[str], kind: str, everything: frozenset[str]) -> frozenset[str]:
    """The controls in marks of a kind. Where the control is a parameter, it is one of those the module lists."""
    names: set[str] = set()
    for mark in marks:
        for arguments in re.findall(rf"mark\.{kind}\(([^()]*)\)", mark):
            words = set(CONTROL.findall(arguments))
            names |= words or everything
    return frozenset(names)
