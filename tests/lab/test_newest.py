"""The newest ansible-core that is supported deploys a lab; neither it nor the oldest finds anything to change in what the other wrote."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lemonstand import lab as labs
from lemonstand.paths import lab_dir

from .conftest import NAME, PREFIX, Command

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]
PINNED = (ROOT / "scripts" / "newest.lock").read_text(encoding="ascii").split("ansible-core==")[1].split()[0]
OTHER = f"{NAME}new"
OTHER_PREFIX = f"{PREFIX.partition('.')[0]}.{int(PREFIX.partition('.')[2]) + 4}"
"""Beside the labs of a suite with several processes."""


def newest(*words: str, seconds: int = 1800) -> str:
    """What a command prints that runs with the newest ansible-core (`scripts/newest`); it has to succeed."""
    done = subprocess.run(
        [ROOT / "scripts" / "newest", *words], capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def other_lab(lemonstand: Command) -> Iterator[str]:
    """A lab that is up, holds nothing, and is nobody else's."""
    labs.down(OTHER, lambda line: None)
    lemonstand("lab", "up", "--name", OTHER, "--prefix", OTHER_PREFIX, timeout=1800)
    yield OTHER
    labs.down(OTHER, lambda line: None)


def _changes() -> list[dict[str, Any]]:
    record = max((lab_dir(OTHER) / "runs").glob("*/run.json"))
    changes: list[dict[str, Any]] = json.loads(record.read_text(encoding="utf-8"))["changes"]
    return changes


def test_unit_and_contract_tests_pass() -> None:
    assert newest("ansible", "--version").startswith(f"ansible [core {PINNED}]")
    newest("pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadscope", "tests/unit", "tests/contract")


def test_it_deploys_and_the_oldest_finds_nothing_to_change(other_lab: str, lemonstand: Command) -> None:
    newest("lemonstand", "plan", "--lab", other_lab)
    newest("lemonstand", "apply", "--lab", other_lab)
    assert _changes()
    newest("lemonstand", "apply", "--lab", other_lab)
    assert _changes() == []
    lemonstand("plan", "--lab", other_lab)
    assert _changes() == []
    lemonstand("verify", "--lab", other_lab, "-k", "integrity or reachability")
