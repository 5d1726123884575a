"""The shape of a site: zones, kinds of hosts, machines outside, and lists of addresses (`playbooks/kinds.yml`)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from lemonstand.paths import data_dir
from lemonstand.policy.text import read_shipped

MANAGEMENT = "management"
"""The zone by which the controller reaches every host."""
OUTSIDE = "internet"
"""The zone of everybody else."""


class Kind(BaseModel):
    """A kind of host.

    Args:
        one: what a member is called.
        zones: where each member stands.
        needed: whether a site must have one.
        most: how many a site may have; None: any number.
        because: what a further one would do.
        joins_zones: whether a member may stand in several zones, management apart.
        programs: packages whose versions the roles depend on, with the version of their authors they are written for.
        answers: TCP ports a member that is at work says something on, with the beginning of its greeting, or `tls` for a handshake.
        units: services whose settings a site may add to (`lemonstand_drop_ins`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    one: str = Field(pattern=r"^[a-z]+$")
    zones: tuple[str, ...] = Field(min_length=1)
    needed: StrictBool = False
    most: StrictInt | None = Field(None, ge=1)
    because: str = ""
    joins_zones: StrictBool = False
    programs: dict[str, str] = {}
    answers: dict[int, str] = {}
    units: tuple[str, ...] = ()

    @property
    def home(self) -> str | None:
        """The one zone beside management that members stand in; None for a kind that joins zones."""
        return None if self.joins_zones else next(zone for zone in self.zones if zone != MANAGEMENT)


class Outer(BaseModel):
    """A kind of machine that stands for the rest of the world.

    Args:
        one: what a member is called.
        deployed: whether the plays set it up, in a lab.
        apart: whether the site knows no such host, but the address of a service on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    one: str = Field(pattern=r"^[a-z]+$")
    deployed: StrictBool = False
    apart: StrictBool = False


class Kinds(BaseModel):
    """The whole shape.

    Args:
        zones: from the outside in.
        kinds: group of the inventory to kind, in the order in which a message from outside meets them.
        outer: groups of machines outside.
        lists: ends of flows that are lists of addresses, with the variable that holds the list, or that names the service.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    zones: tuple[str, ...]
    kinds: dict[str, Kind]
    outer: dict[str, Outer]
    lists: dict[str, str]

    @model_validator(mode="after")
    def _zones_exist(self) -> Kinds:
        for name, kind in self.kinds.items():
            unknown = set(kind.zones) - set(self.zones)
            if unknown:
                raise ValueError(f"{name} stand in unknown zones: {', '.join(sorted(unknown))}")
            if not kind.joins_zones and len(set(kind.zones) - {MANAGEMENT}) != 1:
                raise ValueError(f"{name} stand in several zones, but do not join zones")
        return self

    def group_of(self, one: str) -> str | None:
        """The group whose members are called that (`edge`: `edges`); None: there is no such kind."""
        every: dict[str, Kind | Outer] = {**self.kinds, **self.outer}
        return next((group for group, kind in every.items() if kind.one == one), None)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of a site's hosts."""
        return tuple(self.kinds)

    @property
    def deployed(self) -> tuple[str, ...]:
        """The groups whose hosts the plays set up."""
        return (*self.kinds, *(name for name, outer in self.outer.items() if outer.deployed))

    @property
    def apart(self) -> frozenset[str]:
        """The groups of machines that the site knows by a service's address alone."""
        return frozenset(name for name, outer in self.outer.items() if outer.apart)

    @property
    def inner_zones(self) -> tuple[str, ...]:
        """The zones every site declares."""
        return tuple(zone for zone in self.zones if zone != OUTSIDE)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What a flow may lead from and to."""
        return (*self.zones, *self.kinds, *self.lists)


@cache
def load_kinds(path: Path | None = None) -> Kinds:
    """Reads `kinds.yml`.

    Args:
        path: another file; default: the shipped one.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    return read_shipped(path or data_dir("playbooks") / "kinds.yml", "kinds of hosts", Kinds.model_validate)
