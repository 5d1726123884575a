"""Runs the checks in a process of its own and says what came out."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from lemonstand.errors import InputError, LemonstandError
from lemonstand.evidence.show import print_summary
from lemonstand.evidence.write import check_form
from lemonstand.policy.controls import load_controls

CHECKS = Path(__file__).resolve().parent.parent / "checks"
FAILED, INTERRUPTED = 1, 130
_NOTHING_RAN = 5
_PYTEST_INTERRUPTED = 2
_REFUSED = 4


def verify(
    inventory: Path,
    out_dir: Path,
    select: list[str] | None = None,
    keyword: str | None = None,
    *,
    disruptive: bool = False,
    soak: int | None = None,
    quiet: bool = False,
    checks: Path | None = None,
) -> int:
    """Verifies a site: runs the checks, prints progress and a summary, leaves the evidence.

    pytest keeps settings in module globals, so it runs in a process of its own, without the user's plugins, options and cache.

    Args:
        inventory: the site's directory or hosts file.
        out_dir: gets `evidence.json`, `junit.xml` and a dated copy below `history/`.
        select: ids of controls, patterns of them (`LEM-7-*`), or topics (`network`); default: all checks.
        keyword: a pytest expression (`-k`) over the checks' names.
        disruptive: also run checks that disturb the site (outages, loss, reloads).
        soak: also run checks that hold connections for this many seconds.
        quiet: print nothing; the evidence says it all.
        checks: another directory of checks.

    Returns:
        0 if no check failed and none was invalid, else 1; 130 if interrupted.

    Raises:
        InputError: the selection names nothing.
        LemonstandError: the checks could not be run.
    """
    folder = checks or CHECKS
    _check_selection(select or [], folder)
    out_dir = out_dir.absolute()
    latest = out_dir / "evidence.json"
    before = latest.stat().st_mtime_ns if latest.exists() else None
    command = [
        sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "lemonstand.evidence.plugin",
        "-c", os.devnull, "--rootdir", str(folder), "--confcutdir", str(folder), "--strict-markers",
        "--inventory", str(inventory.absolute()), "--evidence", str(out_dir),
        *(word for each in select or [] for word in ("--select-control", each)),
        *(["--disruptive"] if disruptive else []),
        *(["--soak", "--soak-seconds", str(soak)] if soak else []), *(["-k", keyword] if keyword else []), str(folder),
    ]  # fmt: skip
    # Neither the user's options nor plugins of other projects change what a check means.
    env = {key: value for key, value in os.environ.items() if key not in {"PYTEST_ADDOPTS", "PYTEST_PLUGINS"}}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    console = Console(highlight=False)
    process = subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.DEVNULL if quiet else None)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it got the same signal and writes down what it has
        code = _PYTEST_INTERRUPTED
    if code == _NOTHING_RAN:
        raise InputError("no check matches the selection", _described(select, keyword), "leave it out to run all checks")
    if code == _REFUSED:
        raise InputError("the checks were refused", str(inventory), "mend what is said above; `lemonstand check` reads the inventory alone")
    if not latest.exists() or latest.stat().st_mtime_ns == before:
        if code == _PYTEST_INTERRUPTED:
            return INTERRUPTED
        raise LemonstandError(f"the checks ended without evidence (pytest says {code})", str(folder), "see the messages above")
    evidence = json.loads(latest.read_text(encoding="utf-8"))
    check_form(evidence)
    if not quiet:
        print_summary(console, evidence, load_controls(), latest)
    if not evidence["complete"]:
        return INTERRUPTED if code == _PYTEST_INTERRUPTED else FAILED
    return FAILED if code or _bad(evidence) else 0


def _bad(evidence: dict[str, Any]) -> bool:
    return any(result["outcome"] in {"fail", "invalid"} for result in evidence["results"])


def _check_selection(select: list[str], folder: Path) -> None:
    ids = list(load_controls().by_id())
    topics = sorted(path.stem.removeprefix("test_") for path in folder.glob("test_*.py"))
    for word in select:
        if word not in topics and not fnmatch.filter(ids, word):
            raise InputError(
                f"'{word}' is no control and no topic", "--select", f"name a control such as {ids[0]}, LEM-7-*, or {', '.join(topics)}"
            )


def _described(select: list[str] | None, keyword: str | None) -> str:
    return " ".join([*(select or []), *([f"-k {keyword}"] if keyword else [])]) or "all checks"
