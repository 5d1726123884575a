"""Makes a mutant, asks the checks that must notice it, mends the host, and asks them again."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemonstand.errors import LemonstandError
from lemonstand.evidence import Selection, verify
from lemonstand.mutants.catalogue import Mutant
from lemonstand.paths import lab_dir

SAVED = "/run/lemonstand-mutant.tar"
"""Where a host keeps the files a mutant changes, until they are put back. Its presence tells that a run died."""
SSH_SECONDS = 90


@dataclass(frozen=True)
class Verdict:
    """What came of one mutant.

    Args:
        noticed: the checks that failed and were meant to.
        others: further checks of the same run that failed.
        missed: named checks that did not fail.
        mended: whether the same checks pass again afterwards.
        seconds: for all of it.
    """

    mutant: Mutant
    noticed: tuple[str, ...]
    others: tuple[str, ...]
    missed: tuple[str, ...]
    mended: bool
    seconds: float

    @property
    def good(self) -> bool:
        """Every named check noticed, and the lab is as before."""
        return bool(self.noticed) and not self.missed and self.mended


def mutate(mutant: Mutant, lab: str, inventory: Path) -> Verdict:
    """Makes a mutant on a lab, and unmakes it whatever happens in between.

    Args:
        lab: the lab's name.
        inventory: the lab's inventory.

    Raises:
        LemonstandError: the host can't be reached or could not be mended.
    """
    started = time.monotonic()
    folder = lab_dir(lab) / "mutants" / mutant.name
    _mend_leftover(mutant.host, lab)
    names = " ".join(map(shlex.quote, mutant.files))
    save = f"tar -cPf {SAVED} {names}" if mutant.files else f"tar -cPf {SAVED} -T /dev/null"
    _on(lab, mutant.host, f"set -e\numask 077\n{save}\n")
    try:
        _on(lab, mutant.host, f"set -e\n{mutant.change}\n{mutant.apply}\n")
        results = _checked(mutant, inventory, folder / "broken")
    finally:
        _mend(mutant, lab)
    after = _checked(mutant, inventory, folder / "mended")
    failed = {_name(result): result for result in results if result["outcome"] == "fail"}
    named = {name for name in failed if any(wanted in name for wanted in mutant.noticed_by)}
    return Verdict(
        mutant,
        noticed=tuple(sorted(named)),
        others=tuple(sorted(set(failed) - named)),
        missed=tuple(wanted for wanted in mutant.noticed_by if not any(wanted in name for name in failed)),
        mended=bool(after) and all(result["outcome"] in {"pass", "not-measurable", "not-measured", "not-applicable"} for result in after),
        seconds=time.monotonic() - started,
    )


def _name(result: dict[str, Any]) -> str:
    return str(result["check"]).split("::", 1)[-1].split("[", 1)[0]


def _checked(mutant: Mutant, inventory: Path, folder: Path) -> list[dict[str, Any]]:
    verify(inventory, folder, Selection(keyword=" or ".join(mutant.noticed_by), disruptive=mutant.disruptive), quiet=True)
    results: list[dict[str, Any]] = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))["results"]
    return results


def _mend(mutant: Mutant, lab: str) -> None:
    script = f"set -e\n{mutant.mend}\ntar -xPf {SAVED}\n{mutant.apply}\nrm -f {SAVED}\n"
    _on(lab, mutant.host, script)


def _mend_leftover(host: str, lab: str) -> None:
    """Files of a mutant whose run died are put back; what runs is then for `lemonstand apply` to see."""
    if _on(lab, host, f"test -e {SAVED} && tar -xPf {SAVED} && rm -f {SAVED} && echo found || true\n").strip() == "found":
        raise LemonstandError(
            f"a mutant was left on {host} by a run that died; its files are put back", host, f"lemonstand apply --lab {lab}, then try again"
        )


def _on(lab: str, host: str, script: str) -> str:
    command = ["ssh", "-F", str(lab_dir(lab) / "ssh" / "config"), host, "sh -s"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=SSH_SECONDS, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LemonstandError(f"the commands of a mutant failed: {said}", host, f"lemonstand apply --lab {lab} mends the host")
    return done.stdout
