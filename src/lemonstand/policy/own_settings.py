"""What a site's own settings of programs may not touch (`own_settings.yml`, and what the roles' files set themselves)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lemonstand.paths import data_dir
from lemonstand.policy.text import read_shipped

DATA = Path(__file__).with_suffix(".yml")
SETS = re.compile(r"^\s*([a-z][a-zA-Z0-9_]*) =", re.MULTILINE)


class Kept(BaseModel):
    """Settings that controls depend on.

    Args:
        about: what they are about.
        controls: those that depend on them.
        names: patterns, with blanks between.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    controls: tuple[str, ...] = Field(min_length=1)
    names: str


class Program(BaseModel):
    """A program of whose settings a site may add some.

    Args:
        files: the role's own file, by the group of hosts that have it.
        kept: what is not the site's to choose, whether or not the role sets it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: Mapping[str, str]
    kept: tuple[Kept, ...]

    def refusal(self, group: str, name: str) -> str:
        """Why a setting is not the site's to choose on hosts of a group; empty: it is."""
        for each in self.kept:
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in each.names.split()):
                return f"{', '.join(each.controls)} depend on it: it is about {each.about}"
        if name in _set_by(self.files[group]):
            return f"{self.files[group]} sets it"
        return ""


@cache
def _set_by(file: str) -> frozenset[str]:
    """The settings a role's file sets itself."""
    first, _, rest = file.partition("/")
    return frozenset(SETS.findall((data_dir(first) / rest).read_text(encoding="utf-8")))


@cache
def load_own_settings(path: Path = DATA) -> dict[str, Program]:
    """The programs by name.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    return read_shipped(path, "own settings", lambda found: {name: Program.model_validate(part) for name, part in found.items()})
