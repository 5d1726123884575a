"""Many logins, from one address: none fails, none stalls."""

from __future__ import annotations

from typing import Any

import pytest

from lemonstand.checks.background import Answers
from lemonstand.checks.conftest import Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect
from lemonstand.remote.prober import results

pytestmark = pytest.mark.answer("live")

STALL_SECONDS = 10.0
COUNT = {"imap": 30, "submission": 15}
"""Enough to see a stall of one session in thirty (measured with a multiplexed TLS leg); `make bench` runs more."""


@pytest.mark.supports("LEM-6-05", "LEM-8-10")
@pytest.mark.parametrize("parallel", [1, 8])
@pytest.mark.parametrize("service", list(COUNT))
def test_no_login_stalls(
    undisturbed: None, vantage: Vantage, answers: Answers, *, family: int, parallel: int, service: str, measure: Measure
) -> None:
    """Each session logs in through the frontend and asks the store something."""
    orders: dict[str, Any] = {"count": COUNT[service], "parallel": parallel, "stall": STALL_SECONDS, "service": service}

    def ask() -> dict[int, Any]:
        jobs = {
            each: vantage.start("logins", endpoint=vantage.endpoints(each), accounts=vantage.accounts, **orders)
            for each in vantage.families
        }
        return results(jobs)

    found = answers(f"logins {service} {parallel}", ask)[family]
    measure("sessions", found["count"])
    measure("median", found["median"], "s")
    measure("slowest", found["slowest"], "s")
    expect(not found["stalled"], "sessions stall", seen=found["stalled"][:5], expected="none", late=True)
    later = [each for each in found["failed"] if "UNAVAILABLE" in each or " 454 " in each]
    expect(not later, "logins are put off", seen=later[:5], expected="none", late=True)
    expect(not found["failed"], "logins fail", seen=found["failed"][:5], expected="none")
