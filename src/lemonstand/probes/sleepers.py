"""Many sessions that idle at once, as many phones do."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.probes.imap import Imap
from lemonstand.probes.say import emit
from lemonstand.probes.wire import Account, Door


def sleepers(doors: list[Door], accounts: list[Account], count: int, parallel: int, within: float) -> dict[str, Any]:
    """Opens sessions, puts them into IDLE, tells `standing`, and holds them.

    Args:
        doors, accounts: used in turn.
        count: sessions.
        parallel: logins at a time.
        within: seconds they are held.

    Returns:
        `opened`, `failed` (the first few reasons), `seconds` opening took, `alive`: how many answered DONE at the end.
    """
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        tried = list(
            pool.map(lambda number: _open(doors[number % len(doors)], accounts[number // len(doors) % len(accounts)]), range(count))
        )
    sessions = [each for each in tried if not isinstance(each, str)]
    failed = [each for each in tried if isinstance(each, str)]
    took = time.monotonic() - started
    emit("standing", opened=len(sessions))
    time.sleep(within)
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        alive = sum(pool.map(_still, sessions))
    return {"opened": len(sessions), "failed": failed[:5], "seconds": round(took, 1), "alive": alive}


def _open(door: Door, account: Account) -> tuple[Imap, str] | str:
    try:
        session = Imap.open(door, account)
        session.command("SELECT INBOX")
        tag = session.begin("IDLE")
        while not session.response().startswith(b"+"):
            pass
    except OSError as fault:
        return f"{type(fault).__name__}: {fault}"
    return session, tag


def _still(each: tuple[Imap, str]) -> bool:
    session, tag = each
    try:
        session.wire.send(b"DONE\r\n")
        alive = session.finish(tag).ok
    except OSError:
        alive = False
    session.wire.close()
    return alive
