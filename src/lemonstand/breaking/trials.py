"""Tells evidence which mutants there are and what came of each: a pytest plugin that a verification loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lemonstand.breaking.catalogue import Mutant, load_mutants
from lemonstand.breaking.table import read_table, table_path
from lemonstand.evidence.identity import code
from lemonstand.evidence.plugin import RECORDER


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Hands them to the recorder."""
    recorder: Any = config.pluginmanager.get_plugin(RECORDER)
    recorder.saw_mutants(trials())


def trials() -> list[dict[str, Any]]:
    """All mutants in the form of the evidence's schema."""
    tried = read_table(table_path())
    return [_mutant(each, tried.get(each.name)) for each in load_mutants()]


def _mutant(mutant: Mutant, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """A mutant, and what came of it in a lab of this user: null if none had it in its present form."""
    tried = None
    if entry is not None and entry["digest"] == mutant.digest:
        tried = {key: entry[key] for key in ("lab", "at", "verdict", "noticed", "others", "missed")}
        tried["same_code"] = entry["code"] == code()["sha256"]
    return {
        "name": mutant.name,
        "host": mutant.host,
        "placebo": mutant.placebo,
        "controls": list(mutant.controls),
        "checks": list(mutant.noticed_by),
        "tried": tried,
    }
