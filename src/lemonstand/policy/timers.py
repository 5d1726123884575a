"""Timers: the numbers that must agree along the path, in profiles, and the relations between them (`playbooks/timers.yml`)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from lemonstand.paths import data_dir
from lemonstand.policy.settings import load_defaults
from lemonstand.policy.text import read_shipped

OPERATORS: dict[str, Callable[[int, int], bool]] = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
DEFAULT_PROFILE = str(load_defaults()["timer_profile"])
OF_DEVICES = ("established", "transitory")
"""What is known of a middlebox: the left sides of relations between it and a profile."""


class Relation(BaseModel):
    """What must hold between a timer and another one, or a number; and why. With `profile`, in that one only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    left: str
    op: Literal[">=", ">", "<=", "<"]
    right: StrictInt | str
    reason: str = Field(min_length=1)
    control: str
    profile: str | None = None

    def right_side(self, timers: Mapping[str, int]) -> int:
        """The number on the right in a profile."""
        return timers[self.right] if isinstance(self.right, str) else self.right

    def holds(self, timers: Mapping[str, int]) -> bool:
        """Whether it holds in a profile."""
        return OPERATORS[self.op](timers[self.left], self.right_side(timers))

    def __str__(self) -> str:
        """For instance `idle_notify < imap_autologout`."""
        return f"{self.left} {self.op} {self.right}"


def deviation_id(profile: str, relation: Relation) -> str:
    """The name under which a site's owner accepts that a profile breaks a relation: `TIMER-NAT-HOSTILE-IDLE-NOTIFY`."""
    return f"TIMER-{profile}-{relation.left}".upper().replace("_", "-")


class Hop(Relation):
    """What must hold between a device of somebody else on the path (left) and a timer or number (right).

    Args:
        zones: only for devices between two of these; empty: for all.
        waivable: whether a waiver may excuse it.
    """

    zones: tuple[str, ...] = ()
    waivable: StrictBool = False


class Deviation(BaseModel):
    """A relation that a profile breaks on purpose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    relation: str
    reason: str = Field(min_length=8)


class Terms(BaseModel):
    """What a profile does less than it should, and whether a site has to state its middleboxes to use it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deviations: tuple[Deviation, ...] = ()
    states_middleboxes: StrictBool = False


class Timers(BaseModel):
    """All profiles (timer to seconds, or to a count where the name says so), and what must hold in each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profiles: dict[str, dict[str, StrictInt]] = Field(min_length=1)
    shared: dict[str, StrictInt] = Field({}, description="what profiles in the file share, merged into each by YAML")
    terms: dict[str, Terms] = {}
    relations: tuple[Relation, ...] = ()
    hops: tuple[Hop, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Timers:
        for profile, timers in self.profiles.items():
            for relation in (*self.relations_of(profile), *self.hops):
                for name in (relation.left, relation.right):
                    known = name in timers or (isinstance(relation, Hop) and name is relation.left and name in OF_DEVICES)
                    if isinstance(name, str) and not known:
                        raise ValueError(f"profile '{profile}' has no timer '{name}', which the relation '{relation}' needs")
        for name in (*self.terms, *(relation.profile for relation in self.relations if relation.profile)):
            if name not in self.profiles:
                raise ValueError(f"there is no profile '{name}' that terms or relations could be about")
        for profile, terms in self.terms.items():
            broken = [str(relation) for relation in self.relations_of(profile) if not relation.holds(self.profiles[profile])]
            for deviation in terms.deviations:
                if deviation.relation not in broken:
                    raise ValueError(f"profile '{profile}' does not break '{deviation.relation}': a deviation that is none")
        return self

    def floor(self, timer: str) -> int:
        """The least a timer may be, by the relations that name a number.

        Raises:
            LookupError: none does.
        """
        named = [
            each.right
            for each in self.relations
            if each.left == timer and each.op == ">=" and each.profile is None and isinstance(each.right, int)
        ]
        if not named:
            raise LookupError(f"no relation sets a floor under '{timer}'")
        return max(named)

    def relations_of(self, profile: str) -> tuple[Relation, ...]:
        """What has to hold in a profile, its deviations included."""
        return tuple(relation for relation in self.relations if relation.profile in {None, profile})

    def deviation(self, profile: str, relation: Relation) -> Deviation | None:
        """Why a profile may break a relation; None if it may not."""
        terms = self.terms.get(profile, Terms())
        return next((deviation for deviation in terms.deviations if deviation.relation == str(relation)), None)

    def deviations(self, profile: str) -> list[tuple[Relation, Deviation]]:
        """What a profile breaks on purpose."""
        known = ((relation, self.deviation(profile, relation)) for relation in self.relations_of(profile))
        return [(relation, deviation) for relation, deviation in known if deviation is not None]

    def broken(self, profile: str, timers: Mapping[str, int] | None = None) -> list[Relation]:
        """The relations that do not hold in a profile, its deviations left out.

        Args:
            timers: other numbers than the profile's own.
        """
        timers = timers or self.profiles[profile]
        return [
            relation for relation in self.relations_of(profile) if not relation.holds(timers) and self.deviation(profile, relation) is None
        ]


def load_timers(path: Path | None = None) -> Timers:
    """Reads `timers.yml`.

    Args:
        path: another file; default: the shipped one.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    return read_shipped(path or data_dir("playbooks") / "timers.yml", "timers", Timers.model_validate)
