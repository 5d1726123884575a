"""What a phone sees of its mailbox while it sleeps: pushes, wake-ups, lost connections; it opens a new one when one is lost."""

from __future__ import annotations

import time

from lemonstand.probes.clients.idle import NOTIFY
from lemonstand.probes.events import Refused, emit
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.wire import Account, Endpoint

REISSUE_SECONDS = 29 * 60.0
"""After which a client says DONE and IDLE anew, unless the server spoke meanwhile (RFC 2177)."""
AGAIN_SECONDS = (1, 2, 4, 8, 15, 30, 60)
"""How long a phone waits before each further attempt to connect."""


def watch(endpoint: Endpoint, account: Account, within: float) -> dict[str, int]:
    """Watches INBOX in IDLE, and the other mailboxes by NOTIFY, for a while.

    Tells `opened` (`seconds` it took), `heard` (`text`, `kind`: `push`, `keep-alive` or `other`), `closed` (`text`, `held`: seconds) and
    `failed` (`text`, `again`: seconds until the next attempt).

    Args:
        within: seconds.

    Returns:
        How many `pushes`, `keep_alives`, `others`, `connections` and `lost` ones there were.

    Raises:
        Refused: the login was refused: a phone would ask its user, and so does this.
    """
    until = time.monotonic() + within
    counts = {"pushes": 0, "keep_alives": 0, "others": 0, "connections": 0, "lost": 0}
    tries = 0
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            session = Imap.open(endpoint, account)
            session.command(NOTIFY)
            session.command("SELECT INBOX")
        except Refused:
            raise
        except OSError as fault:
            pause = min(AGAIN_SECONDS[min(tries, len(AGAIN_SECONDS) - 1)], max(0.0, until - time.monotonic()))
            emit("failed", text=f"{type(fault).__name__}: {fault}", again=round(pause, 1))
            tries += 1
            time.sleep(pause)
            continue
        tries = 0
        counts["connections"] += 1
        emit("opened", seconds=round(time.monotonic() - began, 2))
        began = time.monotonic()
        try:
            _listen(session, until, counts)
        except OSError as fault:
            counts["lost"] += 1
            emit("closed", text=f"{type(fault).__name__}: {fault}", held=round(time.monotonic() - began, 1))
            session.wire.close()
        else:
            session.quit()
    return counts


def _listen(session: Imap, until: float, counts: dict[str, int]) -> None:
    while time.monotonic() < until:
        tag = session.begin("IDLE")
        silent = False
        while not silent and time.monotonic() < until:
            try:
                text = session.response(min(REISSUE_SECONDS, max(0.001, until - time.monotonic()))).decode("utf-8", "replace")
            except TimeoutError:
                silent = True
                continue
            if text.startswith("+"):
                continue
            words = text.split()
            kind = "other"
            if text.upper().startswith("* OK"):
                kind = "keep-alive"
            elif words[-1].upper() in {"EXISTS", "EXPUNGE"} or words[1:2] == ["STATUS"]:
                kind = "push"
            counts[{"push": "pushes", "keep-alive": "keep_alives", "other": "others"}[kind]] += 1
            emit("heard", text=text[:200], kind=kind)
            if text.upper().startswith("* BYE"):
                raise ConnectionError(text[:200])
        answer = session.done(tag)
        if answer.status == "BYE":
            raise ConnectionError(answer.text)
