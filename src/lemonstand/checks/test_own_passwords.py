"""Own passwords: changed by who shows the one he has, on a page that keeps nothing (record 0050)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lemonstand.admin import AppPasswords, Hosts, People
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.undone import locked_out
from lemonstand.measure import Vantage
from lemonstand.outcomes import NotApplicable, expect, not_measurable
from lemonstand.probes.clients.own_password import PORT
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import Endpoints
from lemonstand.site import Site

CONFIGURATION = "/etc/nginx/lemonstand.conf"
KEPT = {
    # A password lies in no file and no log.
    "access_log": "off",
    "error_log": "stderr warn",
    "client_body_buffer_size": "16k",
    "client_max_body_size": "8k",
    "proxy_max_temp_file_size": "0",
    # It goes to the issuer and to nobody who only says so.
    "proxy_ssl_verify": "on",
    "proxy_pass_request_headers": "off",
    "ssl_session_tickets": "off",
}
DEVICE = "probe: own password"


@pytest.fixture
def offered(site: Site) -> None:
    """There is such a page."""
    if not site.settings.self_service:
        raise NotApplicable("users don't change their passwords themselves here (lemonstand_self_service: false)")


def _issuers(site: Site) -> list[str]:
    """The addresses of all issuers."""
    return [str(address) for host in site.group("auths") for leg in host.interfaces.values() for address in leg.addresses]


@contextmanager
def _put_back(site: Site, hosts: Hosts, account: Account) -> Iterator[None]:
    """The user has his password of before again in the end, and no app password of ours."""
    ours = AppPasswords(site, hosts, lambda _: None)
    try:
        yield
    finally:
        People(site, hosts, lambda _: None).passwd(account["user"], account["password"])
        for each in ours.of(account["user"]):
            if each.device == DEVICE:
                ours.revoke(account["user"], each.id)


@pytest.mark.disruptive
@pytest.mark.answer("live")
@pytest.mark.control("OPS-15")
@pytest.mark.supports("LEM-8-07")
def test_a_password_is_changed_by_who_shows_it(
    site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], family: int, offered: None, measure: Measure
) -> None:
    """The right password and a fit new one: it opens mail, the old one does not. A wrong one, an app password, a lock change nothing."""
    if len(accounts) < 2:
        not_measurable("it takes a second probe user")
    account, new = accounts[1], secrets.token_urlsafe(18)
    user, after = account["user"], Account(user=account["user"], password=new)

    def asks(each: Account, wanted: str, again: str = "") -> int:
        return int(vantage.ask("own-password", endpoint=endpoints(family), account=each, new=wanted, again=again)["status"])

    with Hosts(site.inventory) as hosts, _put_back(site, hosts, account):
        device = Account(user=user, password=AppPasswords(site, hosts, lambda _: None).add(user, DEVICE))
        refused = {
            "another password": asks(Account(user=user, password=secrets.token_urlsafe(18)), new),
            "an app password": asks(device, new),
            "another user's password": asks(Account(user=user, password=accounts[0]["password"]), new),
            "no user's name": asks(Account(user="*", password=account["password"]), new),
        }
        with locked_out(site, hosts, user):
            refused["a locked user's password"] = asks(account, new)
        unfit = {
            "short": asks(account, new[:6]),
            "not twice the same": asks(account, new, again=f"{new}x"),
            "the old one": asks(account, account["password"]),
            "the form of an app password": asks(account, device["password"]),
        }
        still = vantage.ask("login-answers", endpoint=endpoints(family), account=account)["imap"][0]["status"]
        changed = asks(account, new)
        opens = vantage.ask("login-answers", endpoint=endpoints(family), account=after)
        old = vantage.ask("login-answers", endpoint=endpoints(family), account=account)
    measure("questions refused", len(refused) + len(unfit))
    expect(303 not in refused.values(), "a password is changed by who does not show it", seen=refused, expected="403 each")
    expect(
        set(refused.values()) == {403},
        "a refusal is not answered as one",
        seen=refused,
        expected="403 each",
        remedy="the issuer's journal says why: journalctl -u ticket-issuer, on the auth hosts; `lemonstand apply` sets it up anew",
    )
    expect(set(unfit.values()) == {422}, "a password that nobody may have is taken", seen=unfit, expected="422 each")
    expect(still == "OK", "what was refused changed a password", seen=still, expected="OK with the old one")
    expect(
        changed == 303,
        "the right password changes nothing",
        seen=changed,
        expected=303,
        remedy="the issuer's journal says why: journalctl -u ticket-issuer, on the auth hosts",
    )
    expect(opens["imap"][0]["status"] == "OK", "a changed password does not open IMAP", seen=opens["imap"], expected="OK")
    expect(
        opens["submission"][0]["status"] == "235", "a changed password does not open submission", seen=opens["submission"], expected="235"
    )
    expect(
        old["imap"][0]["code"] == "AUTHENTICATIONFAILED",
        "the password of before opens IMAP",
        seen=old["imap"],
        expected="AUTHENTICATIONFAILED",
    )


@pytest.mark.answer("live")
@pytest.mark.supports("OPS-15", "LEM-3-01")
def test_the_page_is_there_where_it_is_offered(site: Site, vantage: Vantage, endpoints: Endpoints, family: int, measure: Measure) -> None:
    """443 answers a client outside if, and only if, the site has the page: a form, for browsers and password managers, and nothing else."""
    address, offered = endpoints(family)["address"], site.settings.self_service
    dialled = vantage.ask("reach", targets=[(address, PORT)], timeout=5 if offered else 2)[0][2]
    measure("lemonstand_self_service", offered)
    measure("443", dialled)
    expect((dialled == "open") is offered, "443 is not as the site says", seen=dialled, expected="open" if offered else "silence")
    if not offered:
        return
    page = vantage.ask("own-password-page", endpoint=endpoints(family))
    fields = set(re.findall(r'autocomplete="([a-z-]+)"', page["text"]))
    expect(
        page["status"] == 200 and fields == {"username", "current-password", "new-password"},
        "the page is no form for a password",
        seen={"status": page["status"], "fields": sorted(fields)},
        expected="200, and fields that password managers know",
    )
    headers = page["headers"]
    expect(
        headers["cache-control"] == "no-store"
        and "frame-ancestors 'none'" in headers["content-security-policy"]
        and headers["strict-transport-security"]
        and headers["server"] == "nginx",
        "the page may be kept, framed, or come without TLS, or tells its version",
        seen=headers,
        expected="no-store, frame-ancestors 'none', HSTS, no version",
    )
    expect(page["managers"].endswith("/"), "password managers don't find the page", seen=page["managers"], expected="/")
    expect(
        (page["elsewhere"], page["got"]) == (404, 405), "the server has more than the page", seen=page["elsewhere"], expected="404, and 405"
    )


@pytest.mark.answer("configuration")
@pytest.mark.supports("OPS-15", "LEM-8-12")
def test_the_page_keeps_nothing(site: Site, host: HostFactory, frontend: str, offered: None, measure: Measure) -> None:
    """Of the configuration in force: no log of questions, no file for what is typed, an issuer that is verified; and no other site."""
    done = host(frontend).run("/usr/sbin/nginx -T -q -c %s", CONFIGURATION)
    text = done.stdout
    found = {key: set(re.findall(rf"^\s*{key}\s+([^;]+);", text, re.MULTILINE)) for key in KEPT}
    measure("settings", len(KEPT))
    wrong = {key: sorted(values) for key, values in found.items() if values != {KEPT[key]}}
    expect(done.rc == 0, "nginx does not take its configuration", seen=done.stderr[:200], expected="it does")
    expect(not wrong, "the page keeps what is typed, or hands it to anybody", seen=wrong, expected=KEPT)
    files = sorted(re.findall(r"^# configuration file (\S+):", text, re.MULTILINE))
    expect(files == [CONFIGURATION], "nginx serves more than the page", seen=files, expected=CONFIGURATION)
    other = re.findall(r"^\s*(stream|mail|upstream|include)\b", text, re.MULTILINE)
    sent_to = sorted(set(re.findall(r"proxy_pass\s+(\S+);", text)))
    issuers = sorted(f"https://[{each}]:8443" if ":" in each else f"https://{each}:8443" for each in _issuers(site))
    expect(not other and set(sent_to) <= set(issuers), "nginx passes on to others than issuers", seen=[*other, *sent_to], expected=issuers)
    runs = host(frontend).run("systemctl show -p ExecStart,NoNewPrivileges,ProtectSystem,CapabilityBoundingSet nginx.service").stdout
    lacking = [each for each in (f"-c {CONFIGURATION}", "NoNewPrivileges=yes", "ProtectSystem=strict") if each not in runs]
    expect(not lacking, "nginx runs with more than a page needs", seen=runs, expected="the role's unit")


@pytest.mark.answer("configuration")
@pytest.mark.supports("OPS-15", "LEM-8-08")
def test_a_user_writes_his_own_password_alone(site: Site, host: HostFactory, auth: str, measure: Measure) -> None:
    """The directory lets an entry write its own password and read none; without the page nobody may write any."""
    text = host(auth).file("/etc/ldap/lemonstand.conf").content_string
    rules = re.findall(r"^access to ([^\n]*attrs=userPassword[^\n]*)\n((?:  by [^\n]*\n)+)", text, re.MULTILINE)
    writers = [(what, who.strip()) for what, granted in rules for who in granted.splitlines() if re.search(r"=\S*w|write|manage", who)]
    measure("rules", len(rules))
    wanted = ["by self =w"] if site.settings.self_service else []
    expect([who for _, who in writers] == wanted, "somebody else writes passwords", seen=writers, expected=wanted or "nobody")
    expect(
        all(what.startswith('dn.regex="^uid=[^,]+,ou=people,') for what, _ in writers),
        "an entry that is no user's writes passwords",
        seen=writers,
        expected="users' own entries",
    )
