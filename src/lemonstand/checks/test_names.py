"""One grammar of names on every host, one user whatever case a client types, and names with marks that people have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import FactsOf, Measure, Members
from lemonstand.measure import Vantage
from lemonstand.outcomes import NotApplicable, expect, invalid
from lemonstand.policy.names import load_names
from lemonstand.probes.clients.names import retyped
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, PEER_SENDER

MARKS = set(load_names().local_part.marks) - set("-_")
"""What few programs expect in a login name."""


@pytest.mark.control("LEM-8-08", "PRO-SUB-07")
@pytest.mark.answer("configuration")
def test_all_hosts_have_one_grammar(facts_of: FactsOf, members: Members, measure: Measure) -> None:
    """Dovecot takes the same characters on both sides and lowers names; the delimiter is one; the issuer takes no other names."""
    names = load_names()
    frontends, stores, relays, auths = (members[group] for group in ("frontends", "stores", "relays", "auths"))
    wrong = []
    for name in (*frontends, *stores):
        settings = facts_of(name).dovecot
        if set(settings.get("auth_username_chars").strip('"')) != set(names.characters):
            wrong.append(f"{name}: auth_username_chars = {settings.get('auth_username_chars')}")
        # A frontend has no name to log until the issuer has said yes; its program gives it back in lower case.
        form = "-" if name in frontends else "%{user|lower}"
        if settings.get("auth_username_format").replace(" ", "") != form:
            wrong.append(f"{name}: auth_username_format = {settings.get('auth_username_format')}")
    delimiters = {name: facts_of(name).dovecot.get("recipient_delimiter") for name in stores}
    delimiters |= {name: facts_of(name).postfix["recipient_delimiter"] for name in relays}
    wrong += [f"{name}: recipient_delimiter = {value}" for name, value in delimiters.items() if value != names.recipient_delimiter]
    for name in auths:
        pattern = json.loads(facts_of(name).text("/etc/lemonstand/ticket/issuer.json")).get("login_pattern", "")
        if pattern != names.login_pattern:
            wrong.append(f"{name}: login_pattern = {pattern}")
    measure("hosts", len((*frontends, *stores, *relays, *auths)))
    measure("marks in names", names.local_part.marks)
    expect(not wrong, "hosts disagree about which names there are", seen=wrong, expected="the grammar of playbooks/names.yml everywhere")


@measurement()
def spellings(vantage: Vantage, version: int) -> dict[str, Any]:
    """One account under its name and as a telephone types it."""
    return dict(
        vantage.ask(
            "names-spellings", seconds=120, endpoint=vantage.endpoints(version), owner=vantage.accounts[0], other=vantage.accounts[1]
        )
    )


@pytest.mark.control("PRO-SUB-06", "PRO-IMAP-04")
@pytest.mark.supports("PRO-E2E-01")
@pytest.mark.answer("live")
def test_a_name_means_one_user_in_any_case(spellings: dict[str, Any], family: int, measure: Measure) -> None:
    """Logins on both ports, sender, recipient, tag, BURL and URLFETCH with the name in capitals are the same user's."""
    measure("typed", spellings["typed"])
    sent = (
        "typed URL, typed login",
        "typed URL, plain login",
        "plain URL, typed login",
        "sender as typed",
        "recipient as typed",
        "tag as typed",
    )
    refused = [f"{case}: {spellings[case]['code']} {spellings[case]['text'][:80]}" for case in sent if spellings[case]["code"] != 250]
    refused += [case for case in ("fetched by the typed login", "fetched by the plain login") if not spellings[case]["got"]]
    measure("ways", len(sent) + 2)
    expect(not refused, "a name in another case is another user", seen=refused, expected="250 each, and the message for URLFETCH")
    lost = [case for case, seconds in spellings["arrived"].items() if seconds is None]
    expect(not lost, "mail for a name in another case does not arrive", seen=lost, expected=f"within {ARRIVAL_SECONDS} s", late=True)


@pytest.mark.control("PRO-IMAP-05", "PRO-SUB-07")
@pytest.mark.answer("live")
def test_a_name_in_another_case_opens_nothing_to_others(spellings: dict[str, Any], family: int, measure: Measure) -> None:
    """A URL whose owner is written in capitals goes through the store's URLAUTH service: nobody but the owner gets anything there."""
    if not spellings["fetched by the plain login"]["got"]:
        invalid("the owner gets nothing either, so that others don't shows nothing")
    cases = ("other user fetches it", "other user fetches what is his", "other user fetches a third one's")
    leaked = [case for case in cases if spellings[case]["got"] is not None]
    taken = spellings["other user submits it"]
    measure("refused", f"{taken['code']} {taken['text'][:60]}")
    leaked += [] if 500 <= taken["code"] < 600 else [f"other user submits it: {taken['code']}"]
    expect(not leaked, "a URL is redeemed by somebody else", seen=leaked, expected="NIL, and 554")


@measurement()
def incoming(vantage: Vantage, version: int) -> dict[str, Any]:
    """Mail from outside for names as people type them: the answers, and after how many seconds each was in the mailbox (None: never)."""
    account = vantage.accounts[0]
    typed = retyped(account["user"])
    local, _, domain = typed.partition("@")
    recipients = [typed, f"{local}+Tag@{domain}", typed.upper()]
    seen = vantage.prober.ask(
        vantage.outsider, "names-incoming", endpoint=vantage.exchangers(version), sender=PEER_SENDER, recipients=recipients
    )
    endpoint = vantage.endpoints(version)
    arrived = {
        name: vantage.ask("wait-for", endpoint=endpoint, account=account, ident=each["ident"], within=ARRIVAL_SECONDS)["seconds"]
        for name, each in seen.items()
        if each["code"] == 250
    }
    return {"answers": seen, "arrived": arrived}


@pytest.mark.supports("LEM-6-10", "PRO-SUB-06")
@pytest.mark.answer("live")
def test_the_mx_knows_names_in_any_case(incoming: dict[str, Any], family: int, measure: Measure) -> None:
    """Mail from outside for a name in capitals, with and without a tag, is in the user's mailbox."""
    refused = [f"{name}: {each['code']} {each['text'][:80]}" for name, each in incoming["answers"].items() if each["code"] != 250]
    measure("names", ", ".join(incoming["answers"]))
    expect(not refused, "the MX refuses a user's name", seen=refused, expected=250)
    lost = [name for name, seconds in incoming["arrived"].items() if seconds is None]
    expect(not lost, "mail for a name in another case does not arrive", seen=lost, expected=f"within {ARRIVAL_SECONDS} s", late=True)


@measurement()
def marked(vantage: Vantage, version: int) -> dict[str, Any]:
    """An account with marks in its name, from its login to its URLs."""
    owner = next((each for each in vantage.accounts if MARKS & set(each["user"].partition("@")[0])), None)
    if owner is None:
        return {}
    other = next(each for each in vantage.accounts if each is not owner)
    return dict(vantage.ask("names-marked", seconds=120, endpoint=vantage.endpoints(version), owner=owner, other=other))


@pytest.mark.supports("PRO-SUB-06", "PRO-IMAP-04", "LEM-8-08")
@pytest.mark.answer("live")
def test_names_with_marks_work(marked: dict[str, Any], family: int, measure: Measure) -> None:
    """A user whose name holds an apostrophe or an ampersand logs in, sends, gets mail with and without a tag, and forwards by URL."""
    if not marked:
        raise NotApplicable(f"none of lemonstand_probe_users has one of {' '.join(sorted(MARKS))} in its name")
    refused = [f"{case}: {each['code']} {each['text'][:80]}" for case, each in marked.items() if each.get("code", 250) != 250]
    measure("ways", len(marked))
    expect(not refused, "a name with a mark is refused", seen=refused, expected=250)
    expect(bool(marked["fetched"]["got"]), "its own URL gives nothing", seen=marked["fetched"], expected="the message")
    lost = [case for case, seconds in marked["arrived"].items() if seconds is None]
    expect(not lost, "mail for a name with a mark does not arrive", seen=lost, expected=f"within {ARRIVAL_SECONDS} s", late=True)
