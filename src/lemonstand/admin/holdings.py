"""What a machine holds of a site, and how far it was rebuilt (docs/decisions/0045).

Runs on the machine as root from standard input, before anything of ours is there: Python's standard library alone. `main_encoded` takes
one order; the answer is JSON on standard output:

    {"action": "look"}                      what it holds, and the mark of a rebuild that is under way
    {"action": "mark", "mark": {…}}         writes the mark
    {"action": "done"}                      takes it away
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path("/")
MARK = "var/lib/lemonstand/rebuild.json"
SHOWN = 3


def homes(top: Path) -> list[str]:
    """Users with a mailbox below a directory, and what was put aside there."""
    return [f"{home.name}@{domain.name}" for domain in folders(top) for home in folders(domain)]


def folders(top: Path) -> list[Path]:
    """The directories in one; none where there is none."""
    try:
        return sorted(path for path in top.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def files(top: Path, pattern: str) -> list[Path]:
    """The files below a directory that fit a pattern."""
    return [path for path in top.glob(pattern) if path.is_file()] if top.is_dir() else []


def holds() -> Iterator[str]:
    """Each thing of a site that is here, as an operator knows it."""
    stamp = read(ROOT / "var/lib/lemonstand/stamp.json")
    if stamp is not None:
        yield f"it was set up by lemonstand {stamp.get('version')} ({stamp.get('who')}, {stamp.get('when')})"
    mail = homes(ROOT / "srv/vmail")
    if mail:
        yield f"{len(mail)} mailboxes ({', '.join(mail[:SHOWN])}{', …' if len(mail) > SHOWN else ''})"
    if (ROOT / "var/lib/ldap/lemonstand/data.mdb").exists():
        yield "a directory (/var/lib/ldap/lemonstand)"
    keys = files(ROOT / "etc/lemonstand/ticket/private", "*.pem")
    if keys:
        yield "keys that sign tickets (/etc/lemonstand/ticket/private)"
    waiting = [path for queue in ("incoming", "active", "deferred", "hold") for path in files(ROOT / "var/spool/postfix" / queue, "**/*")]
    if waiting:
        yield f"{len(waiting)} messages in a queue"
    if not stamp and not keys and folders(ROOT / "etc/lemonstand"):
        yield "settings of lemonstand (/etc/lemonstand)"


def read(path: Path) -> dict[str, Any] | None:
    """A dictionary from a file; None if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(mark: dict[str, Any]) -> None:
    """Puts the mark in place in one step."""
    path = ROOT / MARK
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as stream:
        json.dump(mark, stream)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Carries out one order."""
    if order["action"] == "mark":
        write(order["mark"])
    elif order["action"] == "done":
        (ROOT / MARK).unlink(missing_ok=True)
    return {"holds": list(holds()), "mark": read(ROOT / MARK)}


def main_encoded(text: str) -> int:
    """Answers an order in base64."""
    print(json.dumps(answer(json.loads(base64.b64decode(text)))))
    return 0
