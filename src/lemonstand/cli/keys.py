"""Keys that sign tickets: which there are, and a new one."""

from __future__ import annotations

from datetime import UTC, date, datetime

from rich.console import Console
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, main, site_options
from lemonstand.cli.deploy import finish, play
from lemonstand.cli.progress import observer


@main.group("keys", cls=Group)
def keys_group() -> None:
    """Keys that sign tickets."""


@keys_group.command("list")
@site_options
def keys_list(chosen: Chosen) -> None:
    """Which keys there are, which one signs, and which stores take them."""
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house

    site = chosen.load()
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "on", "state", "made", "days", "taken by"):
        table.add_column(heading, justify="right" if heading == "days" else "left")
    today = datetime.now(UTC).date()
    with admin.Hosts(chosen.path) as hosts:
        for key in admin.list_keys(site, hosts):
            days = str((today - date.fromisoformat(key.made)).days) if key.made else ""
            words = (key.kid, key.issuer, key.state, key.made, days, " ".join(key.stores))
            table.add_row(*words, style="" if key.state == "signs" else "yellow")
    Console(highlight=False).print(table)


@keys_group.command("rotate")
@site_options
def keys_rotate(chosen: Chosen) -> None:
    """Makes a new key and drops the old one, with an overlap in which both count: no login fails. Takes a ticket's life and a bit.

    A change that was cut off is finished by running this again. An issuer that can't be reached keeps its key and is named; the old keys of
    all others go. A store that can't be reached ends the change before any new key signs.
    """
    site = chosen.load()
    console = Console()
    result = play(chosen, site, "rotate-ticket-keys.yml", observer(console, show_differences=False))
    lost = {failure.host for failure in result.record.failures if failure.unreachable} & {host.name for host in site.group("auths")}
    if lost:
        console.print(
            f"{', '.join(sorted(lost))}: no new key, and tickets of the old one stay good. Once it answers, give the same command again",
            style="bold yellow", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    finish(console, result, whole=True)
