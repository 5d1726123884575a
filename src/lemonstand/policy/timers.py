"""Timers: the numbers that must agree along the path, in profiles, and the relations between them (`playbooks/timers.yml`)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir

OPERATORS: dict[str, Callable[[int, int], bool]] = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


class Relation(BaseModel):
    """What must hold between a timer and another one, or a number; and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    left: str
    op: Literal[">=", ">", "<=", "<"]
    right: StrictInt | str
    reason: str = Field(min_length=1)
    control: str

    def holds(self, timers: dict[str, int]) -> bool:
        """Whether it holds in a profile."""
        right = timers[self.right] if isinstance(self.right, str) else self.right
        return OPERATORS[self.op](timers[self.left], right)

    def __str__(self) -> str:
        """For instance `idle_notify < imap_autologout`."""
        return f"{self.left} {self.op} {self.right}"


class Timers(BaseModel):
    """All profiles (timer to seconds, or to a count where the name says so), and what must hold in each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profiles: dict[str, dict[str, StrictInt]] = Field(min_length=1)
    shared: dict[str, StrictInt] = Field({}, description="what profiles in the file share, merged into each by YAML")
    relations: tuple[Relation, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Timers:
        for profile, timers in self.profiles.items():
            for relation in self.relations:
                for name in (relation.left, relation.right):
                    if isinstance(name, str) and name not in timers:
                        raise ValueError(f"profile '{profile}' has no timer '{name}', which the relation '{relation}' needs")
        return self

    def floor(self, timer: str) -> int:
        """The least a timer may be, by the relations that name a number.

        Raises:
            LookupError: none does.
        """
        named = [each.right for each in self.relations if each.left == timer and each.op == ">=" and isinstance(each.right, int)]
        if not named:
            raise LookupError(f"no relation sets a floor under '{timer}'")
        return max(named)

    def broken(self, profile: str) -> list[Relation]:
        """The relations that do not hold in a profile."""
        return [relation for relation in self.relations if not relation.holds(self.profiles[profile])]


def load_timers(path: Path | None = None) -> Timers:
    """Reads `timers.yml`.

    Args:
        path: another file; default: the shipped one.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    path = path or data_dir("playbooks") / "timers.yml"
    try:
        return Timers.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise LemonstandError(f"timers can't be read: {error}", str(path), "restore the file from the release") from None
