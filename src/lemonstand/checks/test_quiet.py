"""Five quiet minutes: what a session that sleeps carries, how long the servers wait, how soon a sleeper is told.

Nothing is broken for it, but it takes minutes and nobody else may disturb: it runs with `--disruptive`.
"""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.measure import QUESTIONS, Vantage, silence
from lemonstand.observations import Pool
from lemonstand.outcomes import expect, invalid
from lemonstand.remote.endpoints import timer
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.disruptive]

SLEEP_SECONDS = QUESTIONS["sleep"].seconds
TOLD_SECONDS = 2.0
TRIES = 3
"""A host that is busy with something else is late for a moment: the best of these counts."""


@measurement(held=True)
def quiet(vantage: Vantage) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sleeping and busy sessions, and submission sessions that wait, side by side."""
    with Pool(max_workers=2) as pool:
        slept = pool.submit(silence.sleep, vantage, SLEEP_SECONDS)
        waited = pool.submit(silence.wait, vantage, QUESTIONS["wait"].seconds)
        return slept.result().data, waited.result().data


@pytest.mark.control("LEM-5-04")
@pytest.mark.supports("LEM-4.1-06", "LEM-5-02")
def test_a_sleeping_session_carries_nothing(
    quiet: tuple[dict[str, Any], dict[str, Any]], site: Site, family: int, measure: Measure
) -> None:
    """Between two lines of the server, which come once an interval: no keep-alive of the kernel, no word of TLS, none of the client."""
    session = quiet[0]["slept"][family]
    lines = sum(text.startswith("* OK") for _, text in session["lines"])
    measure("watched for", session["counted"], "s")
    for cause, count in sorted(session["segments"].items()):
        measure(f"segments: {cause}", count)
    measure("wake-ups", session["wake_ups"])
    if session["ended"] or session["counted"] < SLEEP_SECONDS * 0.9:
        invalid(f"the session was not left alone: {session['ended'] or session['lines']}")
    due = int(SLEEP_SECONDS // timer(site, "idle_notify")) + 1
    expect(lines <= due, "the server speaks too often", seen=lines, expected=f"{due} lines at most")
    strange = {cause: count for cause, count in session["segments"].items() if cause not in {"line", "acknowledgement"}}
    expect(
        not strange and session["wake_ups"] <= lines,
        "a session that sleeps is woken for nothing",
        seen=session["segments"],
        expected="silence",
    )


@pytest.mark.control("LEM-4.1-01", "LEM-4-01")
@pytest.mark.supports("LEM-4.1-02", "LEM-4.1-03", "LEM-4.1-04")
def test_a_busy_session_stays(quiet: tuple[dict[str, Any], dict[str, Any]], family: int, measure: Measure) -> None:
    """Beside the silent session one of the same age that speaks: a limit of age would end it, one of idleness would not."""
    session = quiet[0]["talked"][family]
    measure("held", session["seconds"], "s")
    measure("commands answered", session["answered"])
    expect(not session["ended"], "a connection was ended for its age", seen=session["ended"], expected="none ends it")
    expect(
        session["answered"] >= SLEEP_SECONDS / silence.BUSY_EVERY * 0.5,
        "the busy session fell silent",
        seen=session,
        expected="answers all along",
    )


@pytest.mark.control("LEM-4.1-05b")
def test_submission_waits_for_a_command(quiet: tuple[dict[str, Any], dict[str, Any]], site: Site, family: int, measure: Measure) -> None:
    """A client that has logged in or begun a message and says nothing is waited for, five minutes at least (RFC 5321 section 4.5.3.2.7).

    Before the login Dovecot waits three minutes, which nothing can change: that is measured and knowingly left.
    """
    login, message, before = (quiet[1][f"{stage} IPv{family}"] for stage in ("login", "mail", "tls"))
    floor = site.timers.floor("smtp_server_timeout")
    measure("silent, logged in", login["held"], "s")
    measure("silent, in a message", message["held"], "s")
    measure("silent, before login", before["held"], "s")
    measure("before login ended by", before["ended"] or "nothing within this time")
    for session in (login, message):
        expect(
            not session["ended"] and session["answered"] and session["held"] >= floor,
            "submission does not wait for the next command",
            seen=session,
            expected=f"{floor} s",
        )


@pytest.mark.control("LEM-5-05")
def test_a_sleeping_session_is_told_soon(vantage: Vantage, measure: Measure) -> None:
    """The store has put the sessions to sleep (no process of theirs is left); a message accepted by the frontend is told within 2 s."""
    best: dict[int, float] = {}
    for _ in range(TRIES):
        found = silence.push(vantage, 0)
        if found.data["holders"] == 0:
            invalid("the store holds no sleeping session: they were not asleep")
        best = {family: min(seconds, best.get(family, seconds)) for family, seconds in found.data["told"].items()}
        lost = [family for family, each in found.data["results"].items() if not each["answered"]]
        expect(not lost, "a session that was told is dead", seen=lost, expected="DONE answered")
        if max(best.values()) <= TOLD_SECONDS:
            break
    for family, seconds in best.items():
        measure(f"IPv{family}: told after", round(seconds, 2), "s")
    expect(max(best.values()) <= TOLD_SECONDS, "a sleeping session is told late", seen=best, expected=f"within {TOLD_SECONDS} s", late=True)
