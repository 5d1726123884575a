"""Where a site knowingly does less than a text asks for, by its timer profile or a device of somebody else, and who has accepted that."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

from lemonstand.policy.timers import deviation_id
from lemonstand.policy.waivers import GivenWaiver, Waiver, given
from lemonstand.site.model import Site


@dataclass(frozen=True)
class SiteDeviation:
    """One of them.

    Args:
        id: by which it is accepted; empty for a device's, whose waiver is the site's own word.
        control: what is not kept.
        what: the number that is, and what it should be.
        reason: why.
        owner: who answers for it; empty for those that ship with a profile.
        box: the device that makes it; empty for a profile.
        waiver: the waiver of that device.
        expires: the first day it holds no longer; None if it has no end.
    """

    id: str
    control: str
    what: str
    reason: str
    owner: str = ""
    box: str = ""
    waiver: Waiver | None = None
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
            deviation_id(profile, relation),
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
                found.append(_of_box(hop.control, what, box.name, box.waiver))
    return found


def _of_box(control: str, what: str, box: str, waiver: Waiver) -> SiteDeviation:
    return SiteDeviation("", control, what, waiver.reason, waiver.owner, box, waiver, waiver.expires)


@dataclass(frozen=True)
class Accepted:
    """Who took a deviation for the site's own, and when."""

    by: str
    date: dt.date


def accepted(site: Site, name: str) -> Accepted | None:
    """The word of the site's owner on a deviation that is proposed to him; None while there is none.

    Args:
        name: of a waiver that ships, or of what a timer profile does less.
    """
    return next((Accepted(each.by, each.date) for each in site.settings.accepts if each.id == name), None)


def acceptance(site: Site, waiver: GivenWaiver) -> Accepted | None:
    """Who answers for a waiver at this site: the owner the site itself names in it, or whoever has accepted one that ships."""
    return Accepted(waiver.owner, waiver.date) if waiver.origin == "site" else accepted(site, waiver.id)


def waivers_of(site: Site) -> tuple[GivenWaiver, ...]:
    """All waivers of a site: those that ship, its own, and those of its middleboxes, which waive a part of a control."""
    boxes = [(each, each.waiver) for each in deviations(site) if each.waiver is not None]
    return (
        *given(site.settings.waivers),
        *(
            GivenWaiver(
                id=f"BOX-{re.sub('[^A-Z0-9]+', '-', each.box.upper()).strip('-')}-{number}",
                title=f"middlebox {each.box}",
                controls=(each.control,),
                part=each.what,
                origin="site",
                **dict(waiver),
            )
            for number, (each, waiver) in enumerate(boxes, 1)
        ),
    )
