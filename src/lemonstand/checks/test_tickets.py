"""The way inward from the frontend: what the issuer answers, what the store takes, and that sessions are really passed on."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid
from lemonstand.probes.protocols.wire import Account, Endpoint
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")

Attempts = dict[str, Any]
GUESSES = 12
HALTED, HALTED_SECONDS = 16, 20.0
LEAST_REFUSAL_SECONDS = 0.4
"""The issuer holds refusals back for half a second; what a clock of another host makes of that."""
GRANTED = "own ticket"
TICKET_KEYS = ["access_token", "expires_in", "scope", "store", "token_type"]


WITHOUT_THE_USER = {
    "ticket of another user", "no name", "forged with a key of one's own", "edited", "unsigned", "certificate alone", "another store",
    "another issuer", "no subject", "expired", "anonymous", "user of a master by PLAIN", "garbage", "empty",
}  # fmt: skip
"""What a broken-into frontend can try for a user who is not logging in: it has certificates, and tickets of others."""


@pytest.mark.control("LEM-8-11")
@pytest.mark.supports("LEM-8-12", "LEM-8-05")
@pytest.mark.parametrize("service", ["store", "submission"])
def test_the_store_takes_the_users_own_ticket_and_nothing_else(attempts: Attempts, service: str, measure: Measure) -> None:
    """Passwords, expired, foreign, forged, edited and unsigned tickets, and certificates alone are refused on both ports."""
    tried = attempts[service]
    expect(tried[GRANTED]["status"] == "OK", "a good ticket is refused", seen=tried[GRANTED], expected="OK")
    measure("refused", ", ".join(case for case in tried if tried[case]["status"] != "OK"))
    taken = [case for case, answer in tried.items() if case != GRANTED and answer["status"] not in {"NO", "BAD", "CLOSED"}]
    expect(not taken, "the store lets somebody in who has no ticket of his own", seen=taken, expected="all refused")


@pytest.mark.control("LEM-8-12")
def test_a_frontend_opens_nobodys_mailbox_by_itself(attempts: Attempts, measure: Measure) -> None:
    """With a frontend's certificates, its place in the network and other people's tickets, a user who does not log in stays closed."""
    tried = {case: answer for case, answer in attempts["store"].items() if case in WITHOUT_THE_USER}
    missing = WITHOUT_THE_USER - set(tried)
    if missing:
        invalid(f"these were not tried: {sorted(missing)}")
    measure("ways tried at the store", len(tried))
    opened = [case for case, answer in tried.items() if answer["status"] not in {"NO", "BAD", "CLOSED"}]
    expect(not opened, "a frontend opens a mailbox without its user", seen=opened, expected="all refused")
    given = [case for case in ("wrong", "unknown") if attempts["issuer"][case]["status"] != 400]
    expect(not given, "the issuer gives tickets without the password", seen=given, expected="400")


@pytest.mark.control("LEM-8-13")
@pytest.mark.supports("LEM-8-12")
def test_a_frontend_has_no_power_of_its_own(attempts: Attempts, measure: Measure) -> None:
    """The issuer gives a frontend nothing in its own name; the store knows no master, no anonymous and no certificate that logs in."""
    asked = {case: answer for case, answer in attempts["issuer"].items() if case.startswith("by itself: ")}
    measure("grants asked for", len(asked))
    given = [case for case, answer in asked.items() if answer["status"] not in {400, 401}]
    expect(bool(asked) and not given, "the issuer gives a frontend something of its own", seen=given, expected="400 to each")
    powers = ("user of a master by PLAIN", "anonymous", "certificate alone")
    open_to = [case for case in powers if attempts["store"][case]["status"] not in {"NO", "BAD", "CLOSED"}]
    expect(not open_to, "the store lets a frontend in for what it is", seen=open_to, expected="all refused")


@pytest.mark.control("LEM-8-08")
def test_the_issuer_says_yes_or_no(attempts: Attempts, measure: Measure) -> None:
    """A ticket for the right password; one and the same refusal for a wrong one and for a name nobody has (RFC 6749 section 5.2)."""
    said = attempts["issuer"]
    measure("refused after", said["wrong"]["seconds"], "s")
    expect(said["right"]["status"] == 200, "the right password gets no ticket", seen=said["right"], expected=200)
    expect(said["right"]["keys"] == TICKET_KEYS, "the answer holds more than a ticket", seen=said["right"]["keys"], expected=TICKET_KEYS)
    for case in ("wrong", "unknown"):
        answer = said[case]
        expect(
            (answer["status"], answer["error"], answer.get("keys")) == (400, "invalid_grant", ["error"]),
            f"the refusal of a password ({case}) tells more",
            seen=answer,
            expected="400 invalid_grant",
        )


@pytest.mark.control("LEM-8-07")
@pytest.mark.supports("LEM-8-12")
def test_the_issuer_answers_frontends_only(attempts: Attempts) -> None:
    """No certificate, no answer; the certificate for the store opens nothing here."""
    for case in ("without a certificate", "with the certificate for stores"):
        answer = attempts["issuer"][case]
        expect(answer["status"] in {0, 401, 403}, f"the issuer answers {case}", seen=answer, expected="no TLS, 401 or 403")


@measurement()
def guessed(vantage: Vantage) -> dict[str, Any]:
    """A made-up name that is guessed again and again."""
    name = f"nobody-{secrets.token_hex(6)}@{vantage.site.settings.mail_domains[0]}"
    order: dict[str, Any] = {"inner_services": vantage.inner_services, "name": name, "account": vantage.accounts[0], "wave": GUESSES}
    return dict(vantage.prober.ask(vantage.site.group("frontends")[0].name, "guess", **order))


@pytest.mark.control("LEM-8-24")
@pytest.mark.supports("LEM-8-12")
def test_guessing_ends(guessed: dict[str, Any], measure: Measure) -> None:
    """A name that is refused again and again is not tried any more; others behind the same address are (RFC 4954 section 6)."""
    measure("refusals before the end", guessed["wave"].count(400))
    expect(guessed["next"] == 429, "a name can be guessed without end", seen=guessed, expected="429 after a dozen guesses")
    expect(guessed["account"] == 200, "somebody else is locked out too", seen=guessed["account"], expected=200)


@measurement()
def network_closed(vantage: Vantage) -> dict[str, Any]:
    """A network that asks under what is no name until it is not heard any more, and what names are answered then."""
    frontend = vantage.site.group("frontends")[0].name
    return dict(
        vantage.prober.ask(frontend, "closed-network", seconds=120, inner_services=vantage.inner_services, accounts=vantage.accounts[:2])
    )


@pytest.mark.control("LEM-8-24", "LEM-6-05")
def test_whoever_invents_names_shuts_out_his_own_network_alone(network_closed: dict[str, Any], measure: Measure) -> None:
    """Names are counted by the network that asks for them; a user who got in from there, and everybody elsewhere, is heard all the same."""
    seen = network_closed
    if seen["first"]["status"] != 200:
        invalid(f"a user on a new network is refused before anything was tried: {seen['first']}")
    measure("refused before the end", seen["refused"])
    expect(
        seen["later"] > 0 and seen["invented"]["status"] == 429,
        "names can be invented without end",
        seen={"refused": seen["refused"], "then": seen["invented"]},
        expected="429 after a hundred",
    )
    expect(seen["elsewhere"]["status"] == 200, "users on new networks are shut out", seen=seen["elsewhere"], expected=200)
    expect(seen["known right"]["status"] == 200, "a user is shut out of a place he uses", seen=seen["known right"], expected=200)


@pytest.mark.control("LEM-8-08")
@pytest.mark.supports("LEM-8-24")
def test_answers_do_not_tell_where_a_user_got_in(network_closed: dict[str, Any], measure: Measure) -> None:
    """On a network that is closed a wrong password is answered alike, whether the user got in from there before or not."""
    seen = network_closed
    if seen["first"]["status"] != 200 or seen["invented"]["status"] != 429:
        invalid(f"there was no closed network from which a user got in: {seen}")
    measure("answered where he got in", f"{seen['known']['status']} after {seen['known']['seconds']} s")
    measure("answered where he did not", f"{seen['stranger']['status']} after {seen['stranger']['seconds']} s")
    expect(
        seen["known"]["status"] == seen["stranger"]["status"] == 429,
        "answers tell from which networks a user comes",
        seen={"known": seen["known"], "stranger": seen["stranger"]},
        expected="429 for both",
    )
    least = LEAST_REFUSAL_SECONDS
    expect(
        seen["stranger"]["seconds"] >= least and seen["known"]["seconds"] >= least,
        "the time of answers tells from which networks a user comes",
        seen={"known": seen["known"], "stranger": seen["stranger"]},
        expected=f"neither sooner than {least} s",
    )


@measurement(waits=True)
def halted(vantage: Vantage) -> dict[str, Any]:
    """Connections to the issuer that stop half-way, some of each kind."""
    order: dict[str, Any] = {"inner_services": vantage.inner_services, "account": vantage.accounts[0]}
    frontend = vantage.site.group("frontends")[0].name
    return {
        "beside": vantage.prober.ask(frontend, "reset-beside", seconds=120, rounds=3, count=10, **order),
        **vantage.prober.ask(frontend, "slow-questions", seconds=120, count=HALTED, within=HALTED_SECONDS, **order),
    }


@pytest.mark.control("LEM-8-08")
@pytest.mark.supports("LEM-6-05")
def test_the_issuer_ends_what_does_not_go_on(halted: dict[str, Any], measure: Measure) -> None:
    """A connection that stops before or within handshake, header or body, or hardly goes on, is ended; one that is reset ends no other."""
    if halted["held"] < HALTED // 2:
        invalid(f"hardly any connection was held: {halted}")
    for kind, seconds in halted["longest"].items():
        measure(f"ended: {kind}", seconds, "s")
    lost = [answer for answer in halted["beside"] if answer["status"] != 200]
    expect(not lost, "connections that are reset end questions of others", seen=lost, expected="200 each")
    expect(not halted["left"], "a connection that does not go on is kept", seen=halted["left"], expected=f"ended in {HALTED_SECONDS:.0f} s")


@pytest.mark.control("LEM-8-10")
@pytest.mark.supports("LEM-8-04")
def test_sessions_are_really_passed_on(
    host: HostFactory, site: Site, vantage: Vantage, endpoint: Endpoint, family: int, accounts: list[Account], measure: Measure
) -> None:
    """While a handset idles, the store holds the session with the handset's own address, and the frontend only a proxied one."""
    user, store, frontends = accounts[0]["user"], vantage.home(accounts[0]), [each.name for each in site.group("frontends")]
    with vantage.start("push", endpoint=endpoint, account=accounts[0], within=20) as probe:
        probe.wait("idling")
        sessions = _table(host(store).run("doveadm -f tab who -1"))
        # The edge spreads new connections over the frontends, so any of them may have it.
        proxied = [row for each in frontends for row in _table(host(each).run("doveadm -f tab proxy list"))]
        local = [row for each in frontends for row in _table(host(each).run("doveadm -f tab who -1"))]
    mine = [row for row in sessions if row.get("username") == user]
    measure("at the store", "; ".join(sorted({f"{row.get('service')} from {row.get('ip', row.get('ips', ''))}" for row in mine})))
    expect(bool(mine), "the store has no session of the user", seen=sessions[:5], expected=user)
    through = [row for row in proxied if row.get("username") == user]
    expect(bool(through), f"{' and '.join(frontends)} have no proxied session of the user", seen=proxied[:5], expected=user)
    kept = [row for row in local if row.get("username") == user and row.get("service") in {"imap", "submission"} and not through]
    expect(not kept, "the frontend holds the session itself", seen=kept, expected="none")
    inner = {str(address) for each in site.group("frontends") for address in each.interfaces["dmz"].addresses}
    seen = {row.get("ip", row.get("ips", "")).strip("()") for row in mine}
    expect(
        bool(seen) and not seen & inner, "the store sees the frontend's address for the client's", seen=seen, expected="the client's own"
    )


def _table(done: Any) -> list[dict[str, str]]:
    if done.rc != 0:
        invalid(f"doveadm failed: {done.stderr.strip()[:200]}")
    lines = done.stdout.splitlines()
    head = lines[0].split("\t") if lines else []
    return [dict(zip(head, line.split("\t"), strict=False)) for line in lines[1:]]
