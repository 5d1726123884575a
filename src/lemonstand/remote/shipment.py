"""What is sent to a host to run a probe there: the modules it imports and no others."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

from lemonstand import probes
from lemonstand.probes.registry import PROBES

FOLDER = Path(probes.__file__).parent
PREFIX = probes.__name__
BOOT = (FOLDER / "boot.py").read_text(encoding="utf-8")
"""The program that is given to `python3 -c`."""
AGENTS = {False: f"{PREFIX}.agent", True: f"{PREFIX}.lasting"}
"""What stays on a host while somebody asks; True: what stays though the connection is lost."""
EXECUTE = f"{PREFIX}.execute"
"""What carries out an order there."""


@cache
def shipment(probe: str) -> dict[str, Any]:
    """What a host needs to run a probe: the text of each module by its name, which of them are packages, and the function.

    Args:
        probe: a name of `registry.PROBES`.

    Raises:
        KeyError: there is no such probe.
    """
    function = PROBES[probe]
    return {**_packed(_closure(f"{PREFIX}.{function.rpartition('.')[0]}")), "function": function}


@cache
def agent_shipment(*, lasting: bool = False) -> dict[str, Any]:
    """What the agent itself needs: module texts, packages, and which module goes on."""
    main = AGENTS[lasting]
    return {**_packed(_closure(main) | _closure(EXECUTE)), "main": main}


def _packed(needed: set[str]) -> dict[str, Any]:
    packages = {parent for name in needed for parent in _parents(name)}
    texts = {name: _text(name) for name in sorted(needed)}
    # Packages hold docstrings alone.
    return {"modules": {**dict.fromkeys(sorted(packages), ""), **texts}, "packages": sorted(packages)}


def _parents(name: str) -> list[str]:
    words = name.split(".")
    return [".".join(words[:count]) for count in range(1, len(words))]


@cache
def _text(name: str) -> str:
    return FOLDER.joinpath(*name.removeprefix(f"{PREFIX}.").split(".")).with_suffix(".py").read_text(encoding="utf-8")


def _closure(name: str) -> set[str]:
    found: set[str] = set()
    waiting = {name}
    while waiting:
        each = waiting.pop()
        found.add(each)
        waiting |= _imports(each) - found
    return found


@cache
def _imports(name: str) -> frozenset[str]:
    """The modules of this package that a module imports, wherever in its text it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(_text(name))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(each for each in found if each.startswith(f"{PREFIX}.") and _is_module(each))


def _is_module(name: str) -> bool:
    return FOLDER.joinpath(*name.removeprefix(f"{PREFIX}.").split(".")).with_suffix(".py").is_file()
