"""What users and their Sieve scripts send: receipts, replies, mail sent on; and commands as clients in the field write them."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lemonstand.probes.clients.delivery import wait_in
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.messages import ident, message
from lemonstand.probes.protocols.sieve import Sieve
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint, Wire

FINDER = "X-Lemonstand-Probe"
"""The header field by which a message without a Message-ID is found."""
TOLERATED = {
    "a blank before the sender": "MAIL FROM: <{user}>",
    "several blanks before the sender": "MAIL FROM:   <{user}>",
    "a tab before the sender": "MAIL FROM:\t<{user}>",
    "a sender without brackets": "MAIL FROM:{user}",
    "small letters": "mail from:<{user}>",
    "small letters and a blank": "mail from: <{user}> body=8bitmime",
    "AUTH=<>": "MAIL FROM:<{user}> AUTH=<>",
    "a blank and AUTH=": "MAIL FROM: <{user}> AUTH={user}",
    "a blank before SIZE": "MAIL FROM: <{user}> SIZE=1000",
}
"""MAIL as clients in the field write it; RCPT follows in the same manner."""
POLL_SECONDS = 0.2


def odd_commands(endpoint: Endpoint, account: Account, recipient: str) -> dict[str, Any]:
    """MAIL and RCPT written as `TOLERATED`, and VRFY; nothing is sent.

    Returns:
        `mail`, `rcpt`: the reply by name; `vrfy`: what is said of a user, of nobody and without a name; `announced`: whether EHLO names it.
    """
    session = Smtp.open(endpoint, account)
    seen: dict[str, Any] = {"mail": {}, "rcpt": {}, "announced": "VRFY" in session.keywords}
    for name, line in TOLERATED.items():
        seen["mail"][name] = session.command(line.format(user=account["user"])).plain()
        after = line.split(" ")[0] + " " + line.split(" ", 1)[1]
        sent = after.replace("MAIL FROM", "RCPT TO").replace("mail from", "rcpt to").partition(">")[0]
        sent = sent.format(user=recipient) + (">" if "<" in sent else "")
        seen["rcpt"][name] = session.command(sent).plain()
        session.command("RSET")
    domain = account["user"].partition("@")[2]
    seen["vrfy"] = {
        name: session.command(line).plain()
        for name, line in {
            "a user": f"VRFY {recipient}",
            "a user in brackets": f"VRFY <{recipient}>",
            "nobody": f"VRFY nobody-{secrets.token_hex(4)}@{domain}",
        }.items()
    }
    session.quit()
    return {**seen, "transcript": session.wire.transcript}


def bare(
    endpoint: Endpoint, account: Account, recipient: str, lacking: list[str], *, null: bool = False, headers: str = ""
) -> dict[str, Any]:
    """Submits a message that lacks header fields.

    Args:
        lacking: names of fields among From, To, Date, Message-ID.
        null: with the null sender, as a read receipt.
        headers: further lines, each with its end.

    Returns:
        the reply, and `ident` by which the field `FINDER` holds it.
    """
    name = ident()
    fields = {
        "From": f"<{account['user']}>", "To": f"<{recipient}>", "Subject": "lemonstand probe",
        "Date": "Wed, 25 Nov 2026 10:00:00 +0000", "Message-ID": f"<{name}>",
    }  # fmt: skip
    head = "".join(f"{key}: {value}\r\n" for key, value in fields.items() if key not in lacking) + f"{FINDER}: {name}\r\n{headers}"
    session = Smtp.open(endpoint, account)
    reply = session.envelope("" if null else account["user"], [recipient])
    if reply.ok:
        reply = session.data(f"{head}\r\nThis message may be deleted.\r\n".encode())
    session.quit()
    return {**reply.plain(), "ident": name, "transcript": session.wire.transcript}


def written_as(endpoint: Endpoint, account: Account, recipient: str, author: str) -> dict[str, Any]:
    """Submits a message whose From names somebody else than the account; the envelope's sender is the account's own."""
    sample = message(author, recipient)
    session = Smtp.open(endpoint, account)
    reply = session.envelope(account["user"], [recipient])
    if reply.ok:
        reply = session.data(sample.data)
    session.quit()
    return {**reply.plain(), "ident": sample.ident}


def forged_author(
    endpoint: Endpoint, mx: Endpoint, account: Account, *, author: str, sender: str, outside: str, within: float
) -> dict[str, Any]:
    """Brings a message to the MX, as anybody may, whose From names an author of the site; a script of the account's sends it on as well.

    Args:
        author: who stands in From.
        sender: an address outside, of the envelope.
        outside: where the script sends it; empty: there is no script.
        within: seconds it may take to the account's mailbox.

    Returns:
        the reply, `ident`, and `header` as it lies in the mailbox (empty: it did not come).
    """
    sample = message(author, account["user"], subject=f"forged {secrets.token_hex(8)}")
    text = f'require ["copy"];\r\nif header :is "Message-ID" "<{sample.ident}>" {{ redirect :copy "{outside}"; }}\r\n'
    with _script(endpoint, account, text) if outside else contextlib.nullcontext():
        session = Smtp(Wire.to(mx, 25))
        session.ehlo()
        reply = session.envelope(sender, [account["user"]])
        if reply.ok:
            reply = session.data(sample.data)
        session.quit()
        inbox = Imap.open(endpoint, account)
        got = wait_in(inbox, sample.ident, within)
        inbox.quit()
    return {**reply.plain(), "ident": sample.ident, "header": got.get("header", "")}


def receipts_to_many(endpoint: Endpoint, account: Account, recipients: list[str]) -> dict[str, Any]:
    """The null sender with several recipients, which no receipt has (RFC 8098 section 3): the last reply, which should be a refusal."""
    session = Smtp.open(endpoint, account)
    reply = session.envelope("", recipients)
    if reply.ok:
        reply = session.data(message(account["user"], recipients[0]).data)
    session.quit()
    return reply.plain()


def to_tags(endpoint: Endpoint, account: Account, recipient: str, count: int) -> dict[str, Any]:
    """One message to many tagged addresses of one user: the reply, and its `ident`."""
    local, _, domain = recipient.partition("@")
    session = Smtp.open(endpoint, account)
    sample = message(account["user"], recipient)
    reply = session.envelope(account["user"], [f"{local}+tag{number}@{domain}" for number in range(count)])
    if reply.ok:
        reply = session.data(sample.data)
    session.quit()
    return {**reply.plain(), "ident": sample.ident}


def copies(endpoint: Endpoint, account: Account, name: str, count: int, within: float) -> dict[str, Any]:
    """Waits for several copies of one message in INBOX and removes them; `copies` that came within `within` seconds."""
    session = Imap.open(endpoint, account)
    until = time.monotonic() + within
    numbers: list[str] = []
    try:
        session.command("SELECT INBOX")
        while time.monotonic() < until and len(numbers) < count:
            found = session.command(f'UID SEARCH HEADER Message-ID "{name}"').lines("SEARCH")
            numbers = found[0].split()[1:] if found else []
            if len(numbers) < count:
                time.sleep(POLL_SECONDS)
                session.command("NOOP")
        if numbers:
            session.command(f"UID STORE {','.join(numbers)} +FLAGS.SILENT (\\Deleted)")
            session.command(f"UID EXPUNGE {','.join(numbers)}")
    finally:
        session.quit()
    return {"copies": len(numbers)}


@contextlib.contextmanager
def _script(endpoint: Endpoint, account: Account, text: str) -> Iterator[dict[str, Any]]:
    """A script in force within the block, and none after it."""
    name = f"probe-{secrets.token_hex(4)}"
    session = Sieve.open(endpoint, account)
    try:
        put = session.put(name, text)
        active = session.command(f'SETACTIVE "{name}"')
        session.quit()
        yield {"offered": session.offered, "put": put, "active": active}
    finally:
        cleaning = Sieve.open(endpoint, account)
        cleaning.command('SETACTIVE ""')
        cleaning.command(f'DELETESCRIPT "{name}"')
        cleaning.quit()


def script_for(offered: list[str], mailbox: str, inside: str, outside: str) -> str:
    """A script with each action that is offered, told apart by the subject of the message."""
    known = [word for word in offered if not word.startswith(("comparator-", "vnd."))]
    lines = [f"require [{', '.join(chr(34) + word + chr(34) for word in known)}];"]

    def when(action: str, body: str) -> None:
        lines.append(f'if header :is "subject" "{action}" {{ {body} stop; }}')

    when("keep", "keep;")
    when("discard", "discard;")
    if "fileinto" in known:
        when("fileinto", f'fileinto {":create " if "mailbox" in known else ""}"{mailbox}";')
    if "imap4flags" in known:
        when("flag", 'setflag "\\\\Flagged"; addflag "$Forwarded"; keep;')
    when("redirect", f'redirect "{inside}";')
    when("redirect outside", f'redirect "{outside}";')
    if "copy" in known:
        when("copy", f'redirect :copy "{inside}";')
    if "reject" in known:
        when("reject", 'reject "not wanted";')
    if "vacation" in known:
        when("vacation", f'vacation :days 1 :handle "{secrets.token_hex(8)}" :subject "Away" "I am away until Monday.";')
    if "enotify" in known:
        when("notify", f'notify :message "lemonstand {mailbox}" "mailto:{inside}"; keep;')
    if "editheader" in known:
        when("editheader", 'addheader "X-Added" "yes"; keep;')
    when("redirect nowhere", f'redirect "nobody-{secrets.token_hex(4)}@{inside.partition("@")[2]}";')
    return "\r\n".join(lines) + "\r\n"


def sieve_actions(
    endpoint: Endpoint, account: Account, other: Account, outside: str, *, aliases: list[str], within: float
) -> dict[str, Any]:
    """Each action of Sieve that ManageSieve offers, from the script to its effect.

    Args:
        account: whose script it is.
        other: who writes to him, and to whom messages are sent on.
        outside: an address elsewhere, for mail that is sent on.
        aliases: further addresses of the account: vacation answers for them as well.
        within: seconds an effect may take.

    Returns:
        `offered`, `put`, `active`, `sent` (reply by message), and `seen`: by action, what was found where.
    """
    box = f"probe-{secrets.token_hex(6)}"
    probing = Sieve.open(endpoint, account)
    offered = probing.offered
    probing.quit()
    with _script(endpoint, account, script_for(offered, box, other["user"], outside)) as said:
        sent, idents = _send(endpoint, other, account["user"])
        seen = _effects(endpoint, account, other, idents, box=box, within=within)
    local, _, domain = account["user"].partition("@")
    for number, to in enumerate([f"{local}+tag@{domain}", *aliases]):
        # A vacation of its own each: one is not told twice.
        with _script(endpoint, account, script_for(offered, box, other["user"], outside)):
            sample = message(other["user"], to, subject="vacation")
            session = Smtp.open(endpoint, other)
            reply = session.envelope(other["user"], [to])
            sent[f"vacation to {to}"] = (session.data(sample.data) if reply.ok else reply).plain()
            session.quit()
            theirs, mine = Imap.open(endpoint, other), Imap.open(endpoint, account)
            seen[f"address {number}"] = {"to": to, "answer": _found(theirs, f'HEADER In-Reply-To "{sample.ident}"', within)}
            wait_in(mine, sample.ident, within)
            theirs.quit()
            mine.quit()
    return {"offered": offered, "put": said["put"], "active": said["active"], "sent": sent, "idents": idents, "seen": seen}


def _send(endpoint: Endpoint, sender: Account, user: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A message for each action of `script_for`: its reply and its Message-ID, by name."""
    session = Smtp.open(endpoint, sender)
    sent: dict[str, Any] = {}
    idents: dict[str, str] = {}
    cases = {
        name: (name, "", sender["user"])
        for name in (
            "keep", "discard", "fileinto", "flag", "redirect", "redirect outside", "redirect nowhere", "copy", "reject", "notify",
            "editheader",
        )
    } | {
        "vacation to a list": ("vacation", "List-Id: <list.example.invalid>\r\n", sender["user"]),
        "vacation to a machine": ("vacation", "Auto-Submitted: auto-generated\r\n", sender["user"]),
        "vacation without sender": ("vacation", "", ""),
        "vacation": ("vacation", "", sender["user"]),
    }  # fmt: skip
    for name, (subject, headers, envelope) in cases.items():
        sample = message(sender["user"], user, subject=subject, headers=headers)
        reply = session.envelope(envelope, [user])
        sent[name], idents[name] = (session.data(sample.data) if reply.ok else reply).plain(), sample.ident
    session.quit()
    return sent, idents


def _effects(endpoint: Endpoint, account: Account, other: Account, idents: dict[str, str], *, box: str, within: float) -> dict[str, Any]:
    """What came of the messages of `_send`, at the account and at the other."""
    mine, theirs = Imap.open(endpoint, account), Imap.open(endpoint, other)
    seen: dict[str, Any] = {}
    for case, message_of, where in (
        ("keep", "keep", mine), ("notify kept", "notify", mine), ("editheader", "editheader", mine), ("copy", "copy", theirs),
        ("copy kept", "copy", mine), ("redirect", "redirect", theirs), ("redirect nowhere", "redirect nowhere", mine),
        ("vacation kept", "vacation", mine),
    ):  # fmt: skip
        seen[case] = wait_in(where, idents[message_of], within)
    seen["reject"] = wait_in(theirs, idents["reject"], within, report=True)
    seen["flag"] = _found(mine, f'HEADER Message-ID "{idents["flag"]}"', within)
    seen["vacation"] = _found(theirs, f'HEADER In-Reply-To "{idents["vacation"]}"', within)
    seen["notify"] = _found(theirs, f'OR BODY "lemonstand {box}" SUBJECT "lemonstand {box}"', within)
    seen["fileinto"] = _found(mine, f'HEADER Message-ID "{idents["fileinto"]}"', within, box)
    for case in ("discard", "redirect"):
        seen[f"{case} left in INBOX"] = _found(mine, f'HEADER Message-ID "{idents[case]}"', 0)
    for case in ("vacation to a list", "vacation to a machine", "vacation without sender"):
        seen[f"{case} kept"] = wait_in(mine, idents[case], within)
        seen[case] = _found(theirs, f'HEADER In-Reply-To "{idents[case]}"', 0)
    mine.command("SELECT INBOX")
    mine.command("DELETE", box)
    mine.quit()
    theirs.quit()
    return seen


def _found(session: Imap, what: str, within: float, box: str = "INBOX") -> dict[str, Any] | None:
    """The header of a message that a search finds, which is removed; None if there is none."""
    until = time.monotonic() + within
    while True:
        session.command("SELECT", box)
        found = session.command(f"UID SEARCH {what}").lines("SEARCH")
        numbers = found[0].split()[1:] if found else []
        if numbers:
            answer = session.command(f"UID FETCH {numbers[-1]} (FLAGS BODY.PEEK[HEADER])")
            whole = b"\r\n".join(answer.untagged).decode("utf-8", "replace")
            session.command(f"UID STORE {numbers[-1]} +FLAGS.SILENT (\\Deleted)")
            session.command(f"UID EXPUNGE {numbers[-1]}")
            return {"header": whole[:4000]}
        if time.monotonic() > until:
            return None
        time.sleep(POLL_SECONDS)


def outside_mail(folder: str, wanted: list[str], within: float) -> dict[str, Any]:
    """Waits until messages that name each of some texts in their header or body are in the Maildirs of this host; removes them.

    Returns:
        by text: the header, which is empty if none came.
    """
    until, seen = time.monotonic() + within, dict.fromkeys(wanted, "")
    while time.monotonic() < until and not all(seen.values()):
        for path in Path(folder).glob("*/new/*"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # others take theirs from there at the same time
                continue
            for text in wanted:
                if not seen[text] and text.encode() in data:
                    seen[text] = data.partition(b"\n\n")[0].decode("utf-8", "replace")[:8000]
                    path.unlink(missing_ok=True)
        time.sleep(POLL_SECONDS)
    return seen
