"""What was asked for and what asked: hashes of an inventory and of this copy of lemonstand."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from lemonstand.paths import data_dir

PACKAGE = Path(__file__).resolve().parent.parent
READ = ("LEMONSTAND_LAB_PREFIX",)
"""What an inventory may read from the environment that changes the site."""


def inventory_hash(path: Path) -> str:
    """A hash of an inventory's files and of what it reads from the environment.

    Args:
        path: a directory or hosts file; beside a file its group_vars and host_vars count as well.
    """
    if path.is_dir():
        files = list(_files(path, path))
    else:
        files = [(path.name, path)]
        for folder in ("group_vars", "host_vars"):
            files += list(_files(path.parent / folder, path.parent))
    digest = _digest(files)
    for name in READ:
        digest.update(f"{name}={os.environ.get(name, '')}\0".encode())
    return str(digest.hexdigest())


@cache
def code() -> dict[str, Any]:
    """What verified, in the form of evidence: `commit`, `modified`, `sha256` over everything that says what is done and checked."""
    files = [*_files(PACKAGE, PACKAGE.parent)]
    for name in ("playbooks", "roles"):
        files += _files(data_dir(name), data_dir(name).parent)
    top = data_dir("playbooks").parent
    commit, modified = None, False
    if (top / ".git").exists():
        commit = _git(top, "rev-parse", "HEAD")
        modified = bool(_git(top, "status", "--porcelain", "--untracked-files=normal"))
    return {"commit": commit or None, "modified": modified, "sha256": _digest(files).hexdigest()}


def _files(folder: Path, base: Path) -> Iterable[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part in {"__pycache__", "_data"} for part in inner):
            yield str(path.relative_to(base)), path


def _digest(files: Iterable[tuple[str, Path]]) -> Any:
    digest = hashlib.sha256()
    for name, path in sorted(files):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return digest


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
