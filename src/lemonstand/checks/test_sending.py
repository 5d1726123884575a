"""What leaves a user's hands: commands as phones write them, receipts, what is mended, Sieve's actions; and what of it is seen outside."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.inner_names import inner_names
from lemonstand.checks.test_delivery import PEER_MAIL, PEER_USER
from lemonstand.checks.undone import undone
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, not_measurable
from lemonstand.probes.clients.outgoing import FINDER
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, Endpoints
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")

TAGS = 24
"""Tagged addresses of one user in one message: more than twice what Dovecot allows by itself."""
OWN_TRACE = re.compile(r"^Received:\s+(?:from \[(?P<address>[^]]+)\] \(\[(?P=address)\]\)\s+)?by \S+ ", re.IGNORECASE)


@measurement()
def sieve(vantage: Vantage) -> dict[str, Any] | None:
    """What each action of Sieve brought; None where clients can't store scripts."""
    site = vantage.site
    if not site.settings.managesieve:
        return None
    one, two = vantage.accounts[:2]
    aliases = next((user.aliases for user in site.settings.users if user.name == one["user"]), ())
    order: dict[str, Any] = {"endpoint": vantage.endpoints(), "account": one, "other": two, "outside": PEER_USER, "aliases": list(aliases)}
    found = dict(vantage.ask("sieve-actions", seconds=300, within=ARRIVAL_SECONDS, **order))
    name = found["idents"]["redirect outside"]
    return {**found, "redirected outside": _outside(vantage, name)}


def _outside(vantage: Vantage, name: str) -> str:
    """The header of a message as it lies with somebody outside; empty if it does not come."""
    return str(vantage.prober.ask(vantage.outsider, "outside-mail", folder=PEER_MAIL, wanted=[name], within=ARRIVAL_SECONDS)[name])


@measurement()
def odd_commands(vantage: Vantage) -> dict[str, Any]:
    """Commands of SMTP as phones write them."""
    one, two = vantage.accounts[:2]
    return dict(vantage.ask("odd-commands", endpoint=vantage.endpoints(), account=one, recipient=two["user"]))


@measurement()
def receipts(vantage: Vantage) -> dict[str, Any]:
    """Receipts, which have the null sender: to another user, to a crowd, and to outside."""
    (one, two), endpoint = vantage.accounts[:2], vantage.endpoints()
    inside = vantage.ask("bare-message", endpoint=endpoint, account=one, recipient=two["user"], lacking=[], null=True)
    expect(inside["code"] == 250, "a receipt is refused", seen=inside, expected=250)
    got = vantage.ask("wait-for", endpoint=endpoint, account=two, ident=inside["ident"], within=ARRIVAL_SECONDS)
    many = vantage.ask("receipts-to-many", endpoint=endpoint, account=one, recipients=[two["user"], one["user"]])
    sent = vantage.ask("bare-message", endpoint=endpoint, account=one, recipient=PEER_USER, lacking=[], null=True)
    return {"seconds": got["seconds"], "many": many, "sent": sent, "header": _outside(vantage, sent["ident"])}


LACKING: dict[str, list[str]] = {"Message-ID and Date": ["Message-ID", "Date"], "From": ["From"], "nothing": []}
"""What a phone forgets: words for it, and the fields."""


@measurement()
def mended(vantage: Vantage) -> dict[str, dict[str, Any]]:
    """What came of messages that lack a field."""
    (one, two), endpoint = vantage.accounts[:2], vantage.endpoints()
    found = {}
    for name, lacking in LACKING.items():
        sent = vantage.ask("bare-message", endpoint=endpoint, account=one, recipient=two["user"], lacking=lacking)
        expect(sent["code"] == 250, f"a message that lacks {name} is refused", seen=sent, expected=250)
        got = vantage.ask("wait-for", endpoint=endpoint, account=two, ident=sent["ident"], within=ARRIVAL_SECONDS, field=FINDER)
        found[name] = {**got, "ident": sent["ident"]}
    return found


@measurement()
def tagged(vantage: Vantage) -> dict[str, Any]:
    """One message to many tagged addresses of a user: how many copies came."""
    (one, two), endpoint = vantage.accounts[:2], vantage.endpoints()
    sent = vantage.ask("to-tags", endpoint=endpoint, account=one, recipient=two["user"], count=TAGS)
    expect(sent["code"] == 250, "a message to many tagged addresses is refused", seen=sent, expected=250)
    order: dict[str, Any] = {"name": sent["ident"], "count": TAGS, "within": float(ARRIVAL_SECONDS)}
    return dict(vantage.ask("copies", seconds=120, endpoint=endpoint, account=two, **order))


@pytest.mark.control("PRO-MDA-01")
def test_sieve_does_what_it_offers(sieve: dict[str, Any] | None, measure: Measure) -> None:
    """Every action that ManageSieve offers, from the script to its effect (RFC 5228, 5230, 5232, 5429, 5435); none loses a message."""
    measure("offered", sieve is not None)
    if sieve is None:
        return  # nobody can have a script; test_what_is_offered_is_reachable holds that
    offered, seen = set(sieve["offered"]), sieve["seen"]
    measure("extensions", " ".join(sorted(offered)), volatile=False)
    for step in ("put", "active"):
        expect(sieve[step][0] == "OK", "a script that needs all that is offered is refused", seen=sieve[step], expected="OK")
    refused = {case: reply for case, reply in sieve["sent"].items() if reply["code"] != 250}
    expect(not refused, "a message for a user with a script is refused", seen=refused, expected="250 for each")
    wrong = []
    for case in ("keep", "copy", "copy kept", "redirect", "redirect nowhere", "notify kept", "editheader", "vacation kept"):
        needs = {"copy": "copy", "notify": "enotify", "vacation": "vacation"}.get(case.split(" ")[0])
        if needs is None or needs in offered:
            measure(case, seen[case]["seconds"], "s")
            if seen[case]["seconds"] is None:
                wrong.append(f"{case}: nothing came")
    for case, needs in {"fileinto": "fileinto", "flag": "imap4flags", "vacation": "vacation", "notify": "enotify"}.items():
        if needs in offered and not seen[case]:
            wrong.append(f"{case}: nothing came")
    if "imap4flags" in offered and seen["flag"] and not all(flag in seen["flag"]["header"] for flag in ("\\Flagged", "$Forwarded")):
        wrong.append(f"flag: {seen['flag']['header'][:100]}")
    if "reject" in offered and seen["reject"]["seconds"] is None:
        wrong.append("reject: no report came")
    unwanted = ("discard left in INBOX", "redirect left in INBOX", "vacation to a list", "vacation to a machine", "vacation without sender")
    wrong += [f"{case}: it should not" for case in unwanted if seen[case]]
    expect(not wrong, "Sieve offers what it does not do", seen=wrong, expected="each action has its effect")


@pytest.mark.control("PRO-MDA-01")
def test_own_addresses_are_the_users_own(sieve: dict[str, Any] | None, measure: Measure) -> None:
    """Vacation answers what was sent to an alias or a tagged address of the user (RFC 5230 section 4.5)."""
    measure("offered", sieve is not None)
    if sieve is None or "vacation" not in sieve["offered"]:
        return
    asked = [value for key, value in sieve["seen"].items() if key.startswith("address ")]
    silent = [each["to"] for each in asked if not each["answer"]]
    measure("addresses", " ".join(each["to"] for each in asked))
    expect(bool(asked) and not silent, "vacation does not know the user's addresses", seen=silent, expected="an answer for each")


@pytest.mark.control("PRO-MDA-01")
@pytest.mark.supports("LEM-8-03")
def test_mail_sent_on_is_from_the_user(sieve: dict[str, Any] | None, site: Site, accounts: list[Account], measure: Measure) -> None:
    """Redirected to outside: the envelope sender is the user's own, for whom his site may send (SPF); the trace names no inner host."""
    measure("offered", sieve is not None)
    if sieve is None:
        return
    header = sieve["redirected outside"]
    expect(bool(header), "what is sent on to outside does not arrive", seen="nothing", expected=f"within {ARRIVAL_SECONDS} s", late=True)
    sender = re.search(r"^Return-Path: *<([^>]*)>", header, re.MULTILINE | re.IGNORECASE)
    measure("envelope sender", sender.group(1) if sender else "unknown", volatile=False)
    expect(
        sender is not None and sender.group(1) == accounts[0]["user"],
        "mail is sent on in another's name", seen=header[:200], expected=accounts[0]["user"],
    )  # fmt: skip
    _names_nothing_inside(site, header)


@pytest.mark.control("LEM-6-10")
def test_commands_are_taken_as_phones_write_them(odd_commands: dict[str, Any], measure: Measure) -> None:
    """A blank before an address, small letters, no brackets, AUTH=: what port 25 takes, submission takes. VRFY is no lie."""
    seen = odd_commands
    for name, reply in seen["mail"].items():
        measure(name, f"{reply['code']} {seen['rcpt'][name]['code']}")
    wrong = [f"{kind}: {name}: {reply}" for kind in ("mail", "rcpt") for name, reply in seen[kind].items() if reply["code"] != 250]
    expect(not wrong, "a command is refused for how it is written", seen=wrong, expected="250 for each")
    said = {name: reply["code"] for name, reply in seen["vrfy"].items()}
    measure("VRFY", f"{said}, {'announced' if seen['announced'] else 'not announced'}")
    fine = set(said.values()) <= ({252, 550} if seen["announced"] else {252, 500, 501, 502, 550})
    expect(fine, "VRFY says something else than it means", seen=seen["vrfy"], expected="252 (can't verify) or 550, or not announced")


@pytest.mark.control("PRO-SUB-02", "LEM-8-03")
@pytest.mark.supports("LEM-8-24")
def test_receipts_leave(receipts: dict[str, Any], site: Site, measure: Measure) -> None:
    """A read receipt has the null sender (RFC 8098 section 3): it arrives inside and outside, not at a crowd, and names no inner host."""
    expect(receipts["seconds"] is not None, "a receipt does not arrive", seen="nothing", expected=f"within {ARRIVAL_SECONDS} s", late=True)
    measure("arrived after", receipts["seconds"], "s")
    expect(receipts["many"]["code"] >= 500, "the null sender writes to a crowd", seen=receipts["many"], expected="5xx")
    header = receipts["header"]
    expect(bool(header), "a receipt does not get out", seen=receipts["sent"], expected=f"within {ARRIVAL_SECONDS} s", late=True)
    _names_nothing_inside(site, header)


@pytest.mark.control("PRO-SUB-04")
def test_what_a_phone_forgets_is_added(mended: dict[str, dict[str, Any]], measure: Measure) -> None:
    """Message-ID, Date and From are added where they are missing (RFC 6409 section 8), and left alone where they are there."""
    for name, lacking in LACKING.items():
        got = mended[name]
        expect(got["seconds"] is not None, f"a message that lacks {name} does not arrive", seen="nothing", expected="it does", late=True)
        fields = re.findall(r"^(Message-ID|Date|From): *\S", got["header"], re.MULTILINE | re.IGNORECASE)
        there = sorted(field.lower() for field in fields)
        measure(f"lacking {name}", " ".join(there))
        expect(there == ["date", "from", "message-id"], f"a message that lacks {name} is not mended", seen=there, expected="one of each")
        if not lacking:
            expect(f"<{got['ident']}>" in got["header"], "a Message-ID was changed", seen=got["header"][:400], expected=got["ident"])


@pytest.mark.control("LEM-4.1-10")
def test_many_tagged_addresses_arrive(tagged: dict[str, Any], measure: Measure) -> None:
    """One message to many addresses of one user is delivered at once, not in portions minutes apart."""
    measure("copies", tagged["copies"])
    expect(tagged["copies"] == TAGS, "some of a user's addresses wait", seen=tagged["copies"], expected=TAGS)


BROKEN = {
    "relays are away": ("systemctl stop postfix", "systemctl start postfix"),
    "relays have no TLS": (
        "cp -p /etc/postfix/master.cf /run/master.cf.true; sed -i s/smtpd_tls_security_level=encrypt/smtpd_tls_security_level=none/ "
        "/etc/postfix/master.cf; systemctl reload postfix",
        "cp -p /run/master.cf.true /etc/postfix/master.cf; systemctl reload postfix",
    ),
}
"""What keeps stores from their relays: how it is done to each of them, and undone. One that is in order would take the mail."""


@pytest.mark.disruptive
@pytest.mark.control("LEM-8-24")
@pytest.mark.parametrize("how", sorted(BROKEN))
def test_a_relay_in_trouble_is_told(
    lab_only: None, site: Site, host: HostFactory, vantage: Vantage, *, endpoints: Endpoints, accounts: list[Account], how: str,
    measure: Measure,
) -> None:  # fmt: skip
    """A client logs in, is told to try later and why, and keeps its message; once relays are back the same message goes."""
    relays = [each.name for each in site.group("relays")]
    away, back = (f"{command}; sleep 1" for command in BROKEN[how])
    order: dict[str, Any] = {"endpoint": endpoints(), "account": accounts[0], "recipient": accounts[1]["user"]}
    with undone(host, relays, away, back):
        told = vantage.ask("deliver", **order)
    measure("told", f"{told['code']} {told['text']}")
    expect(400 <= told["code"] < 500, "a relay in trouble is a hang-up, or mail is taken that can't leave", seen=told, expected="4xx")
    sent = vantage.ask("deliver", **order)
    expect(sent["code"] == 250, "mail does not leave once the relay is back", seen=sent, expected=250)
    got = vantage.ask("wait-for", endpoint=endpoints(), account=accounts[1], ident=sent["ident"], within=ARRIVAL_SECONDS)
    expect(got["seconds"] is not None, "mail does not arrive once the relay is back", seen="nothing", expected="it does", late=True)


def _names_nothing_inside(site: Site, header: str) -> None:
    # What the receiving host wrote on top of it names the relay as it saw it, by an address that is no secret.
    header = re.sub(r"\AReceived:.*?\n(?=\S)", "", header[max(0, header.find("Received:")) :], flags=re.DOTALL)
    told = inner_names(site).findall(header)
    expect(not told, "what leaves names a host inside", seen=sorted(set(told)), expected="none")
    mx = site.settings.mx_name
    lines = [line for line in re.sub(r"\r?\n[ \t]+", " ", header).splitlines() if re.match(rf"Received:.* by {re.escape(mx)} ", line)]
    if not lines:
        not_measurable("the message has no trace of the relay")
    paired = [line[:200] for line in lines if "ESMTPS" in line and not OWN_TRACE.match(line) and site.settings.public_name in line]
    expect(not paired, "a trace line puts a name beside another's address", seen=paired, expected="from [ADDRESS] ([ADDRESS]), or no from")
