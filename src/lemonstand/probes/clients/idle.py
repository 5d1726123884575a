"""Sessions that sleep: what wakes them, what they say, how long they last (RFC 2177, RFC 5465, RFC 5383 section 5)."""

from __future__ import annotations

import secrets
import socket
import time
from typing import Any

from lemonstand.probes.events import Refused, emit
from lemonstand.probes.network.segments import Capture, wake_ups
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Closed, Endpoint, Wire

NOTIFY = "NOTIFY SET (SELECTED (MessageNew MessageExpunge FlagChange)) (PERSONAL (MessageNew MessageExpunge))"
BESIDE = 1.0
"""Seconds between a segment and the line it brought, at most."""
KEPT = 200


def idle(
    endpoint: Endpoint, account: Account, within: float, *, notify: bool = False, settle: float = 0.0, apart: bool = False
) -> dict[str, Any]:
    """Idles in INBOX without a word until the number of messages grows, and notes each segment of the connection meanwhile.

    Tells `idling` when it does, `settled` when it begins to count, `exists` when it learns of a message. Needs root: it captures.

    Args:
        within: seconds it waits.
        notify: ask for events of all mailboxes as well.
        settle: seconds before it counts, so that a store that hibernates sessions has done so.
        apart: idle in a mailbox made for it, where nobody's mail arrives, in place of INBOX.

    Returns:
        `arrived`, `answered` (the client's own next word was), `ended` (what ended it; empty: nothing did), `held`: seconds since IDLE,
        `counted`: seconds of counting up to the message's arrival; `lines`: `[seconds, text]`; `steps`: by how many seconds this host's
        clock had been put forward by the time of each line; in the time counted: `segments` by cause
        (`line`, `tls`, `keep-alive`, `acknowledgement`, `again`, `own`: data of the client, `opening or end`), `octets` of IP both ways,
        `wake_ups`.
    """
    session = Imap.open(endpoint, account)
    box = f"probe-idle-{secrets.token_hex(4)}" if apart else "INBOX"
    if apart:
        _must(session.command("CREATE", box).ok, f"CREATE {box}")
    _must(session.command(f"SELECT {box}").ok, f"SELECT {box}")
    if notify:
        answer = session.command(NOTIFY)
        _must(answer.ok, f"NOTIFY: {answer.status} {answer.text}")
    # From before IDLE on: its segments tell which numbers come next, and so what a keep-alive is.
    capture = Capture(local_port(session.wire))
    tag = session.begin("IDLE")
    while not session.response().startswith(b"+"):
        pass
    began, clock = time.monotonic(), time.time()
    emit("idling")
    steps: list[float] = []
    until, counted_from = began + within, began + settle
    lines: list[tuple[float, str]] = []
    ended, arrived, told = "", False, settle <= 0
    while not arrived and not ended and (left := until - time.monotonic()) > 0:
        wait = left if told else max(0.001, min(left, counted_from - time.monotonic()))
        try:
            text = session.response(wait).decode("utf-8", "replace")
        except TimeoutError:
            if not told:
                told = True
                emit("settled")
            continue
        except OSError as fault:
            ended = f"{type(fault).__name__}: {fault}"
            break
        lines.append((time.monotonic(), text))
        steps.append(round(time.time() - clock - (lines[-1][0] - began), 1))
        arrived = text.endswith(" EXISTS")
        if text.startswith("* BYE"):
            ended = text
    # What came with the message is no part of the silence.
    stop = lines[-1][0] - BESIDE if arrived else time.monotonic()
    if arrived:
        emit("exists")
    capture.stop()
    answered = False
    if not ended:
        answered = session.done(tag).ok
        if apart:
            session.command("CLOSE")
            session.command("DELETE", box)
    session.quit()
    counted = [entry for entry in capture.seen if max(counted_from, began + BESIDE) <= entry[0] <= stop]
    return {
        "arrived": arrived, "answered": answered, "ended": ended, "held": round(time.monotonic() - began, 1),
        "counted": round(max(0.0, stop - counted_from), 1), "lines": [[round(at - began, 2), text] for at, text in lines[:KEPT]],
        "steps": steps[:KEPT],
        "segments": _causes(counted, [at for at, _ in lines]), "octets": sum(size for *_, size in counted),
        "wake_ups": wake_ups([at for at, *_ in counted]),
    }  # fmt: skip


def silence(endpoint: Endpoint, account: Account, within: float, port: int, stage: str) -> dict[str, Any]:
    """Says nothing on a connection and waits who ends it, and when; tells `silent` when it begins.

    Args:
        within: seconds it waits at most.
        port: 143 or 587.
        stage: what comes before the silence: `tls`, `login`, `select` (143: INBOX is open), or `mail` (587: a message is begun, so that the
            store holds a connection to the relay).

    Returns:
        `held`: seconds of silence; `ended`: what ended it, empty if nothing did; `lines`: `[seconds, text]` the server said;
        `answered`: whether a NOOP was, after a silence that nothing ended.
    """
    who = None if stage == "tls" else account
    session = Imap.open(endpoint, who) if port == 143 else Smtp.open(endpoint, who)
    if stage == "select" and isinstance(session, Imap):
        _must(session.command("SELECT INBOX").ok, "SELECT INBOX")
    if stage == "mail" and isinstance(session, Smtp):
        _must(session.command(f"MAIL FROM:<{account['user']}>").ok, "MAIL")
    began = time.monotonic()
    emit("silent")
    lines: list[list[Any]] = []
    ended = ""
    while not ended and (left := began + within - time.monotonic()) > 0:
        try:
            lines.append([round(time.monotonic() - began, 1), session.wire.line(left).decode("utf-8", "replace")])
            lines[-1][0] = round(time.monotonic() - began, 1)
        except TimeoutError:
            break
        except (Closed, OSError) as fault:
            ended = str(fault)
    held = time.monotonic() - began
    answered = False if ended else session.command("NOOP").ok
    session.quit()
    return {"held": round(held, 1), "ended": ended, "lines": lines[:KEPT], "answered": answered}


def local_port(wire: Wire) -> int:
    """The port of this side."""
    return int(wire.socket.getsockname()[1])


def _causes(entries: list[tuple[float, bool, str, int]], spoken: list[float]) -> dict[str, int]:
    found: dict[str, int] = {}
    for at, theirs, kind, _ in entries:
        cause = kind
        if kind == "data":
            cause = "own" if not theirs else "line" if any(-BESIDE <= heard - at <= BESIDE for heard in spoken) else "tls"
        found[cause] = found.get(cause, 0) + 1
    return found


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(what)


def keep_alive(endpoint: Endpoint, account: Account, within: float, every: int = 2) -> dict[str, Any]:
    """Lets this side's kernel ask on a silent connection whether the other one is still there, and counts answers.

    Args:
        within: seconds of silence.
        every: seconds between the kernel's questions, on this side alone.

    Returns:
        `asked` and `answered`: keep-alive segments of ours and what came back; `answers_after` the silence: whether a NOOP was answered;
        `theirs`: keep-alive segments of the other side.
    """
    session = Imap.open(endpoint, account)
    raw = session.wire.socket
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9)
    capture = Capture(local_port(session.wire))
    session.command("NOOP")  # its segments tell which numbers come next, and so what a keep-alive is
    began = time.monotonic() + BESIDE
    time.sleep(within)
    # The last question may still be under way.
    ended = time.monotonic() - every / 2
    capture.stop()
    silent = [entry for entry in capture.seen if entry[0] >= began]
    asked = [entry for entry in silent if not entry[1] and entry[2] == "keep-alive" and entry[0] <= ended]
    answered = [entry for entry in silent if entry[1] and entry[2] == "acknowledgement"]
    theirs = [entry for entry in silent if entry[1] and entry[2] == "keep-alive"]
    alive = session.command("NOOP").ok
    session.quit()
    return {"asked": len(asked), "answered": len(answered), "theirs": len(theirs), "answers_after": alive}
