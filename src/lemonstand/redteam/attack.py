"""Runs attempts against a lab and judges what each got."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lemonstand.errors import InputError, LemonstandError
from lemonstand.outcomes import Unanswered
from lemonstand.redteam.attempts import AttemptCode, load_code
from lemonstand.redteam.catalogue import Attempt, Catalogue, Deviation, load_catalogue
from lemonstand.redteam.context import CouldNotTry, LabUnderAttack
from lemonstand.remote.connections import connected
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

PARALLEL = 6
Outcome = Literal["held", "known deviation", "BREACH", "could not try"]
OUTCOMES: tuple[Outcome, ...] = ("held", "known deviation", "BREACH", "could not try")


@dataclass(frozen=True)
class Result:
    """What came of an attempt.

    Args:
        got: what the attacker got, or what he was told instead; or why it could not be tried.
        control: what the same move with the right credentials brought.
        deviation: the name of the deviation that covers a success.
        seconds: it took.
    """

    attempt: Attempt
    outcome: Outcome
    got: str
    control: str
    deviation: str
    seconds: float

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        told = {key: value for key, value in asdict(self).items() if key != "attempt"}
        return {**self.attempt.model_dump(mode="json", exclude={"deviation", "control"}), "meant_control": self.attempt.control, **told}


@dataclass(frozen=True)
class Report:
    """What came of a run.

    Args:
        results: in the order of the catalogue.
        seconds: for all.
    """

    site: str
    started: dt.datetime
    results: tuple[Result, ...]
    seconds: float

    def count(self, outcome: Outcome) -> int:
        """How many attempts ended so."""
        return sum(result.outcome == outcome for result in self.results)

    @property
    def good(self) -> bool:
        """No success beyond the known deviations, and every attempt was made."""
        return bool(self.results) and not self.count("BREACH") and not self.count("could not try")

    def plain(self, catalogue: Catalogue) -> dict[str, Any]:
        """For JSON, with the deviations and what each position yields by its nature."""
        positions = {result.attempt.position for result in self.results}
        return {
            "site": self.site,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "attempts": len(self.results),
            "outcomes": {outcome: self.count(outcome) for outcome in OUTCOMES},
            "results": [result.plain() for result in self.results],
            "deviations": [each.model_dump(mode="json") for each in catalogue.deviations],
            "yields": [each.model_dump(mode="json") for each in catalogue.yields if each.position in positions],
        }


def choose(catalogue: Catalogue, names: Iterable[str], position: str | None) -> tuple[Attempt, ...]:
    """The attempts that are asked for.

    Raises:
        InputError: a name is none, or nothing is left.
    """
    known = catalogue.by_id()
    wanted = list(names)
    wrong = [name for name in wanted if name not in known]
    if wrong:
        raise InputError(f"there is no attempt '{wrong[0]}'", "ATTEMPT", "`lemonstand redteam --list` names them")
    chosen = tuple(each for each in catalogue.attempts if (not wanted or each.id in wanted) and position in {None, each.position})
    if not chosen:
        raise InputError(f"none of these attempts is made from '{position}'", "--from", "leave one of the two out")
    return chosen


def attack(
    site: Site, names: Sequence[str] = (), position: str | None = None, heard: Callable[[Result], None] = lambda result: None
) -> Report:
    """Makes attempts against a lab.

    Args:
        site: its model.
        names: ids of attempts; empty: all.
        position: only those from there.
        heard: called with each result, as soon as there is one.

    Raises:
        InputError: the site is no lab, or the selection names nothing.
        LemonstandError: its hosts can't be reached.
    """
    if not site.is_lab:
        raise InputError(f"'{site.settings.site_name}' is no lab: the red team attacks labs only", "--site", "name a lab's inventory")
    catalogue, code = load_catalogue(), load_code()
    chosen = choose(catalogue, names, position)
    started, began = dt.datetime.now(dt.UTC), time.monotonic()
    with connected(site.inventory) as connections, Prober(connections) as prober:
        lab = LabUnderAttack(site, prober, _machine())
        results: dict[str, Result] = {}

        def one(attempt: Attempt) -> None:
            results[attempt.id] = _made(attempt, code[attempt.id], lab, catalogue)
            heard(results[attempt.id])

        with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
            together = [attempt for attempt in chosen if not attempt.alone]
            list(pool.map(one, sorted(together, key=lambda attempt: not attempt.long)))
        for attempt in chosen:
            if attempt.alone:
                one(attempt)
    return Report(site.settings.site_name, started, tuple(results[attempt.id] for attempt in chosen), time.monotonic() - began)


def _made(attempt: Attempt, code: AttemptCode, lab: LabUnderAttack, catalogue: Catalogue) -> Result:
    began = time.monotonic()
    deviation = catalogue.deviation(attempt.deviation)

    def result(outcome: Outcome, got: str, control: str = "", name: str = "") -> Result:
        return Result(attempt, outcome, got, control, name, round(time.monotonic() - began, 1))

    try:
        seen = code(lab)
        if not seen.succeeded:
            return result("held", seen.got, seen.control)
        if deviation is None:
            return result("BREACH", seen.got, seen.control)
        over = ended(deviation, dt.date.today(), lambda fixed_group, package: _version(lab, fixed_group, package))
        if over:
            return result("BREACH", f"{seen.got}; {deviation.name} covers it no longer: {over}", seen.control, deviation.name)
        return result("known deviation", seen.got, seen.control, deviation.name)
    except (CouldNotTry, Unanswered, LemonstandError) as fault:
        return result("could not try", str(fault)[:300])
    except Exception as fault:  # an attempt that breaks was not made, whatever the reason
        return result("could not try", f"{type(fault).__name__}: {fault}"[:300])


def _version(lab: LabUnderAttack, group: str, package: str) -> str:
    host = lab.name(group)
    return str(lab.once(f"{package} on {host}", lambda: lab.ask(host, "package-version", name=package)))


def ended(deviation: Deviation, today: dt.date, version_of: Callable[[str, str], str]) -> str:
    """Why a deviation holds no longer; empty while it does.

    Args:
        version_of: from group and package to the Debian version that is installed.
    """
    if deviation.waiver.expired(today):
        return f"it expired on {deviation.waiver.expires}"
    if deviation.fixed is None:
        return ""
    version = version_of(deviation.fixed.group, deviation.fixed.package)
    if version and upstream(version) >= upstream(deviation.fixed.version):
        return f"{deviation.fixed.package} {version} is installed, which has no need of it"
    return ""


def upstream(version: str) -> tuple[int, ...]:
    """The numbers of an upstream version: `1:2.4.1+dfsg1-6+deb13u7` is (2, 4, 1)."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def _machine() -> tuple[str, ...]:
    """The addresses of the machine that carries the lab, those of its own loop left out."""
    done = subprocess.run(["ip", "-j", "addr"], capture_output=True, text=True, check=False)
    if done.returncode:
        return ()
    found = [info["local"] for link in json.loads(done.stdout) for info in link["addr_info"] if info.get("scope") == "global"]
    return tuple(dict.fromkeys(found))[:8]


def write(report: Report, path: Path) -> None:
    """Writes a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.plain(load_catalogue()), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
