"""The page on which users change their own passwords, asked as a browser asks it (record 0050)."""

from __future__ import annotations

import http.client
import time
from typing import Any
from urllib.parse import urlencode

from lemonstand.probes.protocols.wire import Account, Endpoint, Wire, context

PORT = 443
SECONDS = 70
"""More than a password waits for its turn."""
HEADERS = ("cache-control", "content-security-policy", "strict-transport-security", "server")


def page(endpoint: Endpoint) -> dict[str, Any]:
    """What the page, the place where password managers look for it, and everything else answer.

    Returns:
        `status` and `text` of the page, `headers` of some names; `managers`: where these are sent; `elsewhere`: status of another path;
        `got`: status of a question that is no form.
    """
    found = _ask(endpoint, "GET", "/")
    headers = {name: found["headers"].get(name, "") for name in HEADERS}
    managers = _ask(endpoint, "GET", "/.well-known/change-password")["headers"].get("location", "")
    return {
        "status": found["status"],
        "text": found["text"],
        "headers": headers,
        "managers": managers,
        "elsewhere": _ask(endpoint, "GET", "/index.nginx-debian.html")["status"],
        "got": _ask(endpoint, "GET", "/own-password")["status"],
    }


def change(endpoint: Endpoint, account: Account, new: str, again: str = "") -> dict[str, Any]:
    """Fills in the form.

    Args:
        account: who, and the password he has.
        new: the one he wants.
        again: what he types the second time; empty: the same.

    Returns:
        `status` (303: changed), `location`, `text` and `seconds`.
    """
    form = {"username": account["user"], "password": account["password"], "new_password": new, "again": again or new}
    began = time.monotonic()
    found = _ask(endpoint, "POST", "/own-password", urlencode(form))
    return {
        "status": found["status"],
        "location": found["headers"].get("location", ""),
        "text": found["text"],
        "seconds": round(time.monotonic() - began, 3),
    }


def _ask(endpoint: Endpoint, method: str, path: str, body: str = "") -> dict[str, Any]:
    wire = Wire.to(endpoint, PORT, SECONDS)
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    try:
        wire.starttls(context(endpoint["ca"]), endpoint["name"])
        connection = http.client.HTTPConnection(endpoint["name"], PORT)
        connection.sock = wire.socket
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        text = answer.read(65536).decode(errors="replace")
        return {"status": answer.status, "headers": {key.lower(): value for key, value in answer.getheaders()}, "text": text}
    finally:
        wire.close()
