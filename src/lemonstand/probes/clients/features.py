"""The extensions of the Lemonade profile (RFC 5550), each exercised: announced is one thing, working another."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lemonstand.probes.clients import delivery
from lemonstand.probes.clients.forward import genurlauth
from lemonstand.probes.events import Refused
from lemonstand.probes.protocols.imap import Answer, Imap, Literal
from lemonstand.probes.protocols.messages import SUBJECT, message
from lemonstand.probes.protocols.wire import Account, Endpoint

KEYWORDS = ("$Forwarded", "$SubmitPending", "$Submitted")
PUSH_SECONDS = 3.0
LARGE_LITERAL = 100_000
"""Octets: a server with LITERAL- alone would refuse more than 4096 (RFC 7888)."""
LETTERS = "cab"
"""Ends of the subjects of the messages in the mailbox, in the order they were stored."""
UMLAUT = "=?utf-8?q?=C3=84rger?="


class Lacking(Exception):
    """An extension does not do what it should."""


@dataclass
class Desk:
    """What the exercises work with: two sessions of one account and a mailbox of their own with three messages.

    Args:
        one, two: sessions; `mailbox` is selected in the first.
        stored: its messages.
    """

    endpoint: Endpoint
    account: Account
    one: Imap
    two: Imap
    mailbox: str
    stored: list[delivery.Stored]

    @property
    def uids(self) -> list[str]:
        """The UIDs of its messages."""
        return [each.uid for each in self.stored]

    def run(self, *parts: str | Literal, session: Imap | None = None) -> Answer:
        """A command that must succeed.

        Raises:
            Lacking: it did not.
        """
        answer = (session or self.one).command(*parts)
        if not answer.ok:
            shown = " ".join(part for part in parts if isinstance(part, str))
            raise Lacking(f"{shown[:80]}: {answer.status} {answer.text[:160]}")
        return answer

    def line(self, answer: Answer, word: str, pattern: str) -> str:
        """The untagged response with a word, which must match a pattern.

        Raises:
            Lacking: none does.
        """
        for line in answer.lines(word):
            if re.search(pattern, line):
                return line[:160]
        seen = "; ".join(line.decode("utf-8", "replace")[:80] for line in answer.untagged) or "nothing"
        raise Lacking(f"no {word} that matches {pattern}: {seen}")

    def add(self, body: bytes = b"x\r\n", headers: str = "", session: Imap | None = None) -> str:
        """One more message in the mailbox; its UID."""
        user = self.account["user"]
        return delivery.append(session or self.one, self.mailbox, message(user, user, body=body, headers=headers)).uid


def features(endpoint: Endpoint, account: Account) -> dict[str, Any]:
    """Exercises every extension once, in a mailbox made for it and removed afterwards.

    Returns:
        `capabilities` after login, and `features`: name to `[works, what was seen]`.
    """
    one, two = Imap.open(endpoint, account), Imap.open(endpoint, account)
    mailbox = f"probe-{secrets.token_hex(6)}"
    user = account["user"]
    one.command("CREATE", mailbox)
    found: dict[str, list[Any]] = {}
    try:
        stored = [delivery.append(one, mailbox, message(user, user, subject=f"{SUBJECT} {letter}")) for letter in LETTERS]
        desk = Desk(endpoint, account, one, two, mailbox, stored)
        for name, exercise in EXERCISES.items():
            one.command("SELECT", mailbox)
            try:
                found[name] = [True, exercise(desk)]
            except (Lacking, Refused) as fault:
                found[name] = [False, str(fault)]
        return {"capabilities": one.capabilities(), "features": found}
    finally:
        one.command("UNSELECT")
        two.command("UNSELECT")
        one.command("DELETE", mailbox)
        one.quit()
        two.quit()


def _namespace(desk: Desk) -> str:
    return desk.line(desk.run("NAMESPACE"), "NAMESPACE", r"^NAMESPACE \(\(")


def _uidplus(desk: Desk) -> str:
    first, second = desk.add(), desk.add()
    desk.run(f"UID STORE {first},{second} +FLAGS (\\Deleted)")
    copied = desk.run(f"UID COPY {first}", desk.mailbox)
    if not re.match(r"COPYUID \d+ \d+ \d+", copied.code):
        raise Lacking(f"COPY: {copied.text}")
    desk.run(f"UID EXPUNGE {first}")
    left = desk.run("UID SEARCH DELETED")
    seen = desk.line(left, "SEARCH", rf"\b{second}\b")
    copy = copied.code.split()[-1]
    desk.run(f"UID STORE {second},{copy} +FLAGS.SILENT (\\Deleted)")
    desk.run(f"UID EXPUNGE {second},{copy}")
    return f"APPENDUID, {copied.code}; after UID EXPUNGE {first}: {seen}"


def _condstore(desk: Desk) -> str:
    uid = desk.uids[0]
    mod = desk.line(desk.run(f"UID FETCH {uid} (MODSEQ)"), "FETCH", r"MODSEQ \(\d+\)")
    desk.run(f"UID STORE {uid} +FLAGS.SILENT (\\Flagged)")
    late = desk.run(f"UID STORE {uid} (UNCHANGEDSINCE 1) +FLAGS (\\Answered)")
    if not late.code.startswith("MODIFIED"):
        raise Lacking(f"a change that came too late was made: {late.text}")
    return f"{mod}; late change: [{late.code}]"


def _literals(desk: Desk) -> str:
    uid = desk.add(body=b"y" * 70 + b"\r\n" + (b"z" * 70 + b"\r\n") * (LARGE_LITERAL // 72))
    desk.run(f"UID STORE {uid} +FLAGS.SILENT (\\Deleted)")
    desk.run(f"UID EXPUNGE {uid}")
    return f"{LARGE_LITERAL} octets in one go"


def _idle(desk: Desk) -> str:
    tag = desk.one.begin("IDLE")
    first = desk.one.response(PUSH_SECONDS)
    if not first.startswith(b"+"):
        raise Lacking(f"IDLE: {first[:120]!r}")
    uid = desk.add(session=desk.two)
    try:
        seen = [desk.one.response(PUSH_SECONDS)]
        while not seen[-1].endswith(b" EXISTS"):
            seen.append(desk.one.response(PUSH_SECONDS))
    except TimeoutError:
        raise Lacking(f"nothing was told within {PUSH_SECONDS} s") from None
    finally:
        desk.one.done(tag)
    desk.run(f"UID STORE {uid} +FLAGS.SILENT (\\Deleted)")
    desk.run(f"UID EXPUNGE {uid}")
    return seen[-1].decode()


def _keywords(desk: Desk, keyword: str) -> str:
    uid = desk.add()
    desk.run(f"UID STORE {uid} +FLAGS ({keyword})")
    copied = desk.run(f"UID COPY {uid}", desk.mailbox)
    copy = copied.code.split()[-1]
    seen = desk.line(desk.run(f"UID SEARCH KEYWORD {keyword}"), "SEARCH", rf"\b{uid}\b.*\b{copy}\b")
    desk.run(f"UID STORE {uid},{copy} +FLAGS.SILENT (\\Deleted)")
    desk.run(f"UID EXPUNGE {uid},{copy}")
    return seen


def _binary(desk: Desk) -> str:
    mime = "MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
    uid = desk.add(body=b"AAECA/8=\r\n", headers=mime)
    answer = desk.run(f"UID FETCH {uid} (BINARY.PEEK[1] BINARY.SIZE[1])")
    whole = b"".join(answer.untagged)
    if b"\x00\x01\x02\x03\xff" not in whole or b"BINARY.SIZE[1] 5" not in whole:
        raise Lacking(f"base64 was not decoded: {whole[:120]!r}")
    raw = f"Subject: binary\r\n{mime.replace('base64', 'binary')}\r\n".encode() + b"\x00\x01\x02"
    stored = desk.run("APPEND", desk.mailbox, Literal(raw, binary=True))
    last = stored.code.split()[-1]
    desk.run(f"UID STORE {uid},{last} +FLAGS.SILENT (\\Deleted)")
    desk.run(f"UID EXPUNGE {uid},{last}")
    return "BINARY.PEEK[1] decodes, BINARY.SIZE[1] is 5, literal8 is stored"


def _compress(desk: Desk) -> str:
    session = Imap.open(desk.endpoint, desk.account)
    try:
        desk.run("COMPRESS DEFLATE", session=session)
        session.wire.compress()
        return desk.line(desk.run("NAMESPACE", session=session), "NAMESPACE", r"\(\(")
    finally:
        session.quit()


def _context(desk: Desk) -> str:
    uid = desk.uids[1]
    tag = desk.one.begin("UID SEARCH RETURN (UPDATE COUNT) FLAGGED")
    if not desk.one.finish(tag).ok:
        raise Lacking("SEARCH RETURN (UPDATE) is refused")
    desk.run("SELECT", desk.mailbox, session=desk.two)
    desk.run(f"UID STORE {uid} +FLAGS (\\Flagged)", session=desk.two)
    answer = desk.run("NOOP")
    seen = desk.line(answer, "ESEARCH", rf'TAG "{tag}".*ADDTO \(\d+ {uid}\)')
    desk.run(f'CANCELUPDATE "{tag}"')
    desk.run("UNSELECT", session=desk.two)
    return seen


def _enable(desk: Desk) -> str:
    session = Imap.open(desk.endpoint, desk.account)
    try:
        return desk.line(desk.run("ENABLE CONDSTORE", session=session), "ENABLED", "CONDSTORE")
    finally:
        session.quit()


def _search(desk: Desk) -> str:
    count = len(desk.uids)
    seen = [desk.line(desk.run("SEARCH RETURN (MIN MAX COUNT) ALL"), "ESEARCH", rf"MIN 1 .*COUNT {count}|COUNT {count}.*MIN 1")]
    order = " ".join(uid for _, uid in sorted(zip(LETTERS, desk.uids, strict=True)))
    seen.append(desk.line(desk.run("UID SORT (SUBJECT) UTF-8 ALL"), "SORT", f"^SORT {order}$"))
    seen.append(desk.line(desk.run("SORT RETURN (COUNT) (SUBJECT) UTF-8 ALL"), "ESEARCH", f"COUNT {count}"))
    return "; ".join(seen)


def _comparator(desk: Desk) -> str:
    uid = desk.add(headers=f"Keywords: {UMLAUT}\r\n")
    try:
        return desk.line(desk.run("UID SEARCH CHARSET UTF-8 HEADER Keywords", Literal("äRGER".encode())), "SEARCH", rf"\b{uid}\b")
    finally:
        desk.run(f"UID STORE {uid} +FLAGS.SILENT (\\Deleted)")
        desk.run(f"UID EXPUNGE {uid}")


def _notify(desk: Desk) -> str:
    desk.run("UNSELECT")
    desk.run("NOTIFY SET (PERSONAL (MessageNew MessageExpunge))")
    try:
        uid = desk.add(session=desk.two)
        line = ""
        try:
            while not line.startswith("* STATUS") or desk.mailbox not in line:  # others may be told of too
                line = desk.one.response(PUSH_SECONDS).decode()
        except TimeoutError:
            raise Lacking(f"a message in another mailbox was not told within {PUSH_SECONDS} s; last: {line[:120] or 'nothing'}") from None
    finally:
        desk.one.command("NOTIFY NONE")
    desk.run("SELECT", desk.mailbox)
    desk.run(f"UID STORE {uid} +FLAGS.SILENT (\\Deleted)")
    desk.run(f"UID EXPUNGE {uid}")
    return line[:160]


def _qresync(desk: Desk) -> str:
    uid = desk.add()
    session = Imap.open(desk.endpoint, desk.account)
    try:
        desk.run("ENABLE QRESYNC", session=session)
        opened = desk.run("SELECT", desk.mailbox, session=session)
        highest = next((found for line in opened.lines("OK") if (found := re.search(r"HIGHESTMODSEQ (\d+)", line))), None)
        if highest is None:
            raise Lacking("SELECT tells no HIGHESTMODSEQ")
        desk.run("UNSELECT", session=session)
        desk.run(f"UID STORE {uid} +FLAGS.SILENT (\\Deleted)")
        desk.run(f"UID EXPUNGE {uid}")
        again = desk.run("SELECT", desk.mailbox, f"(QRESYNC ({desk.stored[0].validity} {highest.group(1)}))", session=session)
        return desk.line(again, "VANISHED", rf"\(EARLIER\).*\b{uid}\b")
    finally:
        session.quit()


def _fetch_url(desk: Desk, url: str) -> bytes | None:
    answer = desk.run(f'URLFETCH "{url}"')
    line = next((line for line in answer.untagged if line.upper().startswith(b"URLFETCH")), b"")
    found = re.search(rb"\{(\d+)\}\r\n", line)
    return line[found.end() : found.end() + int(found.group(1))] if found else None


def _urlauth(desk: Desk) -> str:
    user = desk.account["user"]
    url = genurlauth(desk.one, desk.endpoint["name"], user, desk.stored[0], f"user+{user}")
    data = _fetch_url(desk, url)
    if not data or b"lemonstand probe" not in data:
        raise Lacking("URLFETCH gives nothing for the owner's own URL")
    desk.run("RESETKEY", desk.mailbox)
    if _fetch_url(desk, url) is not None:
        raise Lacking("the URL still works after RESETKEY")
    return f"GENURLAUTH, URLFETCH of {len(data)} octets, NIL after RESETKEY"


def _partial(desk: Desk) -> str:
    user = desk.account["user"]
    url = genurlauth(desk.one, desk.endpoint["name"], user, desk.stored[0], f"user+{user}", extra="/;PARTIAL=0.20")
    data = _fetch_url(desk, url)
    if data is None or len(data) != 20:
        raise Lacking(f"20 octets were asked for, {None if data is None else len(data)} came")
    return f"/;PARTIAL=0.20 gives {data!r}"


def _catenate(desk: Desk) -> str:
    answer = desk.run(
        "APPEND", desk.mailbox, "CATENATE", "(TEXT", Literal(b"X-Put: together\r\n"),
        f'URL "{desk.stored[0].path}")',
    )  # fmt: skip
    uid = answer.code.split()[-1]
    whole = b"".join(desk.run(f"UID FETCH {uid} BODY.PEEK[]").untagged)
    desk.run(f"UID STORE {uid} +FLAGS.SILENT (\\Deleted)")
    desk.run(f"UID EXPUNGE {uid}")
    if b"X-Put: together\r\nFrom:" not in whole:
        raise Lacking(f"the parts were not put together: {whole[:120]!r}")
    return f"TEXT and URL became message {uid}"


def _within(desk: Desk) -> str:
    return desk.line(desk.run("SEARCH YOUNGER 3600"), "SEARCH", r"\b1\b")


def _metadata(desk: Desk) -> str:
    desk.run("SETMETADATA", desk.mailbox, '(/private/comment "probe")')
    return desk.line(desk.run("GETMETADATA", desk.mailbox, "/private/comment"), "METADATA", "comment")


EXERCISES: dict[str, Callable[[Desk], str]] = {
    "NAMESPACE": _namespace,
    "UIDPLUS": _uidplus,
    "CONDSTORE": _condstore,
    "LITERAL+": _literals,
    "IDLE": _idle,
    **{keyword: functools.partial(_keywords, keyword=keyword) for keyword in KEYWORDS},
    "BINARY": _binary,
    "COMPRESS=DEFLATE": _compress,
    "CONTEXT=SEARCH": _context,
    "ENABLE": _enable,
    "ESEARCH": _search,
    "I18NLEVEL=1": _comparator,
    "NOTIFY": _notify,
    "QRESYNC": _qresync,
    "URLAUTH": _urlauth,
    "URL-PARTIAL": _partial,
    "CATENATE": _catenate,
    "WITHIN": _within,
    "METADATA": _metadata,
}
