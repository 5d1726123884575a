"""Waivers: requirements that are knowingly not met, each with reason, owner and an end (`waivers.yml`, and a site's own)."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lemonstand.errors import LemonstandError
from lemonstand.policy.text import read_shipped

SHIPPED = Path(__file__).with_name("waivers.yml")
Packages = Mapping[str, Mapping[str, str]]
"""Host to installed package to its version, as Debian writes it."""


class Until(BaseModel):
    """A package whose newer version takes the reason away.

    Args:
        package: its name.
        version: the first version of its authors (no epoch, no revision) that does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]+$", description="the name of a Debian package")
    version: str = Field(pattern=r"^[0-9]+(\.[0-9]+)*$", description="such as 2.4.3")

    def reached(self, installed: str) -> bool:
        """Whether an installed version (`1:2.4.1+dfsg1-6`) is this one or a later one."""
        return _upstream(installed) >= _upstream(self.version)


class Waiver(BaseModel):
    """Why somebody answers for doing less than a text asks for, and until when.

    Args:
        reason: why it can't be met, or need not be here.
        owner: who answers for it: a person or a team that can be asked.
        date: the day it was granted.
        expires: the first day it holds no longer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=8, description="why it is not met")
    owner: str = Field(min_length=2, description="who answers for it")
    date: dt.date = Field(description="the day it was granted, YYYY-MM-DD")
    expires: dt.date = Field(description="the first day it holds no longer, YYYY-MM-DD")

    @model_validator(mode="after")
    def _ends_after_it_began(self) -> Waiver:
        if self.expires <= self.date:
            raise ValueError(f"it expires on {self.expires}, which is not after {self.date}")
        return self

    def expired(self, today: dt.date) -> bool:
        """Whether it holds no longer on a day."""
        return today >= self.expires


class ControlWaiver(Waiver):
    """A waiver of controls.

    Args:
        id: unique.
        title: what is waived, in a few words.
        controls: which it covers.
        part: what of them is not met, where the rest is; empty: they are not met. A control that is waived in part is still measured:
            its checks ask for the rest, so it fails when one of them does, and when the waiver ends.
        until: what ends it before its day.
    """

    id: str = Field(pattern=r"^[A-Z][A-Z0-9]*(-[A-Z0-9]+)+$", description="a name of its own, such as SITE-BACKUP-1")
    title: str = Field(min_length=4, max_length=120, description="what is waived, in a few words")
    controls: tuple[str, ...] = Field(min_length=1, description="ids of controls")
    part: str = Field("", description="what of them is not met, if the rest is")
    until: Until | None = Field(None, description="{package, version} that ends it")

    def ended(self, today: dt.date, packages: Packages) -> str:
        """Why it holds no longer; empty while it does."""
        if self.expired(today):
            return f"it expired on {self.expires}"
        if self.until is not None:
            for host, versions in packages.items():
                installed = versions.get(self.until.package, "")
                if installed and self.until.reached(installed):
                    return f"{host} has {self.until.package} {installed}: from {self.until.version} on there is no reason for it"
        return ""


class GivenWaiver(ControlWaiver):
    """A waiver and where it comes from."""

    origin: Literal["lemonstand", "site"]


def load_waivers(path: Path = SHIPPED) -> tuple[ControlWaiver, ...]:
    """Reads the waivers that ship.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand.
    """
    waivers = read_shipped(path, "waivers", lambda found: tuple(ControlWaiver.model_validate(entry) for entry in found["waivers"]))
    names = [waiver.id for waiver in waivers]
    if len(set(names)) < len(names):
        raise LemonstandError("two waivers share an id", str(path), "give each an id of its own")
    return waivers


def given(own: tuple[ControlWaiver, ...], shipped: tuple[ControlWaiver, ...] | None = None) -> tuple[GivenWaiver, ...]:
    """All waivers of a site: those that ship, then its own.

    Args:
        own: `lemonstand_waivers`.
        shipped: others than those of the file.
    """
    shipped = load_waivers() if shipped is None else shipped
    parts: tuple[tuple[Literal["lemonstand", "site"], tuple[ControlWaiver, ...]], ...] = (("lemonstand", shipped), ("site", own))
    return tuple(GivenWaiver(origin=origin, **dict(waiver)) for origin, waivers in parts for waiver in waivers)


def _upstream(version: str) -> tuple[int, ...]:
    """`1:2.4.1+dfsg1-6` as (2, 4, 1)."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()
