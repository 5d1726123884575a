"""Breaks a lab on purpose and sees whether the red team reports that hole and no other (`breaks.yml`)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lemonstand import lab as labs
from lemonstand.errors import LemonstandError
from lemonstand.redteam.run import Result, attack
from lemonstand.site import Site

DATA = Path(__file__).with_name("breaks.yml")
SAVED = "/run/lemonstand-break.tar"
"""Where a host keeps the files of a break until they are put back. Its presence tells that a run died."""


class Break(BaseModel):
    """One break.

    Args:
        name: unique, kebab-case.
        host: a lab's host it is made on.
        files: what it changes there; saved before, put back after.
        change: shell commands that break.
        apply: shell commands that bring the host to its files, used for breaking and for mending.
        mend: shell commands that mend what is not in files.
        breaches: the attempts that must succeed.
        holds: attempts that must not, although they are close.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    host: str
    files: tuple[str, ...] = ()
    change: str = Field(min_length=1)
    apply: str = ""
    mend: str = ""
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
    try:
        return tuple(Break.model_validate(entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["breaks"])
    except (OSError, yaml.YAMLError, KeyError, ValidationError) as error:
        raise LemonstandError(f"the breaks can't be read: {error}", str(path), "restore the file from the release") from None


def prove(made: Break, lab: str, site: Site) -> Proof:
    """Breaks a lab, attacks where it must and must not get through, mends it, and attacks again.

    Args:
        lab: the lab's name.
        site: its model.

    Raises:
        LemonstandError: the host can't be reached or could not be mended.
    """
    began = time.monotonic()
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
    names = " ".join(map(shlex.quote, made.files)) or "-T /dev/null"
    found = labs.run_on(lab, made.host, f"set -e\numask 077\nif test -e {SAVED}; then echo left; else {labs.PACK} {SAVED} {names}; fi\n")
    if found.strip() == "left":
        labs.run_on(lab, made.host, f"tar -xPf {SAVED} && rm -f {SAVED}\n")
        raise LemonstandError(
            f"a break was left on {made.host} by a run that died; its files are put back", f"{made.host}:{SAVED}",
            f"lemonstand apply --lab {lab}, then try again",
        )  # fmt: skip
    try:
        labs.run_on(lab, made.host, f"set -e\n{made.change}\n{made.apply}\n")
        yield
    finally:
        labs.run_on(lab, made.host, f"set -e\n{made.mend}\ntar -xPf {SAVED}\n{made.apply}\nrm -f {SAVED}\n")
