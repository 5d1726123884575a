"""What a service says of itself at each stage, from wherever it is asked, and whether each word of it is true."""

from __future__ import annotations

import re
import secrets
from typing import Any

from lemonstand.probes.clients import delivery, tickets
from lemonstand.probes.clients.tickets import InnerServices
from lemonstand.probes.protocols.imap import Imap, announced
from lemonstand.probes.protocols.messages import message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint, Wire, context

IMAP_WORDS: dict[str, tuple[str, str]] = {
    "ID": ("ID NIL", r"^ID "),
    "CHILDREN": ('LIST "" "*"', r"\\Has(No)?Children"),
    "LIST-EXTENDED": ('LIST (SUBSCRIBED) "" "*" RETURN (CHILDREN)', ""),
    "LIST-STATUS": ('LIST "" INBOX RETURN (STATUS (MESSAGES))', r"^STATUS "),
    "SPECIAL-USE": ('LIST (SPECIAL-USE) "" "*"', r"\\(Sent|Drafts|Trash|Junk)"),
    "STATUS=SIZE": ("STATUS {box} (SIZE)", r"SIZE \d+"),
    "SORT=DISPLAY": ("SORT (DISPLAYFROM) UTF-8 ALL", r"^SORT"),
    "THREAD=REFERENCES": ("THREAD REFERENCES UTF-8 ALL", r"^THREAD"),
    "THREAD=REFS": ("THREAD REFS UTF-8 ALL", r"^THREAD"),
    "THREAD=ORDEREDSUBJECT": ("THREAD ORDEREDSUBJECT UTF-8 ALL", r"^THREAD"),
    "SEARCHRES": ("SEARCH RETURN (SAVE) ALL", ""),
    "WITHIN": ("SEARCH YOUNGER 100000000", r"^SEARCH"),
    "SAVEDATE": ("FETCH 1 (SAVEDATE)", r"SAVEDATE "),
    "PREVIEW": ("FETCH 1 (PREVIEW)", r"PREVIEW "),
    "PREVIEW=FUZZY": ("FETCH 1 (PREVIEW (FUZZY))", r"PREVIEW "),
    "SNIPPET=FUZZY": ("FETCH 1 (SNIPPET (FUZZY))", r"SNIPPET "),
    "METADATA": ("GETMETADATA INBOX /private/comment", r"^METADATA"),
    "CONVERT": ("CONVERSIONS text/plain text/html", ""),
    "ACL": ("GETACL INBOX", r"^ACL"),
    "QUOTA": ("GETQUOTAROOT INBOX", r"^QUOTAROOT"),
    "OBJECTID": ("FETCH 1 (EMAILID)", r"EMAILID"),
    "MOVE": ("MOVE 1 {box}", ""),
    "UNSELECT": ("UNSELECT", ""),
    "UTF8=ACCEPT": ("ENABLE UTF8=ACCEPT", r"^ENABLED .*UTF8=ACCEPT"),
    "UNAUTHENTICATE": ("UNAUTHENTICATE", ""),
}
"""A command that only an extension makes succeed, and what its answer then holds; in an order in which each still finds what it needs."""
SMTP_WORDS: dict[str, str] = {
    "SIZE": "MAIL FROM:<{user}> SIZE=1000",
    "8BITMIME": "MAIL FROM:<{user}> BODY=8BITMIME",
    "BINARYMIME": "MAIL FROM:<{user}> BODY=BINARYMIME",
    "DSN": "MAIL FROM:<{user}> RET=HDRS",
    "SMTPUTF8": "MAIL FROM:<{user}> SMTPUTF8",
    "DELIVERBY": "MAIL FROM:<{user}> BY=3600;R",
    "FUTURERELEASE": "MAIL FROM:<{user}> HOLDFOR=60",
    "MT-PRIORITY": "MAIL FROM:<{user}> MT-PRIORITY=3",
    "VRFY": 'VRFY "{user}"',
    "EXPN": "EXPN staff",
    "ETRN": "ETRN example.invalid",
    "XCLIENT": "XCLIENT NAME=mail.invalid",
    "XFORWARD": "XFORWARD NAME=mail.invalid",
    "ATRN": "ATRN",
    "TURN": "TURN",
}
"""A command, or a parameter of one, that only a keyword of EHLO makes succeed."""
NOT_THERE = {500, 501, 502, 504, 555}
"""Replies that say: no such command or parameter (RFC 5321 section 4.2.4)."""


def stages(endpoint: Endpoint, account: Account) -> dict[str, Any]:
    """What 143 and 587 say before TLS, behind it, and after a login.

    Returns:
        `imap` and `submission`, each with `greeting`, `before TLS`, `behind TLS` and `after login`: sorted words (with their parameters).
    """
    imap = Imap(Wire.to(endpoint, 143))
    seen: dict[str, Any] = {"greeting": imap.greeting, "before TLS": imap.capabilities()}
    seen["told in the greeting"] = announced(imap.greeting)
    imap.command("STARTTLS")
    imap.wire.starttls(context(endpoint["ca"]), endpoint["name"])
    seen["behind TLS"] = imap.capabilities()
    login = imap.plain(account)
    seen["told after login"], seen["after login"] = announced(login.text), imap.capabilities() if login.ok else []
    imap.quit()
    smtp = Smtp(Wire.to(endpoint, 587))
    said: dict[str, Any] = {"greeting": smtp.greeting.text, "before TLS": _words(smtp)}
    smtp.command("STARTTLS")
    smtp.wire.starttls(context(endpoint["ca"]), endpoint["name"])
    said["behind TLS"] = _words(smtp)
    said["after login"] = _words(smtp) if smtp.plain(account).code == 235 else []
    smtp.quit()
    return {"imap": seen, "submission": said}


def store_stages(inner_services: InnerServices, account: Account) -> dict[str, Any]:
    """The same of a store, asked by a frontend with the account's own ticket."""
    imap = Imap(Wire(inner_services["store_address"], 143))
    seen: dict[str, Any] = {"greeting": imap.greeting, "before TLS": imap.capabilities()}
    imap.quit()
    session = tickets.imap_by_ticket(inner_services, account)
    seen["after login"] = session.capabilities()
    session.quit()
    smtp = Smtp(Wire(inner_services["store_address"], 587))
    said: dict[str, Any] = {"greeting": smtp.greeting.text, "before TLS": _words(smtp)}
    smtp.quit()
    submitting = tickets.submission_by_ticket(inner_services, account)
    said["after login"] = _words(submitting)
    submitting.quit()
    return {"imap": seen, "submission": said}


def truth(endpoint: Endpoint, account: Account) -> dict[str, Any]:
    """Tries what is announced and what is not, one command each, in a mailbox made for it and removed afterwards.

    Returns:
        `imap` and `submission`: word to `[announced, works, answer]`.
    """
    session = Imap.open(endpoint, account)
    box = f"probe-{secrets.token_hex(6)}"
    user = account["user"]
    found: dict[str, list[Any]] = {}
    try:
        session.command("CREATE", box)
        words = set(session.capabilities())
        delivery.append(session, box, message(user, user))
        session.command("SELECT", box)
        for word, (command, pattern) in IMAP_WORDS.items():
            answer = session.command(command.format(box=box))
            shown = [line.decode("utf-8", "replace")[:80] for line in answer.untagged]
            works = answer.ok and (not pattern or any(re.search(pattern, line) for line in shown))
            found[word] = [word in words, works, f"{answer.status} {answer.text}"[:120]]
            if answer.status == "BYE":
                break
    finally:
        cleaning = Imap.open(endpoint, account)
        cleaning.command("DELETE", box)
        cleaning.quit()
        session.quit()
    smtp = Smtp.open(endpoint, account)
    said: dict[str, list[Any]] = {}
    for word, command in SMTP_WORDS.items():
        reply = smtp.command(command.format(user=user))
        works = reply.code not in NOT_THERE and reply.code != 0
        if word == "VRFY" and reply.code == 252:
            works = word in smtp.keywords  # "can't say" is an answer that every server may give, announced or not (RFC 5321 section 3.5.3)
        said[word] = [word in smtp.keywords, works, f"{reply.code} {reply.text}"[:120]]
        if reply.code == 0:
            smtp = Smtp.open(endpoint, account)
        smtp.command("RSET")
    smtp.quit()
    return {"imap": found, "submission": said}


def _words(session: Smtp) -> list[str]:
    return sorted(f"{word} {value}".strip() for word, value in session.ehlo().items())
