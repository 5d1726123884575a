"""Says on a terminal what evidence holds: every failure with what to do, what stays open, a table of sections, and one line for all."""

from __future__ import annotations

import datetime as dt
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand.evidence.model import AWAITED, AWAITS_WORDS, NO_CHECK, headline, proposed
from lemonstand.evidence.mutants import came_of
from lemonstand.policy.controls import Controls

COLUMNS = ("live", "scaled", "configuration", "waived", "not-applicable", "not-measurable", "not-measured", "invalid", "failed")
HEADINGS = ("live", "scaled", "config", "waived", "n/a", "not here", "open", "could not", "failed")
STYLES = {"failed": "bold red", "invalid": "magenta"}


def print_summary(console: Console, evidence: Mapping[str, Any], catalogue: Controls, path: Path) -> None:
    """Prints the summary of a verification.

    Args:
        console: where to.
        evidence: as read from `evidence.json`.
        catalogue: statements and what enforces them.
        path: of `evidence.json`.
    """
    if not evidence["complete"]:
        console.print("\n[bold red]interrupted:[/] this is half a verification; what did not run is not answered", soft_wrap=True)
    run, mine = evidence["runs"][0], own_results(evidence)
    partial = any(run["selection"].values())
    for result in mine if partial else evidence["results"]:
        if result["outcome"] in {"fail", "invalid"}:
            _print_problem(console, result, catalogue, _waiver_of(result, evidence))
    _print_ended(console, evidence)
    _print_open(console, evidence, partial)
    console.print()
    console.print(_table(evidence, partial))
    count = {word: sum(result["outcome"] == word for result in mine) for word in ("pass", "fail", "invalid")}
    console.print(
        f"{len(mine)} checks in {seconds(run['started'], run['ended']):.0f} s: {count['pass']} passed, {count['fail']} failed, "
        f"{count['invalid']} could not measure, {len(mine) - sum(count.values())} had nothing to measure here",
        soft_wrap=True,
    )
    older = [each for each in evidence["runs"][1:] if each["results"]]
    if older:
        words = ", ".join(f"{each['results']} of {each['kind']} {each['started'][:16].replace('T', ' ')}" for each in older)
        console.print(f"together with results that still stand: {words}", soft_wrap=True)
    for each in evidence["dropped"]:
        when = each["started"][:16].replace("T", " ")
        console.print(f"dropped: {each['results']} results of {each['run']} {when}: {escape(each['reason'])}", soft_wrap=True)
    print_waivers(console, evidence)
    console.print(f"evidence: {escape(str(path))}", soft_wrap=True)
    console.print(f"[bold]{one_line(evidence)}[/]", soft_wrap=True)


def own_results(evidence: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The results of the newest run, without those of earlier ones that still stand."""
    return [result for result in evidence["results"] if result["time"] >= evidence["runs"][0]["started"]]


def print_control(console: Console, control: Mapping[str, Any], evidence: Mapping[str, Any]) -> None:
    """Prints all there is about one control: what it asks, its status, each check with what was asked and seen."""
    console.print(f"[bold]{control['id']}[/]  {control['level']}  {escape(control['statement'])}", soft_wrap=True)
    rows = [
        ("sources", "; ".join(control["sources"])),
        ("differs", "; ".join(control["differs"])),
        ("binds", ", ".join(control["binds"])),
        ("made of", ", ".join(control["made_of"])),
        ("status", f"{control['status']} {control['class'] or ''}".rstrip()),
        ("reason", control["reason"]),
        ("waiver", control["waiver"] or ""),
        ("mutants", ", ".join(f"{each['name']} ({came_of(each)})" for each in evidence["mutants"] if each["name"] in control["mutants"])),
    ]
    for name, text in rows:
        if text:
            console.print(f"  {name:<9} {escape(text)}", soft_wrap=True)
    mine = set(control["checks"])
    for result in evidence["results"]:
        if result["check"] in mine:
            support = "" if control["id"] in result["controls"] else ", supports it"
            console.print(
                f"\n  {result['outcome']}  {escape(result['check'])}  ({result['class']}{support}; {result['run']} {result['time'][:19]}, "
                f"{result['seconds']:.1f} s)",
                soft_wrap=True,
            )
            if result["message"]:
                console.print(f"    {escape(short(result['message']))}", soft_wrap=True)
            for each in result["measured"]:
                value = f"{each['value']} {each['unit']}".rstrip()
                console.print(f"    saw    {escape(each['name'])}: {escape(value)}", soft_wrap=True)
            for each in result["asked"]:
                answer = f" -> {short(each['answer'])}" if each["answer"] else ""
                console.print(f"    asked  {escape(each['host'])}: {escape(each['what'])}{escape(answer)}", soft_wrap=True)
    console.print()


def one_line(evidence: Mapping[str, Any]) -> str:
    """All controls in one line, then what those await that are not measured, and which deviations nobody at the site has accepted."""
    waiting = _waiting(evidence)
    gated = {name for each in ("disruptive", "soak") for name in waiting.get(each, ())}
    elsewhere = {name for each in ("vantage", "selection") for name in waiting.get(each, ())} - gated
    unasked = evidence["counts"]["not-measured"] - len(gated | elsewhere)
    parts = [
        (len(gated), "awaiting `verify --disruptive` or `make soak`"),
        (len(elsewhere), "awaiting a vantage host or another selection"),
        (unasked, "without a check"),
    ]
    told = ", ".join(f"{number} {words}" for number, words in parts if number)
    open_words = len(proposed(evidence))
    notes = [
        *([f"of those not measured: {told}"] if told else []),
        *([f"{open_words} deviations are proposed, not accepted"] if open_words else []),
    ]
    return "; ".join([headline(evidence["counts"]), *notes])


def _waiting(evidence: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for control in evidence["controls"]:
        for each in control["awaits"] if control["status"] == "not-measured" else ():
            found.setdefault(each, []).append(control["id"])
    return found


def _waiver_of(result: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    """The waiver that covers a failure, if all its controls are waived."""
    known = {control["id"]: control for control in evidence["controls"]}
    mine = [known[name] for name in (*result["controls"], *result["supports"])]
    return str(mine[0]["waiver"]) if mine and all(control["status"] == "waived" for control in mine) else ""


def _print_problem(console: Console, result: Mapping[str, Any], catalogue: Controls, waiver: str) -> None:
    style = "dim" if waiver else STYLES["failed" if result["outcome"] == "fail" else "invalid"]
    word = f"WAIVED ({waiver})" if waiver else "FAILED" if result["outcome"] == "fail" else "COULD NOT MEASURE"
    names = [*result["controls"], *result["supports"]]
    known = catalogue.by_id()
    where = result["host"] or "several hosts"
    console.print(f"\n[{style}]{word}[/] {escape(result['check'])} on {escape(where)}", soft_wrap=True)
    for name in names:
        console.print(f"  {name:<12} {known[name].level:<9} {escape(known[name].statement)}", soft_wrap=True)
    if "\n" in result["seen"]:
        for name in ("seen", "expected", "remedy"):
            for number, line in enumerate(result[name].splitlines()):
                console.print(f"  {f'{name}:' if not number else '':<9} {escape(line)}", soft_wrap=True)
        return
    if result["seen"]:
        console.print(f"  seen:     {escape(short(result['seen']))}", soft_wrap=True)
        console.print(f"  expected: {escape(short(result['expected']))}", soft_wrap=True)
        message = result["message"].partition(": saw ")[0]
        console.print(f"  why:      {escape(short(message))}", soft_wrap=True)
    else:
        console.print(f"  seen:     {escape(short(result['message']))}", soft_wrap=True)
    console.print(f"  remedy:   {escape(result['remedy'] or _remedy(result, names, catalogue))}", soft_wrap=True)


def _remedy(result: Mapping[str, Any], names: list[str], catalogue: Controls) -> str:
    if result["outcome"] == "invalid":
        return "see that the host is up and the check can reach it, then verify again"
    known = catalogue.by_id()
    sources = list(dict.fromkeys(source for name in names for source in known[name].enforced_by))
    return f"lemonstand apply sets it; it comes from {', '.join(sources[:3])}" if sources else "see the control in controls.yml"


def _print_ended(console: Console, evidence: Mapping[str, Any]) -> None:
    for waiver in evidence["waivers"]:
        if waiver["ended"]:
            console.print(
                f"\n[bold red]WAIVER ENDED[/] {waiver['id']} ({escape(waiver['title'])}): {escape(waiver['ended'])}\n"
                f"  controls: {', '.join(waiver['controls'])}\n  owner:    {escape(waiver['owner'])}\n"
                "  remedy:   meet the requirement and drop the waiver, or have its owner grant it anew",
                soft_wrap=True,
            )


def _print_open(console: Console, evidence: Mapping[str, Any], partial: bool) -> None:
    by_status: dict[str, dict[str, list[str]]] = {}
    for control in evidence["controls"]:
        if control["status"] in {"not-applicable", "not-measurable", "not-measured"} and not control["awaits"]:
            by_status.setdefault(control["status"], {}).setdefault(control["reason"], []).append(control["id"])
    for status, word in (("not-measurable", "not measurable here"), ("not-applicable", "not applicable"), ("not-measured", "not measured")):
        for reason, names in by_status.get(status, {}).items():
            if not (partial and (status == "not-applicable" or reason == NO_CHECK)):
                console.print(f"\n{word}: {', '.join(names)}\n  {escape(short(reason))}", soft_wrap=True)
    if partial:
        return
    waiting = _waiting(evidence)
    for each in AWAITED:
        if waiting.get(each):
            console.print(f"\nawaiting {AWAITS_WORDS[each]}: {', '.join(waiting[each])}", soft_wrap=True)


def print_waivers(console: Console, evidence: Mapping[str, Any]) -> None:
    """Prints the waivers that hold, by name."""
    statuses = {control["id"]: control["status"] for control in evidence["controls"]}
    mine = [waiver for waiver in evidence["waivers"] if not waiver["ended"]]
    if mine:
        console.print("waivers:")
    for waiver in mine:
        note = " [yellow]superfluous: its controls are proven without it[/]" if waiver["superfluous"] else ""
        part = f"; {escape(waiver['part'])}" if waiver["part"] else ""
        covers = ", ".join(f"{name} {statuses.get(name, '')}" if waiver["part"] else name for name in waiver["controls"])
        word = waiver.get("accepted", ...)
        whose = ", proposed" if word is None else f", accepted by {escape(word['by'])}" if isinstance(word, dict) else ""
        console.print(
            f"  {waiver['id']:<11} {escape(waiver['title'])} ({covers}{part}), until {waiver['expires']}{whose}{note}", soft_wrap=True
        )


def _table(evidence: Mapping[str, Any], partial: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("section")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    rows: dict[str, dict[str, int]] = {}
    silent: dict[str, bool] = {}
    for control in evidence["controls"]:
        row = rows.setdefault(control["section"], dict.fromkeys(COLUMNS, 0))
        row[control["class"] if control["status"] == "proven" else control["status"]] += 1
        silent[control["section"]] = silent.get(control["section"], True) and not control["checks"]
    total = dict.fromkeys(COLUMNS, 0)
    for section, row in rows.items():
        if partial and silent[section]:
            continue
        table.add_row(section, *(_cell(name, row[name]) for name in COLUMNS))
        total = {name: total[name] + row[name] for name in COLUMNS}
    table.add_row("all", *(_cell(name, total[name]) for name in COLUMNS), style="bold")
    return table


def _cell(name: str, count: int) -> str:
    if count == 0:
        return ""
    return f"[{STYLES[name]}]{count}[/]" if name in STYLES else str(count)


def short(text: str) -> str:
    """A text in one line of a bearable length."""
    return textwrap.shorten(" ".join(text.split()), 600, placeholder=" …")


def seconds(started: str, ended: str) -> float:
    """From one time of evidence to another."""
    return (dt.datetime.fromisoformat(ended) - dt.datetime.fromisoformat(started)).total_seconds()
