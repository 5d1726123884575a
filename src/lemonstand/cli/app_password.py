"""App passwords of a user: user app-password add, list, revoke."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, site_options
from lemonstand.cli.user import reached, user_group

if TYPE_CHECKING:
    from datetime import datetime

    from lemonstand.admin import AppPasswords


@user_group.group("app-password", cls=Group)
def app_password_group() -> None:
    """Passwords of single devices: good for IMAP and submission, ended without the user's others."""


@contextmanager
def _app_passwords(chosen: Chosen, about: str = "") -> Iterator[AppPasswords]:
    """App passwords of a site; arguments as of `reached`."""
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house

    with reached(chosen, about) as (site, hosts):
        yield admin.AppPasswords(site, hosts, click.echo)


@app_password_group.command("add")
@site_options
@click.argument("name")
@click.argument("device")
def app_password_add(chosen: Chosen, *, name: str, device: str) -> None:
    """Makes a password for one DEVICE of a user, such as "telephone", and shows it once."""
    with _app_passwords(chosen, name) as ours:
        text = ours.add(name, device)
    click.echo(text)


@app_password_group.command("list")
@site_options
@click.argument("name", required=False)
def app_password_list(chosen: Chosen, *, name: str | None) -> None:
    """Shows which app passwords a user has, or everybody: device, when made, when used last (to the hour, UTC)."""
    with _app_passwords(chosen) as ours:
        found = ours.of(name or "")
    table = Table(box=None, pad_edge=False)
    for heading in ("user", "device", "id", "made", "last used"):
        table.add_column(heading)
    for each in found:
        table.add_row(each.user, each.device, each.id, _written(each.made), _written(each.used))
    if found:
        Console(highlight=False).print(table)
    else:
        click.echo("no app password")


@app_password_group.command("revoke")
@site_options
@click.argument("name")
@click.argument("device")
def app_password_revoke(chosen: Chosen, *, name: str, device: str) -> None:
    """Ends the app password of one DEVICE (or one id), and its sessions. The user's others go on."""
    with _app_passwords(chosen, name) as ours:
        ours.revoke(name, device)


def _written(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "never"
