"""Brings what older versions left on a host to the layout of this one: steps, each a number higher (docs/decisions/0038).

Python's standard library; the text comes over standard input with a call of `main_encoded`, whose order is JSON in base64. A step looks
first and does what is still to be done, so that one that was cut off can be done again. It never needs what a later stage installs.
"""

import base64
import json
from pathlib import Path

ROOT = Path("/")
"""Tests have another."""
STAMP = "var/lib/lemonstand/stamp.json"


def without_differing_files(check):
    """A program that roles asked what differs, before the kit did (docs/decisions/0028)."""
    path = ROOT / "usr/local/lib/lemonstand/differing-files"
    if path.exists() or path.is_symlink():
        if not check:
            path.unlink(missing_ok=True)
        yield f"remove {path}"


STEPS = ((1, "a program of versions before the kit goes", without_differing_files),)
"""Number, what it is about, and the function: it tells what it did, or in check mode would do."""
LAYOUT = STEPS[-1][0]
"""What a host is at when all steps are done."""


def layout():
    """The last step of this host, by its stamp; 0 without one that can be read."""
    try:
        found = json.loads((ROOT / STAMP).read_text(encoding="utf-8"))["layout"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return found if isinstance(found, int) else 0


def migrate(since, check):
    """Does the steps after one; lines of what changed, or would."""
    word = "would " if check else ""
    for number, about, step in STEPS:
        if number > since:
            for done in step(check):
                yield f"changed: {word}{done} (migration {number}: {about})"


def main_encoded(packed):
    """Prints a line for each thing that changed, or would."""
    order = json.loads(base64.b64decode(packed))
    for line in migrate(layout(), order["check"]):
        print(line)
    return 0
