"""How long silence could be allowed to last, hop by hop, from the settings in force."""

from __future__ import annotations

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import expect
from lemonstand.remote.endpoints import timer
from lemonstand.site import Site

pytestmark = pytest.mark.answer("configuration")

IN_FLIGHT_SECONDS = 240
"""What RFC 5382 adds to the two hours of keep-alive for packets on their way."""


@pytest.mark.control("LEM-4.1-08")
def test_a_longer_silence_is_possible_on_every_hop(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Each host's packet filter remembers a silent connection for longer than any interval of the site's timers lets it be silent."""
    facts = facts_of(node)
    established = [values["established"] for _, _, values, _ in facts.rules.tcp_timeouts()]
    remembered = min(established, default=int(facts.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established")))
    longest = max(timer(site, "idle_notify"), timer(site, "tcp_keepalive_time")) + IN_FLIGHT_SECONDS
    measure("remembered in silence", remembered, "s")
    measure("longest silence by the timers", longest, "s")
    measure("silence could last", remembered - IN_FLIGHT_SECONDS, "s")
    expect(remembered >= longest, "a hop forgets before the ends do", seen=f"{remembered} s", expected=f"{longest} s")
