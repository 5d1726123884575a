"""Where a site knowingly does less than a text asks for: by its timer profile, or by a device of somebody else on the path."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the site model builds on this package
    from lemonstand.site.model import Site


@dataclass(frozen=True)
class SiteDeviation:
    """One of them.

    Args:
        control: what is not kept.
        what: the number that is, and what it should be.
        reason: why.
        owner: who answers for it; empty for those that ship with a profile.
        expires: the first day it holds no longer; None if it has no end.
    """

    control: str
    what: str
    reason: str
    owner: str = ""
    expires: dt.date | None = None

    def __str__(self) -> str:
        """One line."""
        end = f" ({self.owner}, until {self.expires})" if self.expires else ""
        return f"{self.control}: {self.what}: {self.reason}{end}"


def deviations(site: Site) -> list[SiteDeviation]:
    """All of a site's, profile first.

    Args:
        site: a valid site.
    """
    timers = site.timers_in_force
    profile = site.settings.timer_profile
    found = [
        SiteDeviation(
            relation.control,
            f"timer profile '{profile}': {relation.left} = {timers[relation.left]}, not {relation.op} {relation.right}",
            deviation.reason,
        )
        for relation, deviation in site.timers.deviations(profile)
        if not relation.holds(timers)
    ]
    for box in site.settings.middleboxes or ():
        for hop in site.timers.hops:
            value = getattr(box, hop.left)
            if box.waiver is not None and hop.waivable and value is not None and not hop.holds({**timers, hop.left: value}):
                what = f"middlebox '{box.name}' between {box.hop}: {hop.left} = {value}, not {hop.op} {hop.right}"
                found.append(SiteDeviation(hop.control, what, box.waiver.reason, box.waiver.owner, box.waiver.expires))
    return found
