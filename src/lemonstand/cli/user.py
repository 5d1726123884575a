"""Users of a running site: passwords, locks, who there is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, main, site_options
from lemonstand.errors import InputError

if TYPE_CHECKING:
    from lemonstand.admin import Users


@main.group("user", cls=Group)
def user_group() -> None:
    """Passwords and locks: in the directory, over the management zone. An apply never resets one."""


def _password(name: str, generate: bool) -> tuple[str, bool]:
    """A password, and whether it was made here: asked for twice at a terminal, else one line of standard input."""
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house

    if generate:
        return admin.generate_password(), True
    if sys.stdin.isatty():
        return str(click.prompt(f"New password of {name}", hide_input=True, confirmation_prompt=True, err=True)), False
    given = _line_of_stdin()
    if not given:
        raise InputError("standard input holds no password", "stdin", "one line, or run it at a terminal, or use --generate")
    return given, False


def _line_of_stdin() -> str:
    """One line of standard input, as UTF-8 whatever the locale says."""
    try:
        return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError("standard input is no UTF-8", "stdin", "give the password in UTF-8") from None


@contextmanager
def _users(chosen: Chosen) -> Iterator[Users]:
    """The users of a site, with a way to its hosts."""
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house

    site = chosen.load()
    with admin.Hosts(chosen.path) as hosts:
        yield admin.Users(site, hosts, click.echo)


@user_group.command("list")
@site_options
def user_list(chosen: Chosen) -> None:
    """Who there is, and who can log in."""
    table = Table(box=None, pad_edge=False)
    for heading in ("user", "mailbox on", "state", "password set"):
        table.add_column(heading)
    with _users(chosen) as users:
        for row in users.list():
            day = f"{row.password_set[:4]}-{row.password_set[4:6]}-{row.password_set[6:]}" if row.password_set else ""
            table.add_row(row.name, row.store, row.state, day, style="" if row.state == "active" else "yellow")
    Console(highlight=False).print(table)


def _set(chosen: Chosen, name: str, generate: bool, action: str) -> None:
    with _users(chosen) as users:
        wanted = users.known(name)
        password, made = _password(wanted, generate)
        (users.add if action == "add" else users.passwd)(wanted, password)
    if made:
        click.echo(password)


@user_group.command("add")
@site_options
@click.argument("name")
@click.option("--generate", is_flag=True, help="Make the password, and show it once.")
def user_add(chosen: Chosen, *, name: str, generate: bool) -> None:
    """Gives a user of the inventory an account and a password (asked for, or one line of standard input)."""
    _set(chosen, name, generate, "add")


@user_group.command("passwd")
@site_options
@click.argument("name")
@click.option("--generate", is_flag=True, help="Make the password, and show it once.")
def user_passwd(chosen: Chosen, *, name: str, generate: bool) -> None:
    """Sets a password (asked for, or one line of standard input). Open sessions stay; `lock` ends them."""
    _set(chosen, name, generate, "passwd")


@user_group.command("lock")
@site_options
@click.argument("name")
def user_lock(chosen: Chosen, *, name: str) -> None:
    """Keeps a user out: no new session at once, live ones end within seconds. Waits for a ticket's life and ends what came in between."""
    from lemonstand.admin import TICKET_SECONDS  # noqa: PLC0415

    wanted = name.lower()
    with _users(chosen) as users:
        users.lock(wanted)
        click.echo(f"{wanted}: waiting {TICKET_SECONDS} s, until the last ticket of before has ended")
        try:
            time.sleep(TICKET_SECONDS)
        finally:
            # Also if somebody does not want to wait: what is open now ends.
            users.end_sessions(wanted)


@user_group.command("unlock")
@site_options
@click.argument("name")
def user_unlock(chosen: Chosen, *, name: str) -> None:
    """Lets a locked user log in again, with the password of before."""
    with _users(chosen) as users:
        users.unlock(name.lower())


@user_group.command("delete")
@site_options
@click.argument("name")
def user_delete(chosen: Chosen, *, name: str) -> None:
    """Removes the account of a user whom the inventory no longer names; mail stays."""
    with _users(chosen) as users:
        users.delete(name.lower())


@user_group.command("hash")
def user_hash() -> None:
    """Prints a hash for `password_hash` of lemonstand_users, of a password (asked for, or one line of standard input). Asks no host."""
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house

    password, _ = _password("the user", generate=False)
    click.echo(admin.hash_password(password))
