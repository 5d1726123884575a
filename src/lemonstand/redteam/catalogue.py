"""The attempts as data (`attempts.yml`): what is tried from where, what stops it, and what is known to be left."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lemonstand.policy.text import read_shipped
from lemonstand.policy.waivers import Waiver

DATA = Path(__file__).with_name("attempts.yml")

Position = Literal["frontend", "relay", "internet", "user"]
Goal = Literal["mail", "credentials", "inward", "sender", "relaying", "urls", "names", "guessing", "service", "transport"]
POSITIONS: tuple[Position, ...] = ("frontend", "relay", "internet", "user")
GOALS: dict[Goal, str] = {
    "mail": "other users' mail",
    "credentials": "credentials",
    "inward": "the way inward, and out again",
    "sender": "mail as another sender",
    "relaying": "an open relay",
    "urls": "URLs that give mail away",
    "names": "names that are read in two ways",
    "guessing": "guessing passwords",
    "service": "keeping users out",
    "transport": "the start of TLS and the end of a message",
}


class Attempt(BaseModel):
    """One attempt.

    Args:
        id: unique, kebab-case, begins with the position.
        position: where the attacker stands.
        goal: what he is after.
        tries: what he does, as a sentence without a subject.
        stopped_by: what stops him.
        control: the same move with the right credentials or address, which has to work for a refusal to mean something.
        controls: requirements it is about.
        deviation: the name of a deviation that covers its success.
        alone: whether it disturbs others, so that it runs by itself.
        long: whether it waits or searches for a minute, so that it begins first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    position: Position
    goal: Goal
    tries: str = Field(min_length=8)
    stopped_by: str = Field(min_length=8)
    control: str = Field(min_length=4)
    controls: tuple[str, ...] = Field(min_length=1)
    deviation: str | None = None
    alone: bool = False
    long: bool = False


class Fixed(BaseModel):
    """The package version with which a deviation has no reason any more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: Literal["frontends", "auths", "stores", "relays"]
    package: str
    version: str = Field(pattern=r"^[0-9]+(\.[0-9]+)*$")


class Deviation(BaseModel):
    """A success that is known, named, dated and answered for.

    Args:
        name: `D-…`.
        what: what is left.
        limits: what bounds it.
        waiver: why, who answers for it, and until when.
        fixed: the version of a package that ends it before that day.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^D-[A-Z]+-[0-9]+$")
    what: str = Field(min_length=8)
    limits: str = Field(min_length=8)
    waiver: Waiver
    fixed: Fixed | None = None


class Yield(BaseModel):
    """What a position gives by its nature: nobody claims to stop it.

    Args:
        position: where the attacker stands.
        what: what he has there.
        lasts: how long.
        bounds: what it does not give.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    position: Position
    what: str = Field(min_length=8)
    lasts: str = Field(min_length=4)
    bounds: str = Field(min_length=4)


class Catalogue(BaseModel):
    """Everything in `attempts.yml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: tuple[Attempt, ...] = Field(min_length=1)
    deviations: tuple[Deviation, ...]
    yields: tuple[Yield, ...]

    @model_validator(mode="after")
    def _names_agree(self) -> Catalogue:
        ids = [attempt.id for attempt in self.attempts]
        known = {deviation.name for deviation in self.deviations}
        if len(set(ids)) < len(ids):
            raise ValueError("two attempts share an id")
        for attempt in self.attempts:
            if not attempt.id.startswith(f"{attempt.position}-"):
                raise ValueError(f"{attempt.id} does not begin with its position")
            if attempt.deviation is not None and attempt.deviation not in known:
                raise ValueError(f"{attempt.id} names the deviation '{attempt.deviation}', which is none")
        unused = known - {attempt.deviation for attempt in self.attempts}
        if unused:
            raise ValueError(f"no attempt names the deviation {', '.join(sorted(unused))}")
        return self

    def by_id(self) -> dict[str, Attempt]:
        """The attempts by their id."""
        return {attempt.id: attempt for attempt in self.attempts}

    def deviation(self, name: str | None) -> Deviation | None:
        """A deviation by its name."""
        return next((each for each in self.deviations if each.name == name), None)


def load_catalogue(path: Path = DATA) -> Catalogue:
    """Reads the catalogue.

    Raises:
        LemonstandError: it breaks its own form; that is a fault of this copy of lemonstand.
    """
    return read_shipped(path, "the attempts", Catalogue.model_validate)
