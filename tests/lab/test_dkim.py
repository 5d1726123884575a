"""Mail that others take: the peer judges it by programs of its own, and a key that is changed under load costs no message its signature."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lemonstand.checks.test_delivery import PEER_MAIL, PEER_USER
from lemonstand.derived.dns import keys
from lemonstand.measure import Vantage, open_vantage
from lemonstand.site import Site

from .conftest import Command

MESSAGES = 100
BEFORE = 20
"""So many are sent before the key is changed."""
MOST = 400
"""... and no more than so many, however long the change takes."""
ARRIVAL_SECONDS = 120.0
TOGETHER = 20
"""Messages that are judged in one question."""


def test_the_peer_takes_mail_for_the_sites_own(deployed: str, lemonstand: Command) -> None:
    shown = lemonstand("verify", "--lab", deployed, "-k", "outgoing").stdout
    assert re.search(r"^outgoing +·+$", shown, re.MULTILINE), shown[-3000:]
    assert "answers are as they should be" in lemonstand("dns", "--lab", deployed, "--check").stdout


@pytest.mark.long
def test_a_key_is_changed_under_load_and_no_message_lacks_a_signature(deployed: str, lab_site: Site, lemonstand: Command) -> None:
    (first,) = (key["selector"] for key in keys(lab_site) if key["state"] == "signs")
    with open_vantage(lab_site) as vantage, ThreadPoolExecutor(1) as pool:
        idents = [_sent(vantage) for _ in range(BEFORE)]
        change = pool.submit(lemonstand, "dkim", "rotate", "--lab", deployed)
        while len(idents) < MOST and not (change.done() and len(idents) >= MESSAGES):
            idents.append(_sent(vantage))
        change.result()
        idents += [_sent(vantage) for _ in range(BEFORE)]
        seen: dict[str, dict[str, Any]] = {}
        for start in range(0, len(idents), TOGETHER):
            some = idents[start : start + TOGETHER]
            order: dict[str, Any] = {"folder": PEER_MAIL, "wanted": some, "within": ARRIVAL_SECONDS}
            seen |= vantage.prober.ask(vantage.outsider, "judged", seconds=300, **order)
    (second,) = (key["selector"] for key in keys(lab_site) if key["state"] == "signs")
    assert second != first
    assert not set(idents) - set(seen), "a message was lost"
    bad = {name: each["signatures"] for name, each in seen.items() if [part["holds"] for part in each["signatures"]] != [True]}
    assert not bad
    by = Counter(each["signatures"][0]["selector"] for each in seen.values())
    assert set(by) == {first, second}, by
    # The old one is not forgotten while its mail may be under way; after a theft it is.
    refused = lemonstand("dkim", "retire", "--lab", deployed, code=2)
    assert "may still be under way" in refused.stderr
    gone = lemonstand("dkim", "retire", "--now", "--lab", deployed).stdout
    assert f"{first}._domainkey.lemon.test. IN TXT" in gone
    assert [key["selector"] for key in keys(lab_site)] == [second]
    assert "would change  " not in lemonstand("plan", "--lab", deployed).stdout


def _sent(vantage: Vantage) -> str:
    done = vantage.ask("deliver", endpoint=vantage.endpoints(), account=vantage.accounts[0], recipient=PEER_USER)
    assert done["code"] == 250, done
    return str(done["ident"])
