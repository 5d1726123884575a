"""Says on a terminal what evidence holds: a table of sections, every failure with what to do, what stays open."""

from __future__ import annotations

import datetime as dt
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand.policy.controls import Controls

COLUMNS = ("live", "scaled", "configuration", "fail", "invalid", "not-measurable", "unanswered")
HEADINGS = ("live", "scaled", "configuration", "failed", "invalid", "not measurable", "not answered")
STYLES = {"fail": "bold red", "invalid": "magenta"}


def print_summary(console: Console, evidence: Mapping[str, Any], catalogue: Controls, path: Path) -> None:
    """Prints the summary of a verification.

    Args:
        console: where to.
        evidence: as read from `evidence.json`.
        catalogue: statements and what enforces them.
        path: of `evidence.json`.
    """
    for result in evidence["results"]:
        if result["outcome"] in {"fail", "invalid"}:
            _print_problem(console, result, catalogue)
    partial = bool(evidence["selection"]["controls"] or evidence["selection"]["keyword"])
    _print_open(console, evidence, partial)
    console.print()
    console.print(_table(evidence, partial))
    counts = {
        word: sum(result["outcome"] == word for result in evidence["results"]) for word in ("pass", "fail", "invalid", "not-measurable")
    }
    passed = sum(control["status"] == "pass" for control in evidence["controls"])
    took = _seconds(evidence["started"], evidence["ended"])
    console.print(
        f"{len(evidence['results'])} checks in {took:.0f} s: {counts['pass']} passed, {counts['fail']} failed, "
        f"{counts['invalid']} invalid, {counts['not-measurable']} not measurable here; "
        f"{passed} of {len(evidence['controls'])} controls hold",
        soft_wrap=True,
    )
    if not evidence["complete"]:
        console.print("[bold red]interrupted:[/] what did not run is not answered")
    console.print(f"evidence: {escape(str(path))}", soft_wrap=True)


def _print_problem(console: Console, result: Mapping[str, Any], catalogue: Controls) -> None:
    style = STYLES[result["outcome"]]
    names = [*result["controls"], *result["supports"]]
    known = catalogue.by_id()
    where = result["host"] or "several hosts"
    console.print(
        f"\n[{style}]{'FAILED' if result['outcome'] == 'fail' else 'INVALID'}[/] {escape(result['check'])} on {escape(where)}",
        soft_wrap=True,
    )
    for name in names:
        console.print(f"  {name:<12} {known[name].level:<9} {escape(known[name].statement)}", soft_wrap=True)
    if result["seen"]:
        console.print(f"  seen:     {escape(_short(result['seen']))}", soft_wrap=True)
        console.print(f"  expected: {escape(_short(result['expected']))}", soft_wrap=True)
        message = result["message"].partition(": saw ")[0]
        console.print(f"  why:      {escape(_short(message))}", soft_wrap=True)
    else:
        console.print(f"  seen:     {escape(_short(result['message']))}", soft_wrap=True)
    console.print(f"  remedy:   {escape(result['remedy'] or _remedy(result, names, catalogue))}", soft_wrap=True)


def _remedy(result: Mapping[str, Any], names: list[str], catalogue: Controls) -> str:
    if result["outcome"] == "invalid":
        return "see that the host is up and the check can reach it, then verify again"
    known = catalogue.by_id()
    sources = list(dict.fromkeys(source for name in names for source in known[name].enforced_by))
    return f"lemonstand apply sets it; it comes from {', '.join(sources[:3])}" if sources else "see the control in controls.yml"


def _print_open(console: Console, evidence: Mapping[str, Any], partial: bool) -> None:
    reasons = {result["message"] for result in evidence["results"] if result["outcome"] == "not-measurable"}
    if reasons:
        console.print("\nnot measurable here:")
        for reason in sorted(reasons):
            console.print(f"  {escape(_short(reason))}", soft_wrap=True)
    awaiting = evidence["awaiting"]
    if awaiting and not partial:
        console.print(f"\nawaiting `lemonstand verify --disruptive`: {', '.join(awaiting)}", soft_wrap=True)
    soak = [name for name in evidence.get("awaiting_soak", []) if name not in awaiting]
    if soak and not partial:
        console.print(f"awaiting `lemonstand verify --soak`: {', '.join(soak)}", soft_wrap=True)
    later = {*awaiting, *soak}
    unanswered = [control["id"] for control in evidence["controls"] if control["status"] == "unanswered" and control["id"] not in later]
    if unanswered and not partial:
        console.print(f"\nnot answered: {', '.join(unanswered)}", soft_wrap=True)


def _table(evidence: Mapping[str, Any], partial: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("section")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    rows: dict[str, dict[str, int]] = {}
    for control in evidence["controls"]:
        row = rows.setdefault(control["section"], dict.fromkeys(COLUMNS, 0))
        row[control["class"] if control["status"] == "pass" else control["status"]] += 1
    total = dict.fromkeys(COLUMNS, 0)
    for section, row in rows.items():
        if partial and row["unanswered"] == sum(row.values()):
            continue
        table.add_row(section, *(_cell(name, row[name]) for name in COLUMNS))
        total = {name: total[name] + row[name] for name in COLUMNS}
    table.add_row("all", *(_cell(name, total[name]) for name in COLUMNS), style="bold")
    return table


def _cell(name: str, count: int) -> str:
    if count == 0:
        return ""
    return f"[{STYLES[name]}]{count}[/]" if name in STYLES else str(count)


def _short(text: str) -> str:
    return textwrap.shorten(" ".join(text.split()), 600, placeholder=" …")


def _seconds(started: str, ended: str) -> float:
    return (dt.datetime.fromisoformat(ended) - dt.datetime.fromisoformat(started)).total_seconds()
