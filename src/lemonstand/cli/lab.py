"""Commands about labs."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from lemonstand.cli.access import access_options, take
from lemonstand.cli.base import DEFAULT_LAB, Group, main, name_option

if TYPE_CHECKING:
    from lemonstand.lab.snapshots import Snapshot


@main.group("lab", cls=Group)
def lab_group() -> None:
    """Hosts to try it on: containers with systemd, on networks of their own."""


@lab_group.command("up")
@name_option
@click.option("--prefix", metavar="A.B", help="First two octets of its private network.  [default: that of last time, else 10.83]")
@click.option("--fresh", is_flag=True, help="Take down what there is and make all anew: mail, directory and snapshots are lost.")
@click.option("-i", "--site", metavar="DIR", help="The inventory whose hosts it has.  [default: that of last time, else inventories/lab]")
@access_options
def lab_up(name: str, prefix: str | None, site: str | None, *, fresh: bool, **given: Any) -> None:
    """Brings a lab up, or starts again what stands still of it, with what its hosts hold."""
    from lemonstand import lab as labs  # noqa: PLC0415

    console = Console(highlight=False)
    labs.up(name, prefix, lambda line: console.print(line, markup=False, soft_wrap=True), fresh=fresh, site=site, env=take(given).env)


@lab_group.command("status")
@name_option
@click.pass_context
def lab_status(ctx: click.Context, name: str) -> None:
    """Shows each host's state, addresses and memory; 1 if not all run."""
    from lemonstand import lab as labs  # noqa: PLC0415

    rows = labs.status(name)
    table = Table(box=None, pad_edge=False)
    for heading in ("host", "container", "systemd", "memory", "addresses"):
        table.add_column(heading, justify="right" if heading == "memory" else "left")
    for row in rows:
        memory = f"{row['memory'] / 1024**2:.0f} MiB" if row["memory"] else ""
        table.add_row(row["host"], row["state"], row["systemd"], memory, " ".join(row["addresses"]))
    console = Console(highlight=False)
    console.print(table)
    for snapshot in labs.kept(name):
        console.print(_told(snapshot), soft_wrap=True)
    ctx.exit(0 if all(row["systemd"] == "running" for row in rows) else 1)


def _told(snapshot: Snapshot) -> str:
    return f"snapshot {snapshot.name:<20} {snapshot.taken:%Y-%m-%d %H:%M:%S} UTC {snapshot.size / 1024**2:6.0f} MiB"


@lab_group.command("replace")
@name_option
@click.argument("host")
def lab_replace(name: str, host: str) -> None:
    """Loses HOST with all it holds, and puts an empty machine with another SSH key in its place."""
    from lemonstand import lab as labs  # noqa: PLC0415

    began = time.monotonic()
    fingerprint = labs.replace(name, host, click.echo)
    lab = "" if name == DEFAULT_LAB else f"--lab {name} "
    click.echo(f"an empty machine is in its place after {time.monotonic() - began:.1f} s; its console shows the SSH key {fingerprint}")
    click.echo(f"lemonstand rebuild {lab}{host} --host-key {fingerprint}")


@lab_group.command("offer")
@name_option
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("--broken", is_flag=True, help="Their programs in /usr/sbin fail at once.")
@click.option("--valid-days", default=7, show_default=True, help="How long the index says it is good; less than 0: it is over.")
def lab_offer(name: str, sources: tuple[str, ...], *, broken: bool, valid_days: int) -> None:
    """Publishes the lab's packages at its mirrors, newer ones of source packages SOURCE; what was newer before goes.

    LEMONSTAND_LAB_MIRROR=lab names the mirrors to the lab's site: lemonstand apply, then lemonstand upgrade.
    """
    from lemonstand import lab as labs  # noqa: PLC0415

    labs.offer(name, sources, click.echo, broken=broken, valid_days=valid_days)


@lab_group.command("snapshot")
@name_option
@click.argument("snapshot")
@click.option("--replace", is_flag=True, help="Let one of the same name go.")
def lab_snapshot(name: str, snapshot: str, *, replace: bool) -> None:
    """Keeps the state of all hosts under a name: files, packages, services, rules, kernel settings, mail."""
    from lemonstand import lab as labs  # noqa: PLC0415

    began = time.monotonic()
    click.echo(f"{_told(labs.snapshot(name, snapshot, replace=replace))}   taken in {time.monotonic() - began:.1f} s")


@lab_group.command("restore")
@name_option
@click.argument("snapshot")
def lab_restore(name: str, snapshot: str) -> None:
    """Brings all hosts back to a snapshot; what came after it is lost."""
    from lemonstand import lab as labs  # noqa: PLC0415

    began = time.monotonic()
    found = labs.restore(name, snapshot, click.echo)
    click.echo(f"the lab '{name}' is as it was at {found.taken:%Y-%m-%d %H:%M:%S} UTC   {time.monotonic() - began:.1f} s")


@lab_group.command("snapshots")
@name_option
@click.option("--drop", multiple=True, metavar="SNAPSHOT", help="Remove this one; may be repeated.")
def lab_snapshots(name: str, drop: tuple[str, ...]) -> None:
    """Lists the lab's snapshots, or removes some."""
    from lemonstand import lab as labs  # noqa: PLC0415

    for each in drop:
        labs.drop(name, each)
    for snapshot in labs.kept(name):
        click.echo(_told(snapshot))


@lab_group.command("ssh", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("host")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def lab_ssh(ctx: click.Context, name: str, host: str, argv: tuple[str, ...]) -> None:
    """Opens a shell on a host, or runs a command there."""
    from lemonstand import lab as labs  # noqa: PLC0415

    ctx.exit(labs.ssh(name, host, list(argv)))


@lab_group.command("logs")
@name_option
@click.argument("host", required=False)
@click.pass_context
def lab_logs(ctx: click.Context, name: str, host: str | None) -> None:
    """Prints a host's journal; without a host, where the lab's logs lie."""
    from lemonstand import lab as labs  # noqa: PLC0415

    ctx.exit(labs.logs(name, host))


@lab_group.command("down")
@name_option
@click.option("--all", "every", is_flag=True, help="All labs of this user.")
def lab_down(name: str, every: bool) -> None:
    """Removes a lab with all its secrets."""
    from lemonstand import lab as labs  # noqa: PLC0415

    for each in labs.names() if every else [name]:
        labs.down(each)
    if every:
        from lemonstand.breaking import table  # noqa: PLC0415

        table.forget()


@lab_group.command("lock")
def lab_lock() -> None:
    """Makes the versions in the package cache the ones every lab is compared with."""
    from lemonstand.lab import images  # noqa: PLC0415

    click.echo(f"written: {images.write_lock()}")


@lab_group.command("forget")
def lab_forget() -> None:
    """Drops the caches: base images and Debian packages."""
    from lemonstand.lab import images  # noqa: PLC0415

    images.forget()


@lab_group.command("env")
@name_option
def lab_env(name: str) -> None:
    """Prints the variables for plain Ansible: eval "$(lemonstand lab env)"."""
    from lemonstand import lab as labs  # noqa: PLC0415

    for key, value in labs.environment(name).items():
        click.echo(f"export {key}={shlex.quote(value)}")
