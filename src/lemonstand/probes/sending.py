"""What the relay's limits of users say: asked as Postfix asks them. Runs on a relay."""

from __future__ import annotations

import json
import secrets
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/lemonstand/submission-limits.json")


def sent_count(login: str) -> dict[str, Any]:
    """A user's counts as they stand now, and the limits.

    Returns:
        `messages`, `recipients`, `messages_per_hour`, `recipients_per_hour`.
    """
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    database = sqlite3.connect(f"file:{settings['file']}?mode=ro", uri=True)
    try:
        row = database.execute("SELECT at, messages, recipients FROM sent WHERE login = ?", (login,)).fetchone()
    finally:
        database.close()
    at, *levels = row or (time.time(), 0.0, 0.0)
    limits = {name: settings[name] for name in ("messages_per_hour", "recipients_per_hour")}
    drained = [(time.time() - at) / 3600 * limit for limit in limits.values()]
    messages, recipients = (max(0.0, level - gone) for level, gone in zip(levels, drained, strict=True))
    return {"messages": messages, "recipients": recipients, **limits}


def sent_out(login: str, most: int) -> dict[str, Any]:
    """Asks for one message with ever more recipients until it is refused.

    Args:
        login: a name nobody has.
        most: recipients at most.

    Returns:
        `taken`: recipients that were allowed; `answer`: the last answer.
    """
    port = int(json.loads(SETTINGS.read_text(encoding="utf-8"))["port"])
    instance = secrets.token_hex(8)
    answer, taken = "DUNNO", 0
    with socket.create_connection(("127.0.0.1", port), 10) as connection, connection.makefile("rb") as stream:
        while answer.startswith("DUNNO") and taken < most:
            request = f"request=smtpd_access_policy\nprotocol_state=RCPT\nsasl_username={login}\ninstance={instance}\n\n"
            connection.sendall(request.encode())
            answer = stream.readline().decode().strip().removeprefix("action=")
            stream.readline()
            taken += answer.startswith("DUNNO")
    return {"taken": taken, "answer": answer}
