"""When the credential host fails: what clients are told, who is kept waiting, what lives on. These checks disturb the site."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import pytest

from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.inner_names import inner_names
from lemonstand.checks.undone import do, undone
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.probes.clients.tickets import InnerServices
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import Endpoints, families_of
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.disruptive, pytest.mark.usefixtures("sessions_held")]

TRIES = 12
"""Logins at each service while the issuer gives no answer: more than one auth worker could take."""
ANSWER_SECONDS = 40
"""A client that waits longer has given up (most do after a minute); the frontend gives the issuer up after eight seconds."""
GUESSES = 12
OUTAGE_SECONDS = 40
"""How long the issuer is away: time enough for a client that waits twice as long after each failure to wait for half a minute."""
BACK_SECONDS = 5.0
"""Logins work so soon after the issuer is back."""
AWAY = {
    "refused": ("systemctl stop ticket-issuer", "systemctl start ticket-issuer"),
    "silent": (
        "nft add table inet away && nft 'add chain inet away input { type filter hook input priority -300; }'"
        " && nft add rule inet away input tcp dport 8443 drop",
        "nft delete table inet away",
    ),
}
CROWD = 60
PATIENCE_SECONDS = 60.0
"""As long as mail clients wait at least."""
STORM_CLIENTS, STORM_SECONDS = 20, 20.0
LATER = {"imap": ("NO", "UNAVAILABLE"), "submission": ("454", "4.7.0")}
WRONG = {"imap": ("NO", "AUTHENTICATIONFAILED"), "submission": ("535", "5.7.8")}
IN = {"imap": ("OK", None), "submission": ("235", None)}
Answers = dict[str, list[dict[str, Any]]]


def _issuers(site: Site) -> list[str]:
    return [each.name for each in site.group("auths")]


def expect_answers(answers: Answers, wanted: Mapping[str, tuple[str, str | None]], what: str) -> None:
    for service, (status, code) in wanted.items():
        wrong = [each for each in answers[service] if each["status"] != status or (code is not None and each["code"] != code)]
        expect(not wrong, f"{what} ({service})", seen=wrong[:3], expected=f"{status} {code or ''}".strip())


def _expect_silence(site: Site, *seen: Answers) -> None:
    pattern = inner_names(site)
    texts = [each["text"] for answers in seen for tries in answers.values() for each in tries]
    told = [text for text in texts if pattern.search(text)]
    expect(not told, "an answer names a host behind the public name", seen=told[:3], expected="none of them")


@pytest.mark.control("LEM-8-08", "LEM-8-03")
@pytest.mark.supports("LEM-4.1-11")
def test_an_issuer_that_is_down_is_no_wrong_password(
    host: HostFactory, site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """UNAVAILABLE and 454 while the issuer is down; sessions of before go on; logins work again without a touch; no answer names a host."""
    names = _issuers(site)
    wrong = vantage.ask(
        "login-answers", endpoint=endpoints(), account=Account(user=accounts[0]["user"], password="not" + secrets.token_hex(8))
    )
    expect_answers(wrong, WRONG, "a wrong password is not called one")
    with vantage.start("talk", seconds=90, endpoint=endpoints(), account=accounts[0], every=1.0, within=60) as session:
        session.wait("talking")
        with undone(host, names, "systemctl stop ticket-issuer", "systemctl start ticket-issuer"):
            down = {family: vantage.ask("login-answers", endpoint=endpoints(family), account=accounts[0]) for family in families_of(site)}
        back = vantage.ask("login-answers", endpoint=endpoints(), account=accounts[0])
        lived = session.result()
    for family, answers in down.items():
        measure(f"IPv{family}: answered after", max(each["seconds"] for tries in answers.values() for each in tries), "s")
        expect_answers(answers, LATER, "an issuer that is down reads as something else")
        stuck = [each for tries in answers.values() for each in tries if not each["usable"]]
        expect(not stuck, "the connection is lost with the login", seen=stuck[:2], expected="usable for another try")
    measure("answers on the session of before", lived["answered"])
    expect(not lived["ended"], "a session ends with the issuer", seen=lived["ended"], expected="it goes on")
    expect_answers(back, IN, "logins don't come back with the issuer")
    _expect_silence(site, wrong, back, *down.values())


@pytest.mark.control("LEM-8-08")
@pytest.mark.supports("LEM-6-05")
def test_a_frozen_issuer_keeps_nobody_waiting(
    host: HostFactory, site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """An issuer that answers nothing: all of a dozen logins a service are told to try later, none hangs; after it all get in."""
    names = _issuers(site)
    stop, go = "systemctl kill --signal=STOP ticket-issuer", "systemctl kill --signal=CONT ticket-issuer"
    with undone(host, names, stop, go):
        frozen = vantage.ask(
            "login-answers", seconds=150, endpoint=endpoints(), account=accounts[0], count=TRIES, timeout=float(ANSWER_SECONDS)
        )
    thawed = vantage.ask("login-answers", seconds=150, endpoint=endpoints(), account=accounts[0], count=TRIES)
    measure("slowest answer", max(each["seconds"] for tries in frozen.values() for each in tries), "s")
    expect_answers(frozen, LATER, "a frozen issuer reads as something else, or keeps clients waiting")
    expect_answers(thawed, IN, "logins don't come back with the issuer")
    _expect_silence(site, frozen)


@pytest.mark.control("LEM-8-08")
@pytest.mark.supports("LEM-6-05")
@pytest.mark.parametrize("way", list(AWAY))
def test_logins_work_soon_after_the_issuer_is_back(
    host: HostFactory, site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], *, way: str, measure: Measure
) -> None:
    """Away for a while, while clients go on trying; what is tried once it is back works at once, whoever had tried before."""
    away, back = AWAY[way]
    tries = {"endpoint": endpoints(), "account": accounts[0], "count": 4, "timeout": PATIENCE_SECONDS}
    with undone(host, _issuers(site), away, back):
        until = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < until:
            expect_answers(vantage.ask("login-answers", seconds=150, **tries), LATER, "an issuer that is away reads as something else")
    after = vantage.ask("login-answers", seconds=150, **{**tries, "count": 1})
    took = max(each["seconds"] for answers in after.values() for each in answers)
    measure(f"{way}: a login after it", took, "s")
    expect_answers(after, IN, "logins don't come back with the issuer")
    expect(took <= BACK_SECONDS, "logins come back late", seen=f"{took} s", expected=f"within {BACK_SECONDS} s", late=True)


@pytest.mark.control("LEM-6-05")
@pytest.mark.supports("LEM-8-08")
def test_many_logins_at_once_wait_and_none_is_refused(
    vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """A site's handsets come back at the same moment: each waits for its turn."""
    found = vantage.ask("logins", seconds=300, endpoint=endpoints(), accounts=accounts, count=CROWD, parallel=CROWD, stall=PATIENCE_SECONDS)
    measure(f"{CROWD} at a time", found["seconds"], "s")
    measure("slowest", found["slowest"], "s")
    expect(
        not found["failed"] and not found["stalled"], "logins are refused", seen=[*found["failed"], *found["stalled"]][:5], expected="none"
    )


@pytest.mark.control("LEM-6-05")
@pytest.mark.supports("LEM-8-08")
def test_a_storm_of_one_user_refuses_nobody(vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure) -> None:
    """One user's twenty clients reconnect as fast as they can: another user gets in each time."""
    if len(accounts) < 2:
        not_measurable("it takes a second probe user")
    found = vantage.ask(
        "login-storm",
        seconds=150,
        endpoint=endpoints(),
        account=accounts[0],
        other=accounts[1],
        clients=STORM_CLIENTS,
        duration=STORM_SECONDS,
        timeout=PATIENCE_SECONDS,
    )
    measure("logins of the storm", found["storm"])
    measure("logins of another user", found["others"])
    measure("slowest of another user", found["slowest"], "s")
    expect(not found["refused"] and found["others"] > 0, "a storm keeps others out", seen=found["refused"], expected="every login works")
    expect(not found["storm_refused"], "the storm's clients are refused", seen=found["storm_refused"], expected="they wait for their turn")


@pytest.mark.control("LEM-8-24")
def test_limits_outlive_a_restart(
    prober: Prober, host: HostFactory, site: Site, inner_services: InnerServices, accounts: list[Account], measure: Measure
) -> None:
    """A name that is not tried any more is not tried after a restart of the issuer either."""
    frontend = site.group("frontends")[0].name
    name = f"nobody-{secrets.token_hex(6)}@{site.settings.mail_domains[0]}"
    before = prober.ask(frontend, "guess", inner_services=inner_services, name=name, account=accounts[0], wave=GUESSES)
    if before["next"] != 429:
        invalid(f"the limit was not reached: {before}")
    for issuer in _issuers(site):
        do(host, issuer, "systemctl restart ticket-issuer")
    # The first wait may be over by now; then one guess is let through and closes the name again, which takes the count of before.
    after = prober.ask(frontend, "guess", inner_services=inner_services, name=name, account=accounts[0], wave=1, more=1)
    measure("after the restart", after["next"])
    expect(after["next"] == 429, "a restart forgives guessing", seen=after, expected=429)
    expect(after["account"] == 200, "somebody else is locked out too", seen=after["account"], expected=200)
