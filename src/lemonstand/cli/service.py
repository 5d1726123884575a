"""The switch for emergencies: service close, service open."""

from __future__ import annotations

import click
from rich.console import Console

from lemonstand.cli.base import Chosen, Group, main, site_options
from lemonstand.cli.deploy import finish
from lemonstand.cli.progress import observer
from lemonstand.deploy import run_playbook
from lemonstand.errors import InputError
from lemonstand.paths import data_dir


@main.group(cls=Group)
def service() -> None:
    """Closes what mail clients connect to, and opens it again. No other service is touched."""


@service.command("close")
@site_options
@click.option("--reason", default="", metavar="TEXT", help="Why; every apply says it until the service is open again.")
@click.option("--cut", is_flag=True, help="End open sessions as well; without it only new ones are refused.")
def close(chosen: Chosen, *, reason: str, cut: bool) -> None:
    """Closes the mail service for clients, in both IP versions, on edges and frontends. SSH and the MX go on.

    It stays closed over boots and routine runs.
    """
    if len(reason) > 200 or not reason.isprintable():
        raise InputError("the reason is no short line of text", "--reason", "say it in one line of at most 200 letters")
    env = {"LEMONSTAND_CLOSE_REASON": reason, "LEMONSTAND_CLOSE_CUT": str(cut).lower()}
    _run(chosen, "close", env)


@service.command("open")
@site_options
def open_again(chosen: Chosen) -> None:
    """Opens the mail service for clients again."""
    _run(chosen, "open", {})


def _run(chosen: Chosen, verb: str, env: dict[str, str]) -> None:
    loaded = chosen.load()
    console = Console()
    result = run_playbook(
        chosen.path,
        [data_dir("playbooks") / f"{verb}-service.yml"],
        runs=chosen.state(loaded) / "runs",
        env={**chosen.env, **env},
        observer=observer(console),
    )
    if result.exit_code == 0:
        closed = ", ".join(str(port) for flow in loaded.active_flows if flow.is_for_clients for port in flow.ports)
        console.print(f"{'closed' if verb == 'close' else 'open'} for clients: TCP {closed}", highlight=False, soft_wrap=True)
    finish(console, result, whole=True)
