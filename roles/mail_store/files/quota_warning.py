#!/usr/bin/python3 -ISB
"""Tells a user by mail that his mailbox fills up. Dovecot starts it each time he passes a mark on the way up (OPS-11).

    quota_warning.py PERCENT USER

Standard library alone.
"""

import subprocess
import sys
import time
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

DELIVER = ("/usr/lib/dovecot/dovecot-lda", "-f", "", "-o", "quota_enforce=no", "-d")
"""Dovecot's own delivery, Sieve included, which this once does not look at the quota: the message that passed a mark may have filled it."""
SECONDS = 60
TEXT = """\
Your mailbox {user} is {percent} % full, or more.

When it is full, new mail for you is refused until there is room again:
people who write to you are told to try later, and after some days that
their mail could not be delivered. Nothing you have is removed.

To make room, delete what you no longer need, large attachments first,
and empty the trash.
"""


def warning(percent: str, user: str, now: float) -> EmailMessage:
    """Return the message: from the postmaster of the user's own domain, marked so that nothing answers it (RFC 3834 section 5)."""
    domain = user.rpartition("@")[2]
    message = EmailMessage()
    message["From"] = f"postmaster@{domain}"
    message["To"] = user
    message["Subject"] = f"Your mailbox is {percent} % full"
    message["Date"] = formatdate(now)
    message["Message-ID"] = make_msgid(domain=domain)
    message["Auto-Submitted"] = "auto-generated"
    message["Precedence"] = "bulk"
    message.set_content(TEXT.format(percent=percent, user=user))
    return message


def main(words: list[str]) -> int:
    """Deliver the warning; exit status 1 where it could not be."""
    percent, user = words[:2]
    message = warning(percent, user, time.time()).as_bytes()
    try:
        done = subprocess.run([*DELIVER, user], input=message, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        fault = f"no end after {SECONDS} s"
    else:
        fault = done.stderr.decode("utf-8", "replace").strip() or f"exit status {done.returncode}" if done.returncode else ""
    if fault:
        print(f"{user}: not told that his mailbox is {percent} % full: {fault}", file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
