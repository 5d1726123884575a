"""Commands of doveadm's for a user's home, and what is done to a home that comes from a copy or a backup.

Clients may know more of such a mailbox than is here. A client takes a UID for the same message for ever (RFC 9051 section 2.3.1), and a
mod-sequence for the same change (RFC 7162 section 3.1.1). What was given between the copy and the loss is known to clients alone, so a
mailbox goes on far behind all that can have been.
A module of programs on a store. Standard library alone.
"""

import json
from collections.abc import Callable
from pathlib import Path

LEAP = 1_000_000
"""UIDs and mod-sequences left out: more than a mailbox gets between two backups, and a 4000th of all there are."""


def at(user: str, home: Path, *words: str) -> list[str]:
    """A command of doveadm's for a home, whoever's it is by now: the same Dovecot and settings, and nobody is asked where the home is."""
    form, command, rest = (words[:2], words[2], words[3:]) if words[0] == "-f" else ((), words[0], words[1:])
    return ["env", f"USER={user}", "doveadm", "-o", f"mail_home={home}", *form, *command.split(), "--no-userdb-lookup", *rest]


def leave_gap(user: str, home: Path, run: Callable[[list[str]], str]) -> int:
    """Leave numbers out in each mailbox of a home; return how many mailboxes that are.

    Args:
        run: runs a command as the owner of the mail, and returns what it printed.
    """
    rows = json.loads(run(at(user, home, "-f", "json", "mailbox status", "uidnext highestmodseq", "*")) or "[]")
    for row in rows:
        uid, change = int(row["uidnext"]) + LEAP, int(row["highestmodseq"]) + LEAP
        words = ("--min-next-uid", str(uid), "--min-highest-modseq", str(change), row["mailbox"])
        run(at(user, home, "mailbox update", *words))
    return len(rows)
