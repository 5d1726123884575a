"""Carries out one order on the host it was sent to and prints lines of JSON.

An order is `{"probe": NAME, "args": {...}, "seconds": N}`. Lines: `{"event": NAME, ...}` while it runs, then one of
`{"event": "result", "data": ...}`; `{"event": "refused", "message": ...}` where a service said no to what it must allow
(`wire.Refused`); `{"event": "error", "kind": ..., "message": ...}`. The process ends itself after `seconds`, whatever happens
to the connection.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from lemonstand.probes import (
    canary,
    certificates,
    crowd,
    delivery,
    dns,
    failures,
    features,
    forward,
    logins,
    path,
    push,
    raids,
    reach,
    rogue,
    sending,
    sessions,
    sieve,
    tickets,
    translation,
    transport,
)
from lemonstand.probes.say import emit
from lemonstand.probes.wire import Refused

PROBES: dict[str, Callable[..., Any]] = {
    "canary-search": canary.search,
    "canary-type": canary.type_credentials,
    "certificates": certificates.files,
    "counters": path.counters,
    "deliver": delivery.deliver,
    "features": features.features,
    "flows": path.flows,
    "foreign-mx": delivery.foreign_mx,
    "forged-address": failures.forged_address,
    "forget": path.forget,
    "forward": forward.forward,
    "forward-abuse": forward.abuse,
    "guess": tickets.guess,
    "hold-back": path.hold_back,
    "idle-crowd": crowd.crowd,
    "imap-session": sessions.imap_session,
    "injection": transport.injection,
    "keepalives": path.keepalives,
    "login-answers": failures.login_answers,
    "logins": logins.logins,
    "lookup": dns.lookup,
    "maildir": delivery.maildir,
    "one-source": translation.one_source,
    "push": push.push,
    "reach": reach.reach,
    "refusal-times": tickets.refusal_times,
    "rogue": rogue.rogue,
    "sent-count": sending.sent_count,
    "sent-out": sending.sent_out,
    "sieve-session": sieve.sieve_session,
    "soft-errors": path.soft_errors,
    "submission-session": sessions.submission_session,
    "talk": path.talk,
    "ticket-attempts": tickets.attempts,
    "ticket-logins": tickets.ticket_logins,
    "tickets-spoilt": tickets.spoilt,
    "tls-legs": transport.seen_all,
    "tls-versions": transport.versions,
    "translations": translation.translations,
    "wait-for": delivery.wait_for,
    **raids.RAIDS,
}


def _end_with_the_asker() -> None:
    """Whoever gave the order keeps standard input open as long as the answer is wanted."""
    sys.stdin.read()
    os._exit(3)


def main(order: dict[str, Any]) -> None:
    """Carries out the order."""
    signal.alarm(int(order["seconds"]))
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    try:
        data = PROBES[order["probe"]](**order["args"])
    except Refused as refusal:
        emit("refused", message=str(refusal)[:2000])
        sys.exit(2)
    except Exception as fault:  # the other side has to learn of anything
        emit("error", kind=type(fault).__name__, message=str(fault)[:2000])
        sys.exit(1)
    emit("result", data=data)
