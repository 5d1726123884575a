"""Commands that show evidence to people: report."""

from __future__ import annotations

import hashlib
import webbrowser
from pathlib import Path
from typing import Any

import click

from lemonstand.cli.access import access_options, take
from lemonstand.cli.base import DEFAULT_LAB, choose, lab_name, main, site_option
from lemonstand.errors import InputError
from lemonstand.files import read_json

NAMES = {"page": "report.html", "summary": "summary.html", "csv": "controls.csv", "heimdall": "heimdall.json"}
"""The forms, and how each is called beside the evidence."""


@main.command()
@site_option
@click.option(
    "--lab", default=DEFAULT_LAB, show_default=True, metavar="NAME", callback=lab_name, help="The lab, if the site is a lab's inventory."
)
@click.option("--evidence", "source", type=click.Path(path_type=Path, dir_okay=False), help="Report this evidence: it needs no site.")
@click.option("--summary", "forms", flag_value="summary", help="Some sheets of paper to file and sign instead: HTML, and PDF by Chromium.")
@click.option("--csv", "forms", flag_value="csv", help="A table for a spreadsheet instead: one row a control.")
@click.option("--heimdall", "forms", flag_value="heimdall", help="MITRE's Heimdall Data Format (HDF) instead.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file, not beside the evidence.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@access_options
def report(site: str, lab: str, *, source: Path | None, forms: str | None, output: Path | None, show: bool, **given: Any) -> None:
    """Writes the evidence as one HTML page that stands alone, or in another form, and says where it lies."""
    from lemonstand.evidence.forms import FORMS  # noqa: PLC0415
    from lemonstand.evidence.write import write_text  # noqa: PLC0415

    form = forms or "page"
    path = source or _newest(site, lab, given)
    target = output or path.with_name(NAMES[form])
    write_text(target, FORMS[NAMES[form]](_read(path), hashlib.sha256(path.read_bytes()).hexdigest()))
    click.echo(f"{'report' if form == 'page' else form}: {target}")
    if form == "summary":
        _print(target)
    if show and not webbrowser.open(target.absolute().as_uri()):
        click.echo("no browser was found here; copy the file to where one is")


def _print(page: Path) -> None:
    """Prints the summary beside itself, where something is there to print it."""
    from lemonstand.evidence.paper import browser, print_pdf  # noqa: PLC0415

    program = browser()
    if program is None:
        click.echo("no Chromium was found here to make a PDF; any browser prints the page")
        return
    target = page.with_suffix(".pdf")
    print_pdf(program, page, target)
    click.echo(f"printed: {target}")


def _newest(site: str, lab: str, given: dict[str, Any]) -> Path:
    """Where a site's verifications leave their evidence."""
    chosen = choose(site, lab, take(given))
    return chosen.state(chosen.load()) / "evidence" / "evidence.json"


def _read(path: Path) -> dict[str, Any]:
    """Evidence that keeps to its schema.

    Raises:
        InputError: there is none, or it is no JSON.
        LemonstandError: it breaks its schema.
    """
    from lemonstand.evidence.write import check_form  # noqa: PLC0415

    if not path.exists():
        raise InputError("there is no evidence", str(path), "lemonstand verify makes it")
    evidence = read_json(path, "the evidence", "lemonstand verify makes it anew")
    check_form(evidence)
    return evidence
