"""Copies of mailboxes between stores: what is there of a user, and what a store takes from whom."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

MAIL = Path("/srv/vmail")
SECONDS = 10.0
LONGEST = 65536


def mailboxes(user: str, mail: str = str(MAIL)) -> dict[str, Any]:
    """What is to be equal on a store and its standby: mailboxes, messages, subscriptions, scripts and attributes of a user.

    Args:
        user: the login name.
        mail: directory of all mail.

    Returns:
        `boxes`: {name: [UIDVALIDITY, UIDNEXT]}; `messages`: their number; and a digest each of `uids` (mailbox, UID, GUID and flags of each
        message), `subscriptions`, `scripts`, `attributes`.
    """
    boxes = {
        row["mailbox"]: [row["uidvalidity"], row["uidnext"]]
        for row in _doveadm("mailbox", "status", "-u", user, "uidvalidity uidnext", "*")
    }
    rows = _doveadm("fetch", "-u", user, "mailbox uid guid flags", "mailbox", "*", "all")
    # \Recent is about who looked first, not about a message (RFC 9051 appendix E).
    flags = [" ".join(sorted(set(row["flags"].split()) - {"\\Recent"})) for row in rows]
    lines = sorted("\t".join((row["mailbox"], row["uid"], row["guid"], kept)) for row, kept in zip(rows, flags, strict=True))
    local, _, domain = user.partition("@")
    home = Path(mail, domain, local)
    scripts = sorted(path for path in (home / "sieve").glob("*.sieve")) if (home / "sieve").is_dir() else []
    chosen = (home / ".dovecot.sieve").readlink() if (home / ".dovecot.sieve").is_symlink() else ""
    return {
        "boxes": boxes,
        "messages": len(lines),
        "uids": _digest("\n".join(lines).encode()),
        "subscriptions": _digest("\n".join(sorted(_text(home / "Maildir" / "subscriptions").splitlines())).encode()),
        "scripts": _digest(str(chosen).encode() + b"".join(path.name.encode() + path.read_bytes() for path in scripts)),
        "attributes": _digest("\n".join(sorted(_text(home / "dovecot-attributes").splitlines())).encode()),
    }


def bring(address: str, name: str, user: str, *, certificate: str = "", key: str = "", since: int = 0) -> str:
    """Offers another store a copy of a user, as `mail-standby` does; says what came of it, and brings nothing.

    Args:
        address, name: of the store that is to take it.
        certificate, key: files below /etc/lemonstand/pki to show; empty: none.
        since: the generation in which this host says to serve him.

    Returns:
        `taken`, the reason it was refused for, or `no conversation` if it did not come to one.
    """
    pki = Path("/etc/lemonstand/pki")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki / "ca-hosts.crt")
    if certificate:
        context.load_cert_chain(pki / certificate, pki / key)
    try:
        with socket.create_connection((address, 24245), timeout=SECONDS) as plain, context.wrap_socket(plain, server_hostname=name) as way:
            way.sendall(json.dumps({"want": "copy", "user": user, "since": since}).encode() + b"\n")
            line = b""
            while not line.endswith(b"\n") and len(line) < LONGEST:
                octets = way.recv(1)
                if not octets:
                    return "no conversation"
                line += octets
    except OSError:
        return "no conversation"
    answer = json.loads(line)
    return str(answer.get("refused", "taken"))


def _doveadm(*words: str) -> list[dict[str, str]]:
    done = subprocess.run(["doveadm", "-f", "json", *words], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode not in {0, 68}:
        raise RuntimeError(f"doveadm {words[0]}: {done.stderr.strip()[-200:]}")
    found: list[dict[str, str]] = json.loads(done.stdout or "[]")
    return found


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()[:16]
