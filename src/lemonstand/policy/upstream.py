"""Faults of the programs below us, as data: where each was seen, and the version that ends it (`upstream.yml`, `docs/upstream.md`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lemonstand.errors import LemonstandError
from lemonstand.policy.text import read_yaml
from lemonstand.policy.waivers import Until

DATA = Path(__file__).with_name("upstream.yml")


class Fault(BaseModel):
    """One fault.

    Args:
        id: its heading in `docs/upstream.md`.
        package: the Debian package it is in.
        seen: Debian's versions it was reproduced with.
        fixed: the first version of its authors without it; empty: none is known.
        gone: what to do here once it is fixed.
        try_: the file in `docs/upstream` that reproduces it.
        controls: what it gets in the way of.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str = Field(min_length=8, max_length=140)
    package: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]+$")
    seen: tuple[str, ...] = Field(min_length=1)
    fixed: str = Field("", pattern=r"^([0-9]+(\.[0-9]+)*)?$")
    gone: str = Field(min_length=4)
    try_: str = Field(alias="try", pattern=r"^[a-z-]+\.(py|md)$")
    controls: tuple[str, ...] = Field(min_length=1)

    def obsolete(self, installed: str) -> bool:
        """Whether an installed version (`1:2.4.1+dfsg1-6`) has it no more."""
        return bool(self.fixed) and Until(package=self.package, version=self.fixed).reached(installed)

    def untested(self, installed: str) -> bool:
        """Whether nobody has tried it with an installed version yet."""
        return installed not in self.seen and not self.obsolete(installed)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    faults: tuple[Fault, ...]


def load_faults(path: Path = DATA) -> tuple[Fault, ...]:
    """The faults that are known.

    Raises:
        LemonstandError: the file can't be read, or two share an id.
    """
    try:
        found = _File.model_validate(read_yaml(path)).faults
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise LemonstandError(f"the list of upstream faults can't be read: {error}", str(path), "see the fields of Fault") from error
    twice = _twice(fault.id for fault in found)
    if twice:
        raise LemonstandError(f"two upstream faults are called '{twice}'", str(path), "give each a name of its own")
    return found


def _twice(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""
