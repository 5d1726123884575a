"""Breaks a lab on purpose and sees whether the red team reports that hole and no other (`redteam_breaks.yml`)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from lemonstand import lab as labs
from lemonstand.breaking.tampering import PUT_BACK, SAVED, WAS_LEFT, Tampering, at_home
from lemonstand.errors import LemonstandError
from lemonstand.policy.text import read_shipped
from lemonstand.redteam.attack import Result, attack
from lemonstand.site import Site

DATA = Path(__file__).with_name("redteam_breaks.yml")


class Break(Tampering):
    """One break.

    Args:
        breaches: the attempts that must succeed.
        holds: attempts that must not, although they are close.
    """

    breaches: tuple[str, ...] = Field(min_length=1)
    holds: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Proof:
    """What came of a break.

    Args:
        results: of the attempts on the broken lab.
        wrong: attempts that ended otherwise than they should have: `ID: outcome, what it got`.
        mended: whether the attempts that got through are held again afterwards.
    """

    made: Break
    results: tuple[Result, ...]
    wrong: tuple[str, ...]
    mended: bool
    seconds: float

    @property
    def good(self) -> bool:
        """Exactly the hole was reported, and it is closed again."""
        return not self.wrong and self.mended


def load_breaks(path: Path = DATA) -> tuple[Break, ...]:
    """Reads the breaks.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand.
    """
    return read_shipped(path, "the breaks", lambda found: tuple(Break.model_validate(entry) for entry in found["breaks"]))


def prove(made: Break, lab: str, site: Site) -> Proof:
    """Breaks a lab, attacks where it must and must not get through, mends it, and attacks again.

    Args:
        lab: the lab's name.
        site: its model.

    Raises:
        LemonstandError: the host can't be reached or could not be mended.
    """
    began = time.monotonic()
    made = at_home(made, site)
    with _broken(made, lab):
        report = attack(site, (*made.breaches, *made.holds))
    wrong = []
    for result in report.results:
        meant = "BREACH" if result.attempt.id in made.breaches else "held"
        if result.outcome != meant:
            wrong.append(f"{result.attempt.id}: {result.outcome}, {result.got}")
    after = attack(site, made.breaches)
    mended = all(result.outcome in {"held", "known deviation"} for result in after.results)
    return Proof(made, report.results, tuple(wrong), mended, time.monotonic() - began)


@contextmanager
def _broken(made: Break, lab: str) -> Iterator[None]:
    """The lab with a break in it, for the length of a block."""
    if labs.run_on(lab, made.host, WAS_LEFT).strip():
        labs.run_on(lab, made.host, PUT_BACK)
        raise LemonstandError(
            f"a change was left on {made.host} by a run that died; its files are put back", f"{made.host}:{SAVED}",
            f"lemonstand apply --lab {lab}, then try again",
        )  # fmt: skip
    labs.run_on(lab, made.host, made.saving())
    try:
        labs.run_on(lab, made.host, made.changing())
        yield
    finally:
        labs.run_on(lab, made.host, made.mending())
