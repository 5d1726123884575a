"""One user under every spelling of his name: logins, envelopes and URLs typed in another case, and names with marks in them."""

from __future__ import annotations

import secrets
from typing import Any

from lemonstand.probes.clients import delivery
from lemonstand.probes.clients.forward import ARRIVAL_SECONDS, burl, fetched, genurlauth
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.messages import message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint


def retyped(name: str) -> str:
    """A name as telephones type it: each word with a capital letter, and the host in capitals."""
    local, _, domain = name.partition("@")
    return f"{local.title()}@{domain.upper()}" if local.title() != local else f"{local}@{domain.upper()}"


def spellings(endpoint: Endpoint, owner: Account, other: Account) -> dict[str, Any]:
    """Uses an account under its name and under the name as it was typed, and tries the other account on URLs made that way.

    Returns:
        `typed`: the name used; by case `{code, text}` of submission or `{got, status, text}` of URLFETCH; `arrived`: by case the
        seconds until a message came, None if it did not.
    """
    user, typed = owner["user"], retyped(owner["user"])
    local, _, domain = typed.partition("@")
    as_typed: Account = {**owner, "user": typed}
    mailbox = f"probe-{secrets.token_hex(6)}"
    session, session_typed = Imap.open(endpoint, owner), Imap.open(endpoint, as_typed)
    smtp, smtp_typed, theirs = Smtp.open(endpoint, owner), Smtp.open(endpoint, as_typed), Smtp.open(endpoint, other)
    foreign = Imap.open(endpoint, other)
    seen: dict[str, Any] = {"typed": typed}
    sent: dict[str, str] = {}
    try:
        session.command("CREATE", mailbox)
        sample = message(user, user)
        stored = delivery.append(session, mailbox, sample)
        submit = genurlauth(session_typed, endpoint["name"], typed, stored, f"submit+{typed}")
        own = genurlauth(session_typed, endpoint["name"], typed, stored, f"user+{typed}")
        plain = genurlauth(session, endpoint["name"], user, stored, f"submit+{user}")
        for case, (way, url) in {
            "typed URL, typed login": (smtp_typed, submit),
            "typed URL, plain login": (smtp, submit),
            "plain URL, typed login": (smtp_typed, plain),
        }.items():
            seen[case] = burl(way, user, user, url).plain()
        seen["fetched by the typed login"] = fetched(session_typed, own)
        seen["fetched by the plain login"] = fetched(session, own)
        # What a URL in another case must not open: it goes another way through the store than one in the user's own.
        shared = genurlauth(session_typed, endpoint["name"], typed, stored, f"user+{other['user']}")
        third = genurlauth(session_typed, endpoint["name"], typed, stored, f"user+nobody-at-all@{domain}")
        seen["other user fetches it"] = fetched(foreign, own)
        seen["other user fetches what is his"] = fetched(foreign, shared)
        seen["other user fetches a third one's"] = fetched(foreign, third)
        seen["other user submits it"] = burl(theirs, other["user"], other["user"], submit).plain()
        for case, (sender, recipient) in {
            "sender as typed": (typed, user),
            "recipient as typed": (user, typed),
            "tag as typed": (user, f"{local}+Some.Tag@{domain}"),
        }.items():
            letter = message(sender, recipient)
            reply = smtp_typed.envelope(sender, [recipient])
            seen[case] = (smtp_typed.data(letter.data) if reply.ok else reply).plain()
            sent[case] = letter.ident
        seen["arrived"] = {
            case: delivery.wait_in(session_typed, ident, ARRIVAL_SECONDS)["seconds"]
            for case, ident in sent.items()
            if seen[case]["code"] == 250
        }
    finally:
        session.command("SELECT INBOX")
        session.command("UNSELECT")
        session.command("DELETE", mailbox)
        for each in (session, session_typed, foreign, smtp, smtp_typed, theirs):
            each.quit()
    return seen


def marked(endpoint: Endpoint, owner: Account, other: Account) -> dict[str, Any]:
    """Sends mail from and to an account whose name holds marks, plainly, with a tag, and by URL.

    Returns:
        By case `{code, text}`; `fetched`: see URLFETCH; `arrived`: by case the seconds until a message came, None if it did not.
    """
    user = owner["user"]
    local, _, domain = user.partition("@")
    mailbox = f"probe-{secrets.token_hex(6)}"
    session, mine, theirs = Imap.open(endpoint, owner), Smtp.open(endpoint, owner), Smtp.open(endpoint, other)
    seen: dict[str, Any] = {}
    sent: dict[str, str] = {}
    try:
        session.command("CREATE", mailbox)
        stored = delivery.append(session, mailbox, message(user, user))
        for case, (way, sender, recipient) in {
            "from it to itself": (mine, user, user),
            "to it from another": (theirs, other["user"], user),
            "to it with a tag": (theirs, other["user"], f"{local}+tag@{domain}"),
        }.items():
            letter = message(sender, recipient)
            reply = way.envelope(sender, [recipient])
            seen[case] = (way.data(letter.data) if reply.ok else reply).plain()
            sent[case] = letter.ident
        seen["by URL"] = burl(mine, user, user, genurlauth(session, endpoint["name"], user, stored, f"submit+{user}")).plain()
        seen["fetched"] = fetched(session, genurlauth(session, endpoint["name"], user, stored, f"user+{user}"))
        seen["arrived"] = {
            case: delivery.wait_in(session, ident, ARRIVAL_SECONDS)["seconds"] for case, ident in sent.items() if seen[case]["code"] == 250
        }
    finally:
        session.command("UNSELECT")
        session.command("DELETE", mailbox)
        for each in (session, mine, theirs):
            each.quit()
    return seen


def incoming(endpoint: Endpoint, *, sender: str, recipients: list[str]) -> dict[str, Any]:
    """Delivers a message to each recipient at an MX, as any host of the Internet may.

    Returns:
        By recipient `{code, text, ident}`.
    """
    session = Smtp.open(endpoint, port=25)
    seen: dict[str, Any] = {}
    for recipient in recipients:
        letter = message(sender, recipient)
        reply = session.envelope(sender, [recipient])
        seen[recipient] = {**(session.data(letter.data) if reply.ok else reply).plain(), "ident": letter.ident}
        session.command("RSET")
    session.quit()
    return seen
