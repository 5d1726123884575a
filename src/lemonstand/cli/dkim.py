"""Keys by which relays sign what users send (DKIM): which there are, a new one, and the end of old ones."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, main, site_options
from lemonstand.cli.deploy import finish, play
from lemonstand.cli.progress import observer
from lemonstand.errors import InputError
from lemonstand.site import Site
from lemonstand.site.shipped import filter_plugin

PLAYBOOK = "dkim-keys.yml"
STATES = {"next": "to be published", "signs": "signs", "old": "published until what it signed has arrived"}


@main.group("dkim", cls=Group)
def dkim_group() -> None:
    """Keys by which relays sign what users send (DKIM)."""


@dkim_group.command("list")
@site_options
def dkim_list(chosen: Chosen) -> None:
    """Which keys there are, which one signs, whether DNS has each for every domain, and how old it is in its state."""
    from lemonstand.admin.published import published  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house
    from lemonstand.derived.dns import key_records, keys  # noqa: PLC0415

    site = chosen.load()
    lost = {answer.record.name.partition(".")[0] for answer in published(site, key_records(site)) if not answer.there}
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "state", "days", "in DNS"):
        table.add_column(heading, justify="right" if heading == "days" else "left")
    age = filter_plugin("signing_keys").age_days
    for key in keys(site):
        missing = key["selector"] in lost
        style = "bold red" if missing and key["state"] == "signs" else "yellow" if missing or key["state"] != "signs" else None
        words = (key["selector"], STATES[key["state"]], f"{age(key):.1f}", "not for every domain" if missing else "yes")
        table.add_row(*words, style=style)
    Console(highlight=False).print(table)


@dkim_group.command("rotate")
@site_options
def dkim_rotate(chosen: Chosen) -> None:
    """Makes a new key, and lets it sign once DNS has it; no mail is put off, and what was signed before stays good.

    Where DNS does not have the new key yet its records are printed: publish them, then give the same command again. The old key stays
    published until it is retired.
    """
    from lemonstand.admin.published import published  # noqa: PLC0415 - as above
    from lemonstand.derived.dns import key_records, keys  # noqa: PLC0415

    site = chosen.load()
    if not any(key["state"] == "next" for key in keys(site)):
        _step(chosen, site, "prepare")
    chosen_one = next(key["selector"] for key in keys(site) if key["state"] == "next")
    records = key_records(site, [chosen_one])
    lost = {answer.record for answer in published(site, records) if not answer.there}
    if lost:
        click.echo(f"DNS does not have the next key, {chosen_one}. Publish this, wait until it is seen, then give the same command again:")
        for record in sorted(lost):
            click.echo(str(record))
        sys.exit(1)
    _step(chosen, site, "switch")
    old = next(key["selector"] for key in reversed(keys(site)) if key["state"] == "old")
    days = filter_plugin("signing_keys").OVERLAP_DAYS
    again = shlex.join(["lemonstand", "dkim", "retire", *chosen.options])
    click.echo(f"{chosen_one} signs. {old} has to stay in DNS for {days} days; then: {again}")


@dkim_group.command("retire")
@site_options
@click.option("--now", is_flag=True, help="Also keys that mail under way is signed with, as after a theft.")
def dkim_retire(chosen: Chosen, now: bool) -> None:
    """Forgets the old keys, seven days after they signed last, and prints which records of DNS may go."""
    from lemonstand.derived.dns import key_records, keys  # noqa: PLC0415 - as above

    site = chosen.load()
    plugin = filter_plugin("signing_keys")
    old = [key for key in keys(site) if key["state"] == "old"]
    young = [key for key in old if plugin.age_days(key) < plugin.OVERLAP_DAYS]
    gone = [key["selector"] for key in old if now or key not in young]
    if not gone:
        left = max((plugin.OVERLAP_DAYS - plugin.age_days(key) for key in young), default=0.0)
        raise InputError(
            f"{young[0]['selector']} signed mail that may still be under way" if young else "there is no old key",
            "lemonstand dkim retire",
            f"wait {left:.1f} days more, or give --now if the key is in wrong hands" if young else "see `lemonstand dkim list`",
        )
    records = key_records(site, gone)
    _step(chosen, site, "retire", dkim_selectors=gone)
    click.echo("Take this out of DNS:")
    for record in records:
        click.echo(str(record))


def _step(chosen: Chosen, site: Site, step: str, **more: Any) -> None:
    """One step of the playbook; ends the command if it fails."""
    console = Console()
    result = play(chosen, site, PLAYBOOK, observer(console, show_differences=False), extra={"dkim_step": step, **more})
    if result.exit_code:
        finish(console, result, whole=True)
