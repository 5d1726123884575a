"""What all commands share: the root, which site or lab is meant, how errors are told."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

import lemonstand
from lemonstand.cli.access import NAMES, Access, access_options, take
from lemonstand.deploy import INTERRUPTED
from lemonstand.deploy.run import SECRET_NAME
from lemonstand.errors import InputError, LemonstandError
from lemonstand.files import write_text
from lemonstand.paths import LAB_NAME, inventory_path, lab_dir, site_dir
from lemonstand.site import Site, load_site
from lemonstand.site.pattern import Limit, limited
from lemonstand.surroundings import ignored
from lemonstand.survey import look_at, of_a_lab, shown

DEFAULT_LAB = "lab"


class Group(click.Group):
    """A group of commands that prints our errors in three lines and turns them into exit codes."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **more: Any) -> Any:
        """Runs the words of this process, or those given; sees first to the streams of a process."""
        if args is not None:
            return super().main(args, *others, **more)
        _open_streams()
        try:
            return super().main(None, *others, **more)
        except OSError as fault:  # help that can't be printed: no command has begun
            if fault.errno not in GONE:
                _tell(str(_told(fault)))
            sys.exit(InputError.exit_code)
        finally:
            _flush()

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; 1 failed, 2 wrong input, 130 interrupted."""
        try:
            return super().invoke(ctx)
        except LemonstandError as error:
            _tell(str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            _tell("interrupted; running the same command again finishes the work")
            ctx.exit(INTERRUPTED)
        except (OSError, UnicodeError, RecursionError) as fault:
            if isinstance(fault, OSError) and fault.errno in GONE:
                _nobody_listens()
                ctx.exit(1)
            if os.environ.get("LEMONSTAND_TRACEBACK"):
                raise
            _tell(str(_told(fault)))
            ctx.exit(InputError.exit_code)


TOPICS = {
    "alarms": "alarms",
    "app_password": "user",
    "backup": "backup restore",
    "certificates": "certificates",
    "deploy": "apply check plan summary",
    "dkim": "dkim",
    "documents": "dns firewall-request flows",
    "evidence": "evidence",
    "keys": "keys",
    "lab": "lab",
    "mail": "mail",
    "mutate": "mutate",
    "operations": "log unlock",
    "probe": "probe",
    "rebuild": "rebuild",
    "redteam": "redteam threat-analysis",
    "report": "report",
    "service": "service",
    "store": "store user",
    "upgrade": "upgrade",
    "user": "user users",
    "verify": "verify",
}
"""The modules of commands, and the commands that each has or has a part of."""


class Root(Group):
    """Loads modules of commands once one of theirs is asked for: each hangs its commands here when it is imported."""

    def __init__(self, *given: Any, **more: Any) -> None:
        self._known: dict[str, click.Command] = {}
        super().__init__(*given, **more)

    @property
    def commands(self) -> MutableMapping[str, click.Command]:
        """All of them."""
        _load(TOPICS)
        return self._known

    @commands.setter
    def commands(self, known: Mapping[str, click.Command]) -> None:
        self._known = dict(known)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Hangs one here."""
        self._known[name or cmd.name or ""] = cmd

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One by its name; what is not needed for it is not loaded."""
        _load([topic for topic, commands in TOPICS.items() if cmd_name in commands.split()] or TOPICS)
        return self._known.get(cmd_name)


def _load(topics: Iterable[str]) -> None:
    for topic in topics:
        importlib.import_module(f"lemonstand.cli.{topic}")


def _open_streams() -> None:
    """A stream that is closed is one that nobody reads; what a terminal can't show is written as its number."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would become it
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Writes what is in buffers; what can't be written is not tried again, with a traceback, when the process ends."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


GONE = (errno.EPIPE, errno.EIO)
"""What writing to a closed pipe or terminal says."""
REMEDIES = {
    errno.ENOSPC: "make room there, then run the same command again",
    errno.EDQUOT: "make room there, then run the same command again",
    errno.EROFS: "let it be written, or name other directories in LEMONSTAND_STATE and LEMONSTAND_CACHE",
    errno.EACCES: "let this user read and write it",
    errno.EPERM: "let this user read and write it",
    errno.EMFILE: "raise `ulimit -n`",
}


def _told(fault: OSError | UnicodeError | RecursionError) -> InputError:
    """What the system, a file or its octets said, in the three lines of all errors."""
    frame = traceback.extract_tb(fault.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    remedy = "LEMONSTAND_TRACEBACK=1 shows where it came from"
    if isinstance(fault, OSError):
        where = " and ".join(shown(name) for name in (fault.filename, fault.filename2) if name is not None) or place
        return InputError(fault.strerror or str(fault), where, REMEDIES.get(fault.errno or 0, remedy))
    if isinstance(fault, UnicodeError):
        return InputError("text that is not UTF-8 where UTF-8 is expected", place, remedy)
    return InputError("something is nested deeper than anybody can read", place, remedy)


def _tell(text: str) -> None:
    """Prints to standard error, if anybody hears it, whatever characters it has."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(shown(text), err=True)


def _nobody_listens() -> None:
    """What is still in buffers goes nowhere, instead of failing once more at the end of the process."""
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError, AttributeError):
            continue


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

    def limit(self, pattern: str | None) -> Limit | None:
        """The hosts that a `--limit` means; None without one.

        Raises:
            InputError: it means nobody.
        """
        return None if pattern is None else limited(self.path, pattern)

    def state(self, site: Site) -> Path:
        """Where runs and evidence of the site are kept."""
        return lab_dir(self.lab) if self.lab else site_dir(site.settings.site_name)


NOWHERE = Chosen(Path(), {}, None, ())
"""For a command that was asked for a list only: it needs no site, and no lab that is up."""


def choose(site: str | None, lab: str, access: Access | None = None) -> Chosen:
    """Finds the inventory: as a path, else among those that ship with lemonstand, else the lab's own; prepares a lab's environment.

    Raises:
        InputError: there is none.
    """
    path = _of_lab(lab) if site is None else inventory_path(site)
    not_used = ignored()
    if not_used:
        _tell(f"not used: {', '.join(not_used)}: how hosts are reached stands in the inventory")
    options: tuple[str, ...] = () if site is None else ("--site", site)
    access = access or Access()
    _set(access.env)
    look_at(path)
    if not of_a_lab(path):
        return Chosen(path, access.env, None, (*options, *access.options))
    from lemonstand import lab as labs  # noqa: PLC0415 - podman's side of things is needed for labs only

    # Of one that never came up nothing is known, its addresses least of all.
    if not labs.is_up(lab):
        running = labs.names()
        there = f", or name one that is: {', '.join(running)}" if running else ""
        raise InputError(f"no lab '{lab}' is up", "--lab", f"lemonstand lab up --name {lab}{there}")
    labs.heal(lab)
    env = {**labs.environment(lab), **access.env}
    # testinfra and our own probes read the inventory in this process.
    _set(env)
    return Chosen(path, env, lab, (*options, *(() if lab == DEFAULT_LAB else ("--lab", lab)), *access.options))


def _of_lab(lab: str) -> Path:
    from lemonstand import lab as labs  # noqa: PLC0415 - likewise

    return labs.inventory_of(lab)


def _set(env: dict[str, str]) -> None:
    """Sets variables for what this command starts, until it ends."""
    context = click.get_current_context(silent=True)
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)

    def back() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    if context is not None:
        context.call_on_close(back)


def site_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--site`, `--lab` and Ansible's options for passwords and variables to a command.

    It gets the `Chosen` they lead to first; `NOWHERE` with its option `listing`.
    """

    @functools.wraps(command)
    def wrapper(site: str | None, lab: str, **others: Any) -> None:
        given = {name: others.pop(name) for name in NAMES}
        command(NOWHERE if others.get("listing") else choose(site, lab, take(given)), **others)

    lab = click.option(
        "--lab",
        default=DEFAULT_LAB,
        show_default=True,
        metavar="NAME",
        callback=lab_name,
        help="The lab, if the site is a lab's inventory.",
    )
    return site_option(lab(access_options(wrapper)))


def site_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--site` alone."""
    wanted = "The site's inventory: a directory or hosts file.  [default: what the lab was made for, or inventories/lab]"
    return click.option("-i", "--site", metavar="DIR", help=wanted)(command)


def lab_name(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Refuses what can't name a lab, before it becomes part of a path."""
    if not LAB_NAME.match(value):
        raise InputError(f"'{value}' can't name a lab", _parameter.opts[-1], "use 1 to 12 characters of a-z and 0-9, a letter first")
    return value


def again(*, limit: str | None = None, whole: bool = False) -> list[str]:
    """The words of this command as it was typed, to be typed again.

    Args:
        limit: another `--limit` than the one that was typed.
        whole: leave `--limit` as it was typed.
    """
    context = click.get_current_context()
    words: list[str] = []
    for parameter in context.command.params:
        if context.get_parameter_source(str(parameter.name)) is not ParameterSource.COMMANDLINE:
            continue
        if parameter.name == "limit" and not whole:
            continue
        values = context.params[str(parameter.name)]
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(parameter, click.Argument):
                words.append(str(value))
            elif parameter.name == "extra_vars":
                words += ["-e", value if value.startswith("@") or not SECRET_NAME.search(value) else "…"]
            elif isinstance(value, bool):
                words.append(parameter.opts[0] if value else (parameter.secondary_opts or parameter.opts)[0])
            else:
                words += [next((opt for opt in parameter.opts if opt.startswith("--")), parameter.opts[0]), str(value)]
    return ["lemonstand", *context.command_path.split()[1:], *words, *(["--limit", limit] if limit else [])]


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"lemonstand, version {lemonstand.__version__}")
        context.exit()


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit.")
def main() -> None:
    """Mobile mail that keeps its connections and its secrets (RFC 5383), as running hosts, with evidence.

    A lab in three steps: lemonstand lab up; lemonstand apply; lemonstand verify.
    """


def name_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--name` to a lab command."""
    return click.option("--name", default=DEFAULT_LAB, show_default=True, callback=lab_name, help="The lab's name.")(command)


def print_or_write(text: str, output: Path | None) -> None:
    """Prints a document, or writes it to a file and says so."""
    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text)
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
