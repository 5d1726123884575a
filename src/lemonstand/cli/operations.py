"""What was done to a site, and who is at work on it: log, unlock."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand.cli.base import Chosen, main, site_options

if TYPE_CHECKING:
    from lemonstand.admin.operations import Run

COULD_NOT_ASK = 2
WIDE = 240
STYLES = {"ok": "green", "going on": "yellow", "refused": "dim"}
"""Of results; others are in red."""


@main.command()
@site_options
@click.option("--host", metavar="HOST", help="Only runs that changed this host, or failed there.")
@click.option("--last", default=30, show_default=True, type=click.IntRange(1), help="How many runs at most.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def log(chosen: Chosen, *, host: str | None, last: int, as_json: bool) -> None:
    """Who did what to the site, when, by which version, with which result; newest first. The site itself remembers it.

    2 if no host that remembers could be asked.
    """
    from lemonstand.admin.access import Hosts  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house
    from lemonstand.admin.operations import read_log  # noqa: PLC0415

    site = chosen.load()
    with Hosts(chosen.path) as hosts:
        found = read_log(site, hosts)
    runs = [run for run in found.runs if host is None or host in {*run.failed, *(name for name, count in run.hosts.items() if count)}]
    runs = runs[:last]
    if as_json:
        answer = {"runs": [asdict(run) for run in runs], "lock": found.lock, "broken": found.broken, "unasked": found.unasked}
        click.echo(json.dumps(answer, indent=1))
    else:
        _print(runs)
        for seat, lock in found.lock.items():
            click.echo(f"at work, says {seat}: {lock['who']} since {lock['since']}, {lock['command']}")
    for seat, places in found.broken.items():
        click.echo(f"{seat}: its history is not whole: before {', '.join(places)}", err=True)
    for seat, why in found.unasked.items():
        click.echo(f"can't ask {seat}: {why}", err=True)
    if not found.stamps:
        click.get_current_context().exit(COULD_NOT_ASK)


@main.command()
@site_options
def unlock(chosen: Chosen) -> None:
    """Takes the site's lock away from whoever has it, and says from whom. Whoever is at work goes on: stop that first."""
    from lemonstand.admin import operations  # noqa: PLC0415
    from lemonstand.admin.access import Hosts  # noqa: PLC0415

    site = chosen.load()
    with Hosts(chosen.path) as hosts:
        freed = operations.unlock(site, hosts)
    if not freed:
        click.echo("nobody has the lock")
    for seat, lock in freed.items():
        click.echo(f"{seat}: taken from {lock['who']}, who had it since {lock['since']} for `{lock['command']}`")


def _print(runs: list[Run]) -> None:
    if not runs:
        click.echo("nothing is remembered")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("when (UTC)", "who", "command", "lemonstand", "changed", "result"):
        table.add_column(heading, overflow="fold")
    for run in runs:
        code = f"{run.version} {run.commit[:8]}{'+' if run.dirty else ''}".strip()
        command = run.command if not run.limit or "--limit" in run.command else f"{run.command} --limit {run.limit}"
        changed = " ".join(f"{name}:{count}" for name, count in run.hosts.items() if count) or ("0" if run.hosts else "")
        where = "; ".join(f"{name}{f' ({at})' if at else ''}" for name, at in run.failed.items())
        result = "; ".join([f"{run.result}{f' at {where}' if where else ''}", *run.notes])
        cells = (f"{run.began[:10]} {run.began[11:19]}", run.who, command, code, changed)
        table.add_row(*(escape(_plain(each)) for each in cells), f"[{STYLES.get(run.result, 'bold red')}]{escape(_plain(result))}[/]")
    console = Console(highlight=False)
    # A file or a pipe has no width.
    (console if console.is_terminal else Console(highlight=False, width=WIDE)).print(table)


def _plain(text: str) -> str:
    """What a host said, without what a terminal would take for an order."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
