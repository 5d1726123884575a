"""Stores of a running site: how they and their standbys stand, and which of the two serves; moves of users between stores."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, again, main, site_options
from lemonstand.cli.user import user_group

if TYPE_CHECKING:
    from lemonstand.admin.placement import Placement


@contextmanager
def _placement(chosen: Chosen, about: str = "") -> Iterator[Placement]:
    """Who is served where, with a way to the hosts that know.

    Args:
        chosen: the site.
        about: what is going to be changed; empty: nothing. Who changes has the site for himself (record 0038).
    """
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house
    from lemonstand.admin.operations import operation  # noqa: PLC0415
    from lemonstand.admin.placement import Placement  # noqa: PLC0415

    site = chosen.load()
    with admin.Hosts(chosen.path) as hosts, operation(site, hosts, shlex.join(again(whole=True)), about) if about else nullcontext():
        yield Placement(site, hosts, click.echo)


@main.group("store", cls=Group)
def store_group() -> None:
    """Stores and standbys: which host serves whom, how old the copies are. An apply never changes that."""


@store_group.command("list")
@site_options
def store_list(chosen: Chosen) -> None:
    """Who serves, who keeps a copy, and how old it is."""
    from lemonstand.admin.stores import Stores  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for heading in ("store", "host", "does", "users", "in step", "notes"):
        table.add_column(heading)
    with _placement(chosen) as placement:
        for row in Stores(placement).members():
            age = "" if row.age is None else f"{row.age:.0f} s ago"
            bad = row.does == "no answer" or row.notes or (row.age or 0) > 60
            table.add_row(row.store, row.host, row.does, str(row.users), age, row.notes, style="yellow" if bad else "")
    Console(highlight=False).print(table)


@store_group.command("promote")
@site_options
@click.argument("host")
@click.option("--now", is_flag=True, help="Do without the last changes of the one that serves, though it answers.")
def store_promote(chosen: Chosen, *, host: str, now: bool) -> None:
    """Lets HOST, the standby of a pair, serve in the other's place. The other one keeps a copy from then on, as soon as it is back."""
    from lemonstand.admin.stores import Stores  # noqa: PLC0415

    with _placement(chosen, host) as placement:
        done = Stores(placement).promote(host, now=now)
    click.echo(f"{host} serves {done['users']} users of {done['store']} after {done['seconds']:.1f} s")
    if done["untold"]:
        click.echo(f"not told: {', '.join(done['untold'])}; when they are back, give the command again")


@user_group.command("move")
@site_options
@click.argument("name")
@click.option("--to", "to", required=True, metavar="STORE", help="The store's name in the inventory.")
def user_move(chosen: Chosen, *, name: str, to: str) -> None:
    """Moves a user's mail to another store. Mail may come and the user may be logged in: his session ends once."""
    from lemonstand.admin.moves import move  # noqa: PLC0415

    with _placement(chosen, name) as placement:
        done = move(placement, name, to)
    late = f", {done['late']} of them came in between" if done["late"] else ""
    click.echo(
        f"{name.lower()} is on {to}: {done['messages']} messages in {done['mailboxes']} mailboxes{late}; "
        f"{done['without']:.1f} s without service, {done['seconds']:.1f} s in all"
    )
    if done["untold"]:
        click.echo(f"not told: {', '.join(done['untold'])}; when they are back, give the command again")
    click.echo(f"in the inventory `store: {to}` says so too; it may stay as it is")
