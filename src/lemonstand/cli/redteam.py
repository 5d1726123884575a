"""Commands about attackers: redteam, threat-analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand.cli.base import Chosen, main, print_or_write, site_options
from lemonstand.errors import InputError
from lemonstand.redteam import POSITIONS, Catalogue, load_catalogue
from lemonstand.redteam.analysis import FORMATS

if TYPE_CHECKING:
    from lemonstand.redteam.attack import Report, Result

STYLES = {"held": "green", "known deviation": "yellow", "BREACH": "bold red", "could not try": "bold magenta"}


@main.command()
@site_options
@click.argument("names", nargs=-1, metavar="[ATTEMPT]…")
@click.option("--from", "position", type=click.Choice(POSITIONS), help="Only what is tried from there.")
@click.option("--list", "listing", is_flag=True, help="Only say what is tried, and what stops it.")
@click.option("--prove", is_flag=True, help="Break the lab in each known way, one after the other: is exactly that hole reported?")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this file as well.")
def redteam(chosen: Chosen, *, names: tuple[str, ...], position: str | None, listing: bool, prove: bool, path: Path | None) -> None:
    """Attacks a lab: as root on the frontend and on the relay, from the Internet, and with a valid account.

    Each attempt is really made, beside the same move with the right credentials. 1 if one got more than the known deviations allow, or
    could not be made.
    """
    from lemonstand.redteam import attack  # noqa: PLC0415 - brings pytest along

    catalogue = load_catalogue()
    if listing:
        for attempt in attack.choose(catalogue, names, position):
            click.echo(f"{attempt.id:<34} {attempt.tries}\n{'':<34} stopped by: {attempt.stopped_by}")
        return
    if chosen.lab is None:
        raise InputError("the red team attacks labs only", "--site", "name a lab's inventory")
    console = Console(highlight=False)
    if prove:
        click.get_current_context().exit(0 if _proved(console, chosen, names) else 1)

    def heard(result: Result) -> None:
        style = STYLES[result.outcome]
        console.print(
            f"[{style}]{result.outcome:<15}[/] {result.attempt.id:<34} {result.seconds:5.1f} s  {escape(result.got)}", soft_wrap=True
        )

    report = attack.attack(chosen.load(), names, position, heard)
    if path is not None:
        attack.write(report, path)
    _summarise(console, report, catalogue)
    click.get_current_context().exit(0 if report.good else 1)


def _proved(console: Console, chosen: Chosen, names: tuple[str, ...]) -> bool:
    """Breaks the lab in each way that is about the named attempts."""
    from lemonstand.breaking import redteam_breaks  # noqa: PLC0415 - brings pytest along

    loaded, good = chosen.load(), True
    wanted = [made for made in redteam_breaks.load_breaks() if not names or set(names) & {made.name, *made.breaches}]
    if not wanted:
        raise InputError("no break is about these attempts", "ATTEMPT", "leave them out to make every break")
    for made in wanted:
        proof = redteam_breaks.prove(made, str(chosen.lab), loaded)
        good &= proof.good
        word = "[green]reported[/]" if proof.good else "[bold red]NOT AS IT SHOULD[/]" if proof.wrong else "[bold red]NOT MENDED[/]"
        console.print(f"{made.name:<32} {word}  {proof.seconds:5.1f} s  {', '.join(made.breaches)}", soft_wrap=True)
        for wrong in proof.wrong:
            console.print(f"  {escape(wrong)}", soft_wrap=True)
    return good


@main.command("threat-analysis")
@site_options
@click.option("--format", "form", type=click.Choice(FORMATS), default="md", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file instead.")
@click.option("--hash", "hash_only", is_flag=True, help="Only print its SHA-256, for lemonstand_review.")
def threat_analysis(chosen: Chosen, *, form: str, output: Path | None, hash_only: bool) -> None:
    """Writes what is worth attacking, who attacks, by which paths, what stops each, and what is left; to be read before opening."""
    from lemonstand.redteam.analysis import analyse, digest, render, unreviewed  # noqa: PLC0415

    loaded = chosen.load()
    if hash_only:
        click.echo(digest(loaded))
        return
    print_or_write(render(analyse(loaded), form), output)
    if output is None:
        return
    reason = unreviewed(loaded)
    click.echo(f"not reviewed: {reason}" if reason else f"reviewed by {loaded.settings.review.by}" if loaded.settings.review else "")


def _summarise(console: Console, report: Report, catalogue: Catalogue) -> None:
    console.print()
    positions = {result.attempt.position for result in report.results}
    table = Table(box=None, pad_edge=False)
    for heading in ("what a position yields by its nature", "lasts", "and not"):
        table.add_column(heading, overflow="fold")
    for each in catalogue.yields:
        if each.position in positions:
            table.add_row(f"{each.position}: {each.what}", each.lasts, each.bounds)
    console.print(table)
    used = {result.deviation for result in report.results if result.deviation}
    for deviation in catalogue.deviations:
        if deviation.name in used:
            end = f"{deviation.waiver.expires}" + (f" or {deviation.fixed.package} {deviation.fixed.version}" if deviation.fixed else "")
            console.print(f"\n[yellow]{deviation.name}[/], until {end}: {deviation.what}\n  bounds: {deviation.limits}", soft_wrap=True)
    for result in report.results:
        if result.outcome in {"BREACH", "could not try"}:
            style = STYLES[result.outcome]
            console.print(
                f"\n[{style}]{result.outcome}[/] {result.attempt.id}: {result.attempt.tries}\n  got: {escape(result.got)}\n"
                f"  should be stopped by: {escape(result.attempt.stopped_by)} ({', '.join(result.attempt.controls)})",
                soft_wrap=True,
            )
    console.print(
        f"\n{len(report.results)} attempts in {report.seconds:.0f} s: {report.count('held')} held, "
        f"{report.count('known deviation')} known deviations, {report.count('BREACH')} breaches, "
        f"{report.count('could not try')} could not be tried"
    )
