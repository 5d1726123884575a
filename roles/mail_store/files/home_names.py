"""What a user has beside messages, by name: Sieve scripts, which of them is active, and attributes (METADATA, RFC 5464).

`doveadm backup` tells a copy that one of them was deleted only while the mailbox's log still holds the deletion. The log is written anew
now and then, and from then on a copy keeps what its original lost. So who makes a copy compares names, and takes the rest away.
A module of programs on a store. Standard library alone.
"""

import contextlib
import os
import shutil
from pathlib import Path

ACTIVE = ".dovecot.sieve"
SCRIPTS = "sieve"
ATTRIBUTES = "dovecot-attributes"
"""A dict of Dovecot's in a file: a line with the key, one with the value, in turn."""


def names(home: Path) -> set[str]:
    """Return what there is: `.dovecot.sieve` (one is active), `sieve/NAME.sieve`, `dovecot-attributes:KEY`; nothing where no home is."""
    found = {f"{ATTRIBUTES}:{key}" for key, _ in _pairs(home)}
    with contextlib.suppress(OSError):
        found |= {f"{SCRIPTS}/{each.name}" for each in os.scandir(home / SCRIPTS) if each.name.endswith(".sieve") and not each.is_dir()}
    return found | ({ACTIVE} if (home / ACTIVE).is_symlink() else set())


def remove(home: Path, gone: set[str]) -> None:
    """Take away what `names` called so in a home that is a copy: nobody else writes there meanwhile.

    Raises:
        OSError: it could not be done.
    """
    for name in gone - {each for each in gone if each.startswith(f"{ATTRIBUTES}:")}:
        (home / name).unlink(missing_ok=True)
    pairs = _pairs(home)
    left = [(key, value) for key, value in pairs if f"{ATTRIBUTES}:{key}" not in gone]
    if len(left) < len(pairs):
        path = home / ATTRIBUTES
        fresh = path.with_name(f"{ATTRIBUTES}.new")
        fresh.write_bytes("".join(f"{key}\n{value}\n" for key, value in left).encode("utf-8", "surrogateescape"))
        shutil.copymode(path, fresh)
        owner = path.stat()
        os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.replace(path)


def _pairs(home: Path) -> list[tuple[str, str]]:
    """Keys and values of the attributes, as they stand in the file."""
    with contextlib.suppress(OSError):
        rows = (home / ATTRIBUTES).read_bytes().decode("utf-8", "surrogateescape").split("\n")
        return list(zip(rows[::2], rows[1::2], strict=False))
    return []
