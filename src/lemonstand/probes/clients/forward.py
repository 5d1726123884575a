"""Forwarding without download: GENURLAUTH and CATENATE on IMAP, BURL on submission (RFC 4467, 4468, 4469), and what must not work."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from lemonstand.probes.clients import delivery
from lemonstand.probes.clients.delivery import Stored
from lemonstand.probes.events import Refused
from lemonstand.probes.protocols.imap import Imap, Literal
from lemonstand.probes.protocols.messages import ident, large, message
from lemonstand.probes.protocols.smtp import Reply, Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint, Wire

ARRIVAL_SECONDS = 20
EXPIRY_SECONDS = 2.2
"""A URL is made for one second; the other one is for clocks that count whole seconds."""


def forward(endpoint: Endpoint, sender: Account, recipient: Account, size: int, *, catenate: bool, ahead: int = 0) -> dict[str, Any]:
    """Stores a large message, then forwards it to another user while counting what the client sends and gets for that.

    Args:
        size: of the message, bytes.
        catenate: put a text and an attachment of the stored message together on the server first, and send that.
        ahead: octets of a text that are sent as a chunk in front of the URL.

    Returns:
        `sent` and `received`: application data from GENURLAUTH (CATENATE) to the 250, both connections; `kernel_sent`, `kernel_received`:
        what TCP carried for it; `setup_sent`: what opening, TLS and login of both took; `arrived`: see `delivery.wait_for`;
        `body`: the SHA-256 that must arrive; `marked`: what SEARCH says of the message, once it is marked as forwarded.
    """
    mailbox = f"probe-{secrets.token_hex(6)}"
    sample = large(sender["user"], recipient["user"], size)
    storing = Imap.open(endpoint, sender)
    storing.command("CREATE", mailbox)
    try:
        stored = delivery.append(storing, mailbox, sample)
        imap, smtp = Imap.open(endpoint, sender), Smtp.open(endpoint, sender)
        wires = (imap.wire, smtp.wire)
        setup = _kernel(wires)
        before = [(wire.sent, wire.received) for wire in wires]
        started = time.monotonic()
        sought, body = sample.ident, sample.data.partition(b"\r\n\r\n")[2]
        if catenate:
            sought, stored, (before_it, behind_it) = _catenate(imap, stored, sender["user"], recipient["user"])
            body = before_it.partition(b"\r\n\r\n")[2] + sample.data + behind_it
        url = genurlauth(imap, endpoint["name"], sender["user"], stored, f"submit+{sender['user']}")
        reply = burl(smtp, sender["user"], recipient["user"], url, b"X-Ahead: " + b"x" * ahead + b"\r\n" if ahead else b"")
        took = time.monotonic() - started
        after = [(wire.sent, wire.received) for wire in wires]
        kernel = _kernel(wires)
        seen = {
            **reply.plain(),
            "seconds": round(took, 3),
            "sent": sum(b[0] - a[0] for a, b in zip(before, after, strict=True)),
            "received": sum(b[1] - a[1] for a, b in zip(before, after, strict=True)),
            "kernel_sent": kernel["sent"] - setup["sent"],
            "kernel_received": kernel["received"] - setup["received"],
            "setup_sent": setup["sent"],
            "setup_received": setup["received"],
            "stored": len(sample.data),
            "body": hashlib.sha256(body).hexdigest(),
            "transcript": [*imap.wire.transcript, *smtp.wire.transcript],
        }
        seen["marked"] = _marked(imap, stored) if reply.ok else ""
        imap.quit()
        smtp.quit()
        seen["arrived"] = delivery.wait_for(endpoint, recipient, sought, ARRIVAL_SECONDS) if reply.ok else {"seconds": None}
        return seen
    finally:
        storing.command("DELETE", mailbox)
        storing.quit()


def genurlauth(session: Imap, host: str, user: str, stored: Stored, access: str, *, extra: str = "") -> str:
    """A URL with its token (RFC 4467 section 7).

    Args:
        access: `submit+NAME`, `user+NAME`, `authuser`.
        extra: `;EXPIRE=…` or `/;PARTIAL=…`, in front of `;URLAUTH`.

    Raises:
        Refused: the server made none.
    """
    name, _, who = access.partition("+")
    access = f"{name}+{quote(who, safe='')}" if who else name
    rump = f"imap://{quote(user, safe='')}@{host}{stored.path}{extra};URLAUTH={access}"
    answer = session.command(f'GENURLAUTH "{rump}" INTERNAL')
    found = [re.search(r'GENURLAUTH "?([^"\s]+)"?', line) for line in answer.lines("GENURLAUTH")]
    if not answer.ok or not found or found[0] is None:
        raise Refused(f"GENURLAUTH: {answer.status} {answer.text}")
    return found[0].group(1)


def burl(session: Smtp, sender: str, recipient: str, url: str, text: bytes = b"") -> Reply:
    """Sends what a URL names, behind a chunk of our own if there is one (RFC 4468 section 3.3); the first refusal or the last reply."""
    reply = session.envelope(sender, [recipient])
    if reply.ok and text:
        reply = session.chunk(text, last=False)
    if reply.ok:
        reply = session.command(f"BURL {url} LAST")
    if not reply.ok:
        session.command("RSET")
    return reply


def abuse(endpoint: Endpoint, owner: Account, other: Account) -> dict[str, Any]:
    """Tries URLs that must not be redeemed, and two that must.

    Returns:
        By case: the reply of BURL (`code`, `text`), or of URLFETCH (`got`: octets, None for NIL).
    """
    mailbox = f"probe-{secrets.token_hex(6)}"
    session, mine, theirs = Imap.open(endpoint, owner), Smtp.open(endpoint, owner), Smtp.open(endpoint, other)
    foreign = Imap.open(endpoint, other)
    session.command("CREATE", mailbox)
    user, host = owner["user"], endpoint["name"]
    seen: dict[str, Any] = {}
    try:
        sample = message(user, user)
        stored = delivery.append(session, mailbox, sample)

        def url(access: str = f"submit+{user}", extra: str = "") -> str:
            return genurlauth(session, host, user, stored, access, extra=extra)

        good = url()
        head, _, token = good.rpartition(":")
        forged = f"{head}:{''.join('0' if digit != '0' else '1' for digit in token)}"
        past = (datetime.now(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        future = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        expiring = url(extra=f";EXPIRE={past}")
        lasting = url(extra=f";EXPIRE={future}")
        shared = url(f"user+{other['user']}")
        third = url(f"user+nobody-at-all@{user.partition('@')[2]}")
        seen["forged"] = burl(mine, user, user, forged).plain()
        seen["without token"] = burl(mine, user, user, head.rpartition(":")[0]).plain()
        seen["other host"] = burl(mine, user, user, good.replace(f"@{host}/", "@elsewhere.invalid/")).plain()
        seen["longer life than granted"] = burl(mine, user, user, lasting.replace(f";EXPIRE={future}", "")).plain()
        seen["other user submits it"] = burl(theirs, other["user"], other["user"], good).plain()
        seen["meant for the other user only"] = burl(mine, user, user, shared).plain()
        seen["other user fetches it"] = fetched(foreign, good)
        seen["third party fetches it"] = fetched(foreign, third)
        seen["owner fetches it"] = fetched(session, url(f"user+{user}"))
        seen["another mailbox"] = burl(mine, user, user, good.replace(f"/{mailbox};", "/INBOX;")).plain()
        time.sleep(EXPIRY_SECONDS)
        seen["expired"] = burl(mine, user, user, expiring).plain()
        kept = burl(mine, user, user, good)
        seen["own, in time"] = kept.plain()
        mixed = message(user, user)
        seen["text and URL mixed"] = burl(mine, user, user, good, mixed.data).plain()
        seen["key reset"] = session.command("RESETKEY", mailbox).plain()
        seen["after the key was reset"] = burl(mine, user, user, good).plain()
        for case, ident_of in (("own, in time", sample.ident), ("text and URL mixed", mixed.ident)):
            if seen[case]["code"] == 250:
                seen[case]["arrived"] = delivery.wait_in(session, ident_of, ARRIVAL_SECONDS)["seconds"]
    finally:
        session.command("UNSELECT")
        session.command("DELETE", mailbox)
        for each in (session, foreign, mine, theirs):
            each.quit()
    return seen


def _marked(session: Imap, stored: Stored) -> str:
    """Marks a message as forwarded, as a client does (RFC 5550 section 5.9)."""
    session.command("SELECT", stored.mailbox)
    session.command(f"UID STORE {stored.uid} +FLAGS.SILENT ($Forwarded)")
    found = session.command(f"UID SEARCH UID {stored.uid} KEYWORD $Forwarded").lines("SEARCH")
    session.command("UNSELECT")
    return found[0] if found else ""


def fetched(session: Imap, url: str) -> dict[str, Any]:
    """What URLFETCH gives (RFC 4467 section 6): `got`, octets, None for NIL; `status` and `text` of the command."""
    answer = session.command(f'URLFETCH "{url}"')
    lines = [line for line in answer.untagged if line.upper().startswith(b"URLFETCH")]
    if not lines:
        return {"got": None, "status": answer.status, "text": answer.text[:200]}
    found = re.search(rb"\{(\d+)\}\r\n", lines[0])
    return {"got": int(found.group(1)) if found else None, "status": answer.status, "text": answer.text[:200]}


def _catenate(session: Imap, stored: Stored, sender: str, recipient: str) -> tuple[str, Stored, tuple[bytes, bytes]]:
    name, bound = ident(), "lemonstand-forward"
    head = (
        f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: Fwd: lemonstand probe\r\nMessage-ID: <{name}>\r\nMIME-Version: 1.0\r\n"
        f"Content-Type: multipart/mixed; boundary={bound}\r\n\r\n--{bound}\r\n\r\nSee below.\r\n"
        f"--{bound}\r\nContent-Type: message/rfc822\r\n\r\n"
    )
    parts = (head.encode(), f"\r\n--{bound}--\r\n".encode())
    answer = session.command(
        "APPEND", stored.mailbox, "CATENATE", "(TEXT", Literal(parts[0]),
        f'URL "{stored.path}"', "TEXT", Literal(parts[1]), ")",
    )  # fmt: skip
    found = re.match(r"APPENDUID \d+ (\d+)", answer.code)
    if not found:
        raise Refused(f"CATENATE: {answer.status} {answer.text}")
    return name, stored._replace(uid=found.group(1)), parts


def _kernel(wires: tuple[Wire, ...]) -> dict[str, int]:
    counted = [wire.kernel_bytes() for wire in wires]
    return {key: sum(each.get(key, 0) for each in counted) for key in ("sent", "received")}
