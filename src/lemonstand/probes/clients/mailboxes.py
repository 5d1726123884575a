"""Names that people give folders, how much one APPEND may bring, and how much there may be in all."""

from __future__ import annotations

import random
import re
from typing import Any

from lemonstand.probes.protocols.imap import Answer, Imap, Literal
from lemonstand.probes.protocols.wire import TIMEOUT, Account, Endpoint

SAMPLE = Literal(b"Subject: lemonstand probe\r\n\r\nThis message may be deleted.\r\n")
LETTERS = "abcXYZ019 .~%*^=&'`$#@!+-_,;:(){}[]<>|?\\äÖß€日本😀"
"""What generated names are made of: what people type, what file systems, shells, LIST and modified UTF-7 give a meaning to."""
FIXED = (
    "amazon.de", ".hidden", "a..b", "trailing.", "~x", "~", "INBOX.x", "Inbox.Trash", "50%", "x*y", "R&D", "Übersicht", "😀 2026",
    "cur", "new", "tmp", "dbox-Mails", "dovecot.index", "subscriptions", "maildirfolder", "ends in a blank ", " begins with one",
    "a/b.c/d", "a/../b", "..", ".", "...", "x" * 200, "C:\\mail", 'say "hi"', "#news.group", "$HOME", "`id`", "-rf",
    "Entwürfe.alt/2026.01/é",
)  # fmt: skip
"""Names that were refused once, or that programs on the way are known to trip over."""


def utf7(name: str) -> str:
    """A name in modified UTF-7 (RFC 3501 5.1.3)."""

    def coded(run: re.Match[str]) -> str:
        raw = run.group().encode("utf-16-be")
        return "&" + _base64(raw) + "-"

    return re.sub(r"[^\x20-\x7e]+", coded, name.replace("&", "&-"))


def _base64(raw: bytes) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,"
    bits = "".join(f"{octet:08b}" for octet in raw)
    return "".join(letters[int(bits[at : at + 6].ljust(6, "0"), 2)] for at in range(0, len(bits), 6))


def quoted(name: str) -> str:
    """A name as a quoted string of IMAP."""
    escaped = utf7(name).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def generated(count: int, seed: int) -> list[str]:
    """Further names: no part of them is empty."""
    rng = random.Random(seed)  # noqa: S311 - names, no secrets
    return ["/".join("".join(rng.choices(LETTERS, k=rng.randint(1, 12))) for _ in range(rng.randint(1, 3))) for _ in range(count)]


def _listed(answer: Answer, word: str, name: str) -> bool:
    wanted = quoted(name)
    bare = utf7(name)
    for line in answer.untagged:
        text = line.decode("utf-8", "replace")
        found = re.match(rf'{word} \([^)]*\) "(.)" (.*)$', text, re.DOTALL)
        if found and found.group(1) == "/":
            rest = found.group(2)
            if rest in {wanted, bare} or (rest.startswith("{") and rest.split("\r\n", 1)[-1] == bare):
                return True
    return False


def names(endpoint: Endpoint, account: Account, count: int, seed: int) -> dict[str, Any]:
    """Makes folders of many names, uses each as a mail user does, renames it and removes it.

    Args:
        count: how many names are made up beside the fixed ones.
        seed: what they are made from.

    Returns:
        `tried`: the number of names; `wrong`: for each that does not work, the first step that failed and the answer; `inbox`: the answer
        to RENAME INBOX.
    """
    session = Imap.open(endpoint, account)
    tried = [*FIXED, *dict.fromkeys(generated(count, seed))]
    wrong = {}
    for number, name in enumerate(tried):
        fault = _use(session, name, f"lemonstand.{seed}/{number}")
        if fault:
            wrong[name] = fault
    inbox = session.command("RENAME INBOX", quoted(f"lemonstand.{seed}.inbox")).plain()
    if inbox["status"] == "OK":
        session.command("DELETE", quoted(f"lemonstand.{seed}.inbox"))
    session.quit()
    return {"tried": len(tried), "wrong": wrong, "inbox": inbox, "transcript": session.wire.transcript}


def _use(session: Imap, name: str, other: str) -> str:
    """The first step that failed, and the answer; empty if all went well."""
    # Left by a run that died; its refusal is no fault.
    session.command("DELETE", quoted(name))
    try:
        for step in ("CREATE", "SUBSCRIBE"):
            answer = session.command(step, quoted(name))
            if not answer.ok:
                return f"{step}: {answer.status} {answer.text[:120]}"
        for word in ("LIST", "LSUB"):
            pattern = quoted(name.replace("*", "%"))
            if not _listed(session.command(f'{word} ""', pattern), word, name):
                return f"{word}: it is not among what matches it"
        steps: list[list[str | Literal]] = [
            ["APPEND", quoted(name), SAMPLE],
            ["SELECT", quoted(name)],
            ["UNSELECT"],
            ["RENAME", quoted(name), quoted(other)],
        ]
        for words in steps:
            answer = session.command(*words)
            if not answer.ok:
                return f"{words[0]!s}: {answer.status} {answer.text[:120]}"
        status = session.command("STATUS", quoted(other), "(MESSAGES)")
        if "(MESSAGES 1)" not in "".join(status.lines("STATUS")):
            return f"STATUS after RENAME: {status.status} {status.lines('STATUS')}"
    finally:
        for each in (other, name):
            session.command("UNSUBSCRIBE", quoted(each))
            session.command("DELETE", quoted(each))
    return ""


def limit(endpoint: Endpoint, account: Account) -> dict[str, Any]:
    """What APPENDLIMIT says (RFC 7889), and what becomes of an octet more than that, offered and not sent.

    Returns:
        `announced`: the number, None without one; `over` and `under`: for one octet more and for just as many, whether the server `asked`
        for them, and its `answer`.
    """
    session = Imap.open(endpoint, account)
    found = next((word for word in session.capabilities() if word.upper().startswith("APPENDLIMIT=")), "")
    announced = int(found.partition("=")[2]) if found else None
    answers = {"announced": announced, "over": _offer(session, (announced or 0) + 1)}
    # A literal that was asked for and does not come leaves nothing to say.
    session.wire.close()
    again = Imap.open(endpoint, account)
    answers["under"] = _offer(again, announced or 1)
    again.wire.close()
    return answers


def _offer(session: Imap, octets: int) -> dict[str, Any]:
    """Begins an APPEND with a literal that waits for leave (RFC 9051 4.3) and sends none of it."""
    session.wire.send(f"limit APPEND INBOX {{{octets}}}\r\n".encode())
    line = session.leave(TIMEOUT).decode("utf-8", "replace")
    return {"asked": line.startswith("+"), "answer": line[:200]}


def quota(endpoint: Endpoint, account: Account) -> dict[str, Any]:
    """What a client learns of the room it has (RFC 9208 section 4.1).

    Returns:
        `announced`: whether QUOTA is among the capabilities; `storage`: used and most, in units of 1024 octets, None without a bound;
        `answer`: to GETQUOTAROOT.
    """
    session = Imap.open(endpoint, account)
    announced = any(word.upper() == "QUOTA" or word.upper().startswith("QUOTA=") for word in session.capabilities())
    answer = session.command("GETQUOTAROOT INBOX")
    lines = " ".join(line.decode("utf-8", "replace") for line in answer.untagged)
    session.quit()
    found = re.search(r"STORAGE ([0-9]+) ([0-9]+)", lines)
    return {"announced": announced, "storage": [int(each) for each in found.groups()] if found else None, "answer": answer.plain()}


def append_small(endpoint: Endpoint, account: Account) -> dict[str, str]:
    """The answer to an APPEND of a small message."""
    session = Imap.open(endpoint, account)
    answer = session.command("APPEND INBOX", SAMPLE).plain()
    session.quit()
    return answer
