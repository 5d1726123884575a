"""How much mail a user may keep, who learns of it, and what becomes of mail for a mailbox that is full."""

from __future__ import annotations

import secrets
import time
from typing import Any

import pytest

from lemonstand.checks.conftest import FactsOf, HostFactory, Measure
from lemonstand.checks.undone import do, undone
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, not_measurable
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ELSEWHERE, PEER_SENDER
from lemonstand.site import Site

UNIT = 1024
"""Octets in a unit of STORAGE (RFC 9208 section 5.1)."""
NO_BOUND = "the site bounds no mailbox (lemonstand_quota: 0)"
LISTS = "/var/lib/lemonstand/mail/users.* /run/lemonstand-mail/users.*"
"""Where a store's users stand; the second where there are several stores."""
SMALL = "userdb_quota_storage_size=1K"
PATIENCE_SECONDS = 60.0
"""A relay believes for half a minute what a store told it."""
LOOK_SECONDS = 3.0


@pytest.mark.answer("live")
@pytest.mark.control("OPS-11")
def test_a_user_learns_how_much_room_he_has(site: Site, vantage: Vantage, accounts: list[Account], measure: Measure) -> None:
    """QUOTA is announced, and GETQUOTAROOT says the site's bound."""
    bound = site.settings.quota
    if not bound:
        not_measurable(NO_BOUND)
    found = vantage.ask("mailbox-quota", endpoint=vantage.endpoints(), account=accounts[0])
    measure("bound", bound, "B")
    expect(found["announced"], "clients are not told that they may ask for their room", seen="no QUOTA", expected="QUOTA")
    most = (found["storage"] or [0, 0])[1] * UNIT
    expect(
        most == bound, "a mailbox has another bound than the site says, or none", seen=most or found["answer"], expected=bound,
        remedy="`lemonstand apply` sets it (lemonstand_quota)",
    )  # fmt: skip


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-11")
def test_scripts_have_a_bound(facts_of: FactsOf, store: str, site: Site, measure: Measure) -> None:
    """Of Sieve scripts a user may keep so many, of so many octets in all."""
    if not site.settings.managesieve:
        not_measurable("users can't bring scripts (lemonstand_managesieve: false)")
    settings = facts_of(store).dovecot
    found = {name: settings.get(name) for name in ("sieve_quota_script_count", "sieve_quota_storage_size")}
    measure("scripts", " / ".join(str(each) for each in found.values()))
    expect(
        all(str(each).split()[0] not in {"0", "unlimited"} for each in found.values()),
        "scripts may fill a store",
        seen=found,
        expected="bounds",
    )


@pytest.mark.answer("live")
@pytest.mark.disruptive
@pytest.mark.control("OPS-12")
def test_mail_for_a_full_mailbox_is_put_off(
    site: Site, host: HostFactory, vantage: Vantage, accounts: list[Account], measure: Measure
) -> None:
    """One probe user's bound is made small for a moment: the MX tells outsiders 452 and takes others' mail; then it takes his again."""
    if not site.settings.quota:
        not_measurable(NO_BOUND)
    full, other = accounts[0]["user"], accounts[1]["user"]
    names = [each.name for each in site.group("stores")]
    stores = [name for name in names if host(name).run("doveadm user -f home %s", full).rc == 0]
    if not stores:
        not_measurable(f"no store serves {full}")
    ident = f"{secrets.token_hex(8)}@quota.invalid"
    message = f"From: {full}\nTo: {full}\nSubject: to fill a mailbox\nMessage-ID: <{ident}>\n\n{'x' * 70 * 50}\n"
    line = "^" + full.replace(".", "[.]") + ":"
    small = f"for f in {LISTS}; do [ ! -e $f ] || sed -i '/{line}/s/$/ {SMALL}/' $f; done"
    asbefore = f"for f in {LISTS}; do [ ! -e $f ] || sed -i 's/ {SMALL}$//' $f; done"
    expunge = f"doveadm expunge -u {full} mailbox INBOX header Message-ID {ident}"
    with undone(host, stores, f"doveadm save -u {full} -m INBOX <<'END'\n{message}END", expunge), undone(host, stores, small, asbefore):
        began = time.monotonic()
        refused = _asked(vantage, full, until=452)
        measure("until the relay knew", round(time.monotonic() - began, 1), "s", volatile=True)
        taken = _asked(vantage, other, until=250)
    again = _asked(vantage, full, until=250)
    for user in (full, other):
        for name in names:
            host(name).run("doveadm expunge -u %s mailbox INBOX from %s", user, PEER_SENDER)
    expect(
        refused["code"] == 452 and "4.2.2" in refused["text"], "mail for a full mailbox is taken, or refused for good",
        seen=refused["text"], expected="452 4.2.2", remedy="`journalctl -u mailbox-room` on relays; `lemonstand apply` sets it up",
    )  # fmt: skip
    expect(taken["code"] == 250, "one full mailbox keeps mail from others", seen=taken["text"], expected=250)
    expect(again["code"] == 250, "a mailbox with room again gets no mail", seen=again["text"], expected=250, late=True)
    do(host, stores[0], f"test -z \"$(grep -h '{SMALL}' {LISTS} 2>/dev/null)\"")


def _asked(vantage: Vantage, recipient: str, until: int) -> dict[str, Any]:
    """What the MX says to a message for a user, once it is this code, or at the end of all patience."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = vantage.prober.ask(
            vantage.outsider, "foreign-mx", endpoint=vantage.exchangers(), sender=PEER_SENDER, recipient=recipient, elsewhere=ELSEWHERE
        )
        if seen["accepted"]["code"] == until or time.monotonic() > end:
            return dict(seen["accepted"])
        time.sleep(LOOK_SECONDS)
