"""What a Debian host has beside the files of its packages and of the roles, and is no stranger (`debian.yml`)."""

from __future__ import annotations

import fnmatch
import re
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lemonstand.policy.text import read_shipped

SHIPPED = Path(__file__).with_name("debian.yml")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Made(_Data):
    """A file that something on the host makes.

    Args:
        path: shell pattern (`fnmatch(3)`, with braces).
        like: a package's file that has the same text.
        empty: it has no text.
        link: pattern of what it points to.
        owner: whose it is; `root` where nothing is said, and of slapd's own directory anybody's.
        mode: the permissions it has at most, octal.
        made_by: the program of ours whose text it holds.
    """

    path: str
    like: str = ""
    empty: bool = False
    link: str = ""
    owner: str = ""
    mode: str = ""
    made_by: str = ""


class Kernel(_Data):
    """What a kernel setting has to be.

    Args:
        name: its dotted name, a pattern.
        values: those that are right, patterns.
        router: those that are right on a router.
        machine: it belongs to the machine, not to a network namespace.
    """

    name: str
    values: tuple[str, ...]
    router: tuple[str, ...] = ()
    machine: bool = False


class Debian(_Data):
    """All of it; the file says what each list is for."""

    files: tuple[Made, ...]
    enabled: tuple[str, ...]
    masked: tuple[str, ...]
    transient: tuple[str, ...]
    accounts: tuple[str, ...]
    login_groups: tuple[str, ...]
    programs_that_run_with_rights: dict[str, str]
    capabilities: tuple[str, ...]
    listening: dict[str, tuple[str, ...]]
    exposed: tuple[Made, ...]
    mounts: tuple[str, ...]
    links_of_the_kernel: tuple[str, ...]
    kernel: tuple[Kernel, ...]

    def made(self, path: str) -> Made | None:
        """The entry of a file."""
        return next((each for each in self.files if matches(path, each.path)), None)


def matches(name: str, *patterns: str) -> bool:
    """Whether a name is one of those that patterns stand for: `*`, `?`, `[...]` and `{one,another}`."""
    return any(fnmatch.fnmatchcase(name, each) for pattern in patterns for each in _spread(pattern))


@cache
def _spread(pattern: str) -> tuple[str, ...]:
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return (pattern,)
    return tuple(each for word in found.group(1).split(",") for each in _spread(pattern[: found.start()] + word + pattern[found.end() :]))


@cache
def load_debian() -> Debian:
    """The data that ships.

    Raises:
        LemonstandError: the file can't be read.
    """
    return read_shipped(SHIPPED, "what Debian hosts have", lambda content: Debian(**content))
