"""Breaks a lab's hosts and mends them."""

from __future__ import annotations

import base64
import contextlib
import fcntl

from lemonstand import lab as labs
from lemonstand.breaking.catalogue import Mutant
from lemonstand.breaking.tampering import SAVED, WAS_LEFT
from lemonstand.errors import LemonstandError
from lemonstand.paths import lab_dir

SNAPSHOT = "before-mutants"
"""The lab as it was before the first mutant, for the case that one can't be mended."""
PROGRAM = "/run/lemonstand-mutant-program"


class LabHands:
    """The hands that work on one lab.

    Args:
        lab: its name.
    """

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self._held = (lab_dir(lab) / "mutants.lock").open("w", encoding="ascii")

    def begin(self) -> None:
        """Puts right what a run left that died, and takes a snapshot to come back to.

        Raises:
            LemonstandError: another run is at work, a mutant was left and there is nothing to come back to, or the lab is not up.
        """
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LemonstandError(f"another run is breaking the lab '{self._lab}'", self._held.name, "wait for it, or stop it") from None
        left = [machine.name for machine in labs.topology_of(self._lab).machines if labs.run_on(self._lab, machine.name, WAS_LEFT).strip()]
        kept = {snapshot.name for snapshot in labs.kept(self._lab)}
        if left and SNAPSHOT in kept:
            self.rescue()
        elif left:
            raise LemonstandError(
                f"a mutant was left on {', '.join(left)} by a run that died", f"{left[0]}:{SAVED}",
                f"lemonstand lab down --name {self._lab}, then up and apply: nothing tells what it changed",
            )  # fmt: skip
        labs.snapshot(self._lab, SNAPSHOT, replace=True)

    def end(self) -> None:
        """Drops the snapshot and lets others at the lab."""
        with contextlib.suppress(LemonstandError):
            labs.drop(self._lab, SNAPSHOT)
        self._held.close()

    def spoil(self, mutant: Mutant) -> None:
        """Makes a mutant, having saved what it changes.

        Raises:
            LemonstandError: the host can't be reached, or the commands failed; it is to be mended all the same.
        """
        labs.run_on(self._lab, mutant.host, mutant.saving())
        labs.run_on(self._lab, mutant.host, mutant.changing(_sending(mutant)))

    def mend(self, mutant: Mutant) -> None:
        """Puts a host's files back and brings the host to them.

        Raises:
            LemonstandError: it could not.
        """
        labs.run_on(self._lab, mutant.host, mutant.mending())

    def rescue(self) -> None:
        """Brings the whole lab back to what it was before the first mutant."""
        labs.restore(self._lab, SNAPSHOT, lambda _: None)


def _sending(mutant: Mutant) -> str:
    """Puts its program on the host."""
    if not mutant.program:
        return ""
    text = base64.encodebytes(mutant.text.encode()).decode()
    return f"PROGRAM={PROGRAM}\nbase64 -d >$PROGRAM <<'END'\n{text}END\n"
