"""Keeps on a host what a site remembers of its operation: its stamp, and on seats the lock and the history (docs/decisions/0038).

Python's standard library. The text comes over standard input with the call of one of the functions whose names end in `_encoded`; each
takes an order as JSON, in base64, and returns the exit status.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import time
from pathlib import Path

STATE = Path("/var/lib/lemonstand")
RUN = Path("/run/lemonstand")
SUBSTANCE = ("version", "commit", "dirty", "layout", "inventory")
"""What a stamp says beside when and by whom: if this is so already, it stays as it is."""
LEASE_SECONDS = 600
"""How long a lock holds whose connection is gone. Ansible keeps an idle connection for 300 s."""
LONGEST_SECONDS = 6 * 3600
"""No run is longer, whatever its connection says."""
LINES = 500
LINE_OCTETS = 8192


def stamp_path():
    return STATE / "stamp.json"


def history_path():
    return STATE / "operations" / "history.jsonl"


def newest_path():
    return STATE / "operations" / "newest.json"


def lock_path():
    return RUN / "operation.json"


# --- files ---


def read(path):
    """A dictionary from a file; None if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(path, text, mode):
    """Puts a file in place in one step."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.parent == STATE / "operations":
        path.parent.chmod(0o700)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.chmod(mode)
    new.replace(path)


@contextlib.contextmanager
def alone():
    """Nobody else reads or changes the lock meanwhile."""
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(RUN / "operation.guard", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# --- stamp ---


def stamp(order, now):
    """Writes the stamp of a run that has come to its end here; lines of what changed, or would.

    The order's keys: `stamp` (what is to be said), `changes` (tasks of this run that changed this host), `check`; `told`: whether an auth
    host or store was reached, which remembers this run. A run that nobody could be told of gives way to the next one that somebody was.
    """
    wanted, known = order["stamp"], read(stamp_path())
    if wanted["dirty"]:
        yield "notice: this controller has changes that are in no commit; the stamp says {} and more".format(wanted["commit"][:12])
    differs = [key for key in SUBSTANCE if known is None or known.get(key) != wanted[key]]
    word = "would " if order.get("check") else ""
    told = order.get("told", True)
    forgotten = bool(known) and known.get("told") is False and told
    if forgotten and not differs:
        yield "changed: {}write {} (run {}, which nobody remembers -> {})".format(word, stamp_path(), known.get("run"), wanted["run"])
    if differs:
        says = ", ".join("{} {} -> {}".format(key, brief(known.get(key)) if known else "none", brief(wanted[key])) for key in differs)
        yield f"changed: {word}write {stamp_path()} ({says})"
    if (differs or forgotten or order.get("changes")) and not order.get("check"):
        text = json.dumps({**wanted, **({} if told else {"told": False}), "when": utc(now)}, sort_keys=True, indent=1) + "\n"
        write(stamp_path(), text, 0o644)


def brief(value):
    return value[:12] if isinstance(value, str) else str(value).lower()


def utc(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


# --- lock ---


def stat_of(process):
    return Path("/proc", str(process), "stat").read_text(encoding="ascii", errors="replace")


def started(process):
    """When a process started, in the kernel's ticks; None if there is none."""
    try:
        return int(stat_of(process).rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def connection():
    """The process of sshd by which this program came, and when that started; None if it came otherwise."""
    process = os.getpid()
    while process > 1:
        try:
            before, _, after = stat_of(process).rpartition(")")
        except OSError:
            return None
        if before.partition("(")[2].startswith("sshd"):
            return [process, started(process)]
        process = int(after.split()[1])
    return None


def holds(lock, order, now):
    """Whether a lock keeps whoever gives this order from going on.

    The order's keys: `id`, `controller` (tells machines apart), `living` (processes of that controller that may hold a lock).
    """
    if lock is None or lock.get("id") == order["id"]:
        return False
    if lock.get("controller") == order["controller"] and lock.get("process") not in order["living"]:
        return False
    touched = lock.get("touched")
    age = now - touched if isinstance(touched, int | float) else LONGEST_SECONDS
    sign = lock.get("sign")
    lives = isinstance(sign, list) and len(sign) == 2 and sign[1] is not None and started(sign[0]) == sign[1]
    # A clock that was set back makes no lock eternal.
    return -LEASE_SECONDS < age < (LONGEST_SECONDS if lives else LEASE_SECONDS)


def is_newer(known, order):
    """Whether what was here last is newer than the controller that gives this order: by layout, version, then the time of the commit."""
    if known is None or known.get("commit") == order["commit"] != "":
        return False
    theirs, ours = (int(known.get("layout") or 0), numbers(known.get("version"))), (order["layout"], numbers(order["version"]))
    if theirs != ours:
        return theirs > ours
    return bool(order["commit_time"]) and (known.get("commit_time") or 0) > order["commit_time"]


def numbers(version):
    """A version as numbers that can be compared; what is no number ends it."""
    found = []
    for part in str(version or "").split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return found


def begin(order, now):
    """Takes the lock and writes the first line of a run, unless somebody holds it or was newer; in check mode it only looks.

    The order's keys, beside those of `holds` and `is_newer`: `who`, `command`, `limit`, `process`, `lock` (false: of what waits for
    nobody), `older` (go back on purpose), `without` (seats that are done without), `trial` (nothing is going
    to be changed: the lock alone is tried), `check`.
    """
    with alone():
        known, lock = read(newest_path()), read(lock_path())
        held = lock if order["lock"] and holds(lock, order, now) else None
        ahead = is_newer(known, order) and not order.get("trial")
        newer = known if ahead and not order.get("older") else None
        if order.get("check") or held or newer:
            return {"held": public(held), "newer": newer}
        if order["lock"]:
            own = {key: order[key] for key in ("id", "who", "command", "limit", "controller", "process")}
            since = lock.get("since", now) if lock and lock.get("id") == order["id"] else now
            write(lock_path(), json.dumps({**own, "since": since, "touched": now, "sign": connection()}) + "\n", 0o644)
        code = {key: order[key] for key in ("version", "commit", "commit_time", "dirty", "layout")}
        if not order.get("trial") and (not known or any(known.get(key) != code[key] for key in code)):
            write(newest_path(), json.dumps({**code, "who": order["who"], "when": utc(now)}) + "\n", 0o600)
        line = {"event": "begin", "older": ahead, "without": order.get("without") or [], **code}
        append({**line, **{key: order[key] for key in ("id", "who", "command", "limit")}}, now)
        return {"held": None, "newer": None}


def public(lock):
    """What others are told of a lock."""
    return (
        None
        if lock is None
        else {**{key: lock.get(key) for key in ("who", "command", "limit", "id")}, "since": utc(lock.get("since") or 0)}
    )


def end(order, now):
    """Writes the last line of a run and gives its lock back. The order's keys: `id`, `result`, `hosts` ({host: tasks changed}), `failed`
    ({host: where}), `known` (only if the run has begun here), `check`."""
    if order.get("check"):
        return {}
    with alone():
        if order.get("known") and not any(f'"id": "{order["id"]}"' in line for line in lines()):
            return {"freed": False}
        lock = read(lock_path())
        mine = lock is not None and lock.get("id") == order["id"]
        if mine:
            lock_path().unlink(missing_ok=True)
        append({"event": "end", **{key: order[key] for key in ("id", "result", "hosts", "failed")}}, now)
    return {"freed": mine}


def free(order, now):
    """Takes the lock from whoever has it, if that is still who is meant. The order's keys: `id` (of the lock), `who`."""
    with alone():
        lock = read(lock_path())
        if lock is None or lock.get("id") != order["id"]:
            return {"freed": None}
        lock_path().unlink(missing_ok=True)
        append({"event": "freed", "id": order["id"], "by": order["who"]}, now)
    return {"freed": public(lock)}


# --- history ---


def lines():
    """The lines of the history as they are."""
    try:
        return history_path().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def append(event, now):
    """Adds a line; the oldest go where there are too many. A line that would be too long loses its details."""
    kept = lines()[-(LINES - 1) :]
    follows = digest(kept[-1]) if kept else ""
    text = json.dumps({"time": utc(now), **event, "follows": follows}, sort_keys=True)
    if len(text.encode()) > LINE_OCTETS:
        short = {key: value for key, value in event.items() if key not in {"hosts", "failed", "command", "limit"}}
        text = json.dumps({"time": utc(now), **short, "cut": True, "follows": follows}, sort_keys=True)
    write(history_path(), "\n".join([*kept, text]) + "\n", 0o600)


def digest(line):
    return hashlib.sha256(line.encode()).hexdigest()[:16]


def history():
    """The history, oldest first, and where a line was taken out, put in or changed: the times of the lines after such places."""
    found, broken, before = [], [], None
    for text in lines():
        try:
            event = json.loads(text)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            broken.append("a line that can't be read")
        else:
            if before is not None and event.get("follows") != digest(before):
                broken.append(str(event.get("time")))
            found.append(event)
        before = text
    return found, broken


def show(order, now):
    """All there is: stamp, lock (if it holds anybody up), newest, history."""
    events, broken = history()
    lock = read(lock_path())
    return {
        "stamp": read(stamp_path()),
        "lock": public(lock) if holds(lock, order, now) else None,
        "newest": read(newest_path()),
        "history": events,
        "broken": broken,
    }


# --- calls ---


def answer(function, packed):
    print(json.dumps(function(json.loads(base64.b64decode(packed)), time.time())))
    return 0


def begin_encoded(packed):
    return answer(begin, packed)


def end_encoded(packed):
    return answer(end, packed)


def free_encoded(packed):
    return answer(free, packed)


def show_encoded(packed):
    return answer(show, packed)


def stamp_encoded(packed):
    for line in stamp(json.loads(base64.b64decode(packed)), time.time()):
        print(line)
    return 0
