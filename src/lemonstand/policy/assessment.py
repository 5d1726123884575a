"""What auditors ask of the catalogue: the severity of each control, and where other catalogues ask for the same (`assessment.yml`)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lemonstand.policy.text import read_shipped

ASSESSMENT = Path(__file__).with_name("assessment.yml")
Level = Literal["critical", "high", "medium", "low"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""Gravest first."""


def _words(given: object) -> object:
    """A list that is written as words, for lines of many ids."""
    return given.split() if isinstance(given, str) else given


class Severity(BaseModel):
    """A rule that decides how much is at stake, and the controls it decides.

    Args:
        level: how much.
        rule: why, in a line.
        controls: ids.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Level
    rule: str = Field(min_length=8, max_length=160)
    controls: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(min_length=1)


class Framework(BaseModel):
    """Another catalogue.

    Args:
        title: its name with the edition.
        form: the pattern of its ids.
        ids: titles of those that are used, as its publisher words them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    form: str
    ids: dict[str, str]


class Assessment(BaseModel):
    """The whole; each id that is mapped to has a title, and each title is used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: tuple[Severity, ...]
    frameworks: dict[str, Framework]
    mappings: dict[str, dict[str, tuple[str, ...]]]

    @model_validator(mode="after")
    def _ids_are_known(self) -> Assessment:
        decided = [name for rule in self.severity for name in rule.controls]
        twice = sorted({name for name in decided if decided.count(name) > 1})
        if twice:
            raise ValueError(f"controls with two severities: {', '.join(twice)}")
        for key, framework in self.frameworks.items():
            used = {name for mapped in self.mappings.values() for name in mapped.get(key, ())}
            if used != set(framework.ids):
                raise ValueError(f"{framework.title}: mapped ids and titles differ: {', '.join(sorted(used ^ set(framework.ids)))}")
            wrong = sorted(name for name in framework.ids if not re.fullmatch(framework.form, name))
            if wrong:
                raise ValueError(f"{framework.title} has no ids such as {', '.join(wrong)}")
        unknown = {key for mapped in self.mappings.values() for key in mapped} - set(self.frameworks)
        if unknown:
            raise ValueError(f"mapped to unknown catalogues: {', '.join(sorted(unknown))}")
        return self

    def of(self, control: str) -> Severity | None:
        """The rule that decides a control's severity; None for one that is in no rule."""
        return next((rule for rule in self.severity if control in rule.controls), None)

    def mapped(self, control: str, framework: str) -> tuple[str, ...]:
        """The ids of another catalogue that ask for what a control asks for."""
        return self.mappings.get(control, {}).get(framework, ())


@cache
def load_assessment(path: Path = ASSESSMENT) -> Assessment:
    """Reads `assessment.yml`.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    return read_shipped(path, "severities and mappings", Assessment.model_validate)
