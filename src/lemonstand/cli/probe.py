"""Questions to a site, asked one at a time from where a phone stands."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from lemonstand.cli.base import Chosen, main, site_options
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site.fields import suggest


@main.command()
@site_options
@click.argument("name", required=False)
@click.option("--list", "listing", is_flag=True, help="Only say which questions there are.")
@click.option("--seconds", type=click.IntRange(min=5, max=86400), metavar="N", help="How long, where the question takes a time.")
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as JSON.")
@click.option("--yes-disturb", metavar="SITE", help="The second word a real site wants for what disturbs its users: its name.")
def probe(chosen: Chosen, *, name: str | None, listing: bool, seconds: int | None, as_json: bool, yes_disturb: str | None) -> None:
    """Asks a site one question from outside and prints what was measured, with units. It judges nothing: `lemonstand verify` does.

    Needs a host outside in the group `handsets` and two accounts in `lemonstand_probe_users`. 1 if it could not be measured.
    """
    from lemonstand.measure import QUESTIONS, open_vantage  # noqa: PLC0415
    from lemonstand.outcomes import Invalid, Unanswered, Unmet  # noqa: PLC0415 - pytest and testinfra are slow to import

    if listing or name is None:
        _print_questions()
        return
    question = QUESTIONS.get(name)
    if question is None:
        raise InputError(f"there is no question '{name}'", "NAME", suggest(name, QUESTIONS, "`lemonstand probe --list` names them"))
    if seconds is not None and not question.seconds:
        raise InputError(f"'{name}' takes as long as it takes", "--seconds", "leave it out")
    site = chosen.load()
    if question.disturbs and not site.is_lab and yes_disturb != site.settings.site_name:
        raise InputError(
            f"'{site.settings.site_name}' is no lab: '{name}' cuts its users' connections",
            "NAME",
            f"add --yes-disturb {site.settings.site_name} if that is what you want",
        )
    try:
        with open_vantage(site) as vantage:
            finding = question.ask(vantage, seconds or question.seconds)
    except Invalid as reason:
        raise LemonstandError(f"INVALID, nothing was measured: {reason}", name, "mend that and ask again") from None
    except Unanswered as reason:
        raise LemonstandError(f"not measurable here: {reason}", name, "see `lemonstand probe --list` for what else there is") from None
    except Unmet as fault:
        raise LemonstandError(f"{fault.what}: {fault.seen}", name, "see the service's journal") from None
    if as_json:
        click.echo(
            json.dumps([{"name": each.name, "value": each.value, "unit": each.unit} for each in finding.values], indent=2, default=str)
        )
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for each in finding.values:
        table.add_row(each.name, f"{_shown(each.value)} {each.unit}".strip())
    Console(highlight=False, soft_wrap=True).print(table)


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _print_questions() -> None:
    from lemonstand.measure import QUESTIONS  # noqa: PLC0415

    for name, question in QUESTIONS.items():
        time = f"{question.seconds} s" if question.seconds else ""
        click.echo(f"{name:<13} {time:>6} {'disturbs' if question.disturbs else '':<9} {question.says}")
