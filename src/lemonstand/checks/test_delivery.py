"""Mail between the site and the Internet, and how soon a sleeping client learns of it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect
from lemonstand.probes.protocols.wire import Account, Endpoint
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, ELSEWHERE, PEER_SENDER
from lemonstand.remote.prober import Prober

pytestmark = pytest.mark.answer("live")

PEER_MAIL = "/srv/peer-mail"
PEER_USER = "carol@peer.test"
"""Who has a mailbox at the lab's mail host outside."""
PUSH_SECONDS = 2.0


@measurement()
def foreign(vantage: Vantage, version: int) -> dict[str, Any]:
    """What a mail host outside could do at the MX; one message was accepted, and came after `seconds` (None: never)."""
    account, endpoint = vantage.accounts[1], vantage.endpoints(version)
    order: dict[str, Any] = {"sender": PEER_SENDER, "recipient": account["user"], "elsewhere": ELSEWHERE}
    seen = vantage.prober.ask(vantage.outsider, "foreign-mx", endpoint=vantage.exchangers(version), **order)
    if seen["accepted"]["code"] != 250:
        return {**seen, "seconds": None}
    got = vantage.ask("wait-for", endpoint=endpoint, account=account, ident=seen["ident"], within=ARRIVAL_SECONDS)
    return {**seen, "seconds": got["seconds"]}


@measurement()
def to_outside(vantage: Vantage, version: int) -> dict[str, Any]:
    """A message to somebody outside, as it lies there."""
    sent = vantage.ask("deliver", endpoint=vantage.endpoints(version), account=vantage.accounts[0], recipient=PEER_USER)
    expect(sent["code"] == 250, "a message to outside is refused", seen=sent["text"], expected=250)
    return dict(vantage.prober.ask(vantage.outsider, "maildir", folder=PEER_MAIL, ident=sent["ident"], within=ARRIVAL_SECONDS))


@pytest.mark.control("LEM-5-05")
@pytest.mark.supports("PRO-IMAP-09")
def test_mail_from_outside_wakes_a_client(
    undisturbed: None,
    prober: Prober,
    vantage: Vantage,
    outsider: str,
    *,
    endpoint: Endpoint,
    mx: Endpoint,
    family: int,
    accounts: list[Account],
    measure: Measure,
) -> None:
    """A handset idles; a message by MX, relay and LMTP is told within 2 s of its acceptance, by one clock: the controller's."""
    user = accounts[0]["user"]
    with vantage.start("push", endpoint=endpoint, account=accounts[0], within=ARRIVAL_SECONDS) as waiting:
        waiting.wait("idling")
        with prober.start(outsider, "foreign-mx", endpoint=mx, sender=PEER_SENDER, recipient=user, elsewhere=ELSEWHERE) as sending:
            accepted = sending.wait("result")
        told = waiting.wait("exists")
    sent = accepted.values["data"]
    vantage.ask("wait-for", endpoint=endpoint, account=accounts[0], ident=sent["ident"], within=ARRIVAL_SECONDS)
    expect(sent["accepted"]["code"] == 250, "the MX refuses a message for a user", seen=sent["accepted"], expected=250)
    delay = told.at - accepted.at
    measure("from acceptance to EXISTS", round(delay, 3), "s")
    expect(
        delay <= PUSH_SECONDS, "a client in IDLE learns too late", seen=f"{delay:.2f} s", expected=f"{PUSH_SECONDS} s at most", late=True
    )


@pytest.mark.control("LEM-8-24", "LEM-3-05")
def test_the_mx_relays_for_nobody(foreign: dict[str, Any], family: int, measure: Measure) -> None:
    """Strangers' mail for strangers is refused, however it is written; there is no AUTH on port 25."""
    cases = ("relay", "relay_percent", "relay_as_local")
    taken = [f"{case}: {foreign[case]}" for case in cases if not 500 <= foreign[case]["code"] < 600]
    measure("refused", " / ".join(foreign[case]["text"][:60] for case in cases))
    expect(not taken, "the relay is open", seen=taken, expected="5xx")
    expect("AUTH" not in foreign["after_tls"], "port 25 offers a login", seen=foreign["after_tls"], expected="no AUTH")
    expect(foreign["auth"]["code"] in {500, 502, 503, 530}, "port 25 takes AUTH", seen=foreign["auth"], expected="refused")


@pytest.mark.supports("LEM-8-14", "LEM-8-20")
def test_mail_from_outside_arrives(foreign: dict[str, Any], mx: Endpoint, family: int, measure: Measure) -> None:
    """Over STARTTLS with the MX's own name; unknown recipients are refused before their mail is taken."""
    expect(mx["name"] in foreign["tls"]["names"], "the MX shows a foreign certificate", seen=foreign["tls"]["names"], expected=mx["name"])
    expect(foreign["nobody"]["code"] == 550, "mail for nobody is taken", seen=foreign["nobody"], expected=550)
    expect(foreign["accepted"]["code"] == 250, "the MX refuses a message for a user", seen=foreign["accepted"], expected=250)
    measure("arrived after", foreign["seconds"], "s")
    expect(
        foreign["seconds"] is not None,
        "mail from outside does not arrive",
        seen="nothing",
        expected=f"within {ARRIVAL_SECONDS} s",
        late=True,
    )


@pytest.mark.control("LEM-6-10")
def test_the_mx_takes_what_it_announces(foreign: dict[str, Any], family: int) -> None:
    """No SMTPUTF8, which the stores' LMTP lacks: what was taken with it would come back as a bounce."""
    announced = foreign["after_tls"]
    expect("SMTPUTF8" not in announced, "the MX announces what the stores can't keep", seen=sorted(announced), expected="no SMTPUTF8")


@pytest.mark.supports("LEM-8-14")
def test_mail_to_outside_leaves(to_outside: dict[str, Any], accounts: list[Account], family: int, measure: Measure) -> None:
    """Submitted on 587, handed to the relay, delivered by MX."""
    got = to_outside
    expect(got["found"], "a message to outside does not arrive", seen="nothing", expected=f"within {ARRIVAL_SECONDS} s", late=True)
    header = got["header"].lower()
    last = header.partition("received:")[2].partition("\nreceived:")[0]  # hops before it have TLS of their own
    measure("encrypted", "with esmtps" in last)
    for hop in re.findall(r"using (TLS\S+) with cipher (\S+)", got["header"]):
        measure("agreed on the way", " ".join(hop))
    inner = f".{accounts[0]['user'].partition('@')[2]}"
    expect("with esmtps" in last, "it left in the clear", seen=last[:400], expected="with ESMTPS")
    expect(inner in header, "it has no trace of the relay", seen=got["header"][:400], expected="Received by the MX name")
