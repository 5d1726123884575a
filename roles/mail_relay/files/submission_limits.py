"""How much each user may send: a policy service for Postfix (SMTPD_POLICY_README), asked at every recipient of a submitted message.

Postfix itself counts by client address, and many users share one. Here each login has two counts, of messages and of recipients. What Sieve
sends comes without a login: it counts for the address that sends it on, and with the null sender for its store. A count drains evenly, its
limit within an hour; who has reached one is told to try later (450), and the journal gets a line of priority "warning".

An account that was taken over writes to hundreds at once, and was used for a few before. So of recipients each login may have, within an
hour, as many as on the busiest of the last thirty days, today and yesterday left out, and no fewer than a number that people rarely come
to. Counts are kept in SQLite, so a restart forgives nobody. The standard library is all it needs.
"""

import asyncio
import json
import logging
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import policy_service

log = logging.getLogger("submission_limits")

HOUR, DAY = 3600.0, 86400
REMEMBERED_DAYS = 30
NEW_DAYS = 2
"""Days that are not yet taken for what an account is used for: somebody else may be using it."""
MOST_ROWS = 100_000
KINDS = ("messages", "recipients")
WIDE = 20
"""How many times the limits for logins that are named: accounts of checks, which verify a site several times an hour."""
_LOGGABLE = re.compile(r"[^A-Za-z0-9.@+_=:'&-]")


class Limits:
    """Counts what each login has sent.

    Args:
        path: the database; `:memory:` for none.
        messages, recipients: limits within an hour.
        usual: recipients within an hour that nobody wonders about; 0: only the limits count.
        wide: logins whose limits are `WIDE` times these, and for whom nothing is unusual.
        clock: Unix time.
    """

    def __init__(
        self,
        path: str,
        messages: int,
        recipients: int,
        *,
        usual: int = 0,
        wide: Collection[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = {"messages": messages, "recipients": recipients}
        self._usual = usual
        self._wide = frozenset(wide)
        self._clock = clock
        try:
            self._database = self._open(path)
        except sqlite3.OperationalError as problem:
            # A disk that is full or can only be read: until the next start this process counts in memory.
            log.warning("<4>alarm=limits-file reason=%s", _LOGGABLE.sub("?", str(problem))[:80])
            self._database = self._open(":memory:")

    @staticmethod
    def _open(path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS sent (login TEXT PRIMARY KEY, at REAL, messages REAL, recipients REAL, instance TEXT, told REAL)"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS days (login TEXT, day INTEGER, recipients INTEGER, PRIMARY KEY (login, day)) WITHOUT ROWID"
        )
        return database

    def take(self, login: str, instance: str, users: int = 1) -> str | None:
        """Count one recipient, and a message if it is its first.

        Returns:
            Which limit forbids it: `messages`, `recipients`, or `unusual` (more recipients than this login used to have); None: it may.

        Args:
            login: who sends.
            instance: what Postfix calls this message.
            users: how many share this count; its limits are that many users'.
        """
        now = self._clock()
        limits = {kind: limit * users * (WIDE if login in self._wide else 1) for kind, limit in self._limits.items()}
        unusual = False
        if self._usual and login not in self._wide:
            most = max(self._usual * users, self._busiest(login, now))
            unusual, limits["recipients"] = most < limits["recipients"], min(most, limits["recipients"])
        row = self._database.execute("SELECT at, messages, recipients, instance, told FROM sent WHERE login = ?", (login,)).fetchone()
        at, messages, recipients, last, told = row or (now, 0.0, 0.0, "", 0.0)
        drained = max(0.0, now - at) / HOUR
        levels = {kind: max(0.0, level - drained * limits[kind]) for kind, level in zip(KINDS, (messages, recipients), strict=True)}
        wanted = {"messages": float(instance != last), "recipients": 1.0}
        full = next((kind for kind in KINDS if wanted[kind] and levels[kind] + wanted[kind] > limits[kind]), None)
        if full == "recipients" and unusual:
            full = "unusual"
        if full is None:
            levels = {kind: levels[kind] + wanted[kind] for kind in KINDS}
            self._remember(login, now)
        elif now - told > HOUR / 6 or now < told:
            # One line in ten minutes is enough for an operator, and one a recipient too much for a journal.
            told = now
            log.warning("<4>alarm=sending limit=%s user=%s", full, _LOGGABLE.sub("?", login)[:80])
        values = (login, now, levels["messages"], levels["recipients"], last if full else instance, told)
        self._database.execute("INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?, ?)", values)
        if row is None:
            self._trim(now)
        return full

    def _busiest(self, login: str, now: float) -> int:
        """Return the recipients of a login's busiest day, of those that say what it is used for."""
        day = int(now // DAY)
        (most,) = self._database.execute(
            "SELECT max(recipients) FROM days WHERE login = ? AND day BETWEEN ? AND ?", (login, day - REMEMBERED_DAYS, day - NEW_DAYS)
        ).fetchone()
        return int(most or 0)

    def _remember(self, login: str, now: float) -> None:
        """Count a recipient for the day; with the first of a day what is too old goes."""
        day = int(now // DAY)
        changed = self._database.execute("UPDATE days SET recipients = recipients + 1 WHERE login = ? AND day = ?", (login, day)).rowcount
        if not changed:
            self._database.execute("INSERT INTO days VALUES (?, ?, 1)", (login, day))
            self._database.execute("DELETE FROM days WHERE day < ?", (day - REMEMBERED_DAYS,))

    def _trim(self, now: float) -> None:
        """Drop who sent nothing for an hour: his counts are empty."""
        (rows,) = self._database.execute("SELECT count(*) FROM sent").fetchone()
        if rows > MOST_ROWS:
            self._database.execute("DELETE FROM sent WHERE at < ?", (now - HOUR,))


def counted_for(request: Mapping[str, str]) -> str:
    """For whom a message counts: its login; without one (Sieve) `sieve ADDRESS` of who sends it on, `store ADDRESS` for the null sender."""
    login, sender, client = (request.get(key, "").lower() for key in ("sasl_username", "sender", "client_address"))
    return login or (client and (f"sieve {sender}" if sender else f"store {client}"))


def answer(limits: Limits, request: Mapping[str, str], users: int = 1) -> str:
    """Return what Postfix is told.

    Args:
        users: of the site; what one store's users may send with the null sender is theirs together.
    """
    who = counted_for(request)
    if request.get("protocol_state") != "RCPT" or not who:
        return "DUNNO"
    try:
        full = limits.take(who, request.get("instance", ""), users if who.startswith("store ") else 1)
    except sqlite3.Error as problem:
        log.warning("<4>alarm=limits-file reason=%s", _LOGGABLE.sub("?", str(problem))[:80])
        return "DUNNO"
    if full == "unusual":
        return "450 4.7.1 This account writes to far more recipients than it used to; try again later"
    return f"450 4.7.1 This account has reached its limit of {full} for now; try again later" if full else "DUNNO"


async def serve(settings: Mapping[str, Any]) -> None:
    """Listen for good."""
    messages, recipients = (int(str(settings[f"{kind}_per_hour"])) for kind in KINDS)
    usual, wide = int(str(settings["usual_recipients_per_hour"])), [str(login) for login in settings["wide"]]
    limits = Limits(str(settings["file"]), messages, recipients, usual=usual, wide=wide)
    users = int(str(settings["users"]))

    async def told(request: Mapping[str, str]) -> str:
        return answer(limits, request, users)

    await policy_service.serve(int(str(settings["port"])), told)


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
