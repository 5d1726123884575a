"""Debian's releases: until when each is looked after (`releases.yml`)."""

from __future__ import annotations

import datetime as dt
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, StrictInt

from lemonstand.policy.text import read_shipped

RELEASES = Path(__file__).with_name("releases.yml")


class Release(BaseModel):
    """One of them.

    Args:
        version: its number.
        until: the last day on which Debian's security team looks after it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: StrictInt
    until: dt.date


@cache
def load_releases(path: Path = RELEASES) -> dict[str, Release]:
    """Reads `releases.yml`: releases by codename.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    return read_shipped(path, "releases", lambda found: {name: Release.model_validate(each) for name, each in found["releases"].items()})
