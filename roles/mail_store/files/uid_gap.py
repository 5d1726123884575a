"""Leaves numbers out in mailboxes of which clients may know more than is here: what comes from a copy or a backup.

A client takes a UID for the same message for ever (RFC 9051 section 2.3.1), and a mod-sequence for the same change (RFC 7162 section
3.1.1). What was given between the copy and the loss is known to clients alone, so a mailbox goes on far behind all that can have been.
A module of programs on a store. Standard library alone.
"""

import json
from collections.abc import Callable

LEAP = 1_000_000
"""UIDs and mod-sequences left out: more than a mailbox gets between two backups, and a 4000th of all there are."""


def leave(doveadm: Callable[..., str]) -> int:
    """Leave numbers out in each mailbox of a user; return how many mailboxes that are.

    Args:
        doveadm: runs a command of doveadm's for the user, given as `mailbox status` and arguments, after `-f json` where that is wanted.
    """
    rows = json.loads(doveadm("-f", "json", "mailbox status", "uidnext highestmodseq", "*") or "[]")
    for row in rows:
        uid, change = int(row["uidnext"]) + LEAP, int(row["highestmodseq"]) + LEAP
        doveadm("mailbox update", "--min-next-uid", str(uid), "--min-highest-modseq", str(change), row["mailbox"])
    return len(rows)
