"""Controls: the catalogue of what RFC 5383 and the documents it builds on ask of a site (`controls.yml`)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lemonstand.policy.text import read_shipped

CATALOGUE = Path(__file__).with_name("controls.yml")

Level = Literal["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "REQUIRED", "MAY", "definition", "permission", "prose", "derived"]
"""The strength of a requirement; `derived` ones are not in the text and follow from it."""


Kind = Literal["edge", "frontend", "auth", "store", "relay", "handset"]
"""What a control binds: kinds of hosts of a site, and `handset` for the clients outside."""


class Reason(BaseModel):
    """Why a control binds nothing at a site.

    Args:
        where: `everywhere`; at sites without an edge of their own; at sites with one host of a kind (`one-auth`).
        text: why.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: Literal["everywhere", "no-edges", "one-edge", "one-frontend", "one-auth", "one-relay"]
    text: str = Field(min_length=8)

    def holds(self, groups: Collection[str]) -> bool:
        """Whether it holds at a site with these groups, each as often as it has hosts there."""
        kind = self.where.removeprefix("one-")
        if kind != self.where:
            return list(groups).count(f"{kind}s") <= 1
        return self.where == "everywhere" or "edges" not in groups


class Control(BaseModel):
    """One requirement.

    `binds` says whom, `differs` which later documents say it otherwise, `not_applicable` names a reason of the catalogue; `enforced_by`
    names shipped files, `flow:NAME` or `timer:NAME`; a control that is `made_of` others holds if and only if they do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^(LEM-[0-9]+(\.[0-9]+)?-[0-9]{2}[a-z]?|PRO-[A-Z0-9]+-[0-9]{2}|(BAK|INT|MTA|SUR|OPS)-[0-9]{2})$")
    section: str = Field(pattern=r"^([0-9]+(\.[0-9]+)?|profile|integrity|survival|backup|outgoing|operation)$")
    level: Level
    statement: str = Field(min_length=4, max_length=160)
    sources: tuple[str, ...] = Field(min_length=1)
    binds: tuple[Kind, ...] = Field(min_length=1)
    differs: tuple[str, ...] = ()
    not_applicable: str | None = None
    enforced_by: tuple[str, ...]
    made_of: tuple[str, ...] = ()


class Controls(BaseModel):
    """All controls, in the order of the documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reasons: dict[str, Reason] = {}
    controls: tuple[Control, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_agree(self) -> Controls:
        ids = [control.id for control in self.controls]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"controls share an id: {', '.join(twice)}")
        for control in self.controls:
            if control.not_applicable is not None and control.not_applicable not in self.reasons:
                raise ValueError(f"{control.id} names a reason '{control.not_applicable}' that is not there")
            for part in control.made_of:
                if part not in ids or part == control.id:
                    raise ValueError(f"{control.id} is made of '{part}', which is no other control")
        return self

    def by_id(self) -> dict[str, Control]:
        """The controls by their id."""
        return {control.id: control for control in self.controls}

    def reason(self, control: Control, groups: Collection[str]) -> str:
        """Why a control binds nothing at a site with these groups, each as often as it has hosts there; empty if it does."""
        reason = self.reasons.get(control.not_applicable or "")
        return reason.text if reason is not None and reason.holds(groups) else ""

    def sections(self) -> tuple[str, ...]:
        """The sections in their order."""
        return tuple(dict.fromkeys(control.section for control in self.controls))


def load_controls(path: Path | None = None) -> Controls:
    """Reads the catalogue.

    Args:
        path: another file; default: the shipped one.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    return read_shipped(path or CATALOGUE, "controls", Controls.model_validate)
