"""A store away, a disk full: mail waits where it is, clients are told to try later, nothing is lost. These checks disturb the site."""

from __future__ import annotations

import shlex
import time
from typing import Any

import pytest

from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.undone import do, undone
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ELSEWHERE, PEER_SENDER, Endpoints
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.disruptive]

AWAY_SECONDS = 10
BACK_SECONDS = 60
"""How soon after its return a store that was away for ten seconds has its mail."""
FULL = {
    "a full disk": "dd if=/dev/zero of={place}/ballast bs=1k 2>/dev/null || true",
    "a disk that can only be read": "mount -o remount,ro {place}",
}
"""What is done to the small disk that lies over a user's mailbox."""


def _sent(prober: Prober, outsider: str, exchangers: Endpoints, account: Account) -> dict[str, Any]:
    sent = prober.ask(outsider, "foreign-mx", endpoint=exchangers(), sender=PEER_SENDER, recipient=account["user"], elsewhere=ELSEWHERE)
    expect(sent["accepted"]["code"] == 250, "the MX takes no mail while a store is away", seen=sent["accepted"], expected=250)
    return dict(sent)


@pytest.mark.control("LEM-5-05")
def test_mail_is_not_late_for_a_store_that_was_away(
    prober: Prober,
    host: HostFactory,
    site: Site,
    vantage: Vantage,
    outsider: str,
    *,
    endpoints: Endpoints,
    exchangers: Endpoints,
    accounts: list[Account],
    measure: Measure,
) -> None:
    """Ten seconds without a store: what came meanwhile is in the mailbox within a minute of its return."""
    with undone(host, [vantage.home(accounts[0])], "systemctl stop dovecot", "systemctl start dovecot"):
        sent = _sent(prober, outsider, exchangers, accounts[0])
        time.sleep(AWAY_SECONDS)
    back = time.monotonic()
    got = vantage.ask(
        "wait-for", endpoint=endpoints(), account=accounts[0], ident=sent["ident"], within=2 * BACK_SECONDS, seconds=3 * BACK_SECONDS
    )
    took = time.monotonic() - back
    measure("from the store's return to the mailbox", round(took, 1), "s")
    expect(
        got["seconds"] is not None and took <= BACK_SECONDS,
        "mail is late for a store that was away",
        seen=f"{took:.0f} s" if got["seconds"] is not None else "nothing came",
        expected=f"{BACK_SECONDS} s at most",
    )


@pytest.mark.supports("LEM-5-05", "PRO-SUB-03")
@pytest.mark.parametrize("kind", FULL)
def test_nothing_is_lost_on(
    lab_only: None,
    kind: str,
    prober: Prober,
    host: HostFactory,
    site: Site,
    vantage: Vantage,
    *,
    outsider: str,
    endpoints: Endpoints,
    exchangers: Endpoints,
    accounts: list[Account],
    measure: Measure,
) -> None:
    """An IMAP client is refused, the relay is told to try again (452, 451), and what it kept arrives once there is room."""
    store = vantage.home(accounts[1])
    user = shlex.quote(accounts[1]["user"])
    home = do(host, store, f"doveadm user -f home {user}").strip()
    if not home.startswith("/"):
        invalid(f"{store}: the home of {accounts[1]['user']} is '{home}'")
    # Made by Dovecot if this user never had one: root's own directory would keep him out for good.
    do(host, store, f"doveadm mailbox status -u {user} messages INBOX")
    place = shlex.quote(home)
    # Dovecot has mounts of its own: what is laid over there nobody else sees, and it ends with Dovecot at the latest.
    inside = "nsenter -t $(systemctl show -p MainPID --value dovecot) -m "
    script = (
        f"mount -t tmpfs -o size=600k,uid=vmail,gid=vmail,mode=0700 lemonstand-full {place} && "
        f"doveadm mailbox status -u {user} messages INBOX && {FULL[kind].format(place=place)}"
    )
    with undone(host, [store], f"{inside} sh -c {shlex.quote(script)}", f"{inside} umount -l {place}"):
        answer = vantage.ask("append-small", endpoint=endpoints(), account=accounts[1])
        sent = _sent(prober, outsider, exchangers, accounts[1])
        time.sleep(AWAY_SECONDS)
        journal = f"journalctl -u dovecot -p warning --since -{AWAY_SECONDS + 20}s -o cat"
        told = do(host, store, f"{journal} | grep -c -e 'No space left' -e 'Read-only' || true")
    got = vantage.ask(
        "wait-for", endpoint=endpoints(), account=accounts[1], ident=sent["ident"], within=2 * BACK_SECONDS, seconds=3 * BACK_SECONDS
    )
    measure("APPEND", answer["text"][:120])
    measure("lines in the store's journal", int(told.strip() or 0))
    expect(answer["status"] == "NO", f"APPEND on {kind}", seen=answer, expected="NO")
    expect(
        got["seconds"] is not None, f"a message is lost on {kind}", seen="nothing came", expected=f"within {2 * BACK_SECONDS} s", late=True
    )
    expect(int(told.strip() or 0) > 0, "no operator is told", seen="nothing in the journal", expected="a line of priority warning or worse")
