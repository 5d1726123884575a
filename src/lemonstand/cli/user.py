"""People of a running site: who there is, by which addresses, passwords, locks; mail of those who are gone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, again, main, site_options
from lemonstand.errors import InputError

if TYPE_CHECKING:
    from lemonstand.admin import Hosts, People
    from lemonstand.admin.people import Kept
    from lemonstand.site import Site


@main.group("user", cls=Group)
def user_group() -> None:
    """One user: in the directory, and told to stores and relays. No apply is needed, and none undoes it."""


@main.group("users", cls=Group)
def users_group() -> None:
    """All users at once, from a file; and what relays and stores know of them."""


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


def _octets(text: str, where: str, remedy: str) -> int:
    """How much a user may keep, as it was typed there."""
    from lemonstand.admin import roster  # noqa: PLC0415

    try:
        return roster.octets(text)
    except ValueError as fault:
        raise InputError(str(fault), where, remedy) from None


def _line_of_stdin() -> str:
    """One line of standard input, as UTF-8 whatever the locale says."""
    try:
        return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError("standard input is no UTF-8", "stdin", "give the password in UTF-8") from None


@contextmanager
def reached(chosen: Chosen, about: str = "") -> Iterator[tuple[Site, Hosts]]:
    """A site, and a way to its hosts.

    Args:
        chosen: the site.
        about: what is going to be changed; empty: nothing. Who changes has the site for himself (record 0038).
    """
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house
    from lemonstand.admin.operations import operation  # noqa: PLC0415
    from lemonstand.admin.remembered import site_of  # noqa: PLC0415

    known = site_of(chosen.path, chosen.env)
    site, command = known.site, shlex.join(again(whole=True))
    with admin.Hosts(chosen.path, known.connections) as hosts, operation(site, hosts, command, about) if about else nullcontext():
        yield site, hosts


@contextmanager
def people_of(chosen: Chosen, about: str = "") -> Iterator[People]:
    """The people of a site; arguments as of `reached`."""
    from lemonstand import admin  # noqa: PLC0415

    with reached(chosen, about) as (site, hosts):
        yield admin.People(site, hosts, click.echo)


@user_group.command("list")
@site_options
def user_list(chosen: Chosen) -> None:
    """Who there is, by which further addresses, and who can log in."""
    table = Table(box=None, pad_edge=False)
    for heading in ("user", "mailbox on", "state", "password set", "aliases"):
        table.add_column(heading)
    with people_of(chosen) as people:
        for row in people.everybody().values():
            # Not by this site's directory, which may have an old password of his or none.
            state = "elsewhere" if people.judged_behind(row.name) and not row.locked else row.state
            day = f"{row.password_set[:4]}-{row.password_set[4:6]}-{row.password_set[6:]}" if row.password_set else ""
            style = "" if state == "active" or state != row.state else "yellow"
            table.add_row(row.name, people.store_of(row), state, day, ", ".join(row.aliases), style=style)
    Console(highlight=False).print(table)


@user_group.command("add")
@site_options
@click.argument("name")
@click.option("--store", metavar="STORE", help="The store's name in the inventory. Without it: where the fewest users are.")
@click.option("--alias", "aliases", multiple=True, metavar="ADDRESS", help="A further address; may be given several times.")
@click.option("--quota", metavar="OCTETS", help="How much he may keep, such as 5G. Without it: lemonstand_quota.")
@click.option("--password", "asked", is_flag=True, help="Ask for a password, or take one line of standard input.")
@click.option("--generate", is_flag=True, help="Make the password, and show it once.")
def user_add(
    chosen: Chosen, *, name: str, store: str | None, aliases: tuple[str, ...], quota: str | None, asked: bool, generate: bool
) -> None:
    """Adds a user: mail for him is taken from now on. Without a password he can't log in."""
    limit = _octets(quota, "--quota", "correct it") if quota is not None else 0
    password, made = _password(name, generate) if asked or generate else (None, False)
    with people_of(chosen, name) as people:
        people.add(name, store=store, aliases=aliases, quota=limit, password=password)
    if made:
        click.echo(password)


@user_group.command("passwd")
@site_options
@click.argument("name")
@click.option("--generate", is_flag=True, help="Make the password, and show it once.")
def user_passwd(chosen: Chosen, *, name: str, generate: bool) -> None:
    """Sets a password (asked for, or one line of standard input). Open sessions stay; `lock` ends them."""
    password, made = _password(name, generate)
    with people_of(chosen) as people:
        people.passwd(name, password)
    if made:
        click.echo(password)


@user_group.command("rename")
@site_options
@click.argument("name")
@click.argument("to")
def user_rename(chosen: Chosen, *, name: str, to: str) -> None:
    """Gives a user the name TO. Mail and password stay; the old name is an alias; his sessions end once."""
    with people_of(chosen, name) as people:
        people.rename(name, to)


@user_group.command("alias")
@site_options
@click.argument("name")
@click.option("--add", "added", multiple=True, metavar="ADDRESS", help="An address he gets; may be given several times.")
@click.option("--remove", "removed", multiple=True, metavar="ADDRESS", help="An address he has no more; likewise.")
def user_alias(chosen: Chosen, *, name: str, added: tuple[str, ...], removed: tuple[str, ...]) -> None:
    """Gives a user further addresses, or takes them away. Without options: shows them."""
    with people_of(chosen, name if added or removed else "") as people:
        found = people.alias(name, added, removed)
    if not added and not removed:
        click.echo("\n".join(found) or "no alias")


@user_group.command("quota")
@site_options
@click.argument("name")
@click.argument("octets")
def user_quota(chosen: Chosen, *, name: str, octets: str) -> None:
    """Says how much a user may keep: OCTETS, such as 5G, or `default` for what the site says of everybody (lemonstand_quota)."""
    size = 0 if octets == "default" else _octets(octets, "OCTETS", "correct it, or write default")
    with people_of(chosen, name) as people:
        people.quota(name, size)


@user_group.command("lock")
@site_options
@click.argument("name")
def user_lock(chosen: Chosen, *, name: str) -> None:
    """Keeps a user out: no new session, and his sessions end. Mail for him is taken."""
    with people_of(chosen, name) as people:
        people.lock(name, locked=True)


@user_group.command("unlock")
@site_options
@click.argument("name")
def user_unlock(chosen: Chosen, *, name: str) -> None:
    """Lets a locked user log in again, with the password of before."""
    with people_of(chosen, name) as people:
        people.lock(name, locked=False)


@user_group.command("delete")
@site_options
@click.argument("name")
def user_delete(chosen: Chosen, *, name: str) -> None:
    """Ends an account: no login, no delivery. Mail is kept aside for lemonstand_deleted_mail_days; then `purge` removes it."""
    with people_of(chosen, name) as people:
        people.delete(name)


@user_group.command("purge")
@site_options
@click.option("--now", "name", metavar="NAME", help="Remove what is kept of this one, however new it is.")
@click.option("--plan", is_flag=True, help="Only show what is kept and what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def user_purge(chosen: Chosen, *, name: str | None, plan: bool, yes: bool) -> None:
    """Removes the mail of deleted users that was kept long enough, after showing what it is."""
    with people_of(chosen, "" if plan else name or "mail of deleted users") as people:
        kept = people.kept_mail()
        going = people.over(kept) if name is None else [each for each in kept if each.name == people.known_name(name)]
        if name is not None and not going:
            raise InputError(f"no mail of '{name}' is kept aside", "--now", "`lemonstand user purge --plan` shows whose is")
        _show_kept(kept, going)
        if plan or not going:
            click.echo(f"{len(kept)} kept, {len(going)} to be removed")
            return
        if not yes and not (sys.stdin.isatty() and click.confirm(f"Remove {len(going)} of these for good?", err=True)):
            raise InputError("nothing was removed: nobody has confirmed it", "lemonstand user purge", "answer y, or give --yes")
        people.purge(going)


def _show_kept(kept: list[Kept], going: list[Kept]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("user", "on", "deleted", "messages", "size", ""):
        table.add_column(heading)
    for each in kept:
        size = f"{each.octets / 1e6:.1f} MB"
        table.add_row(each.name, each.host, f"{each.when:%Y-%m-%d %H:%M}", str(each.messages), size, "goes" if each in going else "stays")
    if kept:
        Console(highlight=False).print(table)


@user_group.command("import")
@site_options
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--plan", is_flag=True, help="Only show what would be done.")
def user_import(chosen: Chosen, *, file: Path, plan: bool) -> None:
    """Adds those of FILE (YAML or CSV) who are not there. Who is there stays as he is."""
    _sync(chosen, file, plan=plan, delete_missing=False, only_add=True)


@user_group.command("export")
@site_options
@click.option("--csv", "form", flag_value="csv", help="Comma-separated values.")
@click.option("--yaml", "form", flag_value="yaml", default=True, help="YAML, as in an inventory (the default).")
def user_export(chosen: Chosen, *, form: str) -> None:
    """Prints all users with store, aliases, quota and locks, for `users sync`. No password and no hash is among it."""
    from lemonstand.admin.roster import written  # noqa: PLC0415

    with people_of(chosen) as people:
        click.echo(written(people.everybody().values(), people, form), nl=False)


@users_group.command("sync")
@site_options
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--plan", is_flag=True, help="Only show what would be done.")
@click.option("--delete-missing", is_flag=True, help="Delete users who are not in the file.")
def users_sync(chosen: Chosen, *, file: Path, plan: bool, delete_missing: bool) -> None:
    """Makes the users what FILE says: a list in YAML, or CSV with a heading (name, store, aliases, quota, locked). What an entry does not
    say stays as it is; who is not in the file is named, and stays without --delete-missing."""
    _sync(chosen, file, plan=plan, delete_missing=delete_missing, only_add=False)


def _sync(chosen: Chosen, file: Path, *, plan: bool, delete_missing: bool, only_add: bool) -> None:
    from lemonstand.admin import roster  # noqa: PLC0415

    with people_of(chosen, "" if plan else str(file)) as people:
        entries = roster.read(file, people)
        told, unasked = people.summaries()
        there, edition = people.everybody_now()
        found = roster.plan(entries, there, people, told, delete_missing=delete_missing, only_add=only_add)
        for line in found.lines:
            click.echo(line)
        if plan:
            click.echo(f"would change {found.change.count} of {len(there)} users; nothing was changed")
            return
        if not found.change.count:
            lacked = people.push(told, unasked)
            click.echo("nothing to change" + (f"; told {', '.join(lacked)} what they lacked" if lacked else ""))
            return
        for store in {people.store_at(each["store"]) for each in found.change.add}:
            people.ready(store, told, unasked)
        people.carry_out(found.change, there, edition, told, unasked)
        people.tell_room(told, len(found.change.add) - len(found.change.delete))
        click.echo(f"changed {found.change.count} users")


@users_group.command("push")
@site_options
@click.option("--yes", is_flag=True, help="Also if most of the people they know would go.")
def users_push(chosen: Chosen, *, yes: bool) -> None:
    """Tells stores and relays all that the directory has: for hosts that were away when something was changed."""
    with people_of(chosen, "stores and relays") as people:
        lacked = people.push(sure=yes)
    click.echo(f"told {', '.join(lacked)} what they lacked" if lacked else "stores and relays have what the directory has")


@user_group.command("hash")
def user_hash() -> None:
    """Prints a hash for `password_hash` of lemonstand_users, of a password (asked for, or one line of standard input). Asks no host."""
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house

    password, _ = _password("the user", generate=False)
    click.echo(admin.hash_password(password))
