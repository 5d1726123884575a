"""What the red team asks a host to do, beside the questions of the checks (`run.PROBES`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lemonstand.probes import forgery, frames, insider, loot, outsider

RAIDS: dict[str, Callable[..., Any]] = {
    "advertise-router": frames.advertise_router,
    "arrived": outsider.arrived,
    "as-other": insider.as_other,
    "ask-oddly": forgery.ask_oddly,
    "claim": frames.claim,
    "core": loot.core_of_a_login,
    "exits": frames.exits,
    "forge": forgery.forge,
    "forget-neighbour": frames.forget_neighbour,
    "greetings": outsider.greetings,
    "guess-users": outsider.guessing,
    "guess-with-addresses": forgery.guess_with_addresses,
    "holdings": loot.holdings,
    "journal-lines": loot.journal_lines,
    "leaving": frames.leaving,
    "legs": frames.legs,
    "listeners": loot.listeners,
    "lmtp-tricks": forgery.lmtp_tricks,
    "marked": forgery.marked,
    "neighbour": frames.neighbour,
    "neighbours": frames.neighbours,
    "no-login": outsider.no_login,
    "obtain": forgery.obtain,
    "odd-names": outsider.odd_names,
    "on-swap": loot.on_swap,
    "other-mailboxes": insider.other_mailboxes,
    "package-version": loot.package_version,
    "present": forgery.present,
    "public-halves": loot.public_halves,
    "redirect": frames.redirect,
    "relay-attempts": outsider.relay_attempts,
    "scan": frames.scan,
    "senders": forgery.senders,
    "smuggle": outsider.smuggle,
    "spoofed": frames.spoofed,
    "starttls": outsider.starttls,
    "submitted-senders": insider.submitted_senders,
    "touch-neighbour": frames.touch_neighbour,
    "trust": outsider.trust,
    "watch": frames.watch,
    "without-ticket": forgery.without_ticket,
}
