"""A directory behind, where a site has one: who it is, what it is asked, and what its silence means."""

from __future__ import annotations

import json
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from lemonstand.admin import AppPasswords, Hosts
from lemonstand.checks.conftest import FactsOf, HostFactory, Measure
from lemonstand.checks.test_failures import IN, LATER, WRONG, expect_answers
from lemonstand.checks.undone import locked_out, undone
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, named, not_measurable
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import Endpoints
from lemonstand.remote.prober import Prober
from lemonstand.site import Site
from lemonstand.site.model import DirectoryService

ISSUER = "/etc/lemonstand/ticket/issuer.json"
CA = "/etc/lemonstand/ticket/directory-ca.crt"
SECRETS = ("/etc/lemonstand/pki/directory-client.key", "/etc/lemonstand/ticket/directory-password")
SILENT_SECONDS = 10.0
"""A directory that says nothing is given up by then."""
ANSWER_SECONDS = 25.0
"""A client is told to come later by then: the issuer has two addresses to try, and other questions of the name before this one."""
DEVICE = "probe: while it is away"


def _behind(site: Site) -> DirectoryService:
    return named(site.settings.services.directory, "the site's own directory judges passwords: no other one is named")


def _judged(service: DirectoryService, accounts: list[Account]) -> Account:
    found = [each for each in accounts if service.judges(each["user"])]
    if not found:
        not_measurable("no probe user's password is judged there (own_passwords, domains)")
    return found[0]


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-14")
def test_the_issuer_asks_the_directory_behind(site: Site, facts_of: FactsOf, host: HostFactory, auth: str, measure: Measure) -> None:
    """The issuer has whom the site names, believes the CA the site names, asks less than would lock an account; its key is root's."""
    service = _behind(site)
    has: dict[str, Any] = json.loads(facts_of(auth).text(ISSUER)).get("behind", {})
    wanted = {
        "name": service.name, "addresses": [str(each) for each in service.addresses], "port": service.port,
        "bind_name": service.bind_name or "", "domains": list(service.domains), "own_passwords": list(service.own_passwords),
    }  # fmt: skip
    other = {key: has.get(key) for key, value in wanted.items() if has.get(key) != value}
    expect(not other, "another directory is asked than the one the site names, or about others", seen=other, expected=wanted)
    most = has["most"]
    measure("wrong passwords of a name before it is asked no more", most["behind"])
    expect(
        1 <= most["stranger"] <= most["behind"] and 2 * most["behind"] < max(service.locks_after, 3),
        "guesses here may lock accounts there",
        seen=most,
        expected=f"less than half of {service.locks_after}",
    )
    expect(
        has["quiet_seconds"] >= service.locks_seconds,
        "what that directory remembers is forgotten here",
        seen=has["quiet_seconds"],
        expected=f"{service.locks_seconds} s",
    )
    on_host = host(auth)
    believed = on_host.check_output("cat %s", CA).strip()
    expect(
        believed == service.ca.read_text(encoding="utf-8").strip(), "another CA is believed", seen=believed[:80], expected=str(service.ca)
    )
    for path in SECRETS:
        file = on_host.file(path)
        if file.exists:
            mode = f"{stat.S_IMODE(file.mode):04o} {file.user}"
            expect(file.user == "root" and not file.mode & 0o077, f"others can read {path}", seen=mode, expected="0600 root")


@pytest.mark.answer("live")
@pytest.mark.control("OPS-14")
def test_nobody_else_is_taken_for_the_directory_behind(
    site: Site, prober: Prober, auth: str, accounts: list[Account], measure: Measure
) -> None:
    """The issuer's program says nothing to who shows another certificate or none; a password that is none is refused before it is sent."""
    service = _behind(site)
    seen = prober.ask(auth, "directory-behind", login=_judged(service, accounts)["user"])
    for case, answer in seen["false"].items():
        measure(case, answer["came"])
        expect(
            answer == {"came": "unavailable", "heard": 0},
            f"a false directory is believed: {case}",
            seen=answer,
            expected="unavailable, and nothing said to it",
        )
    measure("a silent one is given up after", seen["silent"]["seconds"], "s", volatile=True)
    expect(
        seen["silent"]["came"] == "unavailable" and seen["silent"]["seconds"] < SILENT_SECONDS,
        "a directory that says nothing is waited for, or taken for an answer",
        seen=seen["silent"],
        expected=f"unavailable within {SILENT_SECONDS} s",
    )
    true = seen["true"]
    expect(true["nobody"] == "refused", f"{service.name} can't be asked", seen=true["nobody"], expected="a connection")
    expect(
        true["empty"] == true["zero"] == "refused",
        "a password that is none gets as far as the directory behind",
        seen={case: true[case] for case in ("empty", "zero")},
        expected="refused unasked",
    )


@pytest.mark.answer("live")
@pytest.mark.control("OPS-14")
@pytest.mark.disruptive
def test_a_lock_here_holds_whatever_is_said_there(
    site: Site, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """A user whose password is judged elsewhere logs in, and is refused once he is locked here."""
    account = _judged(_behind(site), accounts)
    before = vantage.ask("login-answers", endpoint=endpoints(), account=account)
    with Hosts(site.inventory) as hosts, locked_out(site, hosts, account["user"]):
        locked = vantage.ask("login-answers", endpoint=endpoints(), account=account)
    after = vantage.ask("login-answers", endpoint=endpoints(), account=account)
    measure("answered after", max(each["seconds"] for tries in before.values() for each in tries), "s", volatile=True)
    expect_answers(before, IN, "the right password is refused")
    expect_answers(locked, WRONG, "a user who is locked here gets in")
    expect_answers(after, IN, "a lock that was lifted goes on")


@contextmanager
def _app_password(site: Site, user: str) -> Iterator[Account]:
    """An app password of a user's; what a run that was cut off left behind goes first."""
    with Hosts(site.inventory) as hosts:
        ours = AppPasswords(site, hosts, lambda _: None)

        def tidy() -> None:
            for each in ours.of(user):
                if each.device == DEVICE:
                    ours.revoke(user, each.id)

        tidy()
        try:
            yield Account(user=user, password=ours.add(user, DEVICE))
        finally:
            tidy()


def away(service: DirectoryService) -> tuple[str, str]:
    """How an auth host loses the way to a directory behind, and has it again."""
    table = "inet behind_away"
    rules = [
        f"nft add rule {table} output {'ip6' if each.version == 6 else 'ip'} daddr {each} tcp dport {service.port} drop"
        for each in service.addresses
    ]
    chain = f"nft 'add chain {table} output {{ type filter hook output priority -300; }}'"
    return " && ".join([f"nft add table {table}", chain, *rules]), f"nft delete table {table}"


@pytest.mark.answer("live")
@pytest.mark.control("OPS-14")
@pytest.mark.supports("LEM-8-08", "OPS-13")
@pytest.mark.disruptive
def test_a_directory_behind_that_is_away_is_no_answer(
    site: Site, host: HostFactory, vantage: Vantage, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """While it is away, who logged in a moment before is told to come later, even with a wrong password; app passwords open."""
    service = _behind(site)
    account = _judged(service, accounts)
    wrong = Account(user=account["user"], password="not" + secrets.token_hex(8))
    gone, back = away(service)
    with _app_password(site, account["user"]) as device:
        before = vantage.ask("login-answers", endpoint=endpoints(), account=account)
        with undone(host, [each.name for each in site.group("auths")], gone, back):
            answers: Mapping[str, Any] = {
                name: vantage.ask("login-answers", seconds=150, endpoint=endpoints(), account=each, timeout=60.0)
                for name, each in {"right": account, "wrong": wrong, "device": device}.items()
            }
        after = vantage.ask("login-answers", endpoint=endpoints(), account=account)
    expect_answers(before, IN, "the right password is refused")
    for name in ("right", "wrong"):
        took = max(each["seconds"] for tries in answers[name].values() for each in tries)
        measure(f"{name} password: answered after", took, "s", volatile=True)
        expect_answers(answers[name], LATER, f"a directory behind that is away reads as something else ({name} password)")
        expect(took < ANSWER_SECONDS, "who waits for a directory that is away waits long", seen=took, expected=ANSWER_SECONDS, late=True)
    expect_answers(answers["device"], IN, "an app password waits for the directory behind")
    expect_answers(after, IN, "logins don't come back with the directory behind")
