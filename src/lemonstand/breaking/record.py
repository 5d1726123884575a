"""What is known of all mutants: the table mutant by check, and which controls have been seen to be broken."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lemonstand
from lemonstand.breaking.catalogue import Mutant, load_mutants, load_without
from lemonstand.breaking.runner import Verdict, named
from lemonstand.breaking.shipped_checks import shipped
from lemonstand.breaking.table import SCHEMA_VERSION, check_form, lock_path, read_table
from lemonstand.evidence.identity import code
from lemonstand.evidence.write import write_text
from lemonstand.policy.controls import Control, load_controls


def record(path: Path, lab: str, verdicts: Iterable[Verdict], *, seed: int | None, started: dt.datetime) -> dict[str, Any]:
    """Adds verdicts to what is known and writes it in one step.

    What an earlier run found stays, if the mutant has not been changed since.

    Args:
        path: the file.
        lab: where they were made.
        verdicts: of this run.
        seed: of the sample this run drew, if it did.
        started: when it began.

    Returns:
        What was written.

    Raises:
        LemonstandError: it breaks its schema; nothing is written then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_path(path).open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # labs side by side write to one table
        catalogue = {mutant.name: mutant for mutant in load_mutants()}
        known = {name: entry for name, entry in read_table(path).items() if name in catalogue and entry["digest"] == catalogue[name].digest}
        now = dt.datetime.now(dt.UTC)
        known |= {verdict.mutant.name: _entry(verdict, lab, now) for verdict in verdicts}
        reasons = load_without()
        entries = [known[name] for name in catalogue if name in known]
        data = {
            "schema": SCHEMA_VERSION, "lemonstand": lemonstand.__version__, "started": _time(started), "finished": _time(now), "seed": seed,
            "complete": all(known.get(name, {}).get("verdict") == "noticed" for name in catalogue),
            "untried": [name for name in catalogue if name not in known],
            "mutants": entries,
            "controls": [_control(control, entries, catalogue, reasons) for control in load_controls().controls],
        }  # fmt: skip
        check_form(data)
        write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return data


def unproven(mutants: Sequence[Mutant]) -> dict[str, tuple[str, ...]]:
    """The controls with answering checks none of which has a mutant: {control: its checks}. None of them may lack a reason."""
    found = {}
    for control in load_controls().controls:
        answering = [check for check in shipped() if control.id in check.controls]
        if answering and not any(breaks(mutant, control.id) for mutant in mutants):
            found[control.id] = tuple(f"{check.topic}/{check.name}" for check in answering)
    return found


def breaks(mutant: Mutant, control: str) -> bool:
    """Whether a mutant breaks a control, and a check that answers the control has to notice."""
    if mutant.placebo or control not in mutant.controls:
        return False
    return any(control in check.controls for name in mutant.noticed_by for check in named(name))


def _control(
    control: Control, entries: Sequence[Mapping[str, Any]], catalogue: Mapping[str, Mutant], reasons: Mapping[str, str]
) -> dict[str, Any]:
    mutants = [name for name, mutant in catalogue.items() if breaks(mutant, control.id)]
    seen = [entry["name"] for entry in entries if entry["name"] in mutants and entry["verdict"] == "noticed"]
    return {"id": control.id, "mutants": mutants, "noticed": seen, "reason": "" if mutants else reasons.get(control.id) or _reason(control)}


def _reason(control: Control) -> str:
    if control.made_of:
        return f"made of {', '.join(control.made_of)}, whose mutants break it"
    return "no check answers it"


def _entry(verdict: Verdict, lab: str, now: dt.datetime) -> dict[str, Any]:
    mutant = verdict.mutant
    return {
        "name": mutant.name, "digest": mutant.digest, "controls": list(mutant.controls), "host": mutant.host,
        "disruptive": mutant.disruptive, "placebo": mutant.placebo, "named": list(mutant.noticed_by), "verdict": verdict.word,
        "noticed": list(verdict.noticed), "others": list(verdict.others), "missed": list(verdict.missed), "mended": verdict.mended,
        "fault": verdict.fault, "seconds": round(verdict.seconds, 1), "at": _time(now), "lab": lab, "code": code()["sha256"],
    }  # fmt: skip


def _time(value: dt.datetime) -> str:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")
