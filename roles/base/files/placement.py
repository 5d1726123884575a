"""Which store has which user, by which addresses, and which member of a store's pair serves: what this host was told last.

For frontends the directory is the truth; hosts that hold mail or hand it over have this copy, which no inventory undoes
(docs/decisions/0036 and 0041):

    {"generation": 7, "active": {"store1": {"host": "standby1", "since": 7}},
     "edition": 12, "users": {"a@x.org": "store2"}, "aliases": {"b@x.org": "a@x.org"}, "ids": {}, "quotas": {"a@x.org": 1048576},
     "locked": [], "said": {"a@x.org": "store1"}}

A store goes by its name in the inventory, whichever member serves; one that is not in `active` is served by the host of that name.
`generation` counts changes of who serves, `edition` those of the people; of each half a newer one replaces an older one whole, never the
other way round. `ids` are of users who had another name before, or whose name was another's; all others go by their names. `quotas` are
octets of users who may keep more or less than the site says. `said` is what the inventory said of each of its users when it was last
heard: it seeds each name once. Whoever depends on it has a program in `placement.d`, which is run after each change. Orders are JSON on
standard input, answers on standard output. The standard library is all it needs.
"""

import base64
import contextlib
import fcntl
import hashlib
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
BEFORE = -1
"""The edition of a host that was told nothing of people, or by a version that kept no aliases here."""
WHO_SERVES = ("generation", "active", "sealed")
TABLES = ("users", "aliases", "ids", "quotas")
PEOPLE: dict[str, Any] = {**{kind: {} for kind in TABLES}, "locked": []}
EMPTY: dict[str, Any] = {"generation": 0, "active": {}, "edition": BEFORE, **PEOPLE, "said": {}}


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


def merged(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return what counts of two: who serves and who there is each have a number of their own."""
    other = {**EMPTY, **theirs}
    serving = other if other["generation"] > mine["generation"] else mine
    people = other if (other["edition"], other["generation"]) > (mine["edition"], mine["generation"]) else mine
    return {**people, **{key: serving[key] for key in WHO_SERVES if key in serving}}


def digest(placement: dict[str, Any]) -> str:
    """Return a hash over the people: two hosts with the same one know of the same people."""
    text = json.dumps({key: placement[key] for key in PEOPLE}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def summary(placement: dict[str, Any]) -> dict[str, Any]:
    """Return how far this host was told, without naming all users."""
    counts: dict[str, int] = {}
    for store in placement["users"].values():
        counts[store] = counts.get(store, 0) + 1
    told = {key: placement[key] for key in ("generation", "active", "edition")}
    return {**told, "digest": digest(placement), "counts": counts}


def seeded(mine: dict[str, Any], users: dict[str, str], aliases: dict[str, str], known: dict[str, Any] | None) -> dict[str, Any]:
    """Return a placement with the users of the inventory in it who are new to it. All others are where commands put them, or gone.

    Args:
        users: {name: store} of the inventory.
        aliases: {address: name} of the inventory.
        known: what another host was told; it counts where this host was told nothing newer.
    """
    base = merged(mine, known) if known else mine
    # A version that kept no aliases here took all of them from the inventory.
    new = {name for name in users if name not in base["said"] and name not in base["users"] and name not in base["aliases"]}
    heard = new if base["edition"] > BEFORE else new | set(base["users"])
    places = {**base["users"], **{name: users[name] for name in new}}
    own = {alias: name for alias, name in aliases.items() if name in heard and alias not in places and alias not in base["aliases"]}
    edition = max(base["edition"], 0)
    return {**base, "edition": edition, "users": places, "aliases": {**base["aliases"], **own}, "said": {**base["said"], **users}}


def changed(mine: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Return the placement after some changes of people: of each kind {key: value}, where null takes the key away."""
    after = {**mine, "edition": int(order["edition"])}
    for kind in TABLES:
        both = {**mine[kind], **order.get(kind, {})}
        after[kind] = {key: value for key, value in both.items() if value is not None}
    locked = {**dict.fromkeys(mine["locked"], True), **order.get("locked", {})}
    after["locked"] = sorted(name for name, yes in locked.items() if yes)
    return after


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
    """Take a newer placement; return whether anything of it was newer."""
    with locked():
        before = read()
        after = merged(before, placement)
        if after == before:
            return False
        write(after)
    followed()
    return True


def take_people(order: dict[str, Any]) -> dict[str, Any]:
    """Take people: all of them (`all`), or what changed since an edition this host has (`since`, `digest`).

    Returns:
        The new summary, or with `behind` the old one, of a host that has to be told all.
    """
    with locked():
        before = read()
        if before["edition"] > int(order["edition"]):
            return {**summary(before), "behind": False}
        if "all" in order:
            after = {**before, **PEOPLE, **order["all"], "edition": int(order["edition"])}
        elif before["edition"] == order["since"] and digest(before) == order["digest"]:
            after = changed(before, order)
        else:
            return {**summary(before), "behind": True}
        if after != before:
            write(after)
    # Also if nothing is new: what was cut off the last time is done now.
    followed()
    return {**summary(after), "behind": False}


def main_encoded(order: str) -> int:
    """Entry point of the role: seed, and print what changed (`changed: …`)."""
    given = json.loads(base64.b64decode(order))
    try:
        before = read()
        if not before["users"] and given.get("alone") and not given.get("known"):
            raise ValueError(
                "this host was never told who there is and who is served where, and no other host of this run can say: users who were "
                "moved or deleted would be taken for where they were. Apply without --limit, or with one more store or relay"
            )
        wanted = seeded(before, given["users"], given.get("aliases") or {}, given.get("known") or None)
    except (OSError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    if wanted != before:
        print(f"changed: {PLACE}: {len(wanted['users'])} users in generation {wanted['generation']}, edition {wanted['edition']}")
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
        answer = {"taken": put(order["placement"]), "generation": read()["generation"]}
    elif order["action"] == "people":
        answer = take_people(order)
    elif order["action"] == "summary":
        answer = summary(read())
    else:
        answer = read()
    print(json.dumps(answer))
    return 0


if __name__ == "__main__" and Path(sys.argv[0]).name == "placement.py":
    sys.exit(main())
