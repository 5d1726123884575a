"""Mutants, checks and controls fit each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lemonstand import checks
from lemonstand.errors import LemonstandError
from lemonstand.lab.topology import MACHINES
from lemonstand.mutants import Mutant, load_mutants
from lemonstand.mutants.catalogue import load_mutants as load
from lemonstand.policy.controls import load_controls

MUTANTS = load_mutants()
CONTROL = re.compile(r"\b(?:LEM|PRO)-[A-Z0-9.]+-[0-9]+[a-z]?\b")


def _checks() -> dict[str, tuple[set[str], bool]]:
    """Every check function: the controls it names, and whether it disturbs. Read from the text: importing would need the plugin's marks."""
    found: dict[str, tuple[set[str], bool]] = {}
    for path in sorted(Path(checks.__file__).parent.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        shared = any(isinstance(node, ast.Assign) and "disruptive" in ast.unparse(node) for node in tree.body)
        in_module = set(CONTROL.findall(path.read_text(encoding="utf-8")))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = "\n".join(ast.unparse(decorator) for decorator in node.decorator_list)
                # Where the control is a parameter, it is one of those the module lists.
                names = in_module if "mark.control(control)" in marks else set(CONTROL.findall(marks))
                known, disturbs = found.get(node.name, (set(), False))
                found[node.name] = (known | names, disturbs or shared or "mark.disruptive" in marks)
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_names_checks_of_its_controls(mutant: Mutant) -> None:
    known = _checks()
    controls = load_controls().by_id()
    assert set(mutant.controls) <= set(controls)
    assert mutant.host in {machine.name for machine in MACHINES}
    assert set(mutant.noticed_by) <= set(known)
    for name in mutant.noticed_by:
        assert known[name][0] & set(mutant.controls), f"{name} is about none of {mutant.controls}"
    assert any(known[name][1] for name in mutant.noticed_by) == mutant.disruptive


def test_a_broken_catalogue_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mutants.yml"
    path.write_text("mutants: [{name: x, controls: [], host: edge, change: 'true', noticed_by: [y]}]", encoding="utf-8")
    with pytest.raises(LemonstandError, match="controls"):
        load(path)
