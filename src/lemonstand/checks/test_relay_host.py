"""Relays: mail for our users from anybody, for others from stores only, and no logins on port 25."""

from __future__ import annotations

import re

import pytest

from lemonstand.checks.conftest import FactsOf, Measure, Members
from lemonstand.outcomes import expect
from lemonstand.remote.settings import seconds
from lemonstand.site import Site

pytestmark = pytest.mark.answer("configuration")

MOST_RECIPIENTS = 1000
"""RFC 5068 asks for a limit and names none; above this one message is a campaign."""


@pytest.mark.control("LEM-3-05")
def test_port_25_is_no_way_to_submit(site: Site, facts_of: FactsOf, members: Members, measure: Measure) -> None:
    """No login on the relay's port 25, and nobody else listens there."""
    relays, frontends, stores = members["relays"], members["frontends"], members["stores"]
    wrong = []
    for name in relays:
        service = facts_of(name).postfix_service("smtp/inet")
        measure(f"{name} smtpd_sasl_auth_enable on 25", service["smtpd_sasl_auth_enable"])
        if service["smtpd_sasl_auth_enable"] != "no":
            wrong.append(f"{name}: AUTH is on for port 25")
        if "permit_sasl_authenticated" in service["smtpd_relay_restrictions"] + service["smtpd_recipient_restrictions"]:
            wrong.append(f"{name}: port 25 relays for who is logged in")
    for name in (*frontends, *stores):
        if any(s.port == 25 and not s.is_local for s in facts_of(name).sockets):
            wrong.append(f"{name}: listens on 25")
    expect(bool(relays) and not wrong, "port 25 takes submissions", seen=wrong, expected="no AUTH, no listener but the relay's")


@pytest.mark.control("LEM-8-24")
def test_no_open_relay(facts_of: FactsOf, relay: str, measure: Measure) -> None:
    """Trusted networks are this host; port 25 refuses foreign recipients; 587 wants a certificate, a login and the login's own sender."""
    facts = facts_of(relay)
    networks = [word for word in re.split(r"[,\s]+", facts.postfix["mynetworks"]) if word]
    measure("mynetworks", " ".join(networks))
    foreign = [word for word in networks if not word.startswith(("127.", "[::1]"))]
    expect(not foreign, "others than this host are trusted", seen=foreign, expected="loopback")
    outside, inside = facts.postfix_service("smtp/inet"), facts.postfix_service("submission/inet")
    # The first word that decides counts: what permits must not stand before.
    words = re.split(r"[,\s]+", outside["smtpd_relay_restrictions"])
    deciding = next((word for word in words if word != "permit_mynetworks"), "")
    expect(
        deciding == "reject_unauth_destination",
        "port 25 relays for anybody",
        seen=outside["smtpd_relay_restrictions"],
        expected="reject_unauth_destination first",
    )
    expect(
        re.split(r"[,\s]+", inside["smtpd_relay_restrictions"])[-1] == "reject",
        "port 587 relays without a login",
        seen=inside["smtpd_relay_restrictions"],
        expected="reject at the end",
    )
    expect(
        "reject_sender_login_mismatch" in inside["smtpd_sender_restrictions"],
        "stores may use any sender",
        seen=inside["smtpd_sender_restrictions"],
        expected="reject_sender_login_mismatch",
    )
    # What has no login (Sieve) is bounded too: the null sender, or one that gets mail here.
    senders = re.split(r"[,\s]+", inside["smtpd_sender_restrictions"])
    expect(
        senders[-1] == "reject" and "reject_unlisted_sender" in senders,
        "a store without a login may use any sender",
        seen=inside["smtpd_sender_restrictions"],
        expected="reject_unlisted_sender, and reject at the end",
    )
    expect(inside["smtpd_tls_req_ccert"] == "yes", "587 asks for no certificate", seen=inside["smtpd_tls_req_ccert"], expected="yes")


@pytest.mark.control("LEM-8-24", "LEM-4.1-10")
def test_abuse_is_limited(facts_of: FactsOf, relay: str, measure: Measure) -> None:
    """RFC 5068, RFC 6409 4.3: recipients a message, connections and messages an address, each with a number; none counts age."""
    facts = facts_of(relay)
    outside, inside = facts.postfix_service("smtp/inet"), facts.postfix_service("submission/inet")
    recipients = int(outside["smtpd_recipient_limit"])
    measure("recipients of a message", recipients)
    expect(0 < recipients <= MOST_RECIPIENTS, "a message may go to everybody", seen=recipients, expected=f"at most {MOST_RECIPIENTS}")
    for name in ("smtpd_client_connection_count_limit", "smtpd_client_connection_rate_limit", "smtpd_client_message_rate_limit"):
        measure(f"25 {name}", int(outside[name]))
        expect(int(outside[name]) > 0, f"{name} is off on port 25", seen=outside[name], expected="more than 0")
    measure("587 smtpd_client_message_rate_limit", int(inside["smtpd_client_message_rate_limit"]))
    expect(
        int(inside["smtpd_client_message_rate_limit"]) > 0, "a client behind a store may send without end", seen=0, expected="more than 0"
    )
    for service in (outside, inside):
        # Postfix has limits of age too; they end sessions that merely last.
        longest = service["smtpd_per_request_deadline"]
        expect(
            "yes" not in longest or "stress" in longest,
            "a deadline counts a request from its beginning",
            seen=longest,
            expected="no, or under stress only",
        )


@pytest.mark.supports("LEM-4.1-05b")
def test_relay_waits_for_commands(site: Site, facts_of: FactsOf, relay: str, measure: Measure) -> None:
    """RFC 5321 4.5.3.2.7 on the relay, and longer for a store, which ends with its relay. Dovecot's own timer no setting shows: this alone
    answers nothing."""
    facts = facts_of(relay)
    timers, relations, broken = site.timers_in_force, [], []
    for service, timer in (("smtp/inet", "smtp_server_timeout"), ("submission/inet", "submission_relay_timeout")):
        text = facts.postfix_service(service)["smtpd_timeout"]
        # `${stress?{10}:{300}}s` is what Postfix ships: ten seconds under load
        value = min((int(number) for number in re.findall(r"\d+", text)), default=0) if "stress" in text else seconds(text)
        measure(f"{service} {timer}", value, "s")
        asked = [relation for relation in site.timers.relations if relation.left == timer]
        relations += asked
        broken += [f"{service}: {value} s" for relation in asked if not relation.holds({**timers, timer: value})]
    expect(
        bool(relations) and not broken,
        "the relay does not wait for commands",
        seen=broken,
        expected=[str(relation) for relation in relations],
    )


@pytest.mark.supports("LEM-8-10", "LEM-8-04")
def test_keeps_no_mail(facts_of: FactsOf, relay: str, measure: Measure) -> None:
    """The other host in the DMZ has no mailboxes either: nothing is delivered here."""
    facts = facts_of(relay)
    measure("mydestination", facts.postfix["mydestination"])
    expect(facts.postfix["mydestination"] == "", "mail is delivered on the relay", seen=facts.postfix["mydestination"], expected="nothing")
    expect(
        facts.postfix["local_transport"].startswith("error:"),
        "mail is delivered on the relay",
        seen=facts.postfix["local_transport"],
        expected="error:",
    )
    expect(not facts.data["mailboxes"], "mail lies on the relay", seen=facts.data["mailboxes"], expected="none")


@pytest.mark.supports("PRO-SUB-01", "PRO-SUB-02", "PRO-SUB-04", "PRO-SUB-08", "PRO-SUB-10", "LEM-6-06", "LEM-6-10")
def test_hides_no_extension(facts_of: FactsOf, relay: str, measure: Measure) -> None:
    """Stores meet every keyword the profile needs, and 8-bit mail is converted for those who lack it."""
    facts = facts_of(relay)
    for service in ("smtp/inet", "submission/inet"):
        settings = facts.postfix_service(service)
        hidden = {word.lower() for word in re.split(r"[,\s]+", settings["smtpd_discard_ehlo_keywords"]) if word}
        measure(f"{service} hides", " ".join(sorted(hidden)))
        lost = sorted(hidden & {"pipelining", "dsn", "size", "enhancedstatuscodes", "chunking", "8bitmime", "starttls"})
        expect(not lost, "the relay hides extensions", seen=lost, expected="none of the profile's")
        expect(
            settings["disable_mime_output_conversion"] == "no",
            "8-bit mail is not converted",
            seen=settings["disable_mime_output_conversion"],
            expected="no",
        )
