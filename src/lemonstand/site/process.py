"""Asks Ansible in a process of its own: it keeps its configuration in module globals, and fills them when it is first imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir
from lemonstand.surroundings import environment


def answer_of(
    module: str, inventory: Path, *, what: str, remedy: str, seconds: float, settings: Mapping[str, str] | None = None, given: str = ""
) -> str:
    """What a module of ours prints about an inventory.

    Args:
        module: its name; it is told the inventory and the directory of the playbooks.
        inventory: a site's directory or hosts file.
        what: for the message: "the inventory can't be read".
        remedy: what to do then.
        seconds: after which it is ended.
        settings: variables beside those a run has.
        given: its standard input.

    Raises:
        LemonstandError: it failed, or did not end.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, str(inventory), str(data_dir("playbooks"))],
            input=given, check=False, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=seconds,
            env=environment({"ANSIBLE_CONFIG": str(data_dir("ansible.cfg")), **(settings or {})}, inventory),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LemonstandError(f"no end after {seconds} s of reading", str(inventory), "look for a lookup that waits") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LemonstandError(f"{what}: {last[:500]}", str(inventory), remedy)
    return done.stdout
