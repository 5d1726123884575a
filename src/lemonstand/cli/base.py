"""What all commands share: the root, which site or lab is meant, how errors are told."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from lemonstand import __version__
from lemonstand.deploy import INTERRUPTED
from lemonstand.errors import InputError, LemonstandError
from lemonstand.paths import data_dir, lab_dir, site_dir
from lemonstand.site import Site, load_site

DEFAULT_SITE = "inventories/lab"
DEFAULT_LAB = "lab"


class Group(click.Group):
    """A group of commands that prints our errors in three lines and turns them into exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; 1 failed, 2 wrong input, 130 interrupted."""
        try:
            return super().invoke(ctx)
        except LemonstandError as error:
            click.echo(str(error), err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted; running the same command again finishes the work", err=True)
            ctx.exit(INTERRUPTED)


@dataclass(frozen=True)
class Chosen:
    """The site a command works on.

    Args:
        path: its inventory.
        env: what the inventory reads from the environment; empty for a real site.
        lab: the lab's name, or None for a real site.
        options: the options that lead here again.
    """

    path: Path
    env: dict[str, str]
    lab: str | None
    options: tuple[str, ...]

    def load(self) -> Site:
        """The validated model."""
        return load_site(self.path, self.env)

    def state(self, site: Site) -> Path:
        """Where runs and evidence of the site are kept."""
        return lab_dir(self.lab) if self.lab else site_dir(site.settings.site_name)


NOWHERE = Chosen(Path(), {}, None, ())
"""For a command that was asked for a list only: it needs no site, and no lab that is up."""


def choose(site: str, lab: str) -> Chosen:
    """Finds the inventory: as a path, else among those that ship with lemonstand; prepares a lab's environment.

    Raises:
        InputError: there is none.
    """
    path = Path(site)
    shipped = data_dir("inventories")
    if not path.exists():
        path = shipped / site.removeprefix("inventories/")
    if not path.exists():
        known = ", ".join(sorted(item.name for item in shipped.iterdir() if item.is_dir()))
        raise InputError(f"there is no inventory '{site}'", "--site", f"name a directory; these ship with lemonstand: {known}")
    path = path.absolute()
    options: tuple[str, ...] = () if site == DEFAULT_SITE else ("--site", site)
    folder = path if path.is_dir() else path.parent
    if not any("LEMONSTAND_LAB_DIR" in text.read_text(encoding="utf-8") for text in sorted(folder.rglob("*.yml"))):
        return Chosen(path, {}, None, options)
    from lemonstand import lab as labs  # noqa: PLC0415 - podman's side of things is needed for labs only

    if not (lab_dir(lab, create=False) / "secrets" / "passwords.yml").is_file():
        running = labs.names()
        there = f", or name one that is: {', '.join(running)}" if running else ""
        raise InputError(f"no lab '{lab}' is up", "--lab", f"lemonstand lab up --name {lab}{there}")
    env = labs.environment(lab)
    # testinfra and our own probes read the inventory in this process.
    os.environ.update(env)
    return Chosen(path, env, lab, options if lab == DEFAULT_LAB else (*options, "--lab", lab))


def site_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--site` and `--lab` to a command, which gets the `Chosen` they lead to first; `NOWHERE` with its option `listing`."""

    @functools.wraps(command)
    def wrapper(site: str, lab: str, **others: Any) -> None:
        command(NOWHERE if others.get("listing") else choose(site, lab), **others)

    lab = click.option("--lab", default=DEFAULT_LAB, show_default=True, metavar="NAME", help="The lab, if the site is a lab's inventory.")
    site = click.option(
        "-i", "--site", default=DEFAULT_SITE, show_default=True, metavar="DIR", help="The site's inventory: a directory or hosts file."
    )
    return site(lab(wrapper))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lemonstand")
def main() -> None:
    """Mobile mail that keeps its connections and its secrets (RFC 5383), as running hosts, with evidence.

    A lab in three steps: lemonstand lab up; lemonstand apply; lemonstand verify.
    """


def name_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--name` to a lab command."""
    return click.option("--name", default=DEFAULT_LAB, show_default=True, help="The lab's name.")(command)


def print_or_write(text: str, output: Path | None) -> None:
    """Prints a document, or writes it to a file and says so."""
    if output is None:
        click.echo(text, nl=False)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    click.echo(f"written: {output}")


def print_hosts(console: Console, site: Site) -> None:
    """Prints each host with what it is and its addresses."""
    table = Table(box=None, pad_edge=False)
    for heading in ("host", "is", "zones and addresses"):
        table.add_column(heading)
    for host in site.hosts.values():
        legs = "\n".join(f"{zone} {' '.join(str(address) for address in leg.addresses)}" for zone, leg in host.interfaces.items())
        table.add_row(host.name, ", ".join(host.groups), legs)
    console.print(table)
