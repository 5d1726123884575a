"""Two edges and several frontends: what clients see of the loss of one, and whether the two that should be alike are."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lemonstand.checks.conftest import FactsOf, HostFactory, Measure, Table
from lemonstand.measure import Vantage, failover
from lemonstand.measure.edges import at_work_and_other, shared_addresses
from lemonstand.measure.failover import Loss
from lemonstand.outcomes import NotApplicable, expect, invalid
from lemonstand.remote.endpoints import timer
from lemonstand.site import Site

SESSIONS = 60
"""That sleep while an edge is lost, over all addresses."""
BESIDE = 12
"""That sleep at other frontends while one is lost."""
TAKEN_SECONDS, GREETED_SECONDS = 5.0, 5.0
"""After which all connections are led by the other edge, and a new connection is greeted, at most."""
NAMED_SECONDS = 20
"""How soon two edges that are at work are named, and one alone is again: three questions, on a busy machine."""


def _pair(site: Site) -> tuple[str, str]:
    edges = site.group("edges")
    if len(edges) < 2:
        raise NotApplicable("the site has no second edge")
    return edges[0].name, edges[1].name


def _told(measure: Measure, loss: Loss) -> None:
    measure("lost", loss.lost)
    measure("taken over after", loss.seconds, "s")
    measure("sleeping sessions", loss.opened)
    measure("dropped", len(loss.ended))
    measure("told of a message", loss.pushed)
    for each in loss.openings:
        measure(f"longest new connection to {each['address']}", each["longest"], "s")


def _nothing_lost(loss: Loss, sessions: int) -> None:
    """No session was dropped, each was told of a message and heard afterwards."""
    if loss.opened < sessions:
        invalid(f"only {loss.opened} of {sessions} sessions could be opened")
    expect(not loss.ended, "sleeping sessions were lost", seen=loss.ended[:5], expected="none")
    expect(loss.pushed == loss.opened, "sessions were not told of a message", seen=loss.pushed, expected=loss.opened)
    expect(loss.answered == loss.opened, "sessions were not heard any more", seen=loss.answered, expected=loss.opened)


def _greeted(loss: Loss) -> None:
    failed = [f"{each['address']}: {each['faults']}" for each in loss.openings if each["failed"]]
    if not any(each["opened"] for each in loss.openings):
        invalid(f"no connection could be opened at all: {failed[:2]}")
    expect(not failed, "new connections failed", seen=failed, expected="none")
    expect(
        loss.longest <= GREETED_SECONDS,
        "a new connection waited too long",
        seen=f"{loss.longest} s",
        expected=f"{GREETED_SECONDS:.0f} s",
        late=True,
    )


@pytest.fixture(scope="module")
def silence(vantage: Vantage) -> Loss:
    """The edge at work falls silent."""
    return failover.edge_falls_silent(vantage, SESSIONS)


@pytest.mark.answer("configuration")
@pytest.mark.control("SUR-05")
def test_both_edges_have_the_same_rules(site: Site, facts_of: FactsOf, measure: Measure) -> None:
    """Chains, rules and timers of both are equal, by zones where their devices have other names."""

    def rules(name: str) -> dict[str, Any]:
        devices = {leg.device: zone for zone, leg in site.hosts[name].interfaces.items()}
        own = facts_of(name).rules
        found: dict[str, Any] = {f"chain {key[2]}": chain.get("policy", "") for key, chain in own.chains.items() if key[1] == "lemonstand"}
        for key, listed in own.rules.items():
            if key[1] == "lemonstand":
                for number, rule in enumerate(listed):
                    text = json.dumps(_without_counts(rule["expr"]), sort_keys=True)
                    for device, zone in devices.items():
                        text = text.replace(f'"{device}"', f'"{zone}"')
                    found[f"{key[2]} {number} {rule.get('comment', '')}"] = text
        return found | {f"timers {key[2]}": json.dumps(each["policy"], sort_keys=True) for key, each in own.timeouts.items()}

    first, second = (rules(name) for name in _pair(site))
    differ = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    measure("rules compared", len(first))
    if not first:
        invalid("no rules could be read")
    expect(not differ, "the edges let through or remember different things", seen=differ[:6], expected="the same")


def _without_counts(expressions: list[Any]) -> list[Any]:
    return [{"counter": None} if "counter" in each else each for each in expressions]


@pytest.mark.answer("live")
@pytest.mark.control("SUR-03")
def test_each_edge_knows_the_others_connections(vantage: Vantage, measure: Measure) -> None:
    """What the edge at work tracks, the other one has been told of; exactly one holds what both share."""
    at_work, other = at_work_and_other(vantage.prober, vantage.site)
    for _ in range(3):  # connections open and close meanwhile
        seen = failover.known(vantage, at_work, other)
        if seen is not None and failover.near(*seen):
            break
        time.sleep(2)
    measure("at work", at_work)
    _in_step(measure, seen, "the other edge")


def _in_step(measure: Measure, seen: tuple[int, int] | None, who: str) -> None:
    """One edge knows the connections of the one at work."""
    if seen is None:
        expect(holds=False, what="edges do not tell each other of connections", seen="a conntrackd that gives no answer", expected="two")
        return
    has, knows = seen
    measure("connections", has)
    measure(f"known to {who}", knows)
    expect(failover.near(has, knows), "an edge does not know of the other one's connections", seen=knows, expected=has)


def _taken_over(loss: Loss) -> None:
    expect(
        loss.seconds is not None and loss.seconds <= TAKEN_SECONDS,
        "the other edge takes over late, or not at all",
        seen=loss.seconds,
        expected=f"{TAKEN_SECONDS:.0f} s",
        late=loss.seconds is not None,
    )


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("SUR-01")
def test_a_silent_edge_costs_no_session(lab_only: None, silence: Loss, measure: Measure) -> None:
    """No reset, no link that goes down: silence. The other edge takes over; the server speaks first, and each sleeping session hears it."""
    _told(measure, silence)
    _taken_over(silence)
    _nothing_lost(silence, SESSIONS - len(silence.openings))
    _greeted(silence)


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("SUR-02")
def test_connections_are_remembered_as_long_as_before(lab_only: None, silence: Loss, site: Site, measure: Measure, table: Table) -> None:
    """Whatever counts as established has 2 h 4 min at least right after the other edge took over."""
    states = sorted({entry["state"] for entry in silence.entries})
    floor = min(timer(site, name) for name in ("established", "unack", "retrans", "fin_wait", "close_wait"))
    rows = [
        [state, len(those), min(those), max(those)]
        for state in states
        if (those := [entry["left"] for entry in silence.entries if entry["state"] == state])
    ]
    table("remembered after the other edge took over", ("state", "connections", "least (s)", "most (s)"), rows)
    measure("least", silence.left, "s")
    measure("read", round(silence.read_after, 1), "s after the loss")
    if not any(state in failover.LASTING for state in states):
        invalid(f"no established connection was there to look at: {states}")
    # One that has had a packet since then has the rules' own timer, less the seconds that have gone.
    expect(
        silence.left >= floor - silence.read_after,
        "connections that were taken over are forgotten too soon",
        seen=silence.left,
        expected=f"{floor} less {silence.read_after:.0f} s since then",
    )


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("SUR-03")
def test_an_edge_that_is_back_waits_for_its_turn(lab_only: None, silence: Loss, measure: Measure) -> None:
    """It takes no address, and within half a minute knows all connections of the other one."""
    expect(not silence.back, "the edge that was lost takes the work back by itself", seen=silence.back, expected="nothing")
    _in_step(measure, silence.in_step, "the one that is back")


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.supports("SUR-01")
def test_a_killed_election_costs_no_session(lab_only: None, vantage: Vantage, measure: Measure) -> None:
    """SIGKILL to what takes part in the election: its addresses leave with it, the other edge takes over."""
    loss = failover.election_dies(vantage, SESSIONS)
    _told(measure, loss)
    _taken_over(loss)
    _nothing_lost(loss, SESSIONS - len(loss.openings))
    expect(not loss.back, "both edges hold shared addresses", seen=loss.back, expected="one does")


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("SUR-04")
def test_two_edges_at_work_are_named(lab_only: None, site: Site, vantage: Vantage, host: HostFactory, measure: Measure) -> None:
    """The two don't hear each other, all else does: both take the addresses. Both name it; afterwards one gives way."""
    pair = _pair(site)
    failover.settle(vantage)
    at_work_and_other(vantage.prober, vantage.site)
    deaf = "table inet lemonstand_probe { chain deaf { type filter hook input priority -300; policy accept; meta l4proto vrrp drop; }; }"
    try:
        for name in pair:
            done = host(name).run(f"nft '{deaf}'")
            if done.rc != 0:
                invalid(f"{name}: {done.stderr.strip()[:200]}")
        begun = time.monotonic()
        named: dict[str, float] = {}
        while time.monotonic() - begun < NAMED_SECONDS and len(named) < len(pair):
            time.sleep(1)
            for name in pair:
                if name not in named and vantage.prober.ask(name, "edge-watch")["conflict"]:
                    named[name] = round(time.monotonic() - begun, 1)
    finally:
        for name in pair:
            host(name).run("nft delete table inet lemonstand_probe")
    for name in pair:
        measure(f"named by {name} after", named.get(name), "s")
    until = time.monotonic() + NAMED_SECONDS
    holders = list(pair)
    while time.monotonic() < until and len(holders) != 1:
        time.sleep(1)
        addresses = shared_addresses(vantage.site)
        holders = [name for name in pair if vantage.prober.ask(name, "held-addresses", addresses=addresses)]
    measure("at work afterwards", ", ".join(holders))
    silent = [name for name in pair if name not in named]
    expect(not silent, "an edge does not name two that are at work", seen=silent, expected=f"an alarm of both within {NAMED_SECONDS} s")
    expect(len(holders) == 1, "two edges stay at work", seen=holders, expected="one of them", late=True)


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("SUR-21")
@pytest.mark.supports("SUR-22")
def test_a_silent_frontend_keeps_nobody_out(lab_only: None, vantage: Vantage, measure: Measure) -> None:
    """Each new connection is greeted in time, at the public address and at every frontend's own one; sessions elsewhere sleep on."""
    loss = failover.frontend_falls_silent(vantage, BESIDE)
    _told(measure, loss)
    _greeted(loss)
    _nothing_lost(loss, BESIDE if loss.opened else 0)


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("SUR-24")
def test_a_silent_relay_keeps_no_mail_out(lab_only: None, vantage: Vantage, measure: Measure) -> None:
    """Each new connection to the MX's public IPv4 address is greeted in time; by IPv6 a sender tries the next address itself."""
    loss = failover.relay_falls_silent(vantage)
    _told(measure, loss)
    _greeted(loss)


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("SUR-22")
def test_a_drained_frontend_keeps_its_sessions_alone(
    lab_only: None, site: Site, vantage: Vantage, host: HostFactory, measure: Measure
) -> None:
    """Sessions at a frontend that is drained are told of a message; new ones are all elsewhere, in both IP versions."""
    frontends, edges = site.group("frontends"), site.group("edges")
    if len(frontends) < 2 or not edges:
        raise NotApplicable("the site has no second frontend, or no edge that leads connections to it")
    drained = frontends[0].name
    failover.settle(vantage)

    def say(verb: str) -> None:
        for edge in edges:
            done = host(edge.name).run(f"/usr/local/lib/lemonstand/edge-watch {verb} {drained}")
            if done.rc != 0:
                invalid(f"{edge.name}: {done.stderr.strip()[:200]}")

    def here() -> int:
        text = host(drained).run("ss -Htn state established '( sport = :143 or sport = :993 )' | wc -l").stdout
        return int(text.strip() or 0)

    own = {str(address) for address in frontends[0].interfaces["dmz"].addresses}
    ways = [each for each in failover.doors(vantage) if ":" not in each["address"] or each["address"] in own]
    crowd_of: dict[str, Any] = {"endpoints": ways, "accounts": vantage.accounts[:2], "count": BESIDE // 2, "within": 300}
    with vantage.start("idle-crowd", seconds=600, **crowd_of) as old:
        old.wait("idling")
        before = here()
        try:
            say("drain")
            time.sleep(3)
            with vantage.start("idle-crowd", seconds=600, **crowd_of) as new:
                opened = int(new.wait("idling").values["opened"])
                after = here()
                seen = Loss(drained)
                failover.wake(vantage, old, seen)
                new.enough()
                new.result()
        finally:
            say("undrain")
    measure("sessions before", before)
    measure("sessions after new ones", after)
    measure("new ones", opened)
    measure("dropped", len(seen.ended))
    if not before or not opened:
        invalid(f"{before} sessions at {drained}, {opened} new ones elsewhere: nothing to compare")
    expect(after <= before, "a drained frontend gets new connections", seen=after, expected=before)
    expect(not seen.ended and seen.pushed > 0, "sessions of a drained frontend were lost", seen=seen.ended, expected="none")
