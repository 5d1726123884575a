"""The switch for emergencies: service close, service open. For upgrades: service drain, undrain, status."""

from __future__ import annotations

import re

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, main, site_options
from lemonstand.cli.deploy import finish, play
from lemonstand.cli.progress import observer
from lemonstand.errors import InputError

LONGEST_REASON = 200
SPREAD = ("frontends", "relays")
"""Groups over which an edge spreads new connections."""
COULD_NOT_ASK = 2
SPAN = re.compile(r"(\d{1,4})(m|h|d)")
UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400}


@main.group(cls=Group)
def service() -> None:
    """Closes what mail clients connect to, and opens it again; keeps new connections from one of several hosts."""


@service.command("close")
@site_options
@click.option("--reason", default="", metavar="TEXT", help="Why; every apply says it until the service is open again.")
@click.option("--cut", is_flag=True, help="End open sessions as well; without it only new ones are refused.")
def close(chosen: Chosen, *, reason: str, cut: bool) -> None:
    """Closes the mail service for clients, in both IP versions, on edges and frontends. SSH and the MX go on.

    It stays closed over boots and routine runs.
    """
    _one_line(reason)
    env = {"LEMONSTAND_CLOSE_REASON": reason, "LEMONSTAND_CLOSE_CUT": str(cut).lower()}
    _run(chosen, "close", env, "closed for clients: TCP {ports}")


@service.command("open")
@site_options
def open_again(chosen: Chosen) -> None:
    """Opens the mail service for clients again."""
    _run(chosen, "open", {}, "open for clients: TCP {ports}")


@service.command("drain")
@site_options
@click.argument("host")
@click.option("--limit", default="2h", show_default=True, metavar="SPAN", help="How long a frontend's sessions may go on: 30m, 2h, 1d.")
@click.option("--reason", default="", metavar="TEXT", help="Why; `service status` says it.")
def drain(chosen: Chosen, *, host: str, limit: str, reason: str) -> None:
    """Leads no new connections to a frontend or relay. Those it has stay until they end, at a frontend until the limit.

    It holds over boots and routine runs, until `service undrain`.
    """
    span = SPAN.fullmatch(limit)
    if not span:
        raise InputError(f"'{limit}' is no span of time", "--limit", "write minutes, hours or days as 30m, 2h or 1d")
    _one_line(reason)
    seconds = int(span.group(1)) * UNIT_SECONDS[span.group(2)]
    _of_several(chosen, host)
    env = {"LEMONSTAND_DRAIN": host, "LEMONSTAND_DRAIN_SECONDS": str(seconds), "LEMONSTAND_DRAIN_REASON": reason}
    _run(chosen, "drain", env, f"{host} gets no new connections; `lemonstand service status` counts those it has")


@service.command("undrain")
@site_options
@click.argument("host")
def undrain(chosen: Chosen, *, host: str) -> None:
    """Leads new connections to a drained frontend or relay again."""
    _of_several(chosen, host)
    _run(chosen, "undrain", {"LEMONSTAND_DRAIN": host}, f"{host} gets new connections")


@service.command("status")
@site_options
def status(chosen: Chosen) -> None:
    """Who of several frontends and relays answers the edges and gets new connections, and how many connections each has.

    1 if somebody does not answer, 2 if an edge could not be asked.
    """
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house

    site = chosen.load()
    with admin.Hosts(chosen.path) as hosts:
        found = admin.read_spread(site, hosts)
    console = Console(highlight=False)
    if not found.members and not found.unasked:
        console.print("there is one frontend and one relay: each gets all connections")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("edge", "host", "answers", "new connections", "connections", "about"):
        table.add_column(heading)
    for each in found.members:
        table.add_row(each.edge, each.host, "yes" if each.answers else "no", each.gets, str(each.connections), escape(each.about))
    console.print(table)
    for host, why in found.unasked:
        click.echo(f"can't ask {host}: {why}", err=True)
    if found.unasked:
        click.get_current_context().exit(COULD_NOT_ASK)
    if not all(each.answers for each in found.members):
        click.get_current_context().exit(1)


def _one_line(reason: str) -> None:
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise InputError("the reason is no short line of text", "--reason", f"say it in one line of at most {LONGEST_REASON} letters")


def _of_several(chosen: Chosen, host: str) -> None:
    """Refuses a host that no edge could do without."""
    site = chosen.load()
    spread = [each.name for group in SPREAD for each in site.group(group) if site.group("edges") and len(site.group(group)) > 1]
    if host not in spread:
        known = ", ".join(spread) or "there is none: one frontend and one relay, or no edge of the site's own"
        raise InputError(f"no edge leads connections of '{host}' to somebody else", "HOST", f"hosts that can be drained: {known}")


def _run(chosen: Chosen, verb: str, env: dict[str, str], done: str) -> None:
    loaded = chosen.load()
    console = Console()
    result = play(chosen, loaded, f"{verb}-service.yml", observer(console), env)
    if result.exit_code == 0:
        ports = ", ".join(str(port) for flow in loaded.active_flows if flow.is_for_clients for port in flow.ports)
        console.print(done.format(ports=ports), highlight=False, soft_wrap=True)
    finish(console, result, whole=True)
