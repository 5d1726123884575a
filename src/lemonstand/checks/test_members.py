"""Every member of a kind is asked as itself: a second one that nobody asked would be found broken on the day the first one is lost.

What a kind must do the other modules ask of whichever member answers; here each one has to answer, and the finding names it.
"""

from __future__ import annotations

import contextlib
from itertools import cycle, islice, product
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import NotApplicable, expect, not_measurable
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import (
    ARRIVAL_SECONDS,
    ELSEWHERE,
    PEER_SENDER,
    ca_of_clients,
    ca_of_exchangers,
    inner_services_of,
    members_endpoints,
)

STALL_SECONDS = 10.0
SESSIONS_A_FRONTEND = 8
"""Sessions at an address that several frontends share, for each of them. Which of them a session comes to is a sum over the address it
comes from (`edge-watch`: `pick`), with a start of its own each time the rules are laid: what counts is from how many addresses they come,
not how many sessions there are."""
MOST_CHANCE = 0.001
"""How likely a frontend may be to go without though all is well: with fewer addresses nothing is said. Sixteen for two give 1 in 32,768."""
SERVICES = ("imap", "submission")
pytestmark = pytest.mark.answer("live")


def _by_store(vantage: Vantage) -> dict[str, Account]:
    """One account of live checks for each store that has one."""
    found: dict[str, Account] = {}
    for account in vantage.accounts:
        found.setdefault(vantage.home(account), account)
    return found


@measurement()
def each_frontend(vantage: Vantage) -> dict[str, dict[str, list[str]]]:
    """What goes wrong with logins at each frontend's own public addresses, by address and service."""
    accounts = list(_by_store(vantage).values())
    order: dict[str, Any] = {"accounts": accounts, "count": len(accounts), "parallel": 1, "stall": STALL_SECONDS, "seconds": 120}
    seen: dict[str, dict[str, list[str]]] = {}
    for where, endpoint in members_endpoints(vantage.site, ca_of_clients(vantage.site), "frontends").items():
        answers = {service: vantage.ask("logins", endpoint=endpoint, service=service, **order) for service in SERVICES}
        seen[where] = {service: [*answer["failed"], *answer["stalled"]] for service, answer in answers.items()}
    return seen


@pytest.mark.supports("LEM-3-01", "LEM-3-02")
def test_every_frontend_lets_users_in_itself(each_frontend: dict[str, dict[str, list[str]]], measure: Measure) -> None:
    """At each of their own public addresses, users of every store log in to IMAP and submission."""
    if not each_frontend:
        raise NotApplicable("no frontend has a public address of its own: they share the one the edge translates")
    measure("addresses asked", len(each_frontend))
    wrong = {f"{where} {service}": faults for where, seen in each_frontend.items() for service, faults in seen.items() if faults}
    expect(not wrong, f"no way in at {', '.join(wrong)}", seen=wrong, expected="logins at every frontend", late=True)


@measurement()
def inner_ways(vantage: Vantage) -> dict[str, dict[str, Any]]:
    """A login by way of each issuer to each store, the frontends taking turns: what each step answered."""
    site, homes = vantage.site, _by_store(vantage)
    ways = list(product((host.name for host in site.group("auths")), homes))
    frontends = [host.name for host in site.group("frontends")]
    ways += ways[:1] * (len(frontends) - len(ways))
    seen: dict[str, dict[str, Any]] = {}
    for frontend, (auth, store) in zip(cycle(frontends), ways, strict=False):
        account = homes[store]
        services = inner_services_of(site, frontend=frontend, auth=auth, store=store)
        answers = vantage.prober.ask(frontend, "way-in", inner_services=services, account=account)
        seen[f"{frontend} by {auth} to {store}"] = {step: answer["status"] for step, answer in answers.items()}
    return seen


RIGHT = {"issuer": 200, "imap": "OK", "submission": "OK"}


@pytest.mark.control("SUR-13")
@pytest.mark.supports("LEM-8-07", "LEM-8-10", "LEM-8-11")
def test_every_issuer_opens_every_store(inner_ways: dict[str, dict[str, Any]], measure: Measure) -> None:
    """Whichever issuer a frontend asks, its ticket opens the user's store; every frontend takes a turn."""
    measure("ways tried", len(inner_ways))
    wrong = {way: seen for way, seen in inner_ways.items() if seen != RIGHT}
    expect(not wrong, f"no login: {', '.join(wrong)}", seen=wrong, expected=RIGHT, late=True)


@measurement()
def each_relay(vantage: Vantage) -> dict[str, str]:
    """What goes wrong with a message from outside at each relay's own public addresses; empty where it arrived."""
    homes = cycle(_by_store(vantage).values())
    seen: dict[str, str] = {}
    for where, endpoint in members_endpoints(vantage.site, ca_of_exchangers(vantage.site), "relays").items():
        account = next(homes)
        sent = vantage.prober.ask(
            vantage.outsider, "foreign-mx", endpoint=endpoint, sender=PEER_SENDER, recipient=account["user"], elsewhere=ELSEWHERE
        )
        if sent["accepted"]["code"] != 250:
            seen[where] = f"{sent['accepted']['code']} {sent['accepted']['text']}"
            continue
        got = vantage.ask("wait-for", endpoint=vantage.endpoints(), account=account, ident=sent["ident"], within=ARRIVAL_SECONDS)
        seen[where] = "" if got["seconds"] is not None else f"taken, and not there after {ARRIVAL_SECONDS} s"
    return seen


@pytest.mark.supports("LEM-3-05")
def test_every_relay_takes_mail_itself(each_relay: dict[str, str], measure: Measure) -> None:
    """At each of their own public addresses, and it arrives at the store of its user."""
    if not each_relay:
        raise NotApplicable("no relay has a public address of its own: they share the one the edge translates")
    measure("addresses asked", len(each_relay))
    wrong = {where: fault for where, fault in each_relay.items() if fault}
    expect(not wrong, f"no mail by way of {', '.join(wrong)}", seen=wrong, expected="taken and delivered", late=True)


@measurement()
def between_stores(vantage: Vantage) -> dict[str, str]:
    """What goes wrong with a message from a user of each store to one of the next; empty where it arrived."""
    homes = _by_store(vantage)
    names = list(homes)
    seen: dict[str, str] = {}
    for number, store in enumerate(names):
        there = names[(number + 1) % len(names)]
        sent = vantage.ask("deliver", endpoint=vantage.endpoints(), account=homes[store], recipient=homes[there]["user"])
        if sent["code"] != 250:
            seen[f"{store} to {there}"] = f"{sent['code']} {sent['text']}"
            continue
        got = vantage.ask("wait-for", endpoint=vantage.endpoints(), account=homes[there], ident=sent["ident"], within=ARRIVAL_SECONDS)
        seen[f"{store} to {there}"] = "" if got["seconds"] is not None else f"taken, and not there after {ARRIVAL_SECONDS} s"
    return seen


@pytest.mark.supports("LEM-3-02", "LEM-8-06")
def test_mail_goes_from_every_store_to_every_other(between_stores: dict[str, str], measure: Measure) -> None:
    """By way of a relay, as submitted mail goes."""
    measure("stores that sent", len(between_stores))
    wrong = {way: fault for way, fault in between_stores.items() if fault}
    expect(not wrong, f"no mail from {', '.join(wrong)}", seen=wrong, expected="taken and delivered", late=True)


@pytest.mark.supports("LEM-3-01")
def test_frontends_share_the_translated_address(host: HostFactory, vantage: Vantage, accounts: list[Account], measure: Measure) -> None:
    """New sessions at the one IPv4 address come to every frontend, those from one address always to the same one."""
    frontends = [each.name for each in vantage.site.group("frontends")]
    if vantage.site.settings.public_ipv4 is None or len(frontends) == 1:
        raise NotApplicable("no address is shared by several frontends")
    endpoint = vantage.endpoints(4)
    count = SESSIONS_A_FRONTEND * len(frontends)
    sources = vantage.ask("own-towards", address=endpoint["address"])[:count]
    measure("addresses they come from", len(sources))
    if len(frontends) * (1 - 1 / len(frontends)) ** len(sources) > MOST_CHANCE:
        not_measurable(
            f"{vantage.host} has {len(sources)} IPv4 addresses; the edge leads all sessions from one address to one frontend, "
            "so that with so few of them one goes without by chance: give the vantage more"
        )
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(vantage.start("push", endpoint=endpoint, account=accounts[0], within=60, source=source))
            for source in islice(cycle(sources), count)
        ]
        for each in held:
            each.wait("idling")
        found = {name: _sessions(host(name).run("doveadm -f tab proxy list").stdout, accounts[0]["user"]) for name in frontends}
        for each in held:
            each.enough()
    for name, sessions in found.items():
        measure(f"{name}: sessions of {count}", sessions)
    left_out = [name for name, sessions in found.items() if not sessions]
    expect(not left_out, f"no session came to {', '.join(left_out)}", seen=found, expected="some at every frontend", late=True)


def _sessions(proxied: str, user: str) -> int:
    """How many sessions of a user Dovecot's proxy passes on: it lists one row a user and service, with their number."""
    head, *rows = [line.split("\t") for line in proxied.splitlines()] or [[]]
    table = [dict(zip(head, row, strict=False)) for row in rows]
    return sum(int(row["#"]) for row in table if row.get("username") == user)
