"""Invariants: what no flow of any site may open (`invariants.yml`)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

from lemonstand.policy.kinds import load_kinds
from lemonstand.policy.text import read_shipped

INVARIANTS = Path(__file__).with_name("invariants.yml")
SSH = 22
ANY = "any"


class Exempt(BaseModel):
    """What an invariant leaves open.

    Args:
        source: by whom, an end.
        destination: which way in; empty: each.
        list: to the addresses of which list alone; empty: of none in particular.
        protocol: by which; None: each.
        ports: on which; None: each.
        why: what it is for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    source: str = Field(alias="from")
    destination: str = Field("", alias="to")
    list: str = ""
    protocol: Literal["tcp", "udp"] | None = None
    ports: Literal["ssh"] | tuple[StrictInt, ...] | None = None
    why: str = Field(min_length=4)


class Invariant(BaseModel):
    """One of them; see the head of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    id: str = Field(pattern=r"^INV-[0-9]+$")
    title: str = Field(min_length=8)
    sources: tuple[str, ...] = Field(alias="from", min_length=1)
    destinations: tuple[str, ...] = Field(alias="to", min_length=1)
    exempt: tuple[Exempt, ...] = Field((), alias="except")
    why: str = Field(min_length=8)
    instead: str = Field(min_length=8)
    controls: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ends_exist(self) -> Invariant:
        kinds = load_kinds()
        known = {*kinds.zones, *kinds.groups, "controllers", ANY}
        ends = {*self.sources, *self.destinations, *(each.source for each in self.exempt), *(each.destination for each in self.exempt)}
        unknown = (ends - known - {""}) | ({each.list for each in self.exempt} - {*kinds.lists, ""})
        if unknown:
            raise ValueError(f"{self.id} is about unknown ends: {', '.join(sorted(unknown))}")
        return self


@cache
def load_invariants(path: Path = INVARIANTS) -> tuple[Invariant, ...]:
    """Reads `invariants.yml`.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    return read_shipped(path, "invariants", lambda found: tuple(Invariant.model_validate(each) for each in found["invariants"]))
