"""Commands that write documents out of the site: dns, flows, firewall-request."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lemonstand.cli.base import Chosen, main, print_or_write, site_options
from lemonstand.site import Site


@main.command()
@site_options
@click.option("--check", "look", is_flag=True, help="Ask the relays' resolvers, and say what is not there; then the exit status is 1.")
def dns(chosen: Chosen, look: bool) -> None:
    """Prints the DNS records the site needs, as lines of a zone file.

    Lines that begin with a semicolon are for whoever has the reverse zones of the site's addresses: many hosts take no mail from an address
    without a name.
    """
    from lemonstand.derived.dns import keys, records, reverse  # noqa: PLC0415

    site = chosen.load()
    if look:
        sys.exit(_look(site))
    for record in records(site):
        click.echo(str(record))
    for record in reverse(site):
        click.echo(f"; {record}")
    if not keys(site):
        click.echo("no key for DKIM yet: the first `lemonstand apply` makes one, and this command prints it then", err=True)


def _look(site: Site) -> int:
    """What is not in DNS, a line each; the exit status."""
    from lemonstand.admin.published import published  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house
    from lemonstand.derived.dns import records, reverse  # noqa: PLC0415

    answers = published(site, [*records(site), *reverse(site)])
    lost = [answer for answer in answers if not answer.there]
    for answer in lost:
        click.echo(f"missing for {answer.relay}: {answer.record}")
        for text in answer.found:
            click.echo(f"    there is: {text}")
    click.echo(f"{len(answers) - len(lost)} of {len(answers)} answers are as they should be")
    return 1 if lost else 0


@main.command()
@site_options
def flows(chosen: Chosen) -> None:
    """Prints who may talk to whom in the site: a diagram (Mermaid) and a table, in Markdown."""
    from lemonstand.derived.flow_chart import document  # noqa: PLC0415

    loaded = chosen.load()
    head = f"# Who may talk to whom: {loaded.settings.site_name}\n\nWhat is not here is closed, in both directions and both IP versions.\n"
    click.echo(document(loaded.active_flows, head, loaded.own_flows), nl=False)


@main.command("firewall-request")
@site_options
@click.option("--format", "form", type=click.Choice(["md", "html"]), default="md", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file instead.")
def firewall_request(chosen: Chosen, form: str, output: Path | None) -> None:
    """Writes what the owner of an existing firewall is asked for: openings, times, ICMP, and why."""
    from lemonstand.derived.change_request import change_request, render  # noqa: PLC0415

    print_or_write(render(change_request(chosen.load()), form), output)
