"""App passwords: good for mail alone, and ended with their sessions when they are revoked, without the user's others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lemonstand.admin import AppPasswords, Hosts
from lemonstand.admin.app_passwords import session_mark
from lemonstand.admin.sessions import marks_on
from lemonstand.checks.conftest import Measure
from lemonstand.checks.undone import locked_out
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import Endpoints
from lemonstand.site import Site

END_SECONDS = 15
"""How soon the sessions of a revoked app password have to be gone: the command's own seconds are among them."""
DEVICES = ("probe: lost", "probe: kept")


@contextmanager
def _made(ours: AppPasswords, user: str) -> Iterator[list[Account]]:
    """An account for each device; what a run that was cut off left behind goes first, and all of it goes at the end."""

    def tidy() -> None:
        for each in ours.of(user):
            if each.device in DEVICES:
                ours.revoke(user, each.id)

    tidy()
    try:
        yield [Account(user=user, password=ours.add(user, device)) for device in DEVICES]
    finally:
        tidy()


@pytest.mark.disruptive
@pytest.mark.answer("live")
@pytest.mark.control("OPS-13")
@pytest.mark.supports("LEM-8-08")
def test_an_app_password_opens_mail_and_ends_by_itself(
    site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """Of two devices one is revoked: its session ends within seconds and it gets in nowhere; the other one's session goes on.

    Neither opens ManageSieve; a locked user's opens nothing.
    """
    if len(accounts) < 2:
        not_measurable("it takes a second probe user")
    user, said = accounts[1]["user"], list[str]()
    with Hosts(site.inventory) as hosts:
        ours = AppPasswords(site, hosts, said.append)
        with _made(ours, user) as (lost, kept):
            opens = vantage.ask("login-answers", endpoint=endpoints(), account=lost)
            scripts = vantage.ask("sieve-login", endpoint=endpoints(), account=kept) if site.settings.managesieve else None
            with locked_out(site, hosts, user):
                locked = vantage.ask("login-answers", endpoint=endpoints(), account=kept)
            used = {each.device: each.used for each in ours.of(user)}
            with (
                vantage.start("push", endpoint=endpoints(), account=lost, within=60) as ending,
                vantage.start("push", endpoint=endpoints(), account=kept, within=60) as going_on,
            ):
                ending.wait("idling")
                going_on.wait("idling")
                began = time.monotonic()
                ours.revoke(user, DEVICES[0])
                ended = ending.wait("result")
                seconds = ended.at - began
                refused = vantage.ask("login-answers", endpoint=endpoints(), account=lost)
                sent = vantage.ask("deliver", endpoint=endpoints(), account=accounts[0], recipient=user)
                if sent["code"] != 250:
                    invalid(f"no message could be sent: {sent}")
                lives = going_on.wait("result").values["data"]
            vantage.ask("wait-for", endpoint=endpoints(), account=kept, ident=sent["ident"], within=20)
    measure("session of a revoked app password gone after", round(seconds, 1), "s", volatile=True)
    expect(opens["imap"][0]["status"] == "OK", "an app password does not open IMAP", seen=opens["imap"], expected="OK")
    expect(opens["submission"][0]["status"] == "235", "an app password does not open submission", seen=opens["submission"], expected="235")
    if scripts is not None:
        expect(scripts[0] == "NO", "an app password opens ManageSieve", seen=scripts, expected="NO")
    expect(
        locked["imap"][0]["code"] == "AUTHENTICATIONFAILED",
        "a locked user's app password opens IMAP",
        seen=locked["imap"],
        expected="AUTHENTICATIONFAILED",
    )
    expect(used[DEVICES[0]] is not None, "nobody learns when an app password was used", seen=used, expected="when it was")
    expect(not ended.values["data"]["answered"], "a session outlives its app password", seen=ended.values["data"], expected="gone")
    expect(
        seconds < END_SECONDS,
        "a session outlives its app password for long",
        seen=f"{seconds:.0f} s",
        expected=f"gone within {END_SECONDS} s",
        late=True,
    )
    expect(
        refused["imap"][0]["code"] == "AUTHENTICATIONFAILED" and refused["submission"][0]["status"] == "535",
        "a revoked app password gets in",
        seen=refused,
        expected="AUTHENTICATIONFAILED, 535",
    )
    expect(lives["arrived"], "revoking one app password ends the session of another", seen=lives, expected="told of a message")


@pytest.mark.answer("live")
@pytest.mark.supports("OPS-13")
def test_no_session_outlives_its_app_password(site: Site, measure: Measure) -> None:
    """Each session a frontend has by an app password is by one that is in the directory."""
    with Hosts(site.inventory) as hosts:
        there = {session_mark(each.user, each.id) for each in AppPasswords(site, hosts, lambda _: None).of()}
        found, unasked = marks_on(hosts, [each.name for each in site.group("frontends")])
    if unasked:
        invalid(f"frontends could not be asked: {unasked}")
    measure("app passwords", len(there))
    measure("sessions by app passwords", sum(map(len, found.values())), volatile=True)
    gone = {name: lost for name, marks in found.items() if (lost := sorted(set(marks) - there))}
    expect(
        not gone,
        "sessions go on by app passwords that are gone",
        seen=gone,
        expected="none",
        remedy="end the sessions of their users: lemonstand user lock NAME, and unlock",
    )
