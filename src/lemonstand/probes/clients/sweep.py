"""Changes of a mailbox that come while sessions fall asleep in it: each session must be told, however the two moments lie (RFC 2177).

Sessions begin to idle one shortly after the other, so that one change meets all of them at another age: some are asleep, some are just
being put to sleep, some are awake.
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from lemonstand.probes.clients.crowd import PAUSE, TRIES
from lemonstand.probes.clients.delivery import append
from lemonstand.probes.clients.idle import NOTIFY
from lemonstand.probes.events import Later, Refused, emit
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.messages import message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint

OPENERS = 6
BLIND = 0.5
"""Seconds after a change in which Dovecot waits before it looks (lib-storage/mailbox-watch.c); who falls asleep meanwhile forgets it."""
APART = 1.0
"""Seconds between two kinds of change: their sessions are not all woken at once."""
ON_THE_WAY, UNSURE = 0.3, 2
"""Seconds a submitted message takes to its mailbox, about; so its sessions fall asleep over so many times the span."""
SOON = 1.0
"""Seconds until the first change is aimed at, beyond the time asleep: all threads have begun by then."""
AGAIN_AFTER = (0.02, 0.1, 0.3, 0.6, 1.0)
"""Seconds between the two changes of the kind `twice`, round by round: the second one meets sessions that are being woken."""
KINDS = {
    "delivery": b" EXISTS",
    "append": b" EXISTS",
    "twice": b" EXISTS",
    "flag": b" FETCH ",
    "expunge": b" EXPUNGE",
    "notify": b" EXISTS",
    "compress": b" EXISTS",
}
"""What changes, and the word a session is told it with. `notify` and `compress` are additions to sessions that asked for that."""


@dataclass
class _Sleeper:
    """A session that idles, and what it heard in this round."""

    session: Imap
    began: float = 0.0
    told: float = 0.0
    early: bool = False
    ended: str = ""
    counts: list[int] = field(default_factory=list)


class _Mailbox:
    """A mailbox, whoever idles in it, and the session that changes it."""

    def __init__(self, kind: str, endpoints: list[Endpoint], account: Account, sender: Account) -> None:
        self.kind, self.endpoints, self.account, self.sender = kind, endpoints, account, sender
        self.name = "INBOX" if kind == "delivery" else f"probe-sweep-{kind}-{secrets.token_hex(4)}"
        self.control = Imap.open(endpoints[0], account)
        self.sleepers: list[_Sleeper] = []
        self.sent: list[str] = []
        self.uids: list[str] = []
        self.exists = 0

    @property
    def on_the_way(self) -> float:
        """Seconds by which a change is begun before the moment it is aimed at; it may be told from then on."""
        return ON_THE_WAY if self.kind == "delivery" else 0.0

    def prepare(self, rounds: int) -> None:
        """Makes the mailbox with what will be changed in it."""
        if self.kind == "delivery":
            return
        _must(self.control.command("CREATE", self.name).ok, f"CREATE {self.name}")
        if self.kind in {"flag", "expunge"}:
            self.uids = [self._append() for _ in range(rounds if self.kind == "expunge" else 1)]
            _must(self.control.command("SELECT", self.name).ok, f"SELECT {self.name}")
            if self.kind == "expunge":
                _must(self.control.command(f"UID STORE {','.join(self.uids)} +FLAGS.SILENT (\\Deleted)").ok, "STORE")

    def open(self, number: int) -> _Sleeper:
        """Another session in it; who is told to come later comes later."""
        for turn in range(TRIES):
            try:
                session = Imap.open(self.endpoints[number % len(self.endpoints)], self.account)
                break
            except (Later, Refused, TimeoutError) as fault:
                if turn == TRIES - 1 or not (isinstance(fault, TimeoutError) or "[UNAVAILABLE]" in str(fault)):
                    raise
                time.sleep(PAUSE)
        if self.kind == "notify":
            _must(session.command(NOTIFY).ok, "NOTIFY")
        if self.kind == "compress":
            _must(session.command("COMPRESS DEFLATE").ok, "COMPRESS")
            session.wire.compress()
        selected = session.command("SELECT", self.name)
        _must(selected.ok, f"SELECT {self.name}")
        self.exists = int(selected.lines("EXISTS")[0].split()[0])
        return _Sleeper(session)

    def change(self, number: int, at: float) -> tuple[float, float]:
        """Makes the change of a round at a moment; when it was made first, and when all of it was."""
        submission = Smtp.open(self.endpoints[0], self.sender) if self.kind == "delivery" else None
        time.sleep(max(0.0, at - self.on_the_way - time.monotonic()))
        first = 0.0
        if submission is not None:
            self._submit(submission)
        elif self.kind == "flag":
            sign = "+-"[number % 2]
            _must(self.control.command(f"UID STORE {self.uids[0]} {sign}FLAGS (\\Flagged)").ok, "STORE")
        elif self.kind == "expunge":
            _must(self.control.command(f"UID EXPUNGE {self.uids[number]}").ok, "EXPUNGE")
        else:
            self._append()
            self.exists += 1
            first = time.monotonic()
            if self.kind == "twice":
                time.sleep(AGAIN_AFTER[number % len(AGAIN_AFTER)])
                self._append()
                self.exists += 1
        done = time.monotonic()
        return first or done, done

    def heard(self, line: bytes) -> bool:
        """Whether a line tells all of the change."""
        if KINDS[self.kind] not in line + b" ":
            return False
        return self.kind != "twice" or int(line.split()[1]) >= self.exists

    def clear(self) -> None:
        """Takes away what was made."""
        if self.kind == "delivery":
            self.control.command("SELECT INBOX")
            for ident in self.sent:
                found = self.control.command(f'UID SEARCH HEADER Message-ID "{ident}"').lines("SEARCH")
                for uid in found[0].split()[1:] if found else []:
                    self.control.command(f"UID STORE {uid} +FLAGS.SILENT (\\Deleted)")
                    self.control.command(f"UID EXPUNGE {uid}")
        else:
            self.control.command("SELECT INBOX")
            self.control.command("DELETE", self.name)
        self.control.quit()

    def _append(self) -> str:
        return append(self.control, self.name, message(self.account["user"], self.account["user"])).uid

    def _submit(self, submission: Smtp) -> None:
        sample = message(self.sender["user"], self.account["user"])
        reply = submission.envelope(self.sender["user"], [self.account["user"]])
        reply = submission.data(sample.data) if reply.ok else reply
        submission.quit()
        _must(reply.ok, f"a message: {reply.code} {reply.text}")
        self.sent.append(sample.ident)


def sweep(
    endpoints: list[Endpoint],
    accounts: list[Account],
    kinds: list[str],
    *,
    count: int,
    span: float,
    asleep: float,
    within: float,
    rounds: int = 1,
) -> dict[str, Any]:
    """Lets sessions idle, changes their mailboxes in the moment the store puts them to sleep, and notes who is told when.

    Tells `idling` when the sessions of the first round are about to begin.

    Args:
        endpoints: the frontend's addresses, used in turn.
        accounts: two; the mailboxes belong to them in turn, `delivery` goes to the first one's INBOX.
        kinds: of `KINDS`.
        count: sessions a kind.
        span: seconds over which their beginnings are spread (`delivery`: `UNSURE` times as many).
        asleep: seconds after which a session is put to sleep.
        within: seconds it waits for an answer after a change.
        rounds: how often, on the same sessions.

    Returns:
        By kind: `sessions`: of each session and round `[age, told]`: seconds it had idled when the change was made, and seconds from then
        (`twice`: from the second one) until it was told (None: it was not); `early`: sessions in whose rounds something else happened
        before, which are not in `sessions`; `ended`: what ended sessions.

    Raises:
        Refused: a mailbox, a session or a change was refused.
    """
    places = [_Mailbox(kind, endpoints, accounts[number % 2], accounts[(number + 1) % 2]) for number, kind in enumerate(kinds)]
    try:
        for place in places:
            place.prepare(rounds)
        jobs = [(place, number) for place in places for number in range(count)]
        with ThreadPoolExecutor(max_workers=OPENERS) as pool:
            opened = list(pool.map(lambda job: job[0].open(job[1]), jobs))
        for (place, _), sleeper in zip(jobs, opened, strict=True):
            place.sleepers.append(sleeper)
        found: dict[str, Any] = {place.kind: {"sessions": [], "early": 0, "ended": []} for place in places}
        emit("idling", opened=len(opened))
        with ThreadPoolExecutor(max_workers=len(jobs) + len(places)) as pool:
            for number in range(rounds):
                _round(pool, places, number, span=span, asleep=asleep, within=within, found=found)
            list(pool.map(lambda sleeper: sleeper.session.quit(), opened))
        return found
    finally:
        for place in places:
            place.clear()


def _round(
    pool: ThreadPoolExecutor, places: list[_Mailbox], number: int, *, span: float, asleep: float, within: float, found: dict[str, Any]
) -> None:
    start = time.monotonic() + SOON
    changes, waits = [], []
    for order, place in enumerate(places):
        begin = start + order * APART
        reach = span * (UNSURE if place.kind == "delivery" else 1)
        # The middle one of the sessions is in the middle of the time in which changes are forgotten.
        at = begin + reach / 2 + asleep - BLIND / 2
        changes.append(pool.submit(place.change, number, at))
        step = reach / max(1, len(place.sleepers) - 1)
        waits += [
            pool.submit(_listen, place, sleeper, begin + turn * step, at - place.on_the_way, at + within)
            for turn, sleeper in enumerate(place.sleepers)
            if not sleeper.ended
        ]
    done = [change.result() for change in changes]
    for wait in waits:
        wait.result()
    for place, (first, ready) in zip(places, done, strict=True):
        seen = found[place.kind]
        for sleeper in place.sleepers:
            if sleeper.early:
                seen["early"] += 1
            elif sleeper.ended:
                seen["ended"].append(sleeper.ended)
            else:
                told = round(max(0.0, sleeper.told - ready), 3) if sleeper.told else None
                seen["sessions"].append([round(first - sleeper.began, 3), told])


def _listen(place: _Mailbox, sleeper: _Sleeper, begin: float, at: float, until: float) -> None:
    sleeper.told, sleeper.early = 0.0, False
    session = sleeper.session
    time.sleep(max(0.0, begin - time.monotonic()))
    try:
        sleeper.began = time.monotonic()
        tag = session.begin("IDLE")
        # Who heard of something else before is awake for it, and counts for nothing: there is nothing to wait for.
        while not sleeper.told and not sleeper.early and (left := until - time.monotonic()) > 0:
            try:
                line = session.response(left)
            except TimeoutError:
                break
            now = time.monotonic()
            if now < at and not line.startswith((b"+", b"* OK")):
                sleeper.early = True
            elif now >= at and place.heard(line):
                sleeper.told = now
        answer = session.done(tag)
        if not answer.ok:
            sleeper.ended = f"{answer.status} {answer.text}"
    except (OSError, ValueError) as fault:
        sleeper.ended = f"{type(fault).__name__}: {fault}"


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(what)
