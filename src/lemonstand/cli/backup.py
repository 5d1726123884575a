"""Backups: making, listing and checking them; bringing back what they hold."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, again, main, site_options
from lemonstand.errors import InputError, LemonstandError

if TYPE_CHECKING:
    from lemonstand.admin.backups import Backups

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
HOURS = 48
"""An age above this is shown in days."""


@contextmanager
def _backups(chosen: Chosen) -> Iterator[Backups]:
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house
    from lemonstand.admin.backups import Backups  # noqa: PLC0415

    site = chosen.load()
    with admin.Hosts(chosen.path) as hosts:
        backups = Backups(site, hosts)
        _ = backups.names  # a site without a repository is told so before anything else
        yield backups


def size(octets: float) -> str:
    """Octets as people read them: 1536 is `1.5 KiB`."""
    number = 0
    while octets >= 1024 and number < len(UNITS) - 1:
        octets, number = octets / 1024, number + 1
    return f"{octets:.0f} {UNITS[number]}" if number == 0 else f"{octets:.1f} {UNITS[number]}"


def age(seconds: float | None) -> str:
    """How long ago something was: `3.2 h ago`."""
    if seconds is None:
        return "never"
    hours = seconds / 3600
    return f"{hours:.1f} h ago" if hours < HOURS else f"{hours / 24:.1f} d ago"


@main.group("backup", cls=Group)
def backup_group() -> None:
    """Backups of what hosts alone have: mail, the directory, ticket keys. Where they go stands in lemonstand_services."""


@backup_group.command("run")
@site_options
@click.argument("hosts", nargs=-1)
def backup_run(chosen: Chosen, *, hosts: tuple[str, ...]) -> None:
    """Makes a backup of HOSTS now (all, if none is named), and proves that something of it comes back."""
    failed = False
    with _backups(chosen) as backups:
        for host in backups.chosen(hosts):
            try:
                done = backups.order(host, action="run")
            except LemonstandError as fault:
                failed = True
                click.echo(str(fault), err=True)
                continue
            made, proven = done["made"], done["proven"]
            what = f"{made['users']} users" if "users" in made else f"{made.get('entries', 0)} entries"
            click.echo(
                f"{host}: backup {made['snapshot']}: {what}, {size(made['bytes'])} in {made['files']} files, {size(made['added'])} new, "
                f"{made['seconds']:.1f} s; brought back and compared: {proven['what']} ({proven['seconds']:.1f} s)"
            )
    if failed:
        click.get_current_context().exit(1)


@backup_group.command("list")
@site_options
@click.argument("hosts", nargs=-1)
def backup_list(chosen: Chosen, *, hosts: tuple[str, ...]) -> None:
    """The backups there are of HOSTS, how old the last one is, and what was brought back of one last. 1 if one is too old or failed."""
    table = Table(box=None, pad_edge=False)
    for heading in ("host", "backup", "made (UTC)", "size", "new", "files", "notes"):
        table.add_column(heading)
    bad = False
    with _backups(chosen) as backups:
        for host in backups.chosen(hosts):
            try:
                kept = backups.kept(host, listed=True)
            except LemonstandError as fault:
                bad = True
                table.add_row(host, "", "", "", "", "", fault.what, style="yellow")
                continue
            for each in kept.snapshots:
                made = f"{datetime.fromisoformat(each['time']).astimezone(UTC):%Y-%m-%d %H:%M:%S}"
                sizes = [size(each[key]) if each[key] is not None else "" for key in ("bytes", "added")]
                table.add_row(host, each["id"], made, *sizes, str(each["files"] or ""), "")
            made_age, proven_age = kept.age(kept.made), kept.age(kept.proven)
            late = made_age is None or proven_age is None or max(made_age, proven_age) > kept.oldest
            wrong = late or bool(kept.fault) or kept.timer != "active"
            bad = bad or wrong
            notes = [f"last {age(made_age)}", f"proven {age(proven_age)}" + (f" ({kept.proven['what']})" if kept.proven else "")]
            notes += [f"timer {kept.timer}"] if kept.timer != "active" else []
            notes += [f"failed: {kept.fault}"] if kept.fault else []
            table.add_row(host, "", "", "", "", "", "; ".join(notes), style="yellow" if wrong else "")
    Console(highlight=False, soft_wrap=True).print(table)
    if bad:
        click.get_current_context().exit(1)


@backup_group.command("check")
@site_options
@click.argument("hosts", nargs=-1)
@click.option("--all-data", is_flag=True, help="Read all data back, in place of a twentieth.")
def backup_check(chosen: Chosen, *, hosts: tuple[str, ...], all_data: bool) -> None:
    """Whether the repository of HOSTS is whole, and the controller's keys open it."""
    failed = False
    with _backups(chosen) as backups:
        for host in backups.chosen(hosts):
            try:
                done = backups.order(host, action="check", key=backups.key(host), share="100%" if all_data else "5%")
                click.echo(f"{host}: {done['snapshots']} backups, whole; the controller's key opens them")
            except LemonstandError as fault:
                failed = True
                click.echo(str(fault), err=True)
    if failed:
        click.get_current_context().exit(1)


@backup_group.command("rotate-keys")
@site_options
@click.argument("hosts", nargs=-1)
def backup_rotate_keys(chosen: Chosen, *, hosts: tuple[str, ...]) -> None:
    """Gives HOSTS (all, if none is named) another key each. Old and new open all backups, until the repository's owner removes the old.

    What was cut off is finished by giving the command again.
    """
    from lemonstand.admin.operations import operation  # noqa: PLC0415

    failed: list[str] = []
    with _backups(chosen) as backups:
        names = backups.chosen(hosts)
        with operation(backups.site, backups.hosts, shlex.join(again(whole=True)), ", ".join(names)):
            for host in names:
                try:
                    others = backups.rotate_key(host)
                except LemonstandError as fault:
                    failed.append(host)
                    click.echo(str(fault), err=True)
                    continue
                click.echo(
                    f"{host}: has another key; whoever runs the repository removes the old one: restic key remove {' '.join(others)}"
                )
            if failed:
                raise LemonstandError("not all keys were changed", ", ".join(failed), "see why above, then give the command again")


@backup_group.command("accounts")
@site_options
def backup_accounts(chosen: Chosen) -> None:
    """Lines for the repository's file of users (htpasswd): its owner needs them, and no more."""
    with _backups(chosen) as backups:
        for line in backups.accounts():
            click.echo(line)


@main.group("restore", cls=Group)
def restore_group() -> None:
    """Brings back what backups hold. Nothing that is newer goes without being told so."""


def _restore_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all restores take."""
    command = click.option("--at", "snapshot", metavar="BACKUP", default="latest", help="As `backup list` names it; default: the last.")(
        command
    )
    return click.option("--dry-run", is_flag=True, help="Say what would come back; change nothing.")(command)


def _under(to: str | None) -> str:
    """The folder that what comes back is put under."""
    folder = to or f"Restored/{datetime.now(UTC):%Y-%m-%d %H%M}"
    if folder.strip("/").upper() == "INBOX":
        raise InputError("mail is brought back under a folder of its own", "--to", "name another folder, such as Restored")
    return folder.strip("/")


@restore_group.command("message")
@site_options
@click.argument("name")
@click.option("--message-id", required=True, metavar="ID", help="Its Message-ID, with or without brackets.")
@click.option("--to", metavar="FOLDER", help="Folder of the user's it is put under.  [default: Restored/DATE]")
@_restore_options
def restore_message(chosen: Chosen, *, name: str, message_id: str, to: str | None, snapshot: str, dry_run: bool) -> None:
    """Brings one message of the user NAME back, into a folder of its own."""
    query = ["mailbox", "*", "header", "Message-ID", message_id.strip("<> ")]
    _mail(chosen, name, {"query": query, "under": _under(to), "snapshot": snapshot, "dry": dry_run})


@restore_group.command("mailbox")
@site_options
@click.argument("name")
@click.option("--mailbox", metavar="MAILBOX", help="One of the user's mailboxes, such as INBOX; default: all.")
@click.option("--to", metavar="FOLDER", help="Folder of the user's it is put under.  [default: Restored/DATE]")
@click.option("--in-place", is_flag=True, help="Let all his mailboxes be what they were then: UIDs, flags and all.")
@click.option("--overwrite", is_flag=True, help="With --in-place: also if messages that came since are gone then.")
@_restore_options
def restore_mailbox(
    chosen: Chosen, *, name: str, mailbox: str | None, to: str | None, in_place: bool, overwrite: bool, snapshot: str, dry_run: bool
) -> None:
    """Brings the mail of the user NAME back: beside what there is, or with --in-place as it was."""
    if in_place and (to or mailbox):
        raise InputError("--in-place is about all mailboxes of a user, where they were", "--in-place", "leave --to and --mailbox away")
    if overwrite and not in_place:
        raise InputError("what is brought back beside takes nothing away", "--overwrite", "give it with --in-place, or not at all")
    query = ["mailbox", mailbox or "*", "all"]
    order = (
        {"replace": True, "overwrite": overwrite, "query": ["mailbox", "*", "all"]} if in_place else {"query": query, "under": _under(to)}
    )
    _mail(chosen, name, {**order, "snapshot": snapshot, "dry": dry_run})


def _mail(chosen: Chosen, name: str, order: dict[str, Any]) -> None:
    with _backups(chosen) as backups:
        host = backups.store_of(name)
        done = backups.order(host, action="mailbox", user=name.lower(), **order)
    would = "would be" if order["dry"] else "are"
    if order.get("replace"):
        lost = [
            f"{done[key]} {what}" for key, what in (("removed", "messages that came since"), ("changed", "changes of flags")) if done[key]
        ]
        gone = f"; {' and '.join(lost)} {would} gone" if lost else ""
        click.echo(f"{name.lower()} on {host}: {done['messages']} messages {would} as they were{gone}")
    else:
        click.echo(f"{name.lower()} on {host}: {done['messages']} messages of {done['mailboxes']} mailboxes {would} in {order['under']}")


@restore_group.command("scripts")
@site_options
@click.argument("name")
@click.option("--overwrite", is_flag=True, help="Also scripts that differ, and the choice of the active one.")
@_restore_options
def restore_scripts(chosen: Chosen, *, name: str, overwrite: bool, snapshot: str, dry_run: bool) -> None:
    """Brings back Sieve scripts that the user NAME has no more."""
    with _backups(chosen) as backups:
        host = backups.store_of(name)
        done = backups.order(host, action="scripts", user=name.lower(), overwrite=overwrite, snapshot=snapshot, dry=dry_run)
    would = "would be" if dry_run else "are"
    back = ", ".join(done["back"]) or "none lacks"
    click.echo(f"{name.lower()} on {host}: {len(done['back'])} of {done['scripts']} scripts {would} back: {back}")
    if done["activated"]:
        click.echo(f"'{done['activated']}' {'would be' if dry_run else 'is'} the active one")
    if done["differing"]:
        click.echo(f"left as they are, since they differ: {', '.join(done['differing'])}; --overwrite brings these back too")


@restore_group.command("directory")
@site_options
@click.argument("host", required=False)
@click.option("--overwrite", is_flag=True, help="Also if it was changed after that backup; what is there is kept aside.")
@_restore_options
def restore_directory(chosen: Chosen, *, host: str | None, overwrite: bool, snapshot: str, dry_run: bool) -> None:
    """Lets the directory of the auth host HOST be what a backup has: accounts, passwords, locks."""
    with _backups(chosen) as backups:
        auths = [each for each in backups.names if each not in {store.name for store in chosen.load().group("stores")}]
        if host is None and len(auths) > 1:
            raise InputError(f"there are {len(auths)} auth hosts", "HOST", f"name one: {', '.join(auths)}")
        where = backups.chosen([host or auths[0]])[0]
        if where not in auths:
            raise InputError(f"'{where}' has no directory", "HOST", f"name an auth host: {', '.join(auths)}")
        done = backups.order(where, action="directory", overwrite=overwrite, snapshot=snapshot, dry=dry_run)
    would = "would be" if dry_run else "is"
    click.echo(f"{where}: the directory {would} what it was: {done['entries']} entries, the newest change {done['newest'] or 'unknown'}")
    for what, names in (("back", done["back"]), ("as they were then", done["changed"]), ("gone", done["lost"])):
        if names:
            click.echo(
                f"  {len(names)} entries {'would be' if dry_run else 'are'} {what}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
            )
    if "aside" in done:
        click.echo(f"  what was there lies in {done['aside']}; remove it when nobody misses anything")
