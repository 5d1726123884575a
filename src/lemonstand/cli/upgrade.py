"""Updates of hosts: what is pending, and one member after the other renewed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from lemonstand.cli.base import Chosen, again, main, site_options
from lemonstand.errors import LemonstandError

if TYPE_CHECKING:
    from lemonstand.admin.upgrades import Pending

COULD_NOT_ASK = 2


@main.command("upgrade")
@site_options
@click.argument("hosts", nargs=-1)
@click.option("--plan", "plan_only", is_flag=True, help="Say what is pending on which host, and what would restart; change nothing.")
def upgrade(chosen: Chosen, *, hosts: tuple[str, ...], plan_only: bool) -> None:
    """Renews packages of HOSTS, or of all, from their mirror: one host after the other, drained first where there is another.

    A host that does not answer afterwards is brought back to what it had, and the command stops there. Safe to interrupt and to repeat.
    2 if a host could not be asked.
    """
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house
    from lemonstand.admin.operations import operation  # noqa: PLC0415
    from lemonstand.admin.upgrades import Upgrade  # noqa: PLC0415

    site = chosen.load()
    began = time.monotonic()
    with admin.Hosts(chosen.path) as ways:
        work = Upgrade(site, ways, hosts, click.echo)
        if plan_only:
            pending, unasked = work.look()
            _show(pending)
        else:
            with operation(site, ways, shlex.join(again(whole=True)), ", ".join(hosts) or "all hosts"):
                pending, unasked = work.look()
                done = work.carry_out(pending)
            click.echo(f"renewed: {', '.join(done)} in {time.monotonic() - began:.0f} s" if done else "nothing was pending")
    for name in work.without:
        click.echo(f"{name}: no mirror is named for it")
    for name, each in pending.items():
        if each.boot:
            click.echo(f"{name}: {', '.join(each.boot)}: renewed after a boot")
    _lost(unasked)


def _show(pending: Mapping[str, Pending]) -> None:
    for name, each in pending.items():
        if each.is_done:
            click.echo(f"{name}: nothing is pending")
        elif each.under_way:
            click.echo(f"{name}: an upgrade was cut off ({each.under_way}); the command without --plan goes on with it")
        for package, found in each.packages.items():
            by_itself = "arrives by itself" if found["by_itself"] else "waits for `lemonstand upgrade`"
            was = f"{found['old']} -> " if found["old"] else "new: "
            again_ = "; was brought back once" if each.broken.get(package) == found["new"] else ""
            click.echo(f"{name}: {package} {was}{found['new']}, {by_itself}{again_}")
        for unit, files in each.replaced.items():
            click.echo(f"{name}: {unit} runs what was replaced: {', '.join(files)}")


def _lost(unasked: Mapping[str, LemonstandError]) -> None:
    for name, fault in unasked.items():
        click.echo(f"{name} was left out: {fault.what}; {fault.remedy}", err=True)
    if unasked:
        click.get_current_context().exit(COULD_NOT_ASK)
