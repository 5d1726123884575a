"""Who imports whom: arrows point down only. Read from the text of each module, nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import lemonstand

ROOT = Path(lemonstand.__file__).parent
BASE = ("__init__", "errors", "files", "observations", "outcomes", "paths", "surroundings", "survey")
"""Modules beside the packages: what all of them stand on."""
LAYERS: tuple[tuple[str, ...], ...] = (
    ("probes",),
    BASE,
    ("policy",),
    ("site",),
    ("derived",),
    ("deploy", "lab"),
    ("remote",),
    ("admin", "integrity", "mail", "measure"),
    ("evidence",),
    ("redteam",),
    ("checks",),
    ("breaking",),
    ("cli",),
    ("__main__",),
)
"""Lowest first. A package may import from layers below its own; packages of one layer do not know each other."""
WITHIN: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "probes": (
        ("events", "boot"), ("execute", "registry", "agent"), ("lasting",), ("protocols",), ("hosts",), ("network",), ("clients",),
        ("attacks",),
    ),
}  # fmt: skip
"""The same within a package."""
Module = tuple[str, ...]


def modules(root: Path) -> dict[Module, ast.Module]:
    """The modules below a directory by their path; a package's own module ends in `__init__`."""
    return {
        path.relative_to(root).with_suffix("").parts: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.py"))
    }


def imports(known: Mapping[Module, ast.Module], tree: ast.Module) -> Iterator[Module]:
    """The modules of ours that a module imports, at its top, within functions or for types alone."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *words = name.split(".")
            if first == "lemonstand":
                path = tuple(words)
                yield next(
                    found
                    for found in (path, (*path, "__init__"), path[:-1], (*path[:-1], "__init__"))
                    if found in known
                )  # fmt: skip


def layer(name: str, layers: tuple[tuple[str, ...], ...]) -> int:
    """Which layer a package or module belongs to.

    Raises:
        LookupError: none: it has to be given one.
    """
    for number, members in enumerate(layers):
        if name in members:
            return number
    raise LookupError(f"'{name}' belongs to no layer")


def breaches(root: Path) -> list[str]:
    """Every import that does not point down."""
    known = modules(root)
    found = []
    for module, tree in known.items():
        for target in imports(known, tree):
            arrow = f"{'.'.join(module)} imports {'.'.join(target)}"
            if module[0] != target[0]:
                if module[0] in BASE and target[0] in BASE:
                    continue
                if layer(target[0], LAYERS) >= layer(module[0], LAYERS):
                    found.append(arrow)
            elif module[0] in WITHIN and module[1] not in {target[1], "__init__"}:
                within = WITHIN[module[0]]
                if layer(target[1], within) >= layer(module[1], within):
                    found.append(arrow)
    return found


def test_arrows_point_down_only() -> None:
    assert breaches(ROOT) == []


def test_every_package_has_a_layer() -> None:
    for path in ROOT.iterdir():
        if path.is_dir() and (path / "__init__.py").is_file():
            layer(path.name, LAYERS)
        elif path.suffix == ".py":
            layer(path.stem, LAYERS)


def test_a_planted_arrow_upwards_is_found(tmp_path: Path) -> None:
    for name, text in (
        ("__init__.py", ""),
        ("errors.py", "class Fault(Exception): ...\n"),
        ("remote/__init__.py", ""),
        ("remote/prober.py", "from lemonstand.errors import Fault\n"),
        ("checks/__init__.py", ""),
        ("checks/test_x.py", "from lemonstand.remote import prober\n"),
        ("probes/__init__.py", ""),
        ("probes/events.py", ""),
        ("probes/protocols/__init__.py", ""),
        ("probes/protocols/wire.py", "from lemonstand.probes.events import emit\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert breaches(tmp_path) == []
    (tmp_path / "remote" / "prober.py").write_text("def late():\n    from lemonstand.checks.test_x import thing\n", encoding="utf-8")
    (tmp_path / "probes" / "events.py").write_text("import lemonstand.probes.protocols.wire\n", encoding="utf-8")
    (tmp_path / "errors.py").write_text("from lemonstand import remote\n", encoding="utf-8")
    assert sorted(breaches(tmp_path)) == [
        "errors imports remote.__init__",
        "probes.events imports probes.protocols.wire",
        "remote.prober imports checks.test_x",
    ]
