"""More than two hours: silent sessions and busy ones, from the handset through carrier, edge and frontend to the store.

All are opened together, each on a connection of its own, and held; then mail arrives. Run by `make soak`. Held for a shorter time
(`--soak-seconds`) the answers are scaled, and what needs two hours says that it could not be measured.

The way from the controller to the vantage is none of what is measured, and may be lost: probes go on there, and are come back to. So every
time that is judged is the vantage's, and what somebody who came back too late would have asked is not measured.
"""

from __future__ import annotations

import contextlib
import time
from itertools import pairwise
from typing import Any

import pytest

from lemonstand.checks.background import Answers
from lemonstand.checks.conftest import Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import Invalid, expect, invalid, not_measurable
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, Endpoints, families_of, timer
from lemonstand.remote.lasting import awake_or_not
from lemonstand.remote.prober import Event, Prober, Running
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.soak]

KINDS = ("idle", "notify")
"""IDLE alone, and IDLE of a session that asked for the events of all mailboxes (RFC 5465)."""
TRICKLE_SECONDS = 60.0
"""A busy session says NOOP this often."""
SAMPLE_SECONDS = 300
"""How often conntrack and the kernels' timers are looked at on the way."""
LAST_SECONDS = 15
"""Before the end, when busy sessions say goodbye, nobody looks any more."""
SETTLE_SECONDS = 60
"""After which a store has put a session that idles to sleep."""
LOOK_SECONDS = 5
SPARE_SECONDS = 300
LOGOUT_MARGIN_SECONDS = 300
"""How long beyond the autologout somebody waits for it."""
SLACK_SECONDS = 15
"""Between a line's time and the time it was due."""


@pytest.fixture(scope="session")
def held(pytestconfig: pytest.Config) -> int:
    """How long connections are held, seconds."""
    return int(pytestconfig.getoption("--soak-seconds"))


@pytest.fixture(scope="session")
def soak(
    answers: Answers, prober: Prober, site: Site, held: int, vantage: Vantage, endpoints: Endpoints, *, accounts: list[Account]
) -> dict[str, Any]:
    """All of it: sessions by `KIND IPvN`, `busy IPvN`, `silent login`, `silent select`; `samples` read on the way; `absences` of ours."""
    return dict(answers("soak", lambda: _hold(prober, site, held, vantage, endpoints, accounts)))


def _hold(prober: Prober, site: Site, held: int, vantage: Vantage, endpoints: Endpoints, accounts: list[Account]) -> dict[str, Any]:
    within = held + SPARE_SECONDS
    logout = timer(site, "imap_autologout") + LOGOUT_MARGIN_SECONDS
    with contextlib.ExitStack() as stack:
        waited_until: list[float] = []

        def start(probe: str, ready: str, **args: Any) -> Running:
            running = stack.enter_context(vantage.start(probe, seconds=within + SPARE_SECONDS, lasting=True, **args))
            began = running.wait(ready)
            if probe == "idle":
                waited_until.append(began.there + within)
            return running

        sleeping = {
            f"{kind} IPv{family}": start(
                "idle",
                "idling",
                endpoint=endpoints(family),
                account=accounts[0],
                within=within,
                notify=kind == "notify",
                settle=SETTLE_SECONDS,
            )
            for family in families_of(site)
            for kind in KINDS
        }
        others = {
            f"busy IPv{family}": start(
                "talk", "talking", endpoint=endpoints(family), account=accounts[1], within=held, every=TRICKLE_SECONDS
            )
            for family in families_of(site)
        }
        others |= {
            f"silent {stage}": start(
                "silence", "silent", endpoint=endpoints(), account=accounts[1], within=min(logout, held), port=143, stage=stage
            )
            for stage in ("login", "select")
        }
        samples = _watch(prober, site, awake_or_not() + held)
        # These last as well: two hours are not to be lost in their last minute.
        last: dict[str, Any] = {"seconds": 2 * SPARE_SECONDS, "lasting": True, "endpoint": endpoints()}
        sending = stack.enter_context(vantage.start("deliver", **last, account=accounts[1], recipient=accounts[0]["user"]))
        told = sending.wait("result")
        sent = told.values["data"]
        if sent["code"] != 250:
            invalid(f"no message could be sent: {sent['code']} {sent['text']}")
        late = told.there + ARRIVAL_SECONDS > min(waited_until)
        results = {name: running.wait("result") for name, running in sleeping.items()}
        seen: dict[str, Any] = {name: _told(event, sending.began, late=late) for name, event in results.items()}
        seen |= {name: running.wait("result").values["data"] for name, running in others.items()}
        absences = prober.absences(vantage.host)
        with contextlib.suppress(Invalid):  # to tidy up; what can't be found stays
            vantage.start("wait-for", **last, account=accounts[0], ident=sent["ident"], within=ARRIVAL_SECONDS).result()
    return {**seen, "samples": samples, "absences": absences}


def _told(result: Event, sending_began: float, *, late: bool) -> dict[str, Any]:
    """What came of a session that slept; `after`: seconds since submission began; `too_late`: it had given up before the mail was sent."""
    session = dict(result.values["data"])
    gave_up = not session["ended"] and not session["arrived"]
    return {**session, "after": result.there - sending_began, "too_late": late and gave_up}


def _watch(prober: Prober, site: Site, until: float) -> list[dict[str, Any]]:
    """What edges remember and what timers run on frontends and stores, again and again; a sample that can't be had is left out."""
    samples = []
    inner = [*site.group("frontends"), *site.group("stores")]
    due = awake_or_not()  # a kernel's timer shows what it was set to at the beginning alone
    while due < until - LAST_SECONDS:
        _sleep_until(due)
        with contextlib.suppress(Invalid):
            sample = {
                "flows": [entry for edge in site.group("edges") for entry in prober.ask(edge.name, "tracked-connections", ports=[143])],
                "timers": {host.name: prober.ask(host.name, "keepalives", ports=[143]) for host in inner},
            }
            # Who was asked when the network was back, or the controller awake again, may have been asked after the sessions' end.
            if awake_or_not() < until - LAST_SECONDS:
                samples.append(sample)
        due = max(due + SAMPLE_SECONDS, awake_or_not())
    _sleep_until(until)
    return samples


def _sleep_until(due: float) -> None:
    """Sleeps by a clock that goes on while this machine sleeps, and looks at it often: a timer of the kernel's stands still meanwhile."""
    while (left := due - awake_or_not()) > 0:
        time.sleep(min(left, LOOK_SECONDS))


@pytest.mark.control("LEM-4.1-06", "LEM-4.1-07", "LEM-5-01", "LEM-5-05", "LEM-7-07")
@pytest.mark.supports("LEM-4-01", "LEM-4.1-03", "LEM-4.1-08", "LEM-7-01")
@pytest.mark.parametrize("kind", KINDS)
def test_a_silent_session_is_told_after_two_hours(soak: dict[str, Any], held: int, family: int, kind: str, measure: Measure) -> None:
    """The client says nothing for the whole time; then mail arrives, is told on the same connection, and the client is answered on it."""
    session = soak[f"{kind} IPv{family}"]
    measure("held", session["held"], "s")
    measure("times the way to the vantage was lost", len(soak["absences"]), volatile=True)
    if soak["absences"]:
        measure("longest without it", max(soak["absences"]), "s")
    if session["too_late"]:
        invalid("the way to the vantage was lost for too long: mail was sent when the session had waited its time out")
    measure("push after submission began", round(session["after"], 2), "s")
    measure("data segments of the client", session["segments"].get("own", 0))
    expect(
        not session["ended"] and session["arrived"], "a session did not last", seen=session["ended"] or session["lines"], expected="EXISTS"
    )
    expect(session["answered"], "the client is not answered any more", seen=session["lines"][-3:], expected="DONE answered")
    expect(session["held"] >= held, "the session was held too short a time", seen=session["held"], expected=f"{held} s")
    expect(not session["segments"].get("own"), "the client had to send to stay connected", seen=session["segments"], expected="none")


@pytest.mark.control("LEM-4.2-04", "LEM-5-02", "LEM-5-03")
@pytest.mark.parametrize("kind", KINDS)
def test_the_server_speaks_once_an_interval(soak: dict[str, Any], held: int, family: int, kind: str, site: Site, measure: Measure) -> None:
    """Consecutive lines of the server are as far apart as the timers say, by time or by a clock that was put forward meanwhile."""
    due, session = timer(site, "idle_notify"), soak[f"{kind} IPv{family}"]
    # The first one may come sooner.
    heard = [(at, step) for (at, text), step in zip(session["lines"], session["steps"], strict=True) if text.startswith("* OK")]
    if held < 2 * due + SLACK_SECONDS:
        not_measurable(f"two lines {due} s apart can't be heard within {held} s")
    gaps = [round(later - sooner, 1) for (sooner, _), (later, _) in pairwise(heard)]
    by_clock = [round(gap + after - before, 1) for gap, ((_, before), (_, after)) in zip(gaps, pairwise(heard), strict=True)]
    measure("lines", len(heard))
    measure("between two", ", ".join(map(str, gaps)), "s")
    expect(bool(gaps), "the server hardly speaks", seen=heard, expected=f"a line each {due} s")
    if heard and heard[-1][1] - heard[0][1] > SLACK_SECONDS:
        measure("between two, by the clock", ", ".join(map(str, by_clock)), "s")
    wrong = [gap for gap, other in zip(gaps, by_clock, strict=True) if min(abs(gap - due), abs(other - due)) > SLACK_SECONDS]
    expect(not wrong, "the server's lines come at another pace", seen=gaps, expected=f"{due} s")


@pytest.mark.control("LEM-5-04")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_wakes_the_radio(soak: dict[str, Any], family: int, kind: str, measure: Measure) -> None:
    """Each segment of the connection is a line of the server, its acknowledgement, or a keep-alive probe of the kernel's two hours."""
    session = soak[f"{kind} IPv{family}"]
    segments, hours = session["segments"], session["counted"] / 3600
    measure("counted", session["counted"], "s")
    for cause, count in sorted(segments.items()):
        measure(f"segments an hour: {cause}", round(count / hours, 2))
    measure("wake-ups an hour", round(session["wake_ups"] / hours, 2))
    measure("octets an hour", round(session["octets"] / hours))
    spoken = sum(text.startswith("* OK") for _, text in session["lines"])
    probes = int(session["counted"] // 7200) + 1
    strange = {cause: segments[cause] for cause in ("tls", "again", "own", "opening or end") if segments.get(cause)}
    expect(not strange, "a session that sleeps is woken for nothing", seen=strange, expected="lines and their acknowledgements")
    expect(
        segments.get("keep-alive", 0) <= probes and session["wake_ups"] <= spoken + probes,
        "a session that sleeps is woken too often",
        seen=segments,
        expected=f"{spoken} lines and at most {probes} probes of the kernel",
    )


@pytest.mark.control("LEM-4.1-01", "LEM-4.1-02", "LEM-4.1-03", "LEM-4.1-04")
@pytest.mark.supports("LEM-4-01")
def test_a_busy_connection_grows_old(soak: dict[str, Any], held: int, family: int, measure: Measure) -> None:
    """A word each minute, on one connection, for longer than two hours: a limit of age would show here, one of idleness would not."""
    session = soak[f"busy IPv{family}"]
    measure("held", session["seconds"], "s")
    measure("commands answered", session["answered"])
    expect(not session["ended"], "a connection was ended for its age", seen=session["ended"], expected="none ends it")
    expect(
        session["seconds"] >= held and session["answered"] >= held / TRICKLE_SECONDS * 0.9,
        "the busy session fell silent",
        seen=session,
        expected=f"a command each {TRICKLE_SECONDS:.0f} s for {held} s",
    )


@pytest.mark.control("LEM-4.1-05a")
@pytest.mark.parametrize("stage", ["login", "select"])
def test_nobody_is_logged_out_early(soak: dict[str, Any], held: int, site: Site, stage: str, measure: Measure) -> None:
    """A session that neither speaks nor idles, with and without a mailbox open, lasts thirty minutes at least."""
    session, floor = soak[f"silent {stage}"], site.timers.floor("imap_autologout")
    measure("silent for", session["held"], "s")
    measure("ended by", session["ended"] or "nothing within this time")
    if held < floor and not session["ended"]:
        not_measurable(f"{floor} s of silence don't fit into {held} s")
    expect(session["held"] >= floor, "a silent session is ended early", seen=session, expected=f"{floor} s")
    expect(bool(session["ended"]) or session["answered"], "a session is dead and nobody said so", seen=session, expected="an answer")


@pytest.mark.control("LEM-7-01", "LEM-7-09", "LEM-7-08")
@pytest.mark.supports("LEM-4.1-08")
def test_the_edge_remembers_all_the_time(soak: dict[str, Any], site: Site, family: int, measure: Measure) -> None:
    """Whenever the edge was asked, it knew each silent connection and meant to for two hours more than it had been silent."""
    if not site.group("edges"):
        not_measurable("the site has no edge of its own")
    if not soak["samples"]:
        invalid("the edge could not be asked")
    version = f"ipv{family}"
    counts = [sum(e["family"] == version and e["state"] == "ESTABLISHED" for e in sample["flows"]) for sample in soak["samples"]]
    left = [e["left"] for sample in soak["samples"] for e in sample["flows"] if e["family"] == version and e["state"] == "ESTABLISHED"]
    measure("times asked", len(counts))
    measure("connections known, least", min(counts))
    if not left:
        expect(False, "the edge knows no connection", seen=counts, expected=f"{len(KINDS) + 1} at least")
    measure("time left, least", min(left), "s")
    floor = site.timers.floor("established") - timer(site, "idle_notify") - SLACK_SECONDS
    expect(min(counts) > len(KINDS), "the edge forgot connections", seen=counts, expected=f"{len(KINDS) + 1} at least")
    expect(min(left) >= floor, "the edge means to forget too soon", seen=min(left), expected=f"{floor} s at the end of a silence")


@pytest.mark.control("LEM-4.2-03")
def test_kernels_ask_rarely_all_the_time(soak: dict[str, Any], site: Site, held: int, measure: Measure) -> None:
    """On frontends and stores, no connection's keep-alive timer was ever set to less than two hours: it only runs down."""
    timers = [
        (name, entry["timer"])
        for sample in soak["samples"]
        for name, entries in sample["timers"].items()
        for entry in entries
        if entry["timer"] is not None
    ]
    if not timers:
        invalid("no keep-alive timer was seen on any host")
    most = max(value for _, value in timers)
    floor = site.timers.floor("tcp_keepalive_time")
    measure("timers read", len(timers))
    measure("longest seen", most, "s")
    # A timer of an hour that is read at any time is never above an hour; one of two hours is, on a busy connection.
    fresh = {name: max(value for owner, value in timers if owner == name) for name, _ in timers}
    short = {name: value for name, value in fresh.items() if value < floor - TRICKLE_SECONDS - 60}
    expect(not short, "a kernel asks too often", seen=short, expected=f"{floor} s after each word")
