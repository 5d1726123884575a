"""Commands that write documents out of the site: dns, flows, firewall-request."""

from __future__ import annotations

from pathlib import Path

import click

from lemonstand.cli.base import Chosen, main, print_or_write, site_options


@main.command()
@site_options
def dns(chosen: Chosen) -> None:
    """Prints the DNS records the site needs, as lines of a zone file."""
    from lemonstand.derived.dns import records  # noqa: PLC0415

    for record in records(chosen.load()):
        click.echo(str(record))


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
