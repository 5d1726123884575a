"""Clients that write one numbered message after the other, and users that log in, while something happens to a site."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lemonstand.probes.events import ENOUGH, emit
from lemonstand.probes.protocols.imap import Imap, Literal
from lemonstand.probes.protocols.messages import message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint, Wire, context

TRY_SECONDS = 10.0
"""How long each step of a try may take."""
AGAIN_SECONDS = 0.5
"""After a try that failed."""
LAST_SECONDS = 60.0
"""How much longer a message is tried that was begun when the asker had seen enough: it is not left between."""
MOST_FAULTS = 5


class NotTaken(OSError):
    """A server refused a message, or put it off."""


@dataclass
class Job:
    """What one writer has: where it writes to, as whom, for whom, and the session it has open."""

    endpoints: list[Endpoint]
    account: Account
    recipient: str
    sender: str
    session: Any = None


@dataclass
class Seen:
    """What came of all writers of a kind."""

    accepted: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    failed: int = 0
    longest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, name: str, seconds: float) -> None:
        """One message was taken."""
        with self.lock:
            self.accepted.append(name)
            self.longest = max(self.longest, seconds)

    def failed_at(self, name: str, fault: Exception) -> None:
        """One try came to nothing, or nobody said what it came to."""
        with self.lock:
            self.failed += 1
            if not isinstance(fault, NotTaken):
                self.unsure.append(name)
            if len(self.faults) < MOST_FAULTS:
                self.faults.append(f"{type(fault).__name__}: {fault}"[:200])


def writers(
    kind: str,
    endpoints: list[Endpoint],
    accounts: list[Account],
    recipients: list[str],
    *,
    count: int,
    tag: str,
    within: float,
    pace: float,
    sender: str = "",
) -> dict[str, Any]:
    """Writes until the asker has seen enough; tells `writing` when each writer is at work.

    A message that was not acknowledged is sent again with the same number, as clients do. Who writes keeps its session as long as it lasts;
    who delivers to an MX, and who logs in, begins anew each time.

    Args:
        kind: `append` (to INBOX), `submit`, `mx`, or `login` (nothing is written).
        endpoints: where; an MX client tries one after the other (RFC 5321 section 5.1), any other has one of them.
        accounts: who logs in, in turn.
        recipients: for whom, in turn.
        count: writers side by side.
        tag: the messages' ids begin with it: `TAG-KIND-WRITER-NUMBER@probe.invalid`.
        within: seconds at most.
        pace: seconds from one message to the next.
        sender: of mail to an MX.

    Returns:
        `accepted`: ids of messages that were acknowledged, or how many logins there were; `unsure`: those that were sent again after a
        silence, so that they may be there twice; `failed`: tries; `faults`, the first few; `longest`: seconds from the first try of one
        message, or login, until it succeeded.
    """
    seen, until = Seen(), time.monotonic() + within
    act: Callable[[Job, str], None] = {"append": _append, "submit": _submit, "mx": _deliver, "login": _login}[kind]

    def write(number: int) -> None:
        turn = number % len(endpoints)
        ways = [*endpoints[turn:], *endpoints[:turn]]
        account = accounts[number % len(accounts)] if accounts else Account(user="", password="")
        job = Job(ways, account, recipients[number % len(recipients)] if recipients else "", sender or account["user"])
        written = 0
        while not ENOUGH.is_set() and time.monotonic() < until:
            began, name = time.monotonic(), f"{tag}-{kind}-{number}-{written}@probe.invalid"
            if not _until_taken(act, job, name, seen):
                break
            written += 1
            seen.took(name, time.monotonic() - began)
            ENOUGH.wait(max(0.0, began + pace - time.monotonic()))
        _leave(job)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    emit("writing")
    for thread in threads:
        thread.join()
    accepted: Any = len(seen.accepted) if kind == "login" else seen.accepted
    return {
        "accepted": accepted, "unsure": seen.unsure, "failed": seen.failed, "faults": seen.faults, "longest": round(seen.longest, 1),
    }  # fmt: skip


def _until_taken(act: Callable[[Job, str], None], job: Job, name: str, seen: Seen) -> bool:
    """Tries one message until it is taken; False if nobody waits for it any more."""
    left = LAST_SECONDS
    while left > 0:
        began = time.monotonic()
        try:
            act(job, name)
        except (OSError, ValueError) as fault:
            _leave(job)
            seen.failed_at(name, fault)
            time.sleep(AGAIN_SECONDS)
        else:
            return True
        if ENOUGH.is_set():
            left -= time.monotonic() - began
    return False


def _leave(job: Job) -> None:
    if job.session is not None:
        with contextlib.suppress(OSError, ValueError):
            job.session.wire.close()
        job.session = None


def _append(job: Job, name: str) -> None:
    if job.session is None:
        job.session = Imap.open(job.endpoints[0], job.account, timeout=TRY_SECONDS, again_after=())
    answer = job.session.command("APPEND INBOX", Literal(message(job.sender, job.recipient, name=name).data))
    if answer.status == "BYE":
        raise ConnectionError(answer.text)
    if not answer.ok:
        raise NotTaken(f"{answer.status} {answer.text}")


def _submit(job: Job, name: str) -> None:
    if job.session is None:
        job.session = Smtp.open(job.endpoints[0], job.account, timeout=TRY_SECONDS, again_after=())
    _hand_over(job.session, job, name)


def _deliver(job: Job, name: str) -> None:
    fault: OSError = NotTaken("no MX")
    for way in job.endpoints:
        try:
            job.session = Smtp(Wire.to(way, 25, TRY_SECONDS))
            job.session.ehlo()
            job.session.command("STARTTLS")
            job.session.wire.starttls(context(way["ca"]), way["name"])
            job.session.ehlo()
        except OSError as problem:  # nothing was handed over yet
            fault = NotTaken(f"{type(problem).__name__}: {problem}")
            _leave(job)
            continue
        _hand_over(job.session, job, name)
        job.session.quit()
        job.session = None
        return
    raise fault


def _hand_over(session: Smtp, job: Job, name: str) -> None:
    reply = session.envelope(job.sender, [job.recipient])
    if reply.ok:
        reply = session.data(message(job.sender, job.recipient, name=name).data)
        if reply.code == 0:
            raise ConnectionError(reply.text)
    if not reply.ok:
        raise NotTaken(f"{reply.code} {reply.text}")


def _login(job: Job, _name: str) -> None:
    session = Imap.open(job.endpoints[0], job.account, timeout=TRY_SECONDS, again_after=())
    session.quit()
