"""Labs of the suite's own, from nothing to nothing: one a process of pytest, so that tests of one wait while those of another work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lemonstand import lab as labs
from lemonstand.paths import data_dir, lab_dir
from lemonstand.site import Site, load_site

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
NAME = os.environ.get("LEMONSTAND_TEST_LAB", "test") + (str(WORKER + 1) if WORKER else "")
_FIRST, _SECOND = os.environ.get("LEMONSTAND_TEST_PREFIX", "10.80").split(".")
PREFIX = f"{_FIRST}.{int(_SECOND) + WORKER}"
"""Two suites may run side by side: give the second one another name and prefix. Each process of a suite takes the next prefix."""
INVENTORY = data_dir("inventories") / "lab"

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def lemonstand() -> Command:
    """Runs the command line as a user does; `code` is the exit status it must have, or those it may have."""

    def call(*words: str, code: int | tuple[int, ...] = 0, timeout: int = 900) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "lemonstand", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        right = done.returncode in (code if isinstance(code, tuple) else (code,))
        assert right, f"lemonstand {' '.join(words)}: exit {done.returncode}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
        return done

    return call


@pytest.fixture(scope="session")
def new_lab(lemonstand: Command) -> Iterator[str]:
    """A lab that is up and holds nothing."""
    labs.down(NAME, lambda line: None)
    lemonstand("lab", "up", "--name", NAME, "--prefix", PREFIX, timeout=1800)
    yield NAME
    if not os.environ.get("LEMONSTAND_KEEP_LAB"):
        labs.down(NAME, lambda line: None)


@pytest.fixture(scope="session")
def last_run() -> Callable[[], dict[str, Any]]:
    """The record of the newest run on the lab."""

    def read() -> dict[str, Any]:
        newest = max((lab_dir(NAME) / "runs").glob("*/run.json"))
        record: dict[str, Any] = json.loads(Path(newest).read_text(encoding="utf-8"))
        return record

    return read


@pytest.fixture(scope="session")
def on() -> Callable[..., str]:
    """Runs a command on a host of the lab and returns what it printed."""

    def call(host: str, *argv: str, code: int = 0) -> str:
        done = subprocess.run(
            ["ssh", "-F", str(lab_dir(NAME) / "ssh" / "config"), host, *argv], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, f"{host}: {argv}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout

    return call


@pytest.fixture(scope="session")
def planned(new_lab: str, lemonstand: Command) -> str:
    """What `plan` says of hosts that hold nothing."""
    return lemonstand("plan", "--lab", new_lab).stdout


@pytest.fixture(scope="session")
def deployed(new_lab: str, planned: str, lemonstand: Command) -> str:
    """The lab's name, after the first apply."""
    lemonstand("apply", "--lab", new_lab)
    return new_lab


@pytest.fixture(scope="module")
def lab_site(deployed: str) -> Iterator[Site]:
    """The deployed lab as a site; the module's environment is the lab's, for what reads the inventory by itself."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in labs.environment(deployed).items():
            patch.setenv(key, value)
        yield load_site(INVENTORY, labs.environment(deployed))
