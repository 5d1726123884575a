"""What others make of the site's mail: signatures, where it comes from, whether both fit its author; and that nothing else is signed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.test_delivery import PEER_MAIL, PEER_USER
from lemonstand.checks.undone import do, undone
from lemonstand.derived.dns import STRANGER, exchangers, keys, mail_records, sources
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.probes.hosts.judged import SPOILT
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, ELSEWHERE, Endpoints
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

PUBLISH = "publish what `lemonstand dns` prints"
HOLDS = f"`lemonstand apply`, if MTA-08 says that a relay has another key than the controller; else {PUBLISH}"
RESULT = re.compile(r"(?<![.\w])(spf|dkim|dmarc)=(\w+)")
KEYS = "/etc/lemonstand/dkim/keys"
HARDENED = {"PrivateNetwork": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": "", "User": "opendkim"}
"""What holds the signer: properties of its unit."""
STOPPED = ("systemctl stop opendkim", "systemctl start opendkim && sleep 1 && postfix flush")
"""How relays are kept from signing, and what ends it; what waited is tried at once."""
AWAY_SECONDS = 5.0
"""Within so many no message may leave that waits for its signature."""
JUDGED_SECONDS = 3.0 * ARRIVAL_SECONDS
"""How long a message may take to a mail host elsewhere: it passes the queue twice, and how fast is another check's to say."""


@measurement()
def outgoing(vantage: Vantage) -> dict[str, dict[str, Any]]:
    """What a mail host elsewhere makes of a user's mail, also spoilt on its way: plain, 8-bit text, a receipt with the null sender."""
    one, endpoint = vantage.accounts[0], vantage.endpoints()
    order: dict[str, Any] = {"endpoint": endpoint, "account": one, "recipient": PEER_USER}
    sent = {
        "a message": vantage.ask("deliver", **order),
        "8-bit text": vantage.ask("deliver", how="eightbit", **order),
        "a receipt": vantage.ask("bare-message", lacking=[], null=True, **order),
    }
    refused = {name: f"{each['code']} {each['text']}" for name, each in sent.items() if each["code"] != 250}
    expect(not refused, "a message to outside is refused", seen=refused, expected=250)
    seen = _judged(vantage, [each["ident"] for each in sent.values()], spoil=True)
    return {name: seen[each["ident"]] for name, each in sent.items()}


@measurement(after=("sieve",))
def not_ours(vantage: Vantage) -> dict[str, Any]:
    """What becomes of mail in a domain's name from outside, that a script sends on as well; and of a user's in another domain's name."""
    one, endpoint, site = vantage.accounts[0], vantage.endpoints(), vantage.site
    author = f"director@{one['user'].partition('@')[2]}"
    sends_on = PEER_USER if site.settings.managesieve else ""
    order: dict[str, Any] = {"endpoint": endpoint, "account": one}
    forged = vantage.ask(
        "forged-author", mx=vantage.exchangers(), author=author, sender="", outside=sends_on, within=ARRIVAL_SECONDS, **order
    )
    expect(forged["code"] == 250, "the MX refuses a message for a user", seen=forged, expected=250)
    other = vantage.ask("written-as", recipient=PEER_USER, author=ELSEWHERE, **order)
    expect(other["code"] == 250, "a message with another domain in From is refused", seen=other, expected=250)
    seen = _judged(vantage, [*([forged["ident"]] if sends_on else []), other["ident"]], spoil=False)
    return {"in": forged["header"], "sent on": seen.get(forged["ident"]), "other": seen[other["ident"]]}


def _judged(vantage: Vantage, idents: list[str], *, spoil: bool) -> dict[str, dict[str, Any]]:
    found = vantage.prober.ask(vantage.outsider, "judged", seconds=120, folder=PEER_MAIL, wanted=idents, within=JUDGED_SECONDS, spoil=spoil)
    lost = f"{len(idents) - len(found)} of {len(idents)} missing"
    expect(len(found) == len(idents), "mail to outside does not arrive", seen=lost, expected=f"within {JUDGED_SECONDS:.0f} s", late=True)
    return dict(found)


def _nobody_between(site: Site) -> None:
    if site.settings.services.smarthost is not None:
        not_measurable("mail leaves by a smarthost: where it comes from is judged behind that one, where no vantage is")


def _own(site: Site, seen: dict[str, Any]) -> list[dict[str, Any]]:
    """Signatures in the name of a domain of the site, whether they hold or not."""
    return [each for each in seen["signatures"] if each["domain"] in site.settings.mail_domains]


@pytest.mark.answer("live")
@pytest.mark.control("MTA-01")
def test_what_users_send_is_signed(outgoing: dict[str, dict[str, Any]], site: Site, accounts: list[Account], measure: Measure) -> None:
    """One signature, in the name of the domain in From, by the key that signs; it holds at a mail host elsewhere."""
    domain = accounts[0]["user"].partition("@")[2]
    selectors = {key["selector"] for key in keys(site) if key["state"] == "signs"}
    for name, seen in outgoing.items():
        own = _own(site, seen)
        measure(f"{name}: signed by", " ".join(f"{each['domain']} {each['selector']} {each['by']}" for each in own), volatile=True)
        expect(len(own) == 1, f"{name} does not have one signature of the site", seen=own, expected="one", remedy="lemonstand apply")
        expect(own[0]["domain"] == domain, f"{name} is signed for another domain than the one in From", seen=own[0], expected=domain)
        expect(own[0]["selector"] in selectors, f"{name} is signed by another key", seen=own[0]["selector"], expected=sorted(selectors))
        why = own[0]["why"] or own[0]
        expect(own[0]["holds"], f"the signature of {name} does not hold elsewhere", seen=why, expected="it holds", remedy=HOLDS)


@pytest.mark.answer("live")
@pytest.mark.control("MTA-02")
def test_nobody_adds_to_a_signed_message(outgoing: dict[str, dict[str, Any]], site: Site, measure: Measure) -> None:
    """The signature holds as the message came, and not with a second From or Subject, a type, an address for replies, or more text."""
    seen = outgoing["a message"]
    own = _own(site, seen)
    holding = [each for each in own if each["holds"]]
    expect(bool(holding), "no signature holds elsewhere", seen=own, expected="one", remedy=HOLDS)
    expect(all(each["by"] == "rsa-sha256" for each in holding), "a signature is of another kind", seen=holding, expected="rsa-sha256")
    measure("signed fields", holding[0]["fields"])
    still = [name for name in SPOILT if any(each["holds"] for each in seen["spoilt"][name] if each["domain"] in site.settings.mail_domains)]
    expect(not still, "a signature holds for what somebody added on the way", seen=still, expected="none of these")


@pytest.mark.answer("live")
@pytest.mark.control("MTA-03")
def test_mail_leaves_from_where_dns_says(
    outgoing: dict[str, dict[str, Any]], prober: Prober, outsider: str, site: Site, measure: Measure
) -> None:
    """SPF passes at a mail host elsewhere for the addresses mail came from and for each that the site says, and not for another."""
    _nobody_between(site)
    came = sorted({seen["address"] for seen in outgoing.values()})
    said = [each.partition(":")[2] for each in sources(site)]
    measure("mail came from", " ".join(came), volatile=True)
    strange = sorted(set(came) - set(said))
    expect(not strange, "mail leaves from an address the site does not know", seen=strange, expected=said)
    senders = [f"postmaster@{each}" for each in site.settings.mail_domains]
    names = list(exchangers(site).values())
    good = [(address, sender, names[0]) for address in said for sender in senders]
    good += [(address, "", name) for address in said for name in names]
    bad = [(address, sender, names[0]) for address in STRANGER for sender in ("", *senders)]
    found = prober.ask(outsider, "judged-spf", asked=good + bad)
    failed = [each for each in found[: len(good)] if each["spf"] != "pass"]
    expect(not failed, "SPF does not pass for an address of the site", seen=failed, expected="pass", remedy=PUBLISH)
    passed = [each for each in found[len(good) :] if each["spf"] not in {"fail", "softfail"}]
    expect(not passed, "SPF lets anybody send in a domain's name", seen=passed, expected="fail or softfail", remedy=PUBLISH)


@pytest.mark.answer("live")
@pytest.mark.control("MTA-04")
def test_what_users_send_passes_dmarc(outgoing: dict[str, dict[str, Any]], site: Site, measure: Measure) -> None:
    """SPF, DKIM and DMARC, each as a mail host elsewhere sees it; a receipt has no sender, and its signature stands for it."""
    _nobody_between(site)
    for name, seen in outgoing.items():
        results = dict(RESULT.findall(seen["results"]))
        measure(name, " ".join(f"{method}={result}" for method, result in sorted(results.items())), volatile=False)
        wanted = {"spf": "pass", "dkim": "pass", "dmarc": "pass"}
        expect(results == wanted, f"{name} does not pass elsewhere", seen=seen["results"], expected=wanted, remedy=HOLDS)


@pytest.mark.answer("live")
@pytest.mark.control("MTA-05")
def test_nothing_else_is_signed(not_ours: dict[str, Any], site: Site, measure: Measure) -> None:
    """Mail from outside in a domain's name, as it lies with a user and as his script sends it on, and a user's in another domain's name."""
    expect(bool(not_ours["in"]), "a message from outside does not arrive", seen="nothing", expected="it does", late=True)
    marks = re.findall(r"^DKIM-Signature:", not_ours["in"], re.MULTILINE | re.IGNORECASE)
    expect(not marks, "mail that comes in is signed", seen=not_ours["in"][:400], expected="no signature")
    measure("sent on by a script", not_ours["sent on"] is not None)
    for name in ("sent on", "other"):
        seen = not_ours[name]
        if seen is not None:
            expect(not seen["signatures"], "mail that is not the site's own is signed", seen=seen["signatures"], expected="no signature")


@pytest.mark.answer("live")
@pytest.mark.control("MTA-07")
def test_dns_has_what_others_judge_by(site: Site, prober: Prober, relay: str, host: HostFactory, measure: Measure) -> None:
    """Keys, SPF and DMARC of each domain, asked where the relay asks for names; the key that the relay signs with is among them."""
    if not site.hosts[relay].settings.dns_resolvers:
        not_measurable(f"{relay} has no resolver (lemonstand_dns_resolvers)")
    wanted = [(record.name, record.value) for record in mail_records(site)]
    found = prober.ask(relay, "lookup", questions=[(name, "TXT") for name, _ in wanted])
    said = {name: each["records"] for (name, _), each in zip(wanted, found, strict=True)}
    wrong = [f"{name}: {said[name] or 'nothing'}" for name, value in wanted if value not in said[name]]
    measure("records", len(wanted), volatile=True)
    expect(not wrong, "DNS lacks what others judge the site's mail by", seen=wrong, expected="what `lemonstand dns` prints", remedy=PUBLISH)
    twice = [name for name, texts in said.items() if sum(text.lower().startswith("v=spf1") for text in texts) > 1]
    expect(not twice, "a name has two records of SPF, which count as none", seen=twice, expected="one", remedy="remove the other one")
    lost = []
    for domain, selector, path in _table(host, relay):
        public = _public(host, relay, path)
        if not any(f"p={public}" == part.strip() for text in said.get(f"{selector}._domainkey.{domain}", []) for part in text.split(";")):
            lost.append(f"{selector}._domainkey.{domain}")
    # DNS has the controller's keys by now: so it is the relay's that differs.
    healed = f"`lemonstand apply --limit {relay}`"
    expect(not lost, f"DNS does not have the key that {relay} signs with", seen=lost, expected="the same key", remedy=healed)


@pytest.mark.answer("configuration")
@pytest.mark.control("MTA-08")
def test_keys_are_the_signers_alone(site: Site, host: HostFactory, relay: str, measure: Measure) -> None:
    """Files of keys are the signer's, 0600, in a directory others can't read: those the controller has. The signer has no network."""
    lines = do(host, relay, f"stat -c '%n %U %a' {KEYS} {KEYS}/*").splitlines()
    found = {line.split(" ")[0]: line.split(" ")[1:] for line in lines}
    should = {path: ["root", "750"] if path == KEYS else ["opendkim", "600"] for path in found}
    wrong = [f"{path}: {' '.join(how)}" for path, how in found.items() if how != should[path]]
    expect(
        not wrong,
        "others than the signer may read a key",
        seen=wrong,
        expected="opendkim 600",
        remedy=f"`lemonstand apply --limit {relay}`",
    )
    held = {path.rpartition("/")[2].removesuffix(".key"): _public(host, relay, path) for path in found if path != KEYS}
    known = {key["selector"]: key["public"] for key in keys(site)}
    measure("keys", len(held), volatile=True)
    names = sorted(name for name in held if held[name] == known.get(name))
    expect(held == known, f"{relay} has other keys than the controller", seen=names, expected=sorted(known), remedy="`lemonstand apply`")
    table = _table(host, relay)
    signs = next(key["selector"] for key in keys(site) if key["state"] == "signs")
    expect(
        sorted(table) == sorted((domain, signs, f"{KEYS}/{signs}.key") for domain in site.settings.mail_domains),
        f"{relay} signs by another key than the controller says",
        seen=table, expected=signs, remedy="`lemonstand apply`",
    )  # fmt: skip
    for line in do(host, relay, "systemctl show opendkim -p " + ",".join(HARDENED)).splitlines():
        name, _, value = line.partition("=")
        expect(value == HARDENED[name], f"the signer's unit lacks {name}", seen=value, expected=HARDENED[name])
    listening = do(host, relay, "ss -Hlntup | grep -c opendkim || true").strip()
    expect(listening == "0", "the signer listens on the network", seen=listening, expected=0)


def _public(host: HostFactory, relay: str, path: str) -> str:
    """The public half of a relay's key, as DNS has it behind `p=`."""
    return do(host, relay, f"openssl pkey -pubout -in {path} | sed '/^-/d' | tr -d '\\n'").strip()


def _table(host: HostFactory, relay: str) -> list[tuple[str, str, str]]:
    """What a relay signs by: domain, selector and file."""
    found = []
    for line in do(host, relay, "cat /etc/lemonstand/dkim/keytable").splitlines():
        if line.strip() and not line.startswith("#"):
            domain, selector, path = line.split(" ", 1)[1].split(":")
            found.append((domain, selector, path))
    if not found:
        invalid(f"{relay} signs by no key")
    return found


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("MTA-06")
def test_what_can_not_be_signed_waits(
    lab_only: None, site: Site, host: HostFactory, vantage: Vantage, *, endpoints: Endpoints, accounts: list[Account], measure: Measure
) -> None:
    """With every signer away mail is taken and waits, and nothing leaves; once they are back the same message arrives, signed."""
    relays = [each.name for each in site.group("relays")]
    with undone(host, relays, *STOPPED):
        sent = vantage.ask("deliver", endpoint=endpoints(), account=accounts[0], recipient=PEER_USER)
        measure("told", f"{sent['code']} {sent['text']}")
        expect(sent["code"] < 500, "mail that can't be signed now is refused for good", seen=sent, expected="250, or 4xx")
        left = vantage.prober.ask(vantage.outsider, "judged", folder=PEER_MAIL, wanted=[sent["ident"]], within=AWAY_SECONDS)
        expect(not left, "mail left unsigned", seen=json.dumps(left)[:300], expected="nothing")
    if sent["code"] == 250:
        seen = _judged(vantage, [sent["ident"]], spoil=False)[sent["ident"]]
        expect(any(each["holds"] for each in _own(site, seen)), "mail leaves unsigned", seen=seen["signatures"], expected="one that holds")
