"""What RFC 5383 asks for before a service is opened: somebody has read what may happen, and answers for it; nothing was opened past him."""

from __future__ import annotations

import datetime as dt

import pytest

from lemonstand.checks.conftest import FactsOf, Measure
from lemonstand.outcomes import NotMeasured, expect
from lemonstand.policy import load_flows
from lemonstand.redteam import load_catalogue
from lemonstand.redteam.analysis import analyse, digest, render, unreviewed
from lemonstand.redteam.attack import ended
from lemonstand.site import Site

pytestmark = pytest.mark.answer("configuration")


@pytest.mark.control("LEM-8-01")
def test_the_threat_analysis_was_reviewed(site: Site, measure: Measure) -> None:
    """A review is on record for the analysis of this site as it is now; without one nothing is measured, and nothing has failed."""
    measure("analysis", digest(site))
    review = site.settings.review
    reason = unreviewed(site)
    if review is None or reason:
        raise NotMeasured(f"{reason}; read `lemonstand threat-analysis`, then put its --hash on record")
    measure("reviewed by", review.by)
    measure("on", str(review.date))


@pytest.mark.control("LEM-8-18")
def test_nothing_goes_round_the_firewall_unnamed(site: Site, facts_of: FactsOf, node: str, measure: Measure) -> None:
    """Each rule in force that opens a port is a flow that ships, or one the threat analysis names as this site's own."""
    shipped = set(load_flows().names())
    text = render(analyse(site))
    names = {
        str(rule.get("comment", "without a name"))
        for rule in facts_of(node).rules.every_rule()
        if any("accept" in each for each in rule["expr"]) and "dport" in str(rule["expr"])
    }
    own = names - shipped
    measure("openings", len(names))
    measure("of this site alone", ", ".join(sorted(own)))
    unnamed = sorted(name for name in own if f"- adds {name}:" not in text)
    expect(bool(names), "no rule opens a port", seen="none", expected="the flows of the site")
    expect(not unnamed, "an opening goes round what was analysed", seen=unnamed, expected="flows, all of them in the threat analysis")


@pytest.mark.supports("PRO-IMAP-05", "LEM-8-11")
def test_known_deviations_are_still_due(site: Site, facts_of: FactsOf, measure: Measure) -> None:
    """A deviation ends on its day, or with a package that has no need of it: then whatever it costs is to be paid no longer."""

    def version_of(group: str, package: str) -> str:
        return max((str(facts_of(host.name).data["packages"].get(package, "")) for host in site.group(group)), default="")

    over = []
    for deviation in load_catalogue().deviations:
        reason = ended(deviation, dt.date.today(), version_of)
        measure(deviation.name, reason or f"until {deviation.waiver.expires}")
        over += [f"{deviation.name}: {reason}"] if reason else []
    expect(
        not over, "a known deviation has ended", seen=over, expected="none that is over",
        remedy="close what it leaves open (D-URLAUTH-1: mail_store_urlauth_across_users), and take it from the red team's catalogue",
    )  # fmt: skip
