"""Carries out one order on the host it was sent to and prints lines of JSON.

An order is `{"probe": NAME, "args": {...}, "seconds": N}`. Lines: `{"event": NAME, ...}` while it runs, then one of
`{"event": "result", "data": ...}`; `{"event": "refused", "message": ...}` where a service said no to what it must allow
(`wire.Refused`); `{"event": "error", "kind": ..., "message": ...}`. The process ends itself after `seconds`, whatever happens
to the connection.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from lemonstand.probes.raids import RAIDS
from lemonstand.probes.say import ENOUGH, emit
from lemonstand.probes.wire import Refused

PROBES: dict[str, str] = {
    "append-small": "mailboxes.append_small",
    "bare-message": "outgoing.bare",
    "canary-search": "canary.search",
    "canary-type": "canary.type_credentials",
    "certificates": "certificates.files",
    "closings": "path.closings",
    "copies": "outgoing.copies",
    "counters": "path.counters",
    "deliver": "delivery.deliver",
    "features": "features.features",
    "fetch-through": "path.fetch_through",
    "flows": "path.flows",
    "foreign-mx": "delivery.foreign_mx",
    "forged-address": "failures.forged_address",
    "forget": "path.forget",
    "forget-widths": "path.forget_widths",
    "forward": "forward.forward",
    "forward-abuse": "forward.abuse",
    "guess": "tickets.guess",
    "hold-back": "path.hold_back",
    "idle": "idle.idle",
    "idle-crowd": "crowd.crowd",
    "imap-session": "sessions.imap_session",
    "injection": "transport.injection",
    "killed": "crash.killed",
    "keep-alive": "idle.keep_alive",
    "keepalives": "path.keepalives",
    "link-down": "path.link_down",
    "login-answers": "failures.login_answers",
    "logins": "logins.logins",
    "login-storm": "logins.storm",
    "lookup": "dns.lookup",
    "mailbox-limit": "mailboxes.limit",
    "mailbox-names": "mailboxes.names",
    "maildir": "delivery.maildir",
    "names-incoming": "names.incoming",
    "names-marked": "names.marked",
    "names-spellings": "names.spellings",
    "narrow": "path.narrow",
    "octets-arrived": "octets.arrived",
    "octets-carry": "octets.carry",
    "octets-from-outside": "octets.from_outside",
    "octets-submit": "octets.submit",
    "old-host": "old_host.old_host",
    "odd-commands": "outgoing.odd_commands",
    "one-source": "translation.one_source",
    "outside-mail": "outgoing.outside_mail",
    "past-the-end": "pipelined.past_the_end",
    "processes": "path.processes",
    "push": "push.push",
    "reach": "reach.reach",
    "receipts-to-many": "outgoing.receipts_to_many",
    "refusal-hashes": "tickets.refusal_hashes",
    "refusal-times": "tickets.refusal_times",
    "refuse-openings": "path.refuse_openings",
    "rogue": "rogue.rogue",
    "script-chunks": "script.chunks",
    "script-inside": "script.inside",
    "script-outside": "script.outside",
    "script-remove": "script.remove",
    "script-store": "script.store",
    "session-tickets": "transport.session_tickets",
    "sent-count": "sending.sent_count",
    "sent-out": "sending.sent_out",
    "sieve-actions": "outgoing.sieve_actions",
    "sieve-session": "sieve.sieve_session",
    "silence": "idle.silence",
    "soft-errors": "path.soft_errors",
    "stages": "parity.stages",
    "store-stages": "parity.store_stages",
    "submission-session": "sessions.submission_session",
    "sweep": "sweep.sweep",
    "talk": "path.talk",
    "ticket-attempts": "tickets.attempts",
    "ticket-crowd": "tickets.crowd",
    "ticket-logins": "tickets.ticket_logins",
    "tickets-spoilt": "tickets.spoilt",
    "to-tags": "outgoing.to_tags",
    "tls-legs": "transport.seen_all",
    "tls-versions": "transport.versions",
    "translations": "translation.translations",
    "truth": "parity.truth",
    "wait-for": "delivery.wait_for",
    "watch": "watch.watch",
    **RAIDS,
}
"""By name: where its function is, `MODULE.FUNCTION`. Only that module is read on the host, which is most of what a short probe costs."""


def _end_with_the_asker() -> None:
    """Whoever gave the order keeps standard input open as long as the answer is wanted, and may say that he has seen enough."""
    for line in sys.stdin:
        if line.strip() == "enough":
            ENOUGH.set()
    os._exit(3)


def found(name: str) -> Callable[..., Any]:
    """The function of a probe."""
    module, _, function = PROBES[name].rpartition(".")
    probe: Callable[..., Any] = getattr(importlib.import_module(f"lemonstand.probes.{module}"), function)
    return probe


def main(order: dict[str, Any]) -> None:
    """Carries out the order."""
    signal.alarm(int(order["seconds"]))
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    try:
        data = found(order["probe"])(**order["args"])
    except Refused as refusal:
        emit("refused", message=str(refusal)[:2000])
        sys.exit(2)
    except Exception as fault:  # the other side has to learn of anything
        emit("error", kind=type(fault).__name__, message=str(fault)[:2000])
        sys.exit(1)
    emit("result", data=data)
