"""Mail for sessions that sleep: who is told of it."""

from __future__ import annotations

import threading
from typing import Any

from lemonstand.measure.vantage import Vantage
from lemonstand.outcomes import Invalid
from lemonstand.remote.endpoints import ARRIVAL_SECONDS
from lemonstand.remote.prober import Running


def woken(vantage: Vantage, crowd: Running, told_within: float) -> dict[str, Any]:
    """Sends the users of a crowd (probe `idle-crowd`) a message each, and takes the messages away once all was heard.

    Args:
        vantage: whose first two accounts the crowd has.
        crowd: the sessions; they end with this.
        told_within: seconds from the arrival of both messages, after which who has not been told of them is not told at all.

    Returns:
        What the crowd found.

    Raises:
        Invalid: a message was refused.
    """
    sent = []
    for account, other in zip(vantage.accounts[:2], reversed(vantage.accounts[:2]), strict=True):
        message = vantage.ask("deliver", endpoint=vantage.endpoints(), account=other, recipient=account["user"])
        if message["code"] != 250:
            raise Invalid(f"no message could be sent: {message['code']} {message['text']}")
        sent.append((account, message["ident"]))
    patience = threading.Timer(ARRIVAL_SECONDS + told_within, crowd.enough)
    patience.start()
    try:
        found = dict(crowd.result())
    finally:
        patience.cancel()
    # It takes them away, so not while anybody is still to be told of them.
    for account, ident in sent:
        vantage.ask("wait-for", endpoint=vantage.endpoints(), account=account, ident=ident, within=ARRIVAL_SECONDS)
    return found
