"""Auth hosts beside one another: each answers for every user, what is written on one holds on all, one that is away keeps nobody out."""

from __future__ import annotations

import json
import secrets
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from lemonstand.admin import health
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.undone import do, undone
from lemonstand.measure import Vantage
from lemonstand.outcomes import NotApplicable, expect, invalid
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import Endpoints, inner_services_of
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")

STEP_SECONDS = 2.0
"""What is written on one auth host is on every other so soon."""
IN_STEP = "in step"
ACCOUNTS = "/usr/bin/python3 /usr/local/lib/lemonstand/directory_users.py"
GUESSES = 12
"""More than a name is tried from one network (ticket_issuer_refusals_per_client)."""
AWAY_SECONDS = 20.0
"""How long an auth host is away while others log in."""
FAILING_SECONDS = 2.0
"""How long logins may fail when one goes away."""
HEAL_SECONDS = 15.0
"""What was cut off is in step again so soon."""
AWAY = {
    # As a host without power: nothing comes, nothing is refused. Management stays, so that it can be given back.
    "silent": (
        "nft add table inet away && nft 'add chain inet away in {{ type filter hook input priority -300; }}'"
        " && nft 'add chain inet away out {{ type filter hook output priority -300; }}'"
        " && nft add rule inet away in iifname {device} drop && nft add rule inet away out oifname {device} drop",
        "nft delete table inet away",
    ),
    "issuer ended": ("systemctl stop ticket-issuer", "systemctl start ticket-issuer"),
    "directory ended": ("systemctl stop slapd", "systemctl start slapd"),
}
CUT = (
    "nft add table inet away && nft 'add chain inet away in {{ type filter hook input priority -300; }}'"
    " && nft 'add chain inet away out {{ type filter hook output priority -300; }}'"
    " && nft 'add rule inet away in tcp dport {{ 636, 8444 }} drop' && nft 'add rule inet away in tcp sport {{ 636, 8444 }} drop'"
    " && nft 'add rule inet away out tcp dport {{ 636, 8444 }} drop' && nft 'add rule inet away out tcp sport {{ 636, 8444 }} drop'"
)


def _twins(site: Site) -> list[str]:
    """The names of all auth hosts, if there are several."""
    names = [host.name for host in site.group("auths")]
    if len(names) < 2:
        raise NotApplicable("there is one auth host")
    return names


def _ordered(host: HostFactory, name: str, order: dict[str, Any]) -> dict[str, Any]:
    """The answer of the program that keeps accounts, without secrets."""
    answer: dict[str, Any] = json.loads(do(host, name, f"echo {shlex.quote(json.dumps(order))} | {ACCOUNTS}"))
    return answer


def _steps(site: Site, host: HostFactory, seconds: float) -> dict[str, str]:
    """Pairs of auth hosts that are not in step, with what is the matter."""
    wrong: dict[str, str] = {}
    for name in _twins(site):
        wrong |= _apart(site, name, _ordered(host, name, {"action": "step", "seconds": seconds}))
    return wrong


def _apart(site: Site, name: str, answer: dict[str, Any]) -> dict[str, str]:
    """Which others an auth host says it is not in step with, or says nothing about."""
    others = {other: f"{other}.{site.settings.internal_domain}" for other in _twins(site) if other != name}
    said = answer.get("twins", {})
    return {f"{name} and {other}": said.get(twin, "no twin of its") for other, twin in others.items() if said.get(twin) != IN_STEP}


@pytest.mark.answer("configuration")
@pytest.mark.control("SUR-13")
@pytest.mark.supports("LEM-8-11")
def test_every_store_knows_the_key_of_every_issuer(host: HostFactory, site: Site, measure: Measure) -> None:
    """The public half of what each issuer signs with lies on each store."""
    active = "basename $(readlink /etc/lemonstand/ticket/private/active.pem) .pem"
    keys = {auth.name: do(host, auth.name, active).strip() for auth in site.group("auths")}
    measure("keys that sign", len(set(keys.values())))
    missing = [
        f"{store.name} lacks {kid} of {auth}"
        for store in site.group("stores")
        for known in [do(host, store.name, "ls /etc/lemonstand/ticket-keys/default/RS256").split()]
        for auth, kid in keys.items()
        if kid not in known
    ]
    expect(not missing, "a store refuses an issuer's tickets", seen=missing, expected="none: lemonstand apply")


@pytest.mark.control("SUR-11", "SUR-15")
def test_twins_are_in_step(host: HostFactory, site: Site, measure: Measure) -> None:
    """A change that is made on each directory is on each other one, and all have the same accounts."""
    names = _twins(site)
    for name in names:
        answer = _ordered(host, name, {"action": "beat"})
        wrong = _apart(site, name, answer)
        expect(not wrong, "what was written on one auth host does not hold on another", seen=wrong, expected=IN_STEP)
        measure(f"written on {name}, held by all after", answer["seconds"], "s")
        late = answer["seconds"] > STEP_SECONDS
        expect(not late, "what was written on one auth host comes late", seen=answer, expected=f"{STEP_SECONDS} s", late=True)
    lists = {name: _ordered(host, name, {"action": "list"})["users"] for name in names}
    measure("accounts", len(lists[names[0]]))
    first = lists[names[0]]
    unlike = {name: [each["name"] for each in found if each not in first][:5] for name, found in lists.items() if found != first}
    expect(not unlike, "auth hosts have other accounts", seen=unlike, expected=f"those of {names[0]}")


@pytest.mark.control("SUR-12")
def test_a_guess_counts_at_every_issuer(prober: Prober, site: Site, vantage: Vantage, measure: Measure) -> None:
    """A name that one issuer does not try any more is not tried by the others either, two seconds later."""
    names = _twins(site)
    frontend = site.group("frontends")[0].name
    for first, second in zip(names, [*names[1:], names[0]], strict=True):
        guessed = f"nobody-{secrets.token_hex(6)}@{site.settings.mail_domains[0]}"
        account, asked, other = vantage.accounts[0], inner_services_of(site, auth=first), inner_services_of(site, auth=second)
        before = prober.ask(frontend, "guess", inner_services=asked, name=guessed, account=account, wave=GUESSES)
        if before["next"] != 429:
            invalid(f"the limit was not reached at {first}: {before}")
        time.sleep(STEP_SECONDS)
        after = prober.ask(frontend, "guess", inner_services=other, name=guessed, account=account, wave=1, more=0)
        measure(f"refused by {first}, asked at {second}", after["wave"][0])
        expect(after["wave"] == [429], f"what {first} refused does not count at {second}", seen=after, expected=429)


@pytest.mark.disruptive
@pytest.mark.usefixtures("sessions_held")
@pytest.mark.control("SUR-14")
@pytest.mark.parametrize("way", AWAY)
def test_one_auth_host_away_keeps_nobody_out(
    way: str, host: HostFactory, site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """Each in turn goes away; users, whichever host answered for them, log in all the while."""
    names = _twins(site)
    for name in names:
        away, back = (each.format(device=site.hosts[name].interfaces["auth"].device) for each in AWAY[way])
        failed: list[tuple[float, str]] = []
        slowest, times = 0.0, 0
        with undone(host, [name], away, back):
            began = time.monotonic()
            while time.monotonic() - began < AWAY_SECONDS:
                for account in accounts:
                    asked = time.monotonic() - began
                    answers = vantage.ask("login-answers", seconds=150, endpoint=endpoints(), account=account, count=1)
                    times += 1
                    for service, wanted in (("imap", "OK"), ("submission", "235")):
                        each = answers[service][0]
                        slowest = max(slowest, each["seconds"])
                        failed += [(asked, f"{service} {each['status']} {each['text'][:80]}")] if each["status"] != wanted else []
        measure(f"{name} {way}: logins", 2 * times)
        measure(f"{name} {way}: slowest", slowest, "s")
        measure(f"{name} {way}: failed", len(failed))
        late = [said for asked, said in failed if asked > FAILING_SECONDS]
        expect(not late, f"logins fail while {name} is away ({way})", seen=late[:3], expected=f"none after {FAILING_SECONDS} s")
        wrong = _steps(site, host, HEAL_SECONDS)
        expect(not wrong, f"{name} is not in step when it is back", seen=wrong, expected=f"{IN_STEP} within {HEAL_SECONDS} s")


@pytest.mark.disruptive
@pytest.mark.usefixtures("sessions_held")
@pytest.mark.control("SUR-11", "SUR-15")
def test_twins_that_were_cut_off_are_in_step_again(host: HostFactory, site: Site, accounts: list[Account], measure: Measure) -> None:
    """A lock put on one while the way to the others is cut: an alarm names it, and it holds on all of them soon after the way is back."""
    names = _twins(site)
    first, user = names[0], accounts[-1]["user"]
    try:
        with undone(host, [first], CUT.format(), "nft delete table inet away"):
            answer = _ordered(host, first, {"action": "lock", "name": user})
            if answer.get("done") != "locked":
                invalid(f"{first}: {answer}")
            told = answer["twins"]
            expect(IN_STEP not in told.values(), "a twin that can't have it is said to have a lock", seen=told, expected="why not")
            text = Path(health.__file__).read_text(encoding="utf-8")
            said = do(host, first, f"echo {shlex.quote(text)} | /usr/bin/python3 - 60")
            line = next(each for each in said.splitlines() if each.startswith(health.MARK))
            alarms = [each for each in json.loads(line.removeprefix(health.MARK))["alarms"] if each["kind"] == "twin"]
            expect(bool(alarms), "no alarm names auth hosts that are cut off", seen=line[:200], expected="an alarm of the kind 'twin'")
        began = time.monotonic()
        wrong = _steps(site, host, HEAL_SECONDS)
        measure("in step again after", time.monotonic() - began, "s")
        expect(not wrong, "auth hosts are not in step again", seen=wrong, expected=f"{IN_STEP} within {HEAL_SECONDS} s")
        lists = {name: _ordered(host, name, {"action": "list"})["users"] for name in names}
        open_on = [name for name, found in lists.items() if {"locked"} != {each["state"] for each in found if each["name"] == user}]
        expect(not open_on, "a lock is lost", seen=open_on, expected="locked on all")
    finally:
        _ordered(host, first, {"action": "unlock", "name": user})
