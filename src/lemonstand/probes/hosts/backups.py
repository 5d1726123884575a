"""What a host can do at the repository of its backups, with its own credentials and without."""

from __future__ import annotations

import base64
import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

FOLDER = Path("/etc/lemonstand/backup")
SECONDS = 15.0


def deeds(others: list[str]) -> dict[str, Any]:
    """Asks the repository for what a host may do and what it may not. Nothing changes there: what is to be deleted is nobody's file.

    Args:
        others: names of other hosts with a part of their own.

    Returns:
        HTTP statuses of `read` (its own configuration), `remove` by kind of file, `others` by host, `stranger` (no
        credentials).
    """
    given = json.loads((FOLDER / "settings.json").read_text(encoding="utf-8"))
    url = given["repository"].removeprefix("rest:")
    server = url.removesuffix(f"{given['host']}/")
    password = (FOLDER / "password").read_text(encoding="ascii").strip()
    mine = "Basic " + base64.b64encode(f"{given['host']}:{password}".encode()).decode()
    trusted = ssl.create_default_context(cafile=given["ca"])
    nobodys = os.urandom(32).hex()

    def status(where: str, method: str = "GET", proof: str = mine) -> int | str:
        request = urllib.request.Request(where, method=method, headers={"Authorization": proof} if proof else {})  # noqa: S310 - https
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))
        try:
            with opener.open(request, timeout=SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as fault:
            return int(fault.code)
        except (OSError, ssl.SSLError) as fault:
            return str(getattr(fault, "reason", fault))[:200]

    return {
        "read": status(f"{url}config"),
        # Of nobody's files alone: a server that lets files go would let these go.
        "remove": {kind: status(f"{url}{kind}/{nobodys}", "DELETE") for kind in ("data", "index", "keys", "snapshots")},
        "others": {name: status(f"{server}{name}/config") for name in others},
        "stranger": status(f"{url}config", proof=""),
    }
