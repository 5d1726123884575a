"""A client in IDLE: how soon it learns of a new message, and what else wakes it (RFC 2177)."""

from __future__ import annotations

import time
from typing import Any

from lemonstand.probes.events import emit
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.wire import Account, Endpoint


def push(endpoint: Endpoint, account: Account, within: float, source: str = "") -> dict[str, Any]:
    """Idles in INBOX until the number of messages grows; tells `idling` when it does and `exists` when it learns of one.

    Args:
        within: seconds it waits.
        source: the address of this host to come from; empty: the usual one.

    Returns:
        `arrived`, `answered` (the client's own next word was), and `lines`: all that came while it idled.
    """
    session = Imap.open(endpoint, account, source=source)
    session.command("SELECT INBOX")
    tag = session.begin("IDLE")
    lines = [session.response().decode("utf-8", "replace")]
    if not lines[0].startswith("+"):
        return {"arrived": False, "lines": lines}
    emit("idling")
    until = time.monotonic() + within
    arrived = False
    while not arrived and (left := until - time.monotonic()) > 0:
        try:
            lines.append(session.response(left).decode("utf-8", "replace"))
        except TimeoutError:
            break
        except OSError as fault:
            return {"arrived": False, "answered": False, "lines": [*lines[:20], f"{type(fault).__name__}: {fault}"]}
        arrived = lines[-1].endswith(" EXISTS")
    if arrived:
        emit("exists")
    # On the same connection, so it shows that the client is heard too.
    answered = session.done(tag).ok
    session.quit()
    return {"arrived": arrived, "answered": answered, "lines": lines[:20]}
