"""The table of what mutants showed: one file for all labs of this user, so that the evidence of any site can say which checks were seen to
fail. Light to import: evidence reads it on every run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lemonstand.errors import LemonstandError
from lemonstand.evidence.write import hold_to
from lemonstand.paths import state_dir

SCHEMA_VERSION = 2
SCHEMA = Path(__file__).with_name("mutants.schema.json")


def table_path() -> Path:
    """Where it lies."""
    return state_dir() / "mutants.json"


def check_form(data: Mapping[str, Any]) -> None:
    """Holds a table against its schema.

    Raises:
        LemonstandError: it breaks it.
    """
    hold_to(SCHEMA, "the table of mutants", data)


def read_table(path: Path) -> dict[str, dict[str, Any]]:
    """The verdicts in a table by mutant; none if there is no table, or one of another form."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        check_form(data)
    except (OSError, ValueError, LemonstandError):
        return {}
    return {entry["name"]: entry for entry in data["mutants"]}


def forget() -> None:
    """Removes the table: what labs showed that are gone."""
    for path in (table_path(), lock_path(table_path())):
        path.unlink(missing_ok=True)


def lock_path(table: Path) -> Path:
    """What is locked while a table is written."""
    return table.with_suffix(".lock")
