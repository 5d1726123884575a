"""Alarms: what a running site has to tell an operator."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand.cli.base import Chosen, main, site_options

COULD_NOT_ASK = 2


@main.command()
@site_options
@click.option("--since", default="24h", show_default=True, metavar="SPAN", help="How far back: 30m, 24h, 7d.")
def alarms(chosen: Chosen, *, since: str) -> None:
    """What needs somebody: limits that were reached, services that failed or were restarted, disks, queues, clocks, certificates.

    1 if there is something, 2 if a host could not be asked.
    """
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house

    site = chosen.load()
    with admin.Hosts(chosen.path) as hosts:
        seen = admin.read_alarms(site, hosts, since)
    console = Console(highlight=False)
    if seen.found:
        table = Table(box=None, pad_edge=False)
        for heading in ("when (UTC)", "host", "alarm", "about"):
            table.add_column(heading)
        for each in seen.found:
            table.add_row(f"{each.at:%Y-%m-%d %H:%M:%S}", each.host, each.kind, escape(each.details))
        console.print(table)
    elif not seen.unasked:
        console.print(f"no alarm in the last {since}")
    for host, why in seen.unasked:
        click.echo(f"can't ask {host}: {why}", err=True)
    if seen.unasked:
        click.get_current_context().exit(COULD_NOT_ASK)
    if seen.found:
        click.get_current_context().exit(1)
