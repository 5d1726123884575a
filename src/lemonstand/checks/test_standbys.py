"""Stores with standbys, and relays that stand in for one another: what is kept twice, who serves, who may bring what."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lemonstand.admin.access import Hosts
from lemonstand.admin.placement import Placement, Told
from lemonstand.admin.stores import Stores
from lemonstand.checks.conftest import FactsOf, HostFactory, Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import Invalid, expect, invalid, not_measurable
from lemonstand.probes.protocols.wire import Account, Endpoint
from lemonstand.remote.endpoints import ELSEWHERE, PEER_SENDER
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

STALE_SECONDS = 60.0
SAMPLE = 8
"""Users that are compared one by one."""
REST_SECONDS = 60.0
"""How long something on a store stands unchanged until its copy has to be the same: what the copy promises (record 0036)."""
PATIENCE_SECONDS = 240.0
"""How long users are looked at, if what they have changes all the while."""
LOOK_SECONDS = 4.0
PROMOTED_SECONDS = 120.0
BACK_SECONDS = 240.0
ALL_SECONDS = 330.0
"""How long accepted mail may take to be with the one that was promoted: a relay tries again after four minutes at the latest."""
MESSAGES = 10
"""Messages before, and as many after, a store falls silent."""
PORT = 24245
SHUT = (
    "nft add table inet away && nft 'add chain inet away input {{ type filter hook input priority -300; }}' && "
    "nft 'add chain inet away output {{ type filter hook output priority -300; }}' && "
    "nft add rule inet away input iifname {device} drop && nft add rule inet away output oifname {device} drop"
)
OPEN = "nft delete table inet away"


def _show(host: HostFactory, name: str) -> dict[str, Any]:
    done = host(name).run('echo \'{"action": "show"}\' | python3 -I -B /usr/local/lib/lemonstand/placement.py')
    if done.rc != 0:
        invalid(f"{name} can't say who is served where: {done.stderr.strip()[-200:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _told(host: HostFactory, site: Site, store: str) -> Told:
    """The newest of what the hosts of a pair were told."""
    shown = {name: _show(host, name) for name in site.pairs[store]}
    return Told(
        max(shown.values(), key=lambda each: int(each["generation"])), {name: each["generation"] for name, each in shown.items()}, {}
    )


def _roles(host: HostFactory, site: Site, store: str) -> tuple[Told, str, str]:
    """What was told, who serves, and who keeps the copy."""
    told = _told(host, site, store)
    serving = told.active(store)
    return told, serving, next(name for name in site.pairs[store] if name != serving)


@pytest.mark.answer("configuration")
@pytest.mark.control("SUR-30")
def test_the_copy_is_in_step(site: Site, host: HostFactory, pair: str, measure: Measure) -> None:
    """The host that serves has brought its standby up to date within the last minute."""
    _, serving, standby = _roles(host, site, pair)
    status = json.loads(host(serving).run("cat /run/lemonstand-mail/status.json").stdout or "{}")
    now = float(host(serving).run("date +%s.%N").stdout or 0)
    expect(
        bool(status),
        f"mail-standby gives no account of itself at {serving}",
        seen="no status.json",
        expected="a status of the last seconds",
    )
    age = now - float(status["in_step"])
    measure("age of the copy", round(age, 1), "s", volatile=True)
    expect(
        bool(status["in_step"]) and age <= STALE_SECONDS and not status["failed"],
        f"{standby} is not in step with {serving}",
        seen=f"{age:.0f} s old; {next(iter(status['failed'].values()), '')}",
        expected=f"{STALE_SECONDS:.0f} s at most",
        remedy="`lemonstand store list`; journalctl -u mail-standby on both",
    )


@pytest.mark.answer("live")
@pytest.mark.control("SUR-30")
def test_the_copy_holds_what_the_store_holds(site: Site, host: HostFactory, prober: Prober, pair: str, measure: Measure) -> None:
    """UIDVALIDITY, UIDs, GUIDs, flags, subscriptions, scripts and attributes of some users are the same on both.

    Other checks write meanwhile, so a difference counts once the store's side has stood unchanged for as long as the copy may take.
    """
    told, serving, standby = _roles(host, site, pair)
    users = told.users(pair)[:SAMPLE]
    looks = Looks(users)
    until = time.monotonic() + PATIENCE_SECONDS
    measure("users", len(users))
    while looks.open and not looks.wrong and time.monotonic() < until:
        for user in looks.left:
            began = time.monotonic()
            here, there = (prober.ask(name, "mailbox-copy", user=user) for name in (serving, standby))
            looks.saw(user, here, there, began, time.monotonic())
        if looks.open and not looks.wrong:
            time.sleep(LOOK_SECONDS)
    measure("the same", looks.same)
    measure("changed all the while", ", ".join(looks.left) or "nobody", volatile=True)
    expect(
        not looks.wrong,
        f"{standby} holds something else than {serving}",
        seen=looks.wrong,
        expected=f"the same, {REST_SECONDS:.0f} s after the last change",
        remedy=f"journalctl -u mail-standby on {serving} and {standby}",
    )
    if not looks.same:
        invalid(f"what users of {pair} have changed more often than every {REST_SECONDS:.0f} s: nothing could be compared")


class Looks:
    """What was seen of users on a store and on its standby, look after look.

    Args:
        users: whom to look at.

    Attributes:
        left: users of whom something was not the same yet.
        wrong: by user, what differs although the store's side stood unchanged long enough: what is kept, there and in the copy.
    """

    def __init__(self, users: list[str]) -> None:
        self.left = list(users)
        self.wrong: dict[str, dict[str, list[Any]]] = {}
        self._users = len(users)
        self._fine: dict[str, set[str]] = {user: set() for user in users}
        self._stands: dict[tuple[str, str], tuple[Any, float]] = {}

    @property
    def open(self) -> bool:
        """Whether there is anybody to look at again."""
        return bool(self.left)

    @property
    def same(self) -> int:
        """How many users are the same on both."""
        return self._users - len(self.left)

    def saw(self, user: str, here: dict[str, Any], there: dict[str, Any], began: float, ended: float) -> None:
        """Takes one look in.

        Args:
            here: what the store has, by kind.
            there: what the standby has, read after it.
            began, ended: when the look began and ended, in seconds of one clock.
        """
        for key, value in here.items():
            if there[key] == value:
                self._fine[user].add(key)
            stood = self._stands.get((user, key))
            if stood is None or stood[0] != value:
                stood = self._stands[user, key] = (value, ended)
            if key not in self._fine[user] and began - stood[1] >= REST_SECONDS:
                self.wrong.setdefault(user, {})[key] = [value, there[key]]
        if self._fine[user] >= set(here):
            self.left = [each for each in self.left if each != user]


@pytest.mark.answer("configuration")
@pytest.mark.control("SUR-31")
def test_a_standby_serves_nobody(site: Site, host: HostFactory, pair: str) -> None:
    """Who is served elsewhere is known there and told to come later, by IMAP and LMTP alike."""
    told, serving, standby = _roles(host, site, pair)
    users = told.users(pair)[:SAMPLE]
    for user in users:
        for service in ("imap", "lmtp"):
            here = host(serving).run("doveadm user -x service=%s %s", service, user).rc
            there = host(standby).run("doveadm user -x service=%s %s", service, user).rc
            expect(here == 0, f"{serving} does not serve {user} ({service})", seen=f"exit status {here}", expected="0")
            expect(
                there == 75,
                f"{standby} serves {user}, or says there is no such user ({service})",
                seen=f"exit status {there}",
                expected="75 (later)",
            )


@pytest.mark.answer("live")
@pytest.mark.control("SUR-31")
def test_copies_come_from_the_store_that_serves_and_nobody_else(site: Site, host: HostFactory, prober: Prober, pair: str) -> None:
    """Without a certificate, with one for another purpose, as the one that does not serve, for another store's user: nothing is taken."""
    told, serving, standby = _roles(host, site, pair)
    user, domain = told.users(pair)[0], site.settings.internal_domain
    since = told.since(pair)
    sync = {"certificate": "store-sync.crt", "key": "store-sync.key"}

    def offered(source: str, target: str, **given: Any) -> str:
        leg = site.hosts[target].interfaces["store"]
        order = {"address": str(leg.addresses[0]), "name": f"{target}.{domain}", "user": user, "since": since, **given}
        return str(prober.ask(source, "bring-copy", **order))

    answers = {
        "no certificate": offered(serving, standby),
        "a certificate for another purpose": offered(serving, standby, certificate="relay-client.crt", key="relay-client.key"),
        "from the standby": offered(standby, serving, **sync),
        "of a generation that is over": offered(serving, standby, since=since - 1, **sync),
        "of nobody": offered(serving, standby, user="../../etc", **sync),
    }
    for store in site.pairs:
        if store != pair:
            answers[f"from {store}"] = offered(told.active(store), standby, **sync)
    taken = [case for case, answer in answers.items() if answer == "taken"]
    expect(not taken, "a copy is taken from who may not bring it", seen=taken, expected="none of these")
    control = offered(serving, standby, **sync)
    expect(control == "taken", "the store that serves can't bring a copy", seen=control, expected="taken")


@pytest.mark.answer("configuration")
@pytest.mark.control("SUR-32")
def test_all_hosts_were_told_the_same(site: Site, host: HostFactory, told: str, measure: Measure) -> None:
    """Each store and relay has the newest word on who is served where, and the inventory names no other place for anybody."""
    shown = {name.name: _show(host, name.name) for group in ("stores", "relays") for name in site.group(group)}
    newest = max(shown.values(), key=lambda each: int(each["generation"]))
    mine = shown[told]
    measure("generation", mine["generation"], volatile=True)
    differing = [key for key in ("generation", "active", "users") if mine[key] != newest[key]]
    expect(
        not differing,
        f"{told} was told something else",
        seen=f"generation {mine['generation']}, differs in {differing}",
        expected=f"generation {newest['generation']}",
        remedy="give the last `lemonstand store promote` or `lemonstand user move` again: it tells who was not told",
    )


@pytest.mark.answer("configuration")
@pytest.mark.control("SUR-32")
def test_tickets_are_for_the_host_that_serves(site: Site, host: HostFactory, told_auth: str) -> None:
    """The directory of each auth host names the member of the pair that serves a user."""
    told = _told(host, site, next(iter(site.pairs)))
    order = 'echo \'{"action": "list"}\' | python3 /usr/local/lib/lemonstand/directory_users.py'
    found = {each["name"]: each["store"] for each in json.loads(host(told_auth).run(order).stdout or '{"users": []}')["users"]}
    domain = site.settings.internal_domain
    wrong = {
        user: found.get(user)
        for user, store in told.placement["users"].items()
        if user in found and found[user] != f"{told.active(store)}.{domain}"
    }
    expect(not wrong, "the directory sends users to a host that does not serve them", seen=wrong, expected="the one that serves")


@pytest.mark.answer("configuration")
@pytest.mark.control("SUR-33")
def test_relays_hand_over_a_second_copy(site: Site, host: HostFactory, facts_of: FactsOf, paired_relay: str, measure: Measure) -> None:
    """A message for a user whose store has a standby has a second recipient, on the standby: the queue keeps it until both have it."""
    paired = {store for store, hosts in site.pairs.items() if len(hosts) > 1}
    settings = facts_of(paired_relay).postfix
    expect(
        "kept" in settings.get("recipient_bcc_maps", ""),
        "the relay hands over no copies",
        seen=settings.get("recipient_bcc_maps"),
        expected="a table",
    )
    told = _show(host, paired_relay)
    users = [user for user, store in told["users"].items() if store in paired]
    measure("users with a copy", len(users))
    for user in users[:SAMPLE]:
        shelf = host(paired_relay).run("postmap -q %s texthash:/var/lib/lemonstand/relay/kept", user).stdout.strip()
        expect(shelf.endswith(".kept"), f"no copy of the mail for {user}", seen=shelf or "nothing", expected="an address on the standby")
        hop = (
            host(paired_relay)
            .run("postmap -q %s texthash:/var/lib/lemonstand/relay/transport", f".{shelf.split('.', shelf.count('.') - 1)[-1]}")
            .stdout
        )
        standby = next(name for name in site.pairs[told["users"][user]] if name != Told(told, {}, {}).active(told["users"][user]))
        addresses = [str(address) for address in site.hosts[standby].interfaces["store"].addresses]
        expect(
            any(f"[{address}]" in hop for address in addresses), f"the copy for {user} goes elsewhere", seen=hop.strip(), expected=standby
        )


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("SUR-34", "SUR-33")
def test_the_standby_serves_when_the_store_falls_silent(
    site: Site, host: HostFactory, vantage: Vantage, pair: str, measure: Measure
) -> None:
    """Messages come, the store falls silent, more come, the standby is promoted: all are there, each once; the store comes back."""
    if not site.is_lab:
        not_measurable("on a site that people use it is an operator's: lemonstand store promote")
    told, serving, standby = _roles(host, site, pair)
    user = next((name for name in site.settings.probe_users if told.placement["users"].get(name) == pair), None)
    if user is None:
        invalid(f"no probe user is on {pair}")
    device = site.hosts[serving].interfaces["store"].device
    sent = [_send(vantage, user) for _ in range(MESSAGES)]
    done: dict[str, Any] = {}
    shut = host(serving).run(SHUT.format(device=device))
    try:
        expect(shut.rc == 0, "the store can't be made silent", seen=shut.stderr[-200:], expected="exit status 0")
        # What a client was shown of it a moment before the loss, and nobody else has.
        alone = host(serving).run("echo 'Subject: in no copy' | doveadm save -u %s", user)
        expect(alone.rc == 0, "the store takes no message of its own", seen=alone.stderr[-200:], expected="exit status 0")
        given = _next_uid(host, serving, user)
        sent += [_send(vantage, user) for _ in range(MESSAGES)]
        with Hosts(site.inventory) as hosts:
            done = Stores(Placement(site, hosts, lambda _: None)).promote(standby, now=True)
        until = time.monotonic() + ALL_SECONDS
        while time.monotonic() < until and set(sent) - set(_idents(host, standby, user)):
            time.sleep(3)
        there, least = _idents(host, standby, user), _least_new_uid(host, standby, user, sent[-MESSAGES:])
    finally:
        host(serving).run(OPEN)
    measure("seconds to promote", round(done["seconds"], 1), "s", volatile=True)
    lost, twice = sorted(set(sent) - set(there)), sorted(ident for ident in set(sent) if there.count(ident) > 1)
    expect(not lost, "accepted mail is lost with the store", seen=f"{len(lost)} of {len(sent)}", expected="none")
    expect(not twice, "mail is there twice", seen=f"{len(twice)} of {len(sent)}", expected="none")
    expect(least >= given, "a UID that a client may have seen is given to another message", seen=least, expected=f"{given} or more")
    expect(
        done["seconds"] <= PROMOTED_SECONDS,
        "the standby took too long",
        seen=f"{done['seconds']:.0f} s",
        expected=f"{PROMOTED_SECONDS:.0f} s",
        late=True,
    )
    _back(site, host, pair, serving)


def _back(site: Site, host: HostFactory, store: str, serving: str) -> None:
    """Waits until the store that was away keeps a copy, and lets it serve again."""
    until, why = time.monotonic() + BACK_SECONDS, ""
    while time.monotonic() < until:
        try:
            with Hosts(site.inventory) as hosts:
                Stores(Placement(site, hosts, lambda _: None)).promote(serving)
        except Exception as fault:
            why = str(fault)
            time.sleep(5)
            continue
        return
    expect(False, f"{serving} does not come back as the standby of {store}", seen=why, expected="in step", late=True)


def _send(vantage: Vantage, user: str) -> str:
    seen = vantage.prober.ask(
        vantage.outsider, "foreign-mx", endpoint=vantage.exchangers(), sender=PEER_SENDER, recipient=user, elsewhere=ELSEWHERE
    )
    expect(seen["accepted"]["code"] == 250, "the MX refuses a message for a user", seen=seen["accepted"], expected=250)
    return str(seen["ident"]).strip("<>")


def _idents(host: HostFactory, name: str, user: str) -> list[str]:
    done = host(name).run("doveadm -f tab fetch -u %s hdr.message-id mailbox '*' SAVEDSINCE 1h", user)
    return [str(word).strip("<>") for word in done.stdout.split()[1:]]


def _next_uid(host: HostFactory, name: str, user: str) -> int:
    """Which UID the next message in the INBOX gets."""
    return int(json.loads(host(name).run("doveadm -f json mailbox status -u %s uidnext INBOX", user).stdout)[0]["uidnext"])


def _least_new_uid(host: HostFactory, name: str, user: str, idents: list[str]) -> int:
    """The least UID in the INBOX of messages that came after the loss."""
    rows = json.loads(host(name).run("doveadm -f json fetch -u %s 'uid hdr.message-id' mailbox INBOX SAVEDSINCE 1h", user).stdout or "[]")
    return min((int(row["uid"]) for row in rows if row["hdr.message-id"].strip("<>") in set(idents)), default=0)


@pytest.mark.answer("live")
@pytest.mark.control("SUR-40")
def test_each_relay_takes_mail(site: Site, vantage: Vantage, spare: str, accounts: list[Account]) -> None:
    """Every relay is an MX: mail comes in by each, at its own address."""
    leg = site.hosts[spare].interfaces["dmz"]
    if leg.ipv6 is None:
        not_measurable("by IPv4 the edge decides which relay answers")
    known = vantage.exchangers(6)
    endpoint = Endpoint(name=known["name"], address=str(leg.ipv6), ca=known["ca"])
    order: dict[str, Any] = {"sender": PEER_SENDER, "recipient": accounts[0]["user"], "elsewhere": ELSEWHERE}
    try:
        seen = vantage.prober.ask(vantage.outsider, "foreign-mx", endpoint=endpoint, **order)
    except Invalid as fault:
        # It was asked by others a moment ago: that nobody answers is the answer.
        expect(holds=False, what=f"{spare} takes no mail", seen=str(fault)[-200:], expected=250)
        return
    expect(seen["accepted"]["code"] == 250, f"{spare} refuses a message for a user", seen=seen["accepted"], expected=250)
    vantage.tidy(seen["ident"])


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("SUR-41")
def test_submitted_mail_leaves_by_another_relay(
    host: HostFactory, vantage: Vantage, spare: str, accounts: list[Account], measure: Measure
) -> None:
    """A relay falls silent: what is submitted then is accepted within seconds, and goes by the others."""
    shut = (
        "nft add table inet away && nft 'add chain inet away input { type filter hook input priority -300; }' && "
        "nft add rule inet away input tcp dport 587 drop"
    )
    try:
        expect(host(spare).run(shut).rc == 0, "the relay can't be made silent", seen=spare, expected="exit status 0")
        began = time.monotonic()
        # Whoever sends, from whichever store: each begins with a relay of its own.
        answers = [
            vantage.ask("deliver", endpoint=vantage.endpoints(), account=account, recipient=accounts[0]["user"]) for account in accounts[:3]
        ]
        seconds = time.monotonic() - began
    finally:
        host(spare).run(OPEN)
    measure("seconds for all of them", round(seconds, 1), "s", volatile=True)
    refused = [each["text"] for each in answers if each["code"] != 250]
    expect(not refused, f"submissions are refused while {spare} is silent", seen=refused, expected=250)
    for each in answers:
        vantage.tidy(each["ident"])
