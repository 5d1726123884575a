"""The command that breaks labs on purpose: mutate."""

from __future__ import annotations

import datetime as dt
import re
import signal
import time
from functools import partial

import click
from rich.console import Console
from rich.markup import escape

from lemonstand.breaking import Mutant, Verdict, load_mutants, sample, shares, todays_seed
from lemonstand.cli.base import Chosen, main, site_options
from lemonstand.errors import InputError
from lemonstand.policy.kinds import load_kinds
from lemonstand.site.fields import suggest

WORDS = {
    "noticed": "[green]noticed[/]",
    "missed": "[bold red]MISSED[/]",
    "not mended": "[bold red]NOT MENDED[/]",
    "not asked": "[bold red]NOT ASKED[/]",
}


@main.command()
@site_options
@click.argument("names", nargs=-1, metavar="[MUTANT]…")
@click.option("--list", "listing", is_flag=True, help="Only say which mutants there are.")
@click.option("--control", "controls", multiple=True, metavar="ID", help="Only mutants that break this control; may be repeated.")
@click.option("--sample", "count", type=click.IntRange(min=1), metavar="N", help="Only N of them, drawn anew each day; none that disturb.")
@click.option("--seed", type=click.IntRange(min=0), help="The draw's number, to repeat one.  [default: today's]")
@click.option("--share", metavar="N/M", help="Only the N-th of M shares that take about equally long, one for each of M labs.")
@click.option("--together", is_flag=True, help="Make those at once that can be together: none may hide another.")
@click.option("--all-checks", is_flag=True, help="Ask every check about every mutant, to learn who else notices: an hour or two.")
def mutate(
    chosen: Chosen,
    *,
    names: tuple[str, ...],
    listing: bool,
    controls: tuple[str, ...],
    count: int | None,
    seed: int | None,
    share: str | None,
    together: bool,
    all_checks: bool,
) -> None:
    """Breaks a lab on purpose, one mutant after the other, and sees whether the checks notice. Each is mended before the next.

    1 if a named check missed its mutant, or the lab is not as it was.
    """
    catalogue = load_mutants()
    if listing:
        for mutant in catalogue:
            click.echo(f"{mutant.name:<44} {mutant.host:<9} {', '.join(mutant.controls)}")
        return
    mutants = _shared(_picked(catalogue, names, controls), share)
    if together and not (mutants := tuple(mutant for mutant in mutants if mutant.together)):
        raise InputError("none of these can be made together with others", "--together", "name others, or none at all")
    if seed is not None and count is None:
        raise InputError("a seed is for a sample", "--seed", "add --sample N")
    if chosen.lab is None:
        raise InputError("mutants break hosts on purpose: labs only", "--site", "name a lab's inventory")
    mutants = _possible(chosen, mutants, names)
    if count is not None:
        seed = todays_seed() if seed is None else seed
        mutants = sample(mutants, count, seed)
        click.echo(f"a sample of {len(mutants)}; the same again: --sample {count} --seed {seed}")
    click.get_current_context().exit(_over(chosen, chosen.lab, mutants, seed, together=together, all_checks=all_checks))


def _picked(catalogue: tuple[Mutant, ...], names: tuple[str, ...], controls: tuple[str, ...]) -> tuple[Mutant, ...]:
    known = {mutant.name: mutant for mutant in catalogue}
    broken = {control for mutant in catalogue for control in mutant.controls}
    for name in names:
        if name not in known:
            raise InputError(f"there is no mutant '{name}'", "MUTANT", suggest(name, known, "`lemonstand mutate --list` names them"))
    for control in controls:
        if control not in broken:
            remedy = suggest(control, broken, "`lemonstand mutate --list` names them")
            raise InputError(f"no mutant breaks '{control}'", "--control", remedy)
    picked = [known[name] for name in dict.fromkeys(names)] or list(catalogue)
    return tuple(mutant for mutant in picked if not controls or set(controls) & set(mutant.controls))


def _possible(chosen: Chosen, mutants: tuple[Mutant, ...], names: tuple[str, ...]) -> tuple[Mutant, ...]:
    """Those whose hosts the lab has; the others are told of, and refused if they were asked for by name."""
    site = chosen.load()
    hosts = {**site.hosts, **site.apart}

    def lacking(mutant: Mutant) -> str:
        """What the lab has not that it takes; empty: it has all."""
        if site.settings.services.backup is None and any(each.startswith("BAK-") for each in mutant.controls):
            return "repository"
        group = load_kinds().group_of(mutant.host)
        return "" if mutant.host in hosts or (group is not None and group not in load_kinds().apart) else mutant.host

    left: dict[str, list[str]] = {}
    for mutant in mutants:
        if lack := lacking(mutant):
            if mutant.name in names:
                what = f"the lab has no host '{lack}', which '{mutant.name}' is about"
                raise InputError(what, "MUTANT", "bring up a lab that has one: lemonstand lab up --site")
            left.setdefault(lack, []).append(mutant.name)
    for lack, without in left.items():
        click.echo(f"left out, for the lab has no {lack}: {', '.join(without)}")
    return tuple(mutant for mutant in mutants if not lacking(mutant))


def _shared(mutants: tuple[Mutant, ...], share: str | None) -> tuple[Mutant, ...]:
    """One share of them; all, if none is named."""
    if share is None:
        return mutants
    words = re.fullmatch(r"([1-9][0-9]?)/([1-9][0-9]?)", share)
    if words is None or int(words[1]) > int(words[2]):
        raise InputError(f"'{share}' is no share", "--share", "say which of how many, such as 1/3")
    return shares(mutants, int(words[2]))[int(words[1]) - 1]


def _over(chosen: Chosen, lab: str, mutants: tuple[Mutant, ...], seed: int | None, *, together: bool, all_checks: bool) -> int:
    """Tries them, tells each verdict, keeps the table; returns the exit code."""
    # pytest and testinfra are slow to import
    from lemonstand.breaking import Run  # noqa: PLC0415
    from lemonstand.breaking.asker import Asker  # noqa: PLC0415
    from lemonstand.breaking.lab_hosts import LabHands  # noqa: PLC0415
    from lemonstand.breaking.record import record  # noqa: PLC0415
    from lemonstand.breaking.table import table_path  # noqa: PLC0415
    from lemonstand.breaking.tampering import at_home  # noqa: PLC0415

    site = chosen.load()
    mutants = tuple(at_home(mutant, site) for mutant in mutants)
    console = Console(highlight=False)
    path = table_path()
    began, started = time.monotonic(), dt.datetime.now(dt.UTC)
    # Whoever ends it by a signal gets the lab back as well: the mutant that is there is mended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hands = LabHands(lab)
    hands.begin()
    verdicts: list[Verdict] = []
    try:
        said = partial(console.print, markup=False, soft_wrap=True)
        run = Run(Asker(chosen.path), hands, all_checks=all_checks, say=said)
        for verdict in run.together(mutants) if together else run.over(mutants):
            verdicts.append(verdict)
            _tell(console, verdict)
            record(path, lab, [verdict], seed=seed, started=started)
    finally:
        hands.end()
    good = sum(verdict.good for verdict in verdicts)
    seconds = time.monotonic() - began
    console.print(f"{good} of {len(mutants)} mutants noticed and mended in {seconds // 60:.0f} min {seconds % 60:.0f} s")
    console.print(f"table: {path}", soft_wrap=True)
    return 0 if good == len(mutants) else 1


def _tell(console: Console, verdict: Verdict) -> None:
    noticed = ", ".join(verdict.noticed) + (f" and {len(verdict.others)} more" if verdict.others else "")
    if verdict.mutant.placebo and verdict.good:
        noticed = "nothing was broken, nobody said so"
    console.print(f"{verdict.mutant.name:<44} {WORDS[verdict.word]}  {verdict.seconds:5.1f} s  {escape(noticed)}", soft_wrap=True)
    for missed in verdict.missed:
        word = "noticed what was not there" if verdict.mutant.placebo else "did not notice"
        console.print(f"  [bold red]{word}:[/] {escape(missed)}", soft_wrap=True)
    if verdict.fault:
        console.print(f"  [bold red]{escape(verdict.fault)}[/]", soft_wrap=True)
