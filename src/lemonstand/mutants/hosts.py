"""Breaks a lab's hosts and mends them."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import shlex

from lemonstand import lab as labs
from lemonstand.errors import LemonstandError
from lemonstand.lab.topology import MACHINES
from lemonstand.mutants.catalogue import Mutant
from lemonstand.paths import lab_dir

SAVED = "/run/lemonstand-mutant.tar"
"""Where a host keeps the files a mutant changes, until they are put back. Its presence tells that a run died."""
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
        left = [machine.name for machine in MACHINES if self.run_on(machine.name, f"test ! -e {SAVED} || echo yes").strip()]
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
        self.run_on(mutant.host, f"set -e\numask 077\n{_saving(mutant)}\n")
        self.run_on(mutant.host, f"set -e\n{_sending(mutant)}{mutant.change}\n{mutant.apply}\n")

    def mend(self, mutant: Mutant) -> None:
        """Puts a host's files back and brings the host to them.

        Raises:
            LemonstandError: it could not.
        """
        # A file that was not there is not in the archive: it goes.
        gone = f"rm -f {shlex.join(mutant.files)}" if mutant.files else ""
        self.run_on(mutant.host, f"set -e\n{mutant.mend}\n{gone}\ntar -xPf {SAVED}\n{mutant.apply}\nrm -f {SAVED}\n")

    def rescue(self) -> None:
        """Brings the whole lab back to what it was before the first mutant."""
        labs.restore(self._lab, SNAPSHOT, lambda _: None)

    def run_on(self, host: str, script: str) -> str:
        """Runs a shell script on a host and returns what it printed.

        Raises:
            LemonstandError: it failed.
        """
        return labs.run_on(self._lab, host, script)


def _sending(mutant: Mutant) -> str:
    """Puts its program on the host."""
    if not mutant.program:
        return ""
    text = base64.encodebytes(mutant.text.encode()).decode()
    return f"PROGRAM={PROGRAM}\nbase64 -d >$PROGRAM <<'END'\n{text}END\n"


def _saving(mutant: Mutant) -> str:
    """Packs the files that are there; their directories stay as they are."""
    pack = f"{labs.PACK} {SAVED} -T"
    return f"ls -d {shlex.join(mutant.files)} 2>/dev/null | {pack} -" if mutant.files else f"{pack} /dev/null"
