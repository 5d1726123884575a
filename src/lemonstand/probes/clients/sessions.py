"""What a mail client meets on 143 and 587: before TLS, after it, with a wrong password and with the right one."""

from __future__ import annotations

import secrets
import time
from typing import Any

from lemonstand.probes.protocols.imap import Imap, Literal, announced
from lemonstand.probes.protocols.messages import message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint, Wire, context


def imap_session(endpoint: Endpoint, account: Account) -> dict[str, Any]:
    """One connection from the greeting to LOGOUT, with a mailbox made and removed on the way.

    The password that goes out before TLS is made up.
    """
    wire = Wire.to(endpoint, 143)
    session = Imap(wire)
    seen: dict[str, Any] = {"greeting": session.greeting, "greeting_capabilities": announced(session.greeting)}
    seen["before_tls"] = session.capabilities()
    seen["login_before_tls"] = [
        session.command(f'LOGIN "{name}" "{secrets.token_hex(8)}"', shown=f"LOGIN <{name}>").plain()
        for name in (account["user"], f"nobody-{secrets.token_hex(4)}@{account['user'].partition('@')[2]}")
    ]
    seen["starttls"] = session.command("STARTTLS").plain()
    wire.starttls(context(endpoint["ca"]), endpoint["name"])
    seen["tls"] = wire.tls()
    seen["after_tls"] = session.capabilities()
    started = time.monotonic()
    seen["wrong"] = session.plain({"user": account["user"], "password": secrets.token_hex(8)}).plain()
    seen["wrong_seconds"] = round(time.monotonic() - started, 3)
    started = time.monotonic()
    right = session.plain(account)
    seen["right"], seen["right_seconds"] = right.plain(), round(time.monotonic() - started, 3)
    seen["login_capabilities"] = announced(right.text)
    if right.ok:
        seen["after_login"] = session.capabilities()
        seen["mailbox"] = _mailbox(session, account["user"])
    session.quit()
    return {**seen, "transcript": wire.transcript}


def _mailbox(session: Imap, user: str) -> dict[str, str]:

    name = f"probe-{secrets.token_hex(6)}"
    sample = message(user, user)
    steps = {"CREATE": session.command("CREATE", name)}
    steps["APPEND"] = session.command("APPEND", name, "(\\Seen)", Literal(sample.data))
    steps["SELECT"] = session.command("SELECT", name)
    steps["SEARCH"] = session.command(f'SEARCH HEADER Message-ID "{sample.ident}"')
    found = steps["SEARCH"].lines("SEARCH")
    seen = {step: f"{answer.status} {answer.text}"[:120] for step, answer in steps.items()}
    seen["found"] = found[0] if found else ""
    seen["exists"] = next(iter(steps["SELECT"].lines("EXISTS")), "")
    session.command("UNSELECT")
    seen["DELETE"] = session.command("DELETE", name).status
    return seen


def submission_session(endpoint: Endpoint, account: Account, stranger: str, size_limit: int) -> dict[str, Any]:
    """One connection from the banner to QUIT; sends no message.

    Args:
        stranger: an address of the site that does not belong to the account.
        size_limit: bytes; what is one byte above must be refused.
    """
    wire = Wire.to(endpoint, 587)
    session = Smtp(wire)
    user = account["user"]
    made_up: Account = {"user": user, "password": secrets.token_hex(8)}
    seen: dict[str, Any] = {"banner": session.greeting.text, "before_tls": session.ehlo()}
    seen["auth_before_tls"] = session.plain(made_up).plain()
    seen["mail_before_tls"] = session.command(f"MAIL FROM:<{user}>").plain()
    seen["starttls"] = session.command("STARTTLS").plain()
    wire.starttls(context(endpoint["ca"]), endpoint["name"])
    seen["tls"] = wire.tls()
    seen["after_tls"] = session.ehlo()
    seen["mail_before_auth"] = session.command(f"MAIL FROM:<{user}>").plain()
    seen["wrong"] = session.plain(made_up).plain()
    seen["right"] = session.plain(account).plain()
    seen["after_login"] = session.ehlo()
    if seen["right"]["code"] == 235:
        seen["burl_imap"] = session.command("BURL imap://nowhere.invalid/x LAST").plain()
        session.command("RSET")
        tried = (
            ("own_sender", [user], user, ""),
            ("foreign_sender", [user], stranger, ""),
            ("too_large", [user], user, f"SIZE={size_limit + 1}"),
            ("binarymime", [user], user, "BODY=BINARYMIME"),
            ("eightbit", [user], user, "BODY=8BITMIME"),
            ("dsn", [user], user, "RET=HDRS ENVID=probe"),
            ("nobody", [f"nobody-{secrets.token_hex(4)}@{user.partition('@')[2]}"], user, ""),
        )
        for name, recipients, sender, parameters in tried:
            seen[name] = session.envelope(sender, recipients, parameters).plain()
            session.command("RSET")
        wire.send(f"MAIL FROM:<{user}>\r\nRCPT TO:<{user}>\r\nRSET\r\nNOOP\r\n".encode())
        seen["pipelined"] = [session.reply().code for _ in range(4)]
    session.quit()
    return {**seen, "transcript": wire.transcript}
