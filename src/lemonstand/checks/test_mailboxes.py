"""Folders: whatever name people give them, and how much one APPEND may bring."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")

MADE_UP = 12
"""Names that are made up for each run, beside the fixed ones."""


@measurement()
def folders(vantage: Vantage) -> dict[str, Any]:
    """Folders of many names, made, used, renamed and removed through the frontend."""
    seed = random.SystemRandom().randrange(1 << 32)
    order: dict[str, Any] = {"endpoint": vantage.endpoints(), "account": vantage.accounts[0], "count": MADE_UP, "seed": seed}
    return dict(vantage.ask("mailbox-names", seconds=120, **order))


@measurement()
def append_limit(vantage: Vantage) -> dict[str, Any]:
    """What APPEND is answered at the size that is announced, and above it."""
    return dict(vantage.ask("mailbox-limit", endpoint=vantage.endpoints(), account=vantage.accounts[0]))


@pytest.mark.control("PRO-IMAP-01")
@pytest.mark.supports("LEM-6-06")
def test_folders_of_any_name_can_be_used(folders: dict[str, Any], measure: Measure) -> None:
    """The separator is `/`: dots, tildes, wildcards, blanks and words that file systems know are letters (RFC 9051 5.1)."""
    measure("names", folders["tried"])
    expect(not folders["wrong"], "a folder can't have the name its user gives it", seen=folders["wrong"], expected="every step OK")


@pytest.mark.supports("PRO-IMAP-01")
def test_renaming_inbox_is_answered(folders: dict[str, Any], measure: Measure) -> None:
    """RFC 9051 6.3.6: it moves all of INBOX, or a tagged NO says that this server does not; never BAD."""
    measure("answer", folders["inbox"]["text"], volatile=True)
    expect(folders["inbox"]["status"] in {"OK", "NO"}, "RENAME INBOX is answered as a mistake", seen=folders["inbox"], expected="OK or NO")


@pytest.mark.control("LEM-6-06")
@pytest.mark.supports("PRO-SUB-03")
def test_an_append_over_the_limit_is_refused_before_it_is_sent(append_limit: dict[str, Any], site: Site, measure: Measure) -> None:
    """APPENDLIMIT names the size of a message (RFC 7889); of one octet more the server asks for none."""
    found = append_limit
    measure("APPENDLIMIT", found["announced"] or 0)
    limit = site.settings.message_size_limit
    expect(found["announced"] == limit, "APPENDLIMIT is missing or says another number", seen=found["announced"], expected=limit)
    expect(
        not found["over"]["asked"] and " NO [" in found["over"]["answer"],
        "a message over the limit is asked for",
        seen=found["over"]["answer"],
        expected="NO before a + of the server",
    )
    expect(found["under"]["asked"], "a message of the announced size is refused", seen=found["under"]["answer"], expected="+")
