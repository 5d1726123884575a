"""What the relay's limits of users say: asked as Postfix asks them. Runs on a relay."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/lemonstand/submission-limits.json")


def sent_count(login: str) -> dict[str, Any]:
    """When a user's last recipient was counted, and the limits.

    Returns:
        `at`: Unix time, 0 if never; `messages_per_hour`, `recipients_per_hour`, `usual_recipients_per_hour`.
    """
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    database = sqlite3.connect(f"file:{settings['file']}?mode=ro", uri=True)
    try:
        row = database.execute("SELECT at FROM sent WHERE login = ?", (login,)).fetchone()
    finally:
        database.close()
    return {"at": float(row[0]) if row else 0.0, **{name: settings[name] for name in settings if name.endswith("_per_hour")}}


def sent_out(login: str, most: int, used_to: int = 0) -> dict[str, Any]:
    """Asks for one message after the other until one is refused.

    Args:
        login: a name nobody has.
        most: messages at most.
        used_to: recipients that name had on a day last week; what is written down of that goes again.

    Returns:
        `taken`: messages that were allowed; `answer`: the last answer; `seconds` it took, in which counts drained.
    """
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    with contextlib.closing(sqlite3.connect(settings["file"], timeout=10)) as database:
        with database:
            database.execute("INSERT OR REPLACE INTO days VALUES (?, ?, ?)", (login, int(time.time() // 86400) - 7, used_to))
        found = _asked(int(settings["port"]), login, most)
        with database:
            database.execute("DELETE FROM days WHERE login = ?", (login,))
    return found


def _asked(port: int, login: str, most: int) -> dict[str, Any]:
    answer, taken, began = "DUNNO", 0, time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 10) as connection, connection.makefile("rb") as stream:
        while answer.startswith("DUNNO") and taken < most:
            request = f"request=smtpd_access_policy\nprotocol_state=RCPT\nsasl_username={login}\ninstance={secrets.token_hex(8)}\n\n"
            connection.sendall(request.encode())
            answer = stream.readline().decode().strip().removeprefix("action=")
            stream.readline()
            taken += answer.startswith("DUNNO")
    return {"taken": taken, "answer": answer, "seconds": round(time.monotonic() - began, 1)}
