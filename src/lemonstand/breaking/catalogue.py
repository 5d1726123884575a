"""The mutants as data: every `.yml` file in `mutants/`."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lemonstand.breaking.tampering import Tampering
from lemonstand.errors import LemonstandError
from lemonstand.policy.text import read_shipped

DATA = Path(__file__).with_name("mutants")


class Mutant(Tampering):
    """One deliberate break.

    Args:
        controls: those it breaks.
        program: a file beside the catalogue that is put on the host first; the commands find it as `$PROGRAM`.
        noticed_by: the checks that must fail: `function`, `function[case]`, or either behind `topic/` where two topics share a name.
        disruptive: whether those checks disturb the site.
        seconds: how long they take to answer, roughly; labs that work side by side share mutants by it.
        names: what such a check has to name in what it saw; empty: it is enough that it fails.
        together: it disturbs no other mutant of this kind, so that all of them can be made at once.
        placebo: nothing is broken, though all is done that breaking would do: these checks must pass.
    """

    controls: tuple[str, ...] = Field(min_length=1)
    program: str = ""
    noticed_by: tuple[str, ...] = Field(min_length=1)
    disruptive: bool = False
    seconds: int = Field(default=10, ge=1)
    placebo: bool = False
    names: str = ""
    together: bool = False

    @property
    def digest(self) -> str:
        """Tells whether a verdict is about this form of the mutant."""
        return hashlib.sha256((self.model_dump_json(exclude={"seconds"}) + self.text).encode()).hexdigest()[:16]

    @property
    def text(self) -> str:
        """Its program's text, empty if it has none."""
        return (DATA / self.program).read_text(encoding="utf-8") if self.program else ""


class Without(BaseModel):
    """A control that checks answer and no mutant breaks, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    control: str
    reason: str = Field(min_length=10)


class _File(BaseModel):
    """One file of the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mutants: tuple[Mutant, ...] = ()
    without: tuple[Without, ...] = ()


def load_without(path: Path = DATA) -> dict[str, str]:
    """The controls that checks answer and no mutant breaks, with the reason.

    Raises:
        LemonstandError: see `load_mutants`.
    """
    return {entry.control: entry.reason for file in _files(path) for entry in file.without}


def _files(path: Path) -> list[_File]:
    files = sorted(path.glob("*.yml")) if path.is_dir() else [path]
    return [read_shipped(file, "mutants", _File.model_validate) for file in files]


def load_mutants(path: Path = DATA) -> tuple[Mutant, ...]:
    """Reads the catalogue.

    Args:
        path: a file, or a directory whose `.yml` files are read.

    Raises:
        LemonstandError: it breaks its own form; that is a fault of this copy of lemonstand.
    """
    mutants = [mutant for file in _files(path) for mutant in file.mutants]
    names = [mutant.name for mutant in mutants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LemonstandError(f"two mutants share the name '{twice[0]}'", str(path), "give each a name of its own")
    return tuple(mutants)


def todays_seed() -> int:
    """A number that changes with the day (UTC), so that a sample drawn every day comes round to every mutant."""
    return dt.datetime.now(dt.UTC).date().toordinal()


def sample(mutants: Sequence[Mutant], count: int, seed: int) -> tuple[Mutant, ...]:
    """Some mutants that disturb nobody for long: the same ones for the same seed, and all of them in turn for seeds one after the other.

    Args:
        mutants: to draw from.
        count: how many.
        seed: the draw's number.
    """
    calm = [mutant for mutant in mutants if not mutant.disruptive]
    count = min(count, len(calm))
    rounds = -(-len(calm) // count) if count else 1
    random.Random(seed // rounds).shuffle(calm)  # noqa: S311 - a draw, no secret
    first = seed % rounds * count
    return tuple((calm + calm)[first : first + count])


def shares(mutants: Sequence[Mutant], count: int) -> tuple[tuple[Mutant, ...], ...]:
    """Splits mutants into shares that take about equally long, for labs that work side by side.

    Args:
        mutants: in the catalogue's order, which each share keeps.
        count: how many shares; some are empty if there are fewer mutants.
    """
    filled: list[tuple[int, set[str]]] = [(0, set()) for _ in range(count)]
    for mutant in sorted(mutants, key=lambda each: -each.seconds):
        least = min(range(count), key=lambda index: filled[index][0])
        filled[least] = (filled[least][0] + mutant.seconds, filled[least][1] | {mutant.name})
    return tuple(tuple(mutant for mutant in mutants if mutant.name in names) for _, names in filled)
