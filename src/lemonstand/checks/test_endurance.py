"""Connections that last: outages, loss, soft errors, forgotten state, routine work. These checks disturb the site while they run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lemonstand.checks import expect, invalid, not_measurable
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.vantage import ARRIVAL_SECONDS, FAMILIES, Doors, Once, Prober, Running
from lemonstand.probes.wire import Account
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.disruptive]

OUTAGE_SECONDS = 120
LOSS_PERCENT, LOSS_SECONDS = 20, 30
SPARE_SECONDS = 30
"""What a probe gets beyond the time it works, to open its session and to close it."""
MAIL_PORTS = [143, 587]


@pytest.fixture(scope="session")
def border(site: Site) -> str:
    """The host all mail of clients passes.

    Raises:
        NotMeasurable: it is not ours.
    """
    edges = site.group("edges")
    if not edges:
        not_measurable("the site has no edge of its own: outages can't be made")
    return edges[0].name


@contextlib.contextmanager
def _in_both(
    prober: Prober, vantage: str, doors: Doors, probe: str, ready: str, *, within: float, **args: Any
) -> Iterator[dict[int, Running]]:
    """A probe at work in each IP version, all of them `ready`; they are stopped at the end of the block."""
    with contextlib.ExitStack() as stack:
        running = {
            family: stack.enter_context(
                prober.start(vantage, probe, seconds=int(within) + SPARE_SECONDS, door=doors(family), within=within, **args)
            )
            for family in FAMILIES
        }
        for each in running.values():
            each.wait(ready)
        yield running


def _mail(prober: Prober, vantage: str, doors: Doors, accounts: list[Account]) -> str:
    """A message to the first account, submitted by the second; its Message-ID."""
    sent = prober.ask(vantage, "deliver", door=doors(4), account=accounts[1], recipient=accounts[0]["user"])
    if sent["code"] != 250:
        invalid(f"no message could be sent: {sent['code']} {sent['text']}")
    return str(sent["ident"])


def _tidy(prober: Prober, vantage: str, doors: Doors, account: Account, ident: str) -> None:
    prober.ask(vantage, "wait-for", door=doors(4), account=account, ident=ident, within=ARRIVAL_SECONDS)


@pytest.fixture(scope="session")
def outside(site: Site, border: str) -> str:
    """The border's device towards the clients."""
    return site.hosts[border].interfaces["internet"].device


@pytest.fixture(scope="session")
def outage(once: Once, prober: Prober, border: str, outside: str, *, vantage: str, doors: Doors, accounts: list[Account]) -> dict[str, Any]:
    """Two minutes without a packet between client and frontend, while mail arrives; what came after it on the same connections."""

    def ask() -> Any:
        within = 3.0 * OUTAGE_SECONDS
        with _in_both(prober, vantage, doors, "push", "idling", within=within, account=accounts[0]) as sessions:
            hold = prober.start(border, "hold-back", seconds=OUTAGE_SECONDS + 20, ports=[143], within=OUTAGE_SECONDS, device=outside)
            hold.wait("holding")
            ident = _mail(prober, vantage, doors, accounts)
            held = hold.result()
            released = time.monotonic()
            seen = {family: running.wait("result") for family, running in sessions.items()}
        _tidy(prober, vantage, doors, accounts[0], ident)
        return {
            "held": held,
            "sessions": {family: {**event.values["data"], "after": event.at - released} for family, event in seen.items()},
        }

    return dict(once("outage", ask))


@pytest.mark.control("LEM-4.2-01", "LEM-5-01")
def test_a_session_outlives_an_outage(outage: dict[str, Any], family: int, measure: Measure) -> None:
    """After 120 s without a packet the push comes first, on the same connection, and the client's own command is answered on it."""
    session = outage["sessions"][family]
    measure("outage", OUTAGE_SECONDS, "s")
    measure("packets held back", outage["held"]["dropped"])
    measure("push after the end of the outage", round(session["after"], 1), "s")
    if outage["held"]["dropped"] == 0:
        invalid("nothing was held back: the outage did not happen")
    expect(session["arrived"], "the session did not outlive the outage", seen=session["lines"], expected="EXISTS on the same connection")
    expect(session["answered"], "the client is not answered after the outage", seen=session["lines"], expected="DONE and LOGOUT answered")


@pytest.mark.control("LEM-4.2-02", "LEM-7-04")
def test_the_edge_remembers_unacknowledged_data(outage: dict[str, Any], site: Site, measure: Measure) -> None:
    """At the end of the outage, with data sent again and again, conntrack still means to remember for more than two hours."""
    entries = [entry for entry in outage["held"]["entries"] if entry["state"] == "ESTABLISHED"]
    if not entries:
        invalid("the edge shows no connection of the handset")
    least = min(entry["left"] for entry in entries)
    measure("connections", len(entries))
    measure("least time left", least, "s")
    floor = site.timers.floor("unack")
    expect(least >= floor - OUTAGE_SECONDS, "the edge forgets a connection with unacknowledged data", seen=entries, expected=f"{floor} s")


@pytest.mark.control("LEM-7-01", "LEM-7-09")
def test_the_edge_remembers_silent_connections(
    prober: Prober, border: str, site: Site, vantage: str, doors: Doors, *, accounts: list[Account], measure: Measure
) -> None:
    """Idle connections in both families, as the edge's conntrack counts them down."""
    with _in_both(prober, vantage, doors, "push", "idling", within=20, account=accounts[0]):
        entries = [entry for entry in prober.ask(border, "flows", ports=[143]) if entry["state"] == "ESTABLISHED"]
    floor = site.timers.floor("established")
    for version in ("ipv4", "ipv6"):
        left = [entry["left"] for entry in entries if entry["family"] == version]
        if not left:
            invalid(f"the edge shows no {version} connection of the handset")
        measure(f"{version}: time left", min(left), "s")
        expect(min(left) >= floor - 20, f"the edge forgets silent {version} connections", seen=min(left), expected=f"{floor} s")


@pytest.mark.control("LEM-4.2-05", "LEM-4-04d")
@pytest.mark.supports("LEM-4.2-06")
def test_soft_errors_end_no_connection(
    prober: Prober, border: str, site: Site, vantage: str, doors: Doors, *, accounts: list[Account], measure: Measure
) -> None:
    """Destination Unreachable 0, 1, 5, Time Exceeded and Parameter Problem, quoted in window, to frontends and stores: each is looked at,
    none ends a session."""
    hosts = [*site.group("frontends"), *site.group("stores")]
    legs = {
        host.name: [str(a) for zone in ("dmz", "store") if zone in host.interfaces for a in host.interfaces[zone].addresses]
        for host in hosts
    }
    before = {host.name: prober.ask(host.name, "counters") for host in hosts}
    with _in_both(prober, vantage, doors, "talk", "talking", within=14, account=accounts[0], every=2.0) as sessions:
        sent = prober.ask(border, "soft-errors", targets=[a for each in legs.values() for a in each], ports=[143], within=4)
        talked = {family: running.result() for family, running in sessions.items()}
    after = {host.name: prober.ask(host.name, "counters") for host in hosts}
    for host in hosts:
        grown = {name: after[host.name][name] - before[host.name][name] for name in after[host.name]}
        due = sum(sent["sent"].get(address, 0) for address in legs[host.name])
        measure(f"errors sent to {host.name}", due)
        if due == 0:
            invalid(f"no connection of {host.name} was seen: nothing was sent")
        if grown["OutOfWindowIcmps"] != 0 or sum(grown.values()) < due:
            invalid(f"the kernel of {host.name} did not look at the errors: {grown}, {due} sent")
    ended = [f"IPv{family}: {each['ended']}" for family, each in talked.items() if each["ended"]]
    measure("answers during it", min(each["answered"] for each in talked.values()))
    expect(not ended, "a soft error ended a session", seen=ended, expected="sessions that go on")


@pytest.mark.control("LEM-7-11")
def test_a_forgotten_connection_is_learnt_again(
    prober: Prober, border: str, vantage: str, doors: Doors, accounts: list[Account], measure: Measure
) -> None:
    """The edge forgets, the client speaks, the session goes on."""
    with _in_both(prober, vantage, doors, "talk", "talking", within=6, account=accounts[0], every=1.0) as sessions:
        gone = prober.ask(border, "forget", ports=[143])
        talked = {family: running.result() for family, running in sessions.items()}
    measure("connections forgotten", gone)
    if gone < len(FAMILIES):
        invalid(f"only {gone} connections could be forgotten")
    ended = [f"IPv{family}: {each['ended']}" for family, each in talked.items() if each["ended"] or each["answered"] < 3]
    expect(not ended, "a forgotten connection is lost", seen=ended, expected="learnt again from its next packet")


@pytest.mark.control("LEM-4.1-11")
@pytest.mark.supports("LEM-7-08", "LEM-4.1-02")
def test_routine_work_ends_no_session(
    prober: Prober, host: HostFactory, site: Site, vantage: str, doors: Doors, *, accounts: list[Account], measure: Measure
) -> None:
    """Dovecot is reloaded on frontends and stores, all rules are loaded anew; then a message is told on the sessions from before."""
    with _in_both(prober, vantage, doors, "push", "idling", within=60, account=accounts[0]) as sessions:
        for each in (*site.group("frontends"), *site.group("stores")):
            if host(each.name).run("systemctl reload dovecot").rc != 0:
                invalid(f"dovecot on {each.name} can't be reloaded")
        for each in site.hosts.values():
            if each.role_groups and host(each.name).run("nft -f /etc/lemonstand/nftables.nft").rc != 0:
                invalid(f"the rules on {each.name} can't be loaded")
        time.sleep(7)  # a reload that ends sessions does so within six seconds
        began = time.monotonic()
        ident = _mail(prober, vantage, doors, accounts)
        seen = {family: running.wait("result") for family, running in sessions.items()}
    _tidy(prober, vantage, doors, accounts[0], ident)
    lost = [f"IPv{family}: {event.values['data']['lines']}" for family, event in seen.items() if not event.values["data"]["arrived"]]
    measure("push after it", round(max(event.at for event in seen.values()) - began, 2), "s")
    expect(not lost, "routine work ended sessions that slept", seen=lost, expected="EXISTS on the same connections")


@pytest.mark.control("LEM-4-01")
@pytest.mark.supports("LEM-4-04g", "LEM-4-04a")
def test_services_work_through_loss(
    prober: Prober, border: str, outside: str, vantage: str, doors: Doors, *, accounts: list[Account], measure: Measure
) -> None:
    """A fifth of all packets is lost: handshakes, TLS and logins on both ports take longer and succeed."""
    hold = prober.start(
        border, "hold-back", seconds=LOSS_SECONDS + 20, ports=MAIL_PORTS, within=LOSS_SECONDS, percent=LOSS_PERCENT, device=outside
    )
    hold.wait("holding")

    def ask(job: tuple[int, str]) -> Any:
        return prober.ask(
            vantage, "logins", seconds=110, door=doors(job[0]), accounts=accounts, count=3, parallel=1, stall=60, service=job[1]
        )

    jobs = [(family, service) for family in FAMILIES for service in ("imap", "submission")]
    with ThreadPoolExecutor(max_workers=len(jobs)) as pool:
        found = list(pool.map(ask, jobs))
    dropped = hold.result()["dropped"]
    measure("packets lost", dropped)
    measure("slowest login", max(each["slowest"] for each in found), "s")
    if dropped == 0:
        invalid("no packet was lost")
    wrong = [fault for each in found for fault in (*each["failed"], *each["stalled"])]
    expect(not wrong, "a service fails on a bad link", seen=wrong, expected="all logins succeed")
