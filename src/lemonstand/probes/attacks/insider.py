"""What a curious user with a valid account may try, others' mailboxes and names; and what a directory says to who has no certificate."""

from __future__ import annotations

import base64
import secrets
import socket
import ssl
from typing import Any

from lemonstand.probes.attacks.forgery import named_senders
from lemonstand.probes.protocols.imap import Imap, Literal
from lemonstand.probes.protocols.messages import message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint

MAILBOXES = (
    "user/{other}/{box}", "user.{local}.{box}", "shared/{other}/{box}", "shared/{local}/{box}", "Other Users/{other}/{box}",
    "~{other}/{box}",
    "#shared/{other}/{box}", "#user/{other}/{box}", "/srv/mail/{domain}/{local}/Maildir/.{box}",
    "/var/vmail/{domain}/{local}/Maildir/.{box}",
    "../../{local}/Maildir/.{box}", "../{local}/Maildir/.{box}", "../../../{domain}/{local}/Maildir/.{box}", "INBOX/../../{local}/{box}",
    "..", "../..", "{directory}/{domain}/{local}/Maildir/.{box}",
)  # fmt: skip


ANONYMOUS_BIND = bytes.fromhex("300c020101600702010304008000")
"""LDAP's BindRequest with no name and no password (RFC 4511 section 4.2)."""


def nameless_directory(addresses: list[str], port: int, timeout: float = 5.0) -> dict[str, str]:
    """Asks directories over TLS without a certificate of one's own.

    Returns:
        By address `answered` (it talks to who shows none), `refused`, or `silent` (no connection).
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    found = {}
    for address in addresses:
        try:
            connection = socket.create_connection((address, port), timeout=timeout)
        except OSError:
            found[address] = "silent"
            continue
        try:
            with connection, context.wrap_socket(connection) as secure:
                secure.sendall(ANONYMOUS_BIND)
                found[address] = "answered" if secure.recv(64) else "refused"
        except (OSError, ssl.SSLError):
            found[address] = "refused"
    return found


def other_mailboxes(endpoint: Endpoint, account: Account, other: Account, directory: str) -> dict[str, Any]:
    """Lays a message into a mailbox of the other's, then looks for it from one's own session.

    Args:
        directory: where the store keeps mailboxes; an attacker may know.

    Returns:
        `control`: whether its owner reads it; by name of each mailbox that was tried, what came of SELECT and of the rest.
    """
    box = f"probe-{secrets.token_hex(6)}"
    local, _, domain = other["user"].partition("@")
    theirs, mine = Imap.open(endpoint, other), Imap.open(endpoint, account)
    theirs.command("CREATE", box)
    seen: dict[str, Any] = {}
    try:
        theirs.command("APPEND", box, Literal(message(other["user"], other["user"]).data))
        control = theirs.command("SELECT", box)
        seen["control"] = control.ok and any("1 EXISTS" in line for line in control.lines("EXISTS"))
        for pattern in MAILBOXES:
            name = pattern.format(other=other["user"], local=local, domain=domain, box=box, directory=directory)
            answers = {
                "SELECT": mine.command(f'SELECT "{name}"'),
                "STATUS": mine.command(f'STATUS "{name}" (MESSAGES)'),
                "GETMETADATA": mine.command(f'GETMETADATA "{name}" /private/comment'),
                "COPY in": mine.command(f'RENAME "{name}" "probe-stolen"'),
            }
            taken = [word for word, answer in answers.items() if answer.ok and (word != "GETMETADATA" or answer.lines("METADATA"))]
            seen[pattern] = {"taken": taken, "text": answers["SELECT"].text[:100]}
        listed = mine.command('LIST "" "*"').untagged + mine.command('LSUB "" "*"').untagged
        seen["LIST of everything"] = {
            "taken": ["LIST"] if any(box.encode() in line for line in listed) else [],
            "text": f"{len(listed)} lines",
        }
        found = mine.command("NAMESPACE")
        seen["NAMESPACE"] = {
            "taken": ["NAMESPACE"] if found.untagged and b'"user' in b" ".join(found.untagged) else [],
            "text": _text(found.untagged),
        }
        url = f"imap://{other['user'].replace('@', '%40')}@{endpoint['name']}/{box}/;UID=1"
        caught = mine.command("APPEND", "INBOX", "CATENATE", f'(URL "{url}")')
        seen["CATENATE of the other's message"] = {"taken": ["APPEND"] if caught.ok else [], "text": caught.text[:100]}
        made = mine.command(f'GENURLAUTH "{url};URLAUTH=user+{account["user"].replace("@", "%40")}" INTERNAL')
        seen["GENURLAUTH of the other's message"] = {"taken": ["GENURLAUTH"] if made.lines("GENURLAUTH") else [], "text": made.text[:100]}
        mine.command("DELETE probe-stolen")
    finally:
        theirs.command("UNSELECT")
        theirs.command("DELETE", box)
        theirs.quit()
        mine.quit()
    return seen


def _text(lines: list[bytes]) -> str:
    return b" ".join(lines).decode("utf-8", "replace")[:100]


def as_other(endpoint: Endpoint, account: Account, other: str) -> dict[str, Any]:
    """Logs in with one's own password and somebody else's name beside it, in the ways SASL and Dovecot know. `own` must work."""
    user, secret = account["user"], account["password"]
    cases = {
        "own": f"\0{user}\0{secret}",
        "another name to act for (authzid)": f"{other}\0{user}\0{secret}",
        "another name, own password": f"\0{other}\0{secret}",
        "master user, *": f"\0{other}*{user}\0{secret}",
        "master user, %": f"\0{other}%{user}\0{secret}",
        "name with a second one behind a zero byte": f"\0{user}\0{other}\0{secret}",
    }
    seen = {}
    for case, said in cases.items():
        imap = Imap.open(endpoint)
        answer = imap.command(f"AUTHENTICATE PLAIN {base64.b64encode(said.encode()).decode()}", shown="AUTHENTICATE PLAIN <…>")
        imap.quit()
        smtp = Smtp.open(endpoint)
        reply = smtp.command(f"AUTH PLAIN {base64.b64encode(said.encode()).decode()}", shown="AUTH PLAIN <…>")
        smtp.quit()
        seen[case] = {"imap": answer.status, "submission": reply.code, "text": f"{answer.text[:80]} / {reply.text[:80]}"}
    return seen


def submitted_senders(endpoint: Endpoint, account: Account, other: str) -> dict[str, Any]:
    """After a login on 587: whose name may mail be sent in? `own` must work."""
    session = Smtp.open(endpoint, account)
    try:
        return named_senders(session, account["user"], other)
    finally:
        session.quit()
