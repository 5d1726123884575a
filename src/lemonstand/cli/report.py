"""Commands that show evidence to people: report."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Any

import click

from lemonstand.cli.base import DEFAULT_LAB, DEFAULT_SITE, choose, main
from lemonstand.errors import InputError


@main.command()
@click.option("--site", default=DEFAULT_SITE, show_default=True, metavar="DIR", help="The site's inventory: a directory or hosts file.")
@click.option("--lab", default=DEFAULT_LAB, show_default=True, metavar="NAME", help="The lab, if the site is a lab's inventory.")
@click.option("--evidence", "source", type=click.Path(path_type=Path, dir_okay=False), help="Report this evidence: it needs no site.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file, not beside the evidence.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
def report(site: str, lab: str, *, source: Path | None, output: Path | None, show: bool) -> None:
    """Writes the evidence as one HTML page that stands alone, and says where it lies."""
    from lemonstand.evidence.report import render  # noqa: PLC0415
    from lemonstand.evidence.write import write_text  # noqa: PLC0415
    from lemonstand.policy.controls import load_controls  # noqa: PLC0415

    path = source or _newest(site, lab)
    target = output or path.with_name("report.html")
    write_text(target, render(_read(path), load_controls()))
    click.echo(f"report: {target}")
    if show and not webbrowser.open(target.absolute().as_uri()):
        click.echo("no browser was found here; copy the file to where one is")


def _newest(site: str, lab: str) -> Path:
    """Where a site's verifications leave their evidence."""
    chosen = choose(site, lab)
    return chosen.state(chosen.load()) / "evidence" / "evidence.json"


def _read(path: Path) -> dict[str, Any]:
    """Evidence that keeps to its schema.

    Raises:
        InputError: there is none, or it is no JSON.
        LemonstandError: it breaks its schema.
    """
    from lemonstand.evidence.write import check_form  # noqa: PLC0415

    try:
        evidence: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("there is no evidence", str(path), "lemonstand verify makes it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"the evidence can't be read: {error}", str(path), "lemonstand verify makes it anew") from None
    check_form(evidence)
    return evidence
