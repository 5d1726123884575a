"""Which store has which user, and which member of a store's pair serves: what this host was told last (docs/decisions/0036).

For frontends the directory is the truth; hosts that hold mail or hand it over have this copy, which no inventory undoes:

    {"generation": 7, "active": {"store1": {"host": "standby1", "since": 7}}, "users": {"a@x.org": "store2"}, "said": {}}

A store goes by its name in the inventory, whichever member serves; one that is not in `active` is served by the host of that name. `said`
is what the inventory says of users who are elsewhere by now. A newer generation replaces an older one whole, never the other way round.
Whoever depends on it has a program in `placement.d`, which is run after each change. Orders are JSON on standard input, answers on standard
output. The standard library is all it needs.
"""

import base64
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLACE = Path("/var/lib/lemonstand/placement.json")
LOCK = Path("/run/lemonstand-placement.lock")
FOLLOWERS = Path("/usr/local/lib/lemonstand/placement.d")
EMPTY: dict[str, Any] = {"generation": 0, "active": {}, "users": {}, "said": {}}


def read(path: Path = PLACE) -> dict[str, Any]:
    """Return what this host was told; nothing yet is generation 0.

    Raises:
        ValueError: the file is cut off or no placement.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {**EMPTY}
    if not isinstance(found, dict) or not isinstance(found.get("generation"), int):
        raise ValueError(f"{path} is no placement: copy it from another store or relay")
    return {**EMPTY, **found}


def active(placement: dict[str, Any], store: str) -> str:
    """Return the host that serves a store's users."""
    return str(placement["active"].get(store, {}).get("host", store))


def since(placement: dict[str, Any], store: str) -> int:
    """Return the generation in which that host began to serve."""
    return int(placement["active"].get(store, {}).get("since", 0))


def write(placement: dict[str, Any], path: Path = PLACE) -> None:
    """Replace the file in one step; it is on disk before this returns."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".placement-")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(placement, stream, sort_keys=True, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)


def newer(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return the one of two that counts."""
    return theirs if theirs["generation"] > mine["generation"] else mine


def seeded(mine: dict[str, Any], users: dict[str, str], known: dict[str, Any] | None) -> dict[str, Any]:
    """Return a placement with all users of the inventory in it: those that have a place keep it, others get the inventory's.

    Args:
        users: {name: store} of the inventory. Who is not in it has no place any more.
        known: what another host was told; it counts where this host was told nothing newer.
    """
    base = newer(mine, {**EMPTY, **known}) if known else mine
    places = {name: base["users"].get(name, store) for name, store in users.items()}
    said = {name: store for name, store in users.items() if places[name] != store}
    return {**base, "users": places, "said": said}


def followed() -> str:
    """Run whatever depends on the placement; return what that printed (`changed: …`).

    Raises:
        SystemExit: one failed; what it said is on standard error.
    """
    said = ""
    for program in sorted(FOLLOWERS.iterdir()) if FOLLOWERS.is_dir() else ():
        done = subprocess.run(["/usr/bin/python3", "-I", "-B", str(program)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"error: {program.name}: {(done.stderr or done.stdout).strip()[-500:]}")
        said += done.stdout
    return said


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Let one order at a time change anything."""
    with LOCK.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def put(placement: dict[str, Any]) -> bool:
    """Take a newer placement; return whether it was newer."""
    with locked():
        if newer(read(), placement) is not placement:
            return False
        write(placement)
    followed()
    return True


def main_encoded(order: str) -> int:
    """Entry point of the role: seed, and print what changed (`changed: …`)."""
    given = json.loads(base64.b64decode(order))
    try:
        before = read()
        if not before["users"] and given.get("alone") and not given.get("known"):
            raise ValueError(
                "this host was never told who is served where, and no other host of this run can say: users who were moved would be taken "
                "for where they were. Apply without --limit, or with one more store or relay"
            )
        wanted = seeded(before, given["users"], given.get("known") or None)
    except (OSError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    if wanted != before:
        print(f"changed: {PLACE}: {len(wanted['users'])} users in generation {wanted['generation']}")
        if not given["check"]:
            with locked():
                write(wanted)
    if not given["check"]:
        print(followed(), end="")
    return 0


def main() -> int:
    """Carry out one order of an operator's command."""
    order = json.loads(sys.stdin.readline())
    if order["action"] == "put":
        print(json.dumps({"taken": put(order["placement"]), "generation": read()["generation"]}))
    else:
        print(json.dumps(read()))
    return 0


if __name__ == "__main__" and Path(sys.argv[0]).name == "placement.py":
    sys.exit(main())
