"""What a client is told when something behind the frontend fails, and whose address is written down."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import TIMEOUT, Account, Endpoint


def login_answers(endpoint: Endpoint, account: Account, count: int = 1, timeout: float = TIMEOUT) -> dict[str, list[dict[str, Any]]]:
    """Logs in at both services, side by side, and says how each try was answered.

    Args:
        count: tries at each service, all at once.
        timeout: seconds an answer may take.

    Returns:
        By service, for each try `status` (IMAP's, or the code of submission; empty if none came in time), `code`, `text`, `seconds`, and
        whether the connection was still `usable` afterwards.
    """
    with ThreadPoolExecutor(max_workers=2 * count) as pool:
        imap = [pool.submit(_imap, endpoint, account, timeout) for _ in range(count)]
        submission = [pool.submit(_submission, endpoint, account, timeout) for _ in range(count)]
        return {"imap": [each.result() for each in imap], "submission": [each.result() for each in submission]}


def _imap(endpoint: Endpoint, account: Account, timeout: float) -> dict[str, Any]:
    session = Imap.open(endpoint)
    session.wire.socket.settimeout(timeout)
    started = time.monotonic()
    try:
        answer = session.plain(account)
    except TimeoutError:
        return {"status": "", "code": "", "text": "", "seconds": timeout, "usable": False}
    shown = {**answer.plain(), "seconds": round(time.monotonic() - started, 2), "usable": session.command("NOOP").ok}
    session.quit()
    return shown


def _submission(endpoint: Endpoint, account: Account, timeout: float) -> dict[str, Any]:
    session = Smtp.open(endpoint)
    session.wire.socket.settimeout(timeout)
    started = time.monotonic()
    try:
        reply = session.plain(account)
    except TimeoutError:
        return {"status": "", "code": "", "text": "", "seconds": timeout, "usable": False}
    seconds = round(time.monotonic() - started, 2)
    shown = {"status": str(reply.code), "code": reply.text.split(" ")[0], "text": reply.text[:300], "seconds": seconds}
    shown["usable"] = session.command("NOOP").ok
    session.quit()
    return shown


def forged_address(endpoint: Endpoint, account: Account, forged: str) -> dict[str, str]:
    """Names another address as one's own, as a proxy would, and then logs in with a wrong password, at both services.

    Args:
        account: a name nobody has.
        forged: the address to be believed.

    Returns:
        What each attempt was answered.
    """
    session = Imap.open(endpoint)
    fields = f'"x-originating-ip" "{forged}" "x-originating-port" "4711" "x-connected-ip" "{forged}" "x-session-id" "forged"'
    named = session.command(f"ID ({fields})")
    refused = session.plain(account)
    session.quit()
    posting = Smtp.open(endpoint)
    posted = posting.command(f"XCLIENT ADDR={'IPV6:' if ':' in forged else ''}{forged} PORT=4711 PROTO=ESMTP")
    posting.ehlo()
    answer = posting.plain(account)
    posting.quit()
    return {
        "ID": f"{named.status} {named.text}"[:200],
        "login": f"{refused.status} {refused.text}"[:200],
        "XCLIENT": f"{posted.code} {posted.text}"[:200],
        "AUTH": f"{answer.code} {answer.text}"[:200],
    }
