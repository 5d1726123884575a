"""When each app password was used last at this issuer (docs/decisions/0046).

It is kept here and not in the directory: what is written there goes to twins with the rest of its entry, and an entry as it was before a
lock or a new password of the same moment would win.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable

log = logging.getLogger("ticket_issuer")

PRECISION_SECONDS = 3600
"""A use within so many seconds of one that is written down is not."""
MOST_ROWS = 200_000
"""Of more, those used longest ago are forgotten."""
TABLE = "CREATE TABLE IF NOT EXISTS uses (user TEXT NOT NULL, device TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (user, device))"


class Uses:
    """Writes down uses, right for several processes. If its file fails, logins go on.

    Args:
        path: of the SQLite file.
        clock: Unix time.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def note(self, user: str, device: str) -> None:
        """Write down that an app password was used now."""
        now = self._clock()
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=2)) as database, database:
                database.execute(TABLE)
                row = database.execute("SELECT at FROM uses WHERE user = ? AND device = ?", (user, device)).fetchone()
                if row is not None and abs(now - row[0]) < PRECISION_SECONDS:
                    return
                database.execute("INSERT OR REPLACE INTO uses VALUES (?, ?, ?)", (user, device, now))
                (rows,) = database.execute("SELECT count(*) FROM uses").fetchone()
                if rows > MOST_ROWS:
                    database.execute("DELETE FROM uses WHERE rowid IN (SELECT rowid FROM uses ORDER BY at LIMIT ?)", (rows - MOST_ROWS,))
        except sqlite3.Error as problem:
            log.warning("<4>the use of an app password is not written down: %s", problem)
