"""What a mail host elsewhere makes of mail: asks the program that a lab's peer has for it (roles/lab_peer/files/judge_mail.py)."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = "/usr/local/lib/lemonstand/judge_mail.py"
POLL_SECONDS = 0.2
SECONDS = 30
TRACE = re.compile(rb"^Received: from (?P<greeting>\S+) \(\S+ \[(?:IPv6:)?(?P<address>[0-9A-Fa-f.:]+)\]\)", re.MULTILINE)
SENDER = re.compile(rb"^Return-Path: <(?P<sender>[^>]*)>", re.MULTILINE)
SPOILT: dict[str, tuple[bytes, bytes]] = {
    "a second From": (b"From: <somebody@else.invalid>\r\n", b""),
    "a second Subject": (b"Subject: something else\r\n", b""),
    "a Reply-To": (b"Reply-To: <somebody@else.invalid>\r\n", b""),
    "a second Content-Type": (b"Content-Type: text/html\r\n", b""),
    "more text": (b"", b"And one line more.\r\n"),
}
"""What somebody on the way might add, above the message and below it."""


def judged(folder: str, wanted: list[str], within: float, *, spoil: bool = False) -> dict[str, Any]:
    """Waits for messages in the Maildirs of this host, has them judged and removes them.

    Args:
        folder: where the Maildirs are.
        wanted: texts, each of which one message holds (its Message-ID).
        within: seconds.
        spoil: also what is said of a message that somebody changed on its way, as `spoilt` by name.

    Returns:
        by text, of what came: `address`, `greeting` and `sender` it came with, `header`, `results` (RFC 8601), `signatures`.
    """
    until, came = time.monotonic() + within, dict[str, bytes]()
    while len(came) < len(wanted) and time.monotonic() < until:
        for path in Path(folder).glob("*/new/*"):
            with contextlib.suppress(FileNotFoundError):  # others take theirs from there at the same time
                data = path.read_bytes()
                for text in wanted:
                    if text not in came and text.encode() in data:
                        path.unlink()
                        came[text] = data
        time.sleep(POLL_SECONDS)
    return {text: _judge(data, spoil) for text, data in came.items()}


def spf(asked: list[tuple[str, str, str]]) -> list[dict[str, str]]:
    """What SPF says of mail from an address, with a sender and a greeting, each."""
    return [{"address": words[0], "sender": words[1], **_run("spf", *words)} for words in asked]


def _judge(data: bytes, spoil: bool) -> dict[str, Any]:
    trace, sender = TRACE.search(data), SENDER.search(data)
    if trace is None or sender is None:
        raise LookupError("the message has no trace of this host")
    address, greeting = (trace[part].decode("ascii") for part in ("address", "greeting"))
    came = (address, sender["sender"].decode("ascii", "replace"), greeting)
    header, _, _ = data.partition(b"\n\n")
    seen = {"address": address, "greeting": greeting, "sender": came[1], "header": header.decode("utf-8", "replace")[:8000]}
    seen |= _run("mail", *came, message=data)
    if spoil:
        spoilt = {name: _run("mail", *came, message=above + data + below) for name, (above, below) in SPOILT.items()}
        seen["spoilt"] = {name: each["signatures"] for name, each in spoilt.items()}
    return seen


def _run(*words: str, message: bytes = b"") -> dict[str, Any]:
    done = subprocess.run(["/usr/bin/python3", "-I", PROGRAM, *words], input=message, capture_output=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{PROGRAM}: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}")
    return dict(json.loads(done.stdout))
