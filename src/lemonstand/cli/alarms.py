"""Alarms: limits that were reached on a running site."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from lemonstand.cli.base import Chosen, main, site_options


@main.command()
@site_options
@click.option("--since", default="24h", show_default=True, metavar="SPAN", help="How far back: 30m, 24h, 7d.")
def alarms(chosen: Chosen, *, since: str) -> None:
    """Limits that were reached: names that are guessed at, users who send too much. 1 if there is one."""
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house

    site = chosen.load()
    with admin.Hosts(chosen.path) as hosts:
        found = admin.read_alarms(site, hosts, since)
    console = Console(highlight=False)
    if not found:
        console.print(f"no alarm in the last {since}")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("when (UTC)", "host", "alarm", "about"):
        table.add_column(heading)
    for each in found:
        table.add_row(f"{each.at:%Y-%m-%d %H:%M:%S}", each.host, each.kind, each.details)
    console.print(table)
    click.get_current_context().exit(1)
