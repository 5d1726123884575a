"""The questions that the command line knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lemonstand.measure.announcements import parity
from lemonstand.measure.contents import transparency
from lemonstand.measure.hibernation import falling_asleep
from lemonstand.measure.interruptions import LOSS_PERCENT, link_down, loss, memory, narrow, opening, outage, soft_errors
from lemonstand.measure.silence import answers, push, sleep, timers, wait
from lemonstand.measure.vantage import Finding, Vantage


@dataclass(frozen=True)
class Question:
    """A question as the command line knows it.

    Args:
        ask: takes a look and seconds.
        says: what is asked, in a line.
        seconds: how long it takes if nobody says otherwise; 0: as long as it takes.
        disturbs: whether other users of the site notice.
    """

    ask: Callable[[Vantage, int], Finding]
    says: str
    seconds: int = 0
    disturbs: bool = False


QUESTIONS: dict[str, Question] = {
    "parity": Question(parity, "what is announced: outside, at the frontend, at the store; and whether it is true"),
    "transparency": Question(transparency, "a long session, octet by octet, at both ends"),
    "sleep": Question(sleep, "what wakes a session that idles, by cause, and a busy one beside it", 300),
    "wait": Question(wait, "how long submission waits for the next command", 310),
    "push": Question(push, "how soon a hibernated session is told of new mail"),
    "falling-asleep": Question(falling_asleep, "changes that come in the moment in which sessions are put to sleep: who is told, how soon"),
    "timers": Question(timers, "TCP keep-alive timers on each leg"),
    "answers": Question(answers, "whether TCP keep-alive of the client is answered"),
    "conntrack": Question(memory, "what the border remembers of connections in each state (holds packets back for 6 s)", disturbs=True),
    "outage": Question(outage, "no packet passes the border; push first, then the client, on the same connection", 120, disturbs=True),
    "link-down": Question(link_down, "the same with the handset's link down (labs)", 60, disturbs=True),
    "loss": Question(loss, f"{LOSS_PERCENT} % of all packets lost while clients log in", 30, disturbs=True),
    "soft-errors": Question(soft_errors, "ICMP errors in window end no session", disturbs=True),
    "opening": Question(opening, "a soft error while the frontend opens its connection to the store", disturbs=True),
    "narrow": Question(narrow, "the path MTU drops while a session is open", disturbs=True),
}
