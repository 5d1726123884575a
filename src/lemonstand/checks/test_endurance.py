"""Connections that last: outages, loss, soft errors, forgotten state, routine work. These checks disturb the site while they run."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lemonstand.checks.background import Answers
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.measure import QUESTIONS, Finding, Vantage, interruptions
from lemonstand.outcomes import expect, invalid
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.disruptive]

OUTAGE_SECONDS = QUESTIONS["outage"].seconds
LINK_SECONDS = QUESTIONS["link-down"].seconds
LOSS_SECONDS = QUESTIONS["loss"].seconds
READ_SECONDS = 30
"""What a count may have run down by the time it is read."""


@pytest.fixture(scope="session")
def outage(answers: Answers, vantage: Vantage) -> dict[str, Any]:
    """Two minutes without a packet between client and frontend, while mail arrives; what came after it on the same connections."""
    return dict(answers("outage", lambda: interruptions.outage(vantage, OUTAGE_SECONDS)).data)


@pytest.fixture(scope="session")
def link_down(answers: Answers, vantage: Vantage) -> dict[str, Any]:
    """A minute with the handset's link down, while mail arrives."""
    return dict(answers("link down", lambda: interruptions.link_down(vantage, LINK_SECONDS)).data)


@pytest.fixture(scope="session")
def remembered(answers: Answers, vantage: Vantage) -> dict[str, dict[str, int]]:
    """What the edge's conntrack means to remember of each state, by IP version."""
    return dict(answers("memory", lambda: interruptions.memory(vantage, 0)).data["left"])


def _told(finding: Finding, measure: Measure) -> None:
    for value in finding.values:
        measure(value.name, value.value, value.unit)


def _lasts(session: dict[str, Any], what: str, measure: Measure) -> None:
    measure(f"push after the end of the {what}", round(session["after"], 1), "s")
    expect(session["arrived"], f"the session did not outlive the {what}", seen=session["lines"], expected="EXISTS on the same connection")
    expect(session["answered"], f"the client is not answered after the {what}", seen=session["lines"], expected="DONE and LOGOUT answered")


@pytest.mark.control("LEM-4.2-01", "LEM-5-01")
def test_a_session_outlives_an_outage(outage: dict[str, Any], family: int, measure: Measure) -> None:
    """After 120 s without a packet the push comes first, on the same connection, and the client's own command is answered on it."""
    measure("outage", OUTAGE_SECONDS, "s")
    measure("packets held back", outage["held"]["dropped"])
    if outage["held"]["dropped"] == 0:
        invalid("nothing was held back: the outage did not happen")
    _lasts(outage["sessions"][family], "outage", measure)


@pytest.mark.control("LEM-4.2-01", "LEM-5-01")
def test_a_session_outlives_a_link_that_is_down(link_down: dict[str, Any], family: int, measure: Measure) -> None:
    """After 60 s without a link the push comes first, on the same connection, and the client's own command is answered on it."""
    measure("link down", LINK_SECONDS, "s")
    if not link_down["held"]["down"] or not link_down["held"]["up"]:
        invalid(f"the link was not taken down and up again: {link_down['held']}")
    _lasts(link_down["sessions"][family], "time without a link", measure)


@pytest.mark.control("LEM-4.2-02", "LEM-7-04")
def test_the_edge_remembers_unacknowledged_data(outage: dict[str, Any], site: Site, measure: Measure) -> None:
    """At the end of the outage, with data sent again and again, conntrack still means to remember for more than two hours."""
    floor = site.timers.floor("unack")
    for version in ("ipv4", "ipv6"):
        entries = [e for e in outage["held"]["entries"] if e["state"] == "ESTABLISHED" and e["family"] == version]
        if not entries:
            invalid(f"the edge shows no {version} connection of the handset")
        least = min(entry["left"] for entry in entries)
        measure(f"{version}: connections", len(entries))
        measure(f"{version}: least time left", least, "s")
        expect(
            least >= floor - OUTAGE_SECONDS, "the edge forgets a connection with unacknowledged data", seen=entries, expected=f"{floor} s"
        )


STATES = {
    "established": ("established", ("LEM-7-01", "LEM-7-09")),
    "unacknowledged": ("unack", ("LEM-7-04", "LEM-4.2-02")),
    "half-closed": ("close_wait", ("LEM-7-03",)),
    "time-wait": ("time_wait", ("LEM-7-02",)),
}
"""States of a connection as conntrack counts them down: the timer each follows, and the controls."""


@pytest.mark.parametrize(
    ("state", "timer"),
    [pytest.param(state, timer, marks=pytest.mark.control(*names), id=state) for state, (timer, names) in STATES.items()],
)
@pytest.mark.supports("LEM-7-01", "LEM-7-02", "LEM-7-03", "LEM-7-04", "LEM-7-09", "LEM-4.2-02")
def test_the_edge_remembers_connections_in_each_state(
    remembered: dict[str, dict[str, int]], site: Site, family: int, *, state: str, timer: str, measure: Measure
) -> None:
    """Idle, with data on its way, closed by one side, closed by both: what the edge's conntrack counts down from."""
    left = remembered[f"IPv{family}"][state]
    floor = site.timers.floor(timer)
    measure("time left", left, "s")
    expect(left >= floor - READ_SECONDS, f"the edge forgets {state} connections", seen=left, expected=f"{floor} s")


@pytest.mark.control("LEM-4.2-05", "LEM-4-04d")
@pytest.mark.supports("LEM-4.2-06")
def test_soft_errors_end_no_connection(vantage: Vantage, measure: Measure) -> None:
    """Destination Unreachable 0, 1, 5, Time Exceeded and Parameter Problem, quoted in window, to frontends and stores: each is looked at,
    none ends a session."""
    found = interruptions.soft_errors(vantage, 0)
    _told(found, measure)
    ended = [f"IPv{family}: {each['ended']}" for family, each in found.data["talked"].items() if each["ended"]]
    expect(not ended, "a soft error ended a session", seen=ended, expected="sessions that go on")


@pytest.mark.control("LEM-4-04f")
def test_opening_survives_a_soft_error(vantage: Vantage, measure: Measure) -> None:
    """The frontend's first SYN to the store is answered by "host unreachable", which ends the attempt: it makes another."""
    found = interruptions.opening(vantage, 0)
    _told(found, measure)
    expect(not found.data["wrong"], "one soft error while opening ends a login", seen=found.data["wrong"], expected="another attempt")


@pytest.mark.control("LEM-4-04e", "LEM-6-09")
def test_a_way_that_becomes_narrow_is_learnt(vantage: Vantage, measure: Measure) -> None:
    """The MTU drops under an open session: the edge says so, the frontend hears it, and 300 kB come through in smaller packets."""
    found = interruptions.narrow(vantage, 0)
    _told(found, measure)
    for family in vantage.families:
        each = found.data["fetched"][family]
        expect(
            found.data["errors"][family] > 0, f"IPv{family}: no error about the size got to the frontend", seen=0, expected="one at least"
        )
        expect(not each["ended"] and each["fetched"] > 0, f"IPv{family}: the message got stuck", seen=each, expected="all of it")


@pytest.mark.control("LEM-7-11")
def test_a_forgotten_connection_is_learnt_again(vantage: Vantage, measure: Measure) -> None:
    """The edge forgets, the client speaks, the session goes on."""
    with vantage.in_both("talk", "talking", within=6, account=vantage.accounts[0], every=1.0) as sessions:
        gone = vantage.prober.ask(vantage.border, "forget", ports=[143])
        talked = {family: running.result() for family, running in sessions.items()}
    measure("connections forgotten", gone)
    if gone < len(vantage.families):
        invalid(f"only {gone} connections could be forgotten")
    ended = [f"IPv{family}: {each['ended']}" for family, each in talked.items() if each["ended"] or each["answered"] < 3]
    expect(not ended, "a forgotten connection is lost", seen=ended, expected="learnt again from its next packet")


@pytest.mark.control("LEM-4.1-11")
@pytest.mark.supports("LEM-7-08", "LEM-4.1-02")
def test_routine_work_ends_no_session(vantage: Vantage, host: HostFactory, site: Site, measure: Measure) -> None:
    """Dovecot is reloaded on frontends and stores, all rules are loaded anew; then a message is told on the sessions from before."""
    with vantage.in_both("push", "idling", within=60, account=vantage.accounts[0]) as sessions:
        for each in (*site.group("frontends"), *site.group("stores")):
            if host(each.name).run("systemctl reload dovecot").rc != 0:
                invalid(f"dovecot on {each.name} can't be reloaded")
        for each in site.hosts.values():
            if each.role_groups and host(each.name).run("nft -f /etc/lemonstand/nftables.nft").rc != 0:
                invalid(f"the rules on {each.name} can't be loaded")
        time.sleep(7)  # a reload that ends sessions does so within six seconds
        began = time.monotonic()
        ident = vantage.mail()
        seen = {family: running.wait("result") for family, running in sessions.items()}
    vantage.tidy(ident)
    lost = [f"IPv{family}: {event.values['data']['lines']}" for family, event in seen.items() if not event.values["data"]["arrived"]]
    measure("push after it", round(max(event.at for event in seen.values()) - began, 2), "s")
    expect(not lost, "routine work ended sessions that slept", seen=lost, expected="EXISTS on the same connections")


@pytest.mark.control("LEM-4-01")
@pytest.mark.supports("LEM-4-04g", "LEM-4-04a")
def test_services_work_through_loss(vantage: Vantage, measure: Measure) -> None:
    """A fifth of all packets is lost: handshakes, TLS and logins on both ports take longer and succeed."""
    found = interruptions.loss(vantage, LOSS_SECONDS)
    _told(found, measure)
    expect(not found.data["wrong"], "a service fails on a bad link", seen=found.data["wrong"], expected="all logins succeed")
