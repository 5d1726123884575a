"""Runs the checks in a process of its own and says what came out."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lemonstand.errors import InputError, LemonstandError
from lemonstand.evidence.show import own_results, print_summary
from lemonstand.policy.controls import load_controls
from lemonstand.surroundings import end_with_parent, environment

CHECKS = Path(__file__).resolve().parent.parent / "checks"
FAILED, UNMEASURED, INTERRUPTED = 1, 2, 130
_NOTHING_RAN = 5
_PYTEST_INTERRUPTED = 2
_REFUSED = 4


@dataclass(frozen=True)
class Selection:
    """Which checks run; empty: all that are calm.

    Args:
        controls: ids of controls, patterns of them (`LEM-7-*`), or topics (`network`).
        sections: such as `4.2`.
        hosts: inventory names: checks that look at one of them.
        keyword: a pytest expression (`-k`) over the checks' names.
        disruptive: also those that disturb the site (outages, loss, reloads).
        soak: also those that hold connections, for this many seconds.
    """

    controls: Sequence[str] = ()
    sections: Sequence[str] = ()
    hosts: Sequence[str] = ()
    keyword: str = ""
    disruptive: bool = False
    soak: int | None = None

    def __str__(self) -> str:
        """As on a command line."""
        words = [("--control", each) for each in self.controls] + [("--section", each) for each in self.sections]
        words += [("--host", each) for each in self.hosts] + ([("-k", self.keyword)] if self.keyword else [])
        return " ".join(f"{option} {value}" for option, value in words) or "all checks"


def verify(
    inventory: Path,
    out_dir: Path,
    selection: Selection | None = None,
    *,
    merge: bool = False,
    quiet: bool = False,
    checks: Path | None = None,
    plugins: Sequence[str] = (),
) -> int:
    """Verifies a site: runs the checks, prints progress and a summary, leaves the evidence.

    pytest keeps settings in module globals, so it runs in a process of its own, without the user's plugins, options and cache.

    Args:
        inventory: the site's directory or hosts file.
        out_dir: gets `evidence.json`, `junit.xml` and a dated copy below `history/`.
        selection: which checks.
        merge: keep results of earlier runs in `out_dir` that are about the same state.
        quiet: print nothing; the evidence says it all.
        checks: another directory of checks.
        plugins: modules of pytest plugins that are loaded as well.

    Returns:
        0 if every control has an answer, 1 if one failed, 2 if something could not be measured; 130 if interrupted.

    Raises:
        InputError: the selection names nothing.
        LemonstandError: the checks could not be run.
    """
    folder = checks or CHECKS
    selection = selection or Selection()
    _check_selection(selection, folder)
    out_dir = out_dir.absolute()
    latest = out_dir / "evidence.json"
    before = latest.stat().st_mtime_ns if latest.exists() else None
    _make_room(out_dir)
    command = [
        sys.executable, "-B", "-P", "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "lemonstand.evidence.plugin",
        *_options("-p", plugins),
        "-c", os.devnull, "--rootdir", str(folder), "--confcutdir", str(folder), "--strict-markers",
        "--inventory", str(inventory.absolute()), "--evidence", str(out_dir),
        *_options("--select-control", selection.controls), *_options("--select-section", selection.sections),
        *_options("--select-host", selection.hosts), *(["-k", selection.keyword] if selection.keyword else []),
        *(["--disruptive"] if selection.disruptive else []), *(["--merge"] if merge else []),
        *(["--soak", "--soak-seconds", str(selection.soak)] if selection.soak else []),
        str(folder),
    ]  # fmt: skip
    # Neither the user's options nor plugins of other projects change what a check means.
    env = environment(inventory=inventory)
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    console = Console(highlight=False)
    process = subprocess.Popen(
        command,
        env=env,
        cwd=folder,
        stdout=subprocess.DEVNULL if quiet else None,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one call
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it got the same signal and writes down what it has
        code = _PYTEST_INTERRUPTED
    if code == _NOTHING_RAN:
        raise InputError("no check matches the selection", str(selection), "leave it out to run all checks")
    if code == _REFUSED:
        raise InputError("the checks were refused", str(inventory), "mend what is said above; `lemonstand check` reads the inventory alone")
    if not latest.exists() or latest.stat().st_mtime_ns == before:
        if code == _PYTEST_INTERRUPTED:
            return INTERRUPTED
        raise LemonstandError(f"the checks ended without evidence (pytest says {code})", str(folder), "see the messages above")
    evidence = json.loads(latest.read_text(encoding="utf-8"))  # of the form it should have: else the checks' process had not written it
    if not quiet:
        print_summary(console, evidence, load_controls(), latest)
    if not evidence["complete"]:
        return INTERRUPTED if code == _PYTEST_INTERRUPTED else UNMEASURED
    return exit_code(evidence)


FREE_OCTETS = 16 * 2**20
"""Room a verification wants for its evidence, so that what took minutes to see is not lost in the end."""


def _make_room(folder: Path) -> None:
    """Sees that evidence can be written.

    Raises:
        InputError: it can't.
    """
    remedy = "let it be written, or name another directory in LEMONSTAND_STATE; nothing was measured"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as fault:
        raise InputError(f"evidence can't be written: {fault.strerror}", str(folder), remedy) from None
    if free < FREE_OCTETS:
        raise InputError(
            f"{free // 2**20} MiB free, evidence needs {FREE_OCTETS // 2**20} MiB", str(folder), "make room; nothing was measured"
        )


def exit_code(evidence: Mapping[str, Any]) -> int:
    """0 all answered, 1 something failed, 2 something could not be measured. A run of a selection answers for itself alone."""
    results = evidence["results"]
    controls = evidence["controls"]
    run = evidence["runs"][0]
    if any(run["selection"].values()):
        results = own_results(evidence)
        named = {name for result in results for name in (*result["controls"], *result["supports"]) if result["outcome"] == "fail"}
        controls = [control for control in controls if control["id"] in named]
    if any(control["status"] == "failed" for control in controls):
        return FAILED
    return UNMEASURED if any(result["outcome"] == "invalid" for result in results) else 0


def _options(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _check_selection(selection: Selection, folder: Path) -> None:
    catalogue = load_controls()
    ids = list(catalogue.by_id())
    topics = sorted(path.stem.removeprefix("test_") for path in folder.glob("test_*.py"))
    for word in selection.controls:
        if word not in topics and not fnmatch.filter(ids, word):
            remedy = f"name a control such as {ids[0]}, LEM-7-*, or {', '.join(topics)}"
            raise InputError(f"'{word}' is no control and no topic", "--control", remedy)
    for section in selection.sections:
        if section not in catalogue.sections():
            raise InputError(f"there is no section '{section}'", "--section", f"one of {', '.join(catalogue.sections())}")
