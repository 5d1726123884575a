"""Says which mail of people who are gone is still kept, and removes it (docs/decisions/0041).

Orders are one JSON object on standard input, answers one on standard output:

    {"action": "list"}
    {"action": "remove", "homes": ["20260101T000000Z/example.org/alice"]}
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/lemonstand/served-users.json")
DELETED = ".deleted"
HOME = re.compile(r"\d{8}T\d{6}Z/[^/]+/[^/]+")


def kept(top: Path) -> list[dict[str, Any]]:
    """Return each home that went aside: `home`, `name`, `when`, `messages`, `octets`."""
    found = []
    for home in sorted(top.glob("*/*/*")) if top.is_dir() else ():
        where = home.relative_to(top)
        if not HOME.fullmatch(str(where)):
            continue
        files = [path for path in home.rglob("*") if path.is_file()]
        messages = sum(1 for path in files if path.parent.name in {"new", "cur"} and not path.name.startswith("."))
        octets = sum(path.stat().st_size for path in files)
        name = f"{home.name}@{home.parent.name}"
        found.append({"home": str(where), "name": name, "when": where.parts[0], "messages": messages, "octets": octets})
    return found


def remove(top: Path, homes: list[str]) -> list[str]:
    """Remove some of them; return which were there.

    Raises:
        ValueError: one would lead elsewhere; nothing was removed.
    """
    for home in homes:
        if not HOME.fullmatch(home) or ".." in Path(home).parts:
            raise ValueError(f"{home!r} is no home that went aside")
    done = []
    for home in homes:
        path = top / home
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            done.append(home)
        for folder in (path.parent, path.parent.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    return done


def main() -> int:
    """Carry out one order."""
    order = json.loads(sys.stdin.readline())
    top = Path(json.loads(SETTINGS.read_text(encoding="utf-8"))["directory"], DELETED)
    try:
        answer: dict[str, Any] = {"removed": remove(top, order["homes"])} if order["action"] == "remove" else {"kept": kept(top)}
    except (OSError, ValueError) as problem:
        answer = {"error": str(problem)}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
