"""What a user has beside messages, by name: Sieve scripts, which of them is active, subscriptions, and attributes (METADATA, RFC 5464).

`doveadm backup` tells a copy that one of them was deleted only while Dovecot's log of the mailbox still holds the deletion. The log is
written anew now and then, and from then on a copy keeps what its original lost. So who makes a copy compares names, and takes the rest
away. A module of programs on a store. Standard library alone.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

ACTIVE = ".dovecot.sieve"
SCRIPTS = "sieve"
ATTRIBUTES = "dovecot-attributes"
"""A dict of Dovecot's in a file: a line with the key, one with the value, in turn."""
SUBSCRIPTIONS = "Maildir/subscriptions"
"""A line with the version, an empty one, then a mailbox a line."""
VERSION = "V\t"


def names(home: Path) -> set[str]:
    """Return what there is; nothing where no home is.

    `.dovecot.sieve` (one is active), `sieve/NAME.sieve`, `dovecot-attributes:KEY`, `Maildir/subscriptions:MAILBOX`.
    """
    found = {f"{ATTRIBUTES}:{key}" for key in _lines(home / ATTRIBUTES)[::2] if key}
    found |= {f"{SUBSCRIPTIONS}:{name}" for name in _lines(home / SUBSCRIPTIONS) if _is_mailbox(name)}
    with contextlib.suppress(OSError):
        found |= {f"{SCRIPTS}/{each.name}" for each in os.scandir(home / SCRIPTS) if each.name.endswith(".sieve") and not each.is_dir()}
    return found | ({ACTIVE} if (home / ACTIVE).is_symlink() else set())


def remove(home: Path, gone: set[str]) -> None:
    """Take away what `names` called so in a home that is a copy: nobody else writes there meanwhile.

    Raises:
        OSError: it could not be done.
    """
    for name in gone:
        if name == ACTIVE or name.startswith(f"{SCRIPTS}/"):
            (home / name).unlink(missing_ok=True)
    _leave(home / SUBSCRIPTIONS, 1, lambda name: not _is_mailbox(name) or f"{SUBSCRIPTIONS}:{name}" not in gone)
    _leave(home / ATTRIBUTES, 2, lambda key: f"{ATTRIBUTES}:{key}" not in gone)


def _is_mailbox(line: str) -> bool:
    return bool(line) and not line.startswith(VERSION)


def _lines(path: Path) -> list[str]:
    """The lines of a file; none without one."""
    with contextlib.suppress(OSError):
        return path.read_bytes().decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
    return []


def _leave(path: Path, size: int, stays: Callable[[str], bool]) -> None:
    """Write a file anew with those records that stay, each of so many lines; the first of them is its name."""
    lines = _lines(path)
    records = [lines[begin : begin + size] for begin in range(0, len(lines), size)]
    left = [record for record in records if stays(record[0])]
    if len(left) == len(records):
        return
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes("".join(f"{line}\n" for record in left for line in record).encode("utf-8", "surrogateescape"))
    shutil.copymode(path, fresh)
    owner = path.stat()
    os.chown(fresh, owner.st_uid, owner.st_gid)
    fresh.replace(path)
