"""A large message goes on to somebody else without passing the radio, and URLs that must not work do not."""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect

pytestmark = pytest.mark.answer("live")

SIZE = 10_000_000
"""Bytes of the message that is forwarded."""
PATIENCE = 240
"""Seconds a forward may take on a busy machine before nothing is known of it; how long it took is measured."""
BELOW = 200
"""Bytes under the limit of a message that may still be stored."""
MOST_SENT = 2000
"""Bytes of application data a client may send from GENURLAUTH to the 250."""
REFUSED = (
    "forged",
    "without token",
    "other host",
    "longer life than granted",
    "other user submits it",
    "meant for the other user only",
    "another mailbox",
    "expired",
    "after the key was reset",
)


@measurement()
def abuse(vantage: Vantage, version: int) -> dict[str, Any]:
    """URLs tried by their owner and by another user."""
    return dict(vantage.ask("forward-abuse", endpoint=vantage.endpoints(version), owner=vantage.accounts[0], other=vantage.accounts[1]))


def _forwarded(vantage: Vantage, version: int | None, size: int, *, catenate: bool, ahead: int = 0) -> dict[str, Any]:
    order = {"sender": vantage.accounts[0], "recipient": vantage.accounts[1], "size": size, "catenate": catenate, "ahead": ahead}
    return dict(vantage.ask("forward", seconds=PATIENCE, endpoint=vantage.endpoints(version), **order))


@measurement()
def by_burl(vantage: Vantage, version: int) -> dict[str, Any]:
    """A URL of the whole message is submitted."""
    return _forwarded(vantage, version, SIZE, catenate=False)


@measurement()
def by_catenate(vantage: Vantage, version: int) -> dict[str, Any]:
    """The store puts a new message around it, whose URL is submitted."""
    return _forwarded(vantage, version, SIZE, catenate=True)


@measurement()
def above_the_limit(vantage: Vantage) -> dict[str, Any]:
    """A chunk, and the URL of a message that may just be stored, are submitted: each is below the limit, and both together above."""
    return _forwarded(vantage, None, vantage.site.settings.message_size_limit - BELOW, catenate=False, ahead=2 * BELOW)


WAYS = ("BURL", "CATENATE and BURL")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.control("PRO-E2E-01", "PRO-SUB-06", "PRO-MUA-01")
@pytest.mark.supports("PRO-IMAP-04", "PRO-IMAP-06", "PRO-IMAP-10")
def test_a_large_message_is_forwarded_without_download(
    by_burl: dict[str, Any], by_catenate: dict[str, Any], family: int, way: str, measure: Measure
) -> None:
    """10 MB reach another user while the client sends less than 2 kB, who then marks what went (RFC 5550 sections 2.2, 5.9)."""
    seen = {"BURL": by_burl, "CATENATE and BURL": by_catenate}[way]
    measure("message", seen["stored"], "B")
    measure("client sent", seen["sent"], "B")
    measure("client got", seen["received"], "B")
    measure("on the wire, sent", seen["kernel_sent"], "B")
    measure("on the wire, got", seen["kernel_received"], "B")
    measure("opening, TLS and login of both connections, sent", seen["setup_sent"], "B")
    measure("took", seen["seconds"], "s")
    expect(seen["code"] == 250, "the forward is refused", seen=seen["text"], expected=250)
    expect(seen["sent"] < MOST_SENT, "the client sends the message itself", seen=seen["sent"], expected=f"less than {MOST_SENT} B")
    expect(seen["received"] < MOST_SENT, "the client downloads the message", seen=seen["received"], expected=f"less than {MOST_SENT} B")
    expect(seen["marked"].split()[1:] != [], "the message can't be marked as forwarded", seen=seen["marked"], expected="$Forwarded found")
    arrived = seen["arrived"]
    expect(
        arrived["seconds"] is not None, "the message does not arrive", seen="nothing", expected="it in the other user's INBOX", late=True
    )
    expect(arrived["sha256"] == seen["body"], "another message arrives", seen=arrived["sha256"], expected=seen["body"])


@pytest.mark.control("PRO-SUB-07", "PRO-E2E-02")
@pytest.mark.supports("PRO-SUB-06")
def test_urls_work_for_their_owner_alone(abuse: dict[str, Any], family: int, measure: Measure) -> None:
    """Forged, widened, foreign, ended and revoked URLs are refused by submission (RFC 4467, RFC 4468)."""
    own = abuse["own, in time"]
    expect(own["code"] == 250 and own.get("arrived") is not None, "the own URL is refused", seen=own, expected="250, and it arrives")
    taken = [f"{case}: {abuse[case]['code']} {abuse[case]['text'][:80]}" for case in REFUSED if not 500 <= abuse[case]["code"] < 600]
    measure("refused", len(REFUSED) - len(taken))
    expect(not taken, "URLs are taken that must not be", seen=taken, expected="554 each")


@pytest.mark.control("PRO-IMAP-05")
def test_a_url_is_redeemed_by_whom_it_names(abuse: dict[str, Any], family: int) -> None:
    """URLFETCH gives the owner his own, and another user nothing: neither of a submit URL nor of one for a third person."""
    mine = abuse["owner fetches it"]
    expect(bool(mine["got"]), "the owner's own URL gives nothing", seen=mine, expected="the message")
    leaked = [case for case in ("other user fetches it", "third party fetches it") if abuse[case]["got"] is not None]
    expect(not leaked, "a URL is redeemed by somebody it was not made for", seen=leaked, expected="NIL")


@pytest.mark.control("PRO-SUB-08")
def test_chunks_and_urls_mix(abuse: dict[str, Any], family: int) -> None:
    """BDAT, then BURL LAST: one message (RFC 4468 section 3.3)."""
    mixed = abuse["text and URL mixed"]
    expect(mixed["code"] == 250 and mixed.get("arrived") is not None, "BDAT with BURL fails", seen=mixed, expected="250, and it arrives")


@pytest.mark.control("PRO-E2E-03")
def test_the_size_limit_counts_the_expanded_message(above_the_limit: dict[str, Any], measure: Measure) -> None:
    """A URL of a few bytes that names a message above the limit is refused (RFC 4468 section 3.2)."""
    seen = above_the_limit
    measure("message", seen["stored"], "B")
    expect(
        seen["code"] in {552, 554}, "a message above the limit is forwarded", seen=f"{seen['code']} {seen['text']}", expected="552 or 554"
    )
