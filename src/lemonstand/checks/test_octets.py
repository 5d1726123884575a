"""Messages arrive octet for octet as they were sent, or are refused; nothing on the way changes them in silence."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.checks.test_delivery import PEER_MAIL, PEER_USER
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import PEER_SENDER

pytestmark = pytest.mark.answer("live")

WITHIN_SECONDS = 40
"""Time for all samples of one way together."""


@measurement()
def submitted(vantage: Vantage) -> dict[str, Any]:
    """What a user sent to another: the answers, and what arrived."""
    sender, recipient, seed = vantage.accounts[0], vantage.accounts[1], _seed()
    sent = vantage.ask("octets-submit", endpoint=vantage.endpoints(), account=sender, recipient=recipient["user"], seed=seed)
    return {**sent, "came": _came(vantage, recipient, sender["user"], seed)}


@measurement()
def delivered(vantage: Vantage) -> dict[str, Any]:
    """The same from a mail host outside."""
    recipient, seed = vantage.accounts[0], _seed()
    order: dict[str, Any] = {"endpoint": vantage.exchangers(), "sender": PEER_SENDER, "recipient": recipient["user"], "seed": seed}
    sent = vantage.prober.ask(vantage.outsider, "octets-from-outside", **order)
    return {**sent, "came": _came(vantage, recipient, PEER_SENDER, seed)}


def _came(vantage: Vantage, recipient: Account, sender: str, seed: int) -> Any:
    order: dict[str, Any] = {
        "endpoint": vantage.endpoints(),
        "account": recipient,
        "sender": sender,
        "seed": seed,
        "within": WITHIN_SECONDS,
    }
    return vantage.ask("octets-arrived", seconds=120, **order)


@measurement()
def long_line(vantage: Vantage) -> dict[str, Any]:
    """A message with a long line for somebody outside: the answer, and what arrived there."""
    sent = vantage.ask("deliver", endpoint=vantage.endpoints(), account=vantage.accounts[0], recipient=PEER_USER, how="long")
    expect(sent["code"] == 250, "a message with a long line is refused", seen=sent["text"], expected=250)
    got = vantage.prober.ask(vantage.outsider, "maildir", folder=PEER_MAIL, ident=sent["ident"], within=WITHIN_SECONDS)
    return {"sent": sent, "got": got}


def _seed() -> int:
    return random.SystemRandom().randrange(1 << 32)


def _unchanged(found: dict[str, Any], measure: Measure) -> None:
    refused = {name: answer["text"] for name, answer in found["sent"].items() if answer["code"] != 250}
    lost = [name for name, each in found["came"].items() if not each["came"] and name not in refused]
    changed = [f"{name}: {each['difference']}" for name, each in found["came"].items() if each["difference"]]
    measure("messages", len(found["sent"]))
    expect(not refused, "a message that may be sent is refused", seen=refused, expected=250)
    expect(not lost, "a message that was taken does not arrive", seen=lost, expected=f"within {WITHIN_SECONDS} s", late=True)
    expect(not changed, "a message is changed on its way", seen=changed, expected="octet for octet what was sent")


def _odd_refused(found: dict[str, Any], measure: Measure) -> None:
    taken = {name: answer["text"] for name, answer in found["odd"].items() if not 500 <= answer["code"] < 600}
    measure("refused", " / ".join(answer["text"][:60] for answer in found["odd"].values()))
    expect(not taken, "octets are taken that no message may hold, and that would be changed", seen=taken, expected="5xx")


@pytest.mark.control("PRO-SUB-08")
@pytest.mark.supports("PRO-E2E-01", "PRO-SUB-10")
def test_a_submitted_message_arrives_as_it_was_sent(submitted: dict[str, Any], measure: Measure) -> None:
    """Lines up to 280,000 octets, headers of 150,000, signed parts, dots, blanks, 8-bit text; by DATA and in chunks (RFC 8551 3.1)."""
    _unchanged(submitted, measure)


@pytest.mark.control("LEM-6-10")
@pytest.mark.supports("PRO-SUB-10")
def test_a_message_from_outside_arrives_as_it_was_sent(delivered: dict[str, Any], measure: Measure) -> None:
    """The same by MX, relay and LMTP."""
    _unchanged(delivered, measure)


@pytest.mark.supports("LEM-6-10", "PRO-SUB-08")
def test_what_no_message_may_hold_is_refused(submitted: dict[str, Any], delivered: dict[str, Any], measure: Measure) -> None:
    """NUL and a CR alone (RFC 5321 2.3.8, RFC 5322 4): programs on the way put other octets in their place."""
    _odd_refused(submitted, measure)
    _odd_refused(delivered, measure)


@pytest.mark.supports("PRO-SUB-10", "LEM-6-10")
def test_a_long_line_leaves_unbroken(long_line: dict[str, Any], measure: Measure) -> None:
    """Towards others too: who refuses more than 998 octets says so, and the sender has a report. It is never broken in silence."""
    sent, got = long_line["sent"], long_line["got"]
    expect(
        got["found"], "a message with a long line does not arrive outside", seen="nothing", expected=f"within {WITHIN_SECONDS} s", late=True
    )
    measure("longest line that arrived", got["longest"])
    expect(got["longest"] >= sent["longest"], "a long line is broken on its way out", seen=got["longest"], expected=sent["longest"])
