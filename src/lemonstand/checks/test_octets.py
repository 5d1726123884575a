"""Messages arrive octet for octet as they were sent, or are refused; nothing on the way changes them in silence."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lemonstand.checks.background import Once
from lemonstand.checks.conftest import Measure
from lemonstand.checks.test_delivery import PEER_MAIL, PEER_USER
from lemonstand.outcomes import expect
from lemonstand.probes.protocols.wire import Account, Door
from lemonstand.remote.endpoints import PEER_SENDER, Doors
from lemonstand.remote.prober import Prober

pytestmark = pytest.mark.answer("live")

WITHIN_SECONDS = 40
"""Time for all samples of one way together."""


@pytest.fixture(scope="session")
def submitted(once: Once, prober: Prober, vantage: str, doors: Doors, accounts: list[Account]) -> dict[str, Any]:
    """What a user sent to another: the answers, and what arrived."""

    def ask() -> Any:
        sender, recipient, seed = accounts[0], accounts[1], _seed()
        sent = prober.ask(vantage, "octets-submit", door=doors(), account=sender, recipient=recipient["user"], seed=seed)
        came = prober.ask(
            vantage, "octets-arrived", door=doors(), account=recipient, sender=sender["user"], seed=seed, within=WITHIN_SECONDS, seconds=120
        )
        return {**sent, "came": came}

    return dict(once("octets submitted", ask))


@pytest.fixture(scope="session")
def delivered(
    once: Once, prober: Prober, vantage: str, outsider: str, *, doors: Doors, exchangers: Doors, accounts: list[Account]
) -> dict[str, Any]:
    """The same from a mail host outside."""

    def ask() -> Any:
        recipient, seed = accounts[0], _seed()
        sent = prober.ask(outsider, "octets-from-outside", door=exchangers(), sender=PEER_SENDER, recipient=recipient["user"], seed=seed)
        came = prober.ask(
            vantage, "octets-arrived", door=doors(), account=recipient, sender=PEER_SENDER, seed=seed, within=WITHIN_SECONDS, seconds=120
        )
        return {**sent, "came": came}

    return dict(once("octets delivered", ask))


def _seed() -> int:
    return random.SystemRandom().randrange(1 << 32)


def _unchanged(found: dict[str, Any], measure: Measure) -> None:
    refused = {name: answer["text"] for name, answer in found["sent"].items() if answer["code"] != 250}
    lost = [name for name, each in found["came"].items() if not each["came"] and name not in refused]
    changed = [f"{name}: {each['difference']}" for name, each in found["came"].items() if each["difference"]]
    measure("messages", len(found["sent"]))
    expect(not refused, "a message that may be sent is refused", seen=refused, expected=250)
    expect(not lost, "a message that was taken does not arrive", seen=lost, expected=f"within {WITHIN_SECONDS} s")
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
def test_a_long_line_leaves_unbroken(
    prober: Prober, vantage: str, outsider: str, doors: Doors, *, accounts: list[Account], measure: Measure
) -> None:
    """Towards others too: who refuses more than 998 octets says so, and the sender has a report. It is never broken in silence."""
    door: Door = doors()
    sent = prober.ask(vantage, "deliver", door=door, account=accounts[0], recipient=PEER_USER, how="long")
    expect(sent["code"] == 250, "a message with a long line is refused", seen=sent["text"], expected=250)
    got = prober.ask(outsider, "maildir", folder=PEER_MAIL, ident=sent["ident"], within=WITHIN_SECONDS)
    expect(got["found"], "a message with a long line does not arrive outside", seen="nothing", expected=f"within {WITHIN_SECONDS} s")
    measure("longest line that arrived", got["longest"])
    expect(got["longest"] >= sent["longest"], "a long line is broken on its way out", seen=got["longest"], expected=sent["longest"])
