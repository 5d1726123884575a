"""The command line: parses, calls, prints. Everything it does can be done from Python with the packages it calls."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand import __version__
from lemonstand.deploy import INTERRUPTED, RunResult, run_playbook
from lemonstand.errors import InputError, LemonstandError
from lemonstand.paths import data_dir, lab_dir, site_dir
from lemonstand.progress import observer
from lemonstand.site import Site, load_site
from lemonstand.site.fields import suggest

DEFAULT_SITE = "inventories/lab"
DEFAULT_LAB = "lab"
NEEDED = "auths"
"""These hosts are part of every limited run: stores are given the public keys of the issuers that are met in the same run."""
PREFLIGHT = "Check the inventory"
"""The play that looks at the inventory as a whole (playbooks/preflight.yml)."""
STAGES = ("install", "configure", "activate")


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
        raise LemonstandError(f"no lab '{lab}' is up", str(path), f"lemonstand lab up --name {lab}")
    env = labs.environment(lab)
    # testinfra and our own probes read the inventory in this process.
    os.environ.update(env)
    return Chosen(path, env, lab, options if lab == DEFAULT_LAB else (*options, "--lab", lab))


def site_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--site` and `--lab` to a command, which gets the `Chosen` they lead to as its first argument."""

    @functools.wraps(command)
    def wrapper(site: str, lab: str, **others: Any) -> None:
        command(choose(site, lab), **others)

    lab = click.option("--lab", default=DEFAULT_LAB, show_default=True, metavar="NAME", help="The lab, if the site is a lab's inventory.")
    site = click.option(
        "--site", default=DEFAULT_SITE, show_default=True, metavar="DIR", help="The site's inventory: a directory or hosts file."
    )
    return site(lab(wrapper))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lemonstand")
def main() -> None:
    """Mobile mail that keeps its connections and its secrets (RFC 5383), as running hosts, with evidence.

    A lab in three steps: lemonstand lab up; lemonstand apply; lemonstand verify.
    """


@main.command()
@site_options
def check(chosen: Chosen) -> None:
    """Checks the inventory against the site model; touches no host."""
    loaded = chosen.load()
    console = Console()
    _print_hosts(console, loaded)
    settings = loaded.settings
    console.print(
        f"{len(loaded.hosts)} hosts, {len(settings.users)} users in {', '.join(settings.mail_domains)}, "
        f"{len(loaded.active_flows)} flows, timers '{settings.timer_profile}', TLS '{settings.tls_profile}': the model holds",
        highlight=False,
        soft_wrap=True,
    )


@main.command()
@site_options
@click.option("--limit", metavar="HOSTS", help="Only these hosts (an Ansible pattern), and the auth hosts they need.")
def plan(chosen: Chosen, limit: str | None) -> None:
    """Shows what `apply` would change; changes nothing."""
    loaded = chosen.load()
    console = Console()
    result = _run(console, chosen, loaded, check=True, diff=True, limit=limit, tags=None)
    for change in result.record.changes:
        console.print(f"would change  {change.host:<12} {escape(change.task)}", highlight=False, soft_wrap=True)
    if result.exit_code == 0 and not result.record.changes:
        console.print("nothing would change")
    _finish(console, chosen, result, "plan", limit)


@main.command()
@site_options
@click.option("--limit", metavar="HOSTS", help="Only these hosts (an Ansible pattern), and the auth hosts they need.")
@click.option("--stage", type=click.Choice(STAGES), help="Only this stage of every role.")
@click.option("--diff/--no-diff", default=False, help="Show how files change (secrets stay hidden).")
def apply(chosen: Chosen, limit: str | None, stage: str | None, diff: bool) -> None:
    """Brings the hosts to what the inventory says. Safe to repeat and to interrupt."""
    loaded = chosen.load()
    console = Console()
    result = _run(console, chosen, loaded, check=False, diff=diff, limit=limit, tags=stage)
    _finish(console, chosen, result, "apply", limit)


@main.command()
@site_options
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Copy the evidence to this file (JSON).")
@click.option("--junit", "junit_path", type=click.Path(path_type=Path, dir_okay=False), help="Copy the results to this file (JUnit XML).")
@click.option("-k", "keyword", metavar="EXPRESSION", help="Only checks whose names match, as pytest's -k.")
@click.option("--control", "controls", multiple=True, metavar="ID", help="Only checks of this control; may be repeated.")
@click.option("--disruptive", is_flag=True, help="Also run checks that disturb the site: outages, loss, injected errors, reloads.")
@click.option("--yes-disturb", metavar="SITE", help="The second word a real site wants for --disruptive: its name.")
def verify(
    chosen: Chosen,
    *,
    json_path: Path | None,
    junit_path: Path | None,
    keyword: str | None,
    controls: tuple[str, ...],
    disruptive: bool,
    yes_disturb: str | None,
) -> None:
    """Measures the running site against every control and keeps the evidence."""
    from lemonstand.evidence import verify as run_verify  # noqa: PLC0415 - pytest and testinfra are slow to import

    loaded = chosen.load()
    name = loaded.settings.site_name
    if disruptive and not loaded.is_lab and yes_disturb != name:
        raise InputError(
            f"'{name}' is no lab: a disruptive run cuts its users' connections for minutes",
            "--disruptive",
            f"add --yes-disturb {name} if that is what you want",
        )
    folder = chosen.state(loaded) / "evidence"
    code = run_verify(chosen.path, folder, list(controls) or None, keyword, disruptive=disruptive)
    for wanted, name in ((json_path, "evidence.json"), (junit_path, "junit.xml")):
        if wanted is not None and (folder / name).is_file():
            wanted.parent.mkdir(parents=True, exist_ok=True)
            wanted.write_bytes((folder / name).read_bytes())
    click.get_current_context().exit(code)


@main.command()
@site_options
def summary(chosen: Chosen) -> None:
    """Says what runs where, who can log in, and three things to try."""
    loaded = chosen.load()
    console = Console(highlight=False)
    _print_hosts(console, loaded)
    console.print()
    console.print(f"Mail for {', '.join(loaded.settings.mail_domains)}; handsets connect to {loaded.settings.public_name} (143, 587).")
    for user in loaded.settings.users:
        aliases = f"  also {', '.join(user.aliases)}" if user.aliases else ""
        console.print(f"  {user.name:<24} mailbox on {loaded.store_of(user)}{aliases}", soft_wrap=True)
    again = shlex.join(chosen.options)
    if chosen.lab is None:
        console.print("Passwords: those the directory holds; the inventory's seed them once.")
        tries = [f"lemonstand plan {again}", f"lemonstand verify {again}", f"lemonstand apply {again}"]
    else:
        console.print(f"Passwords: {lab_dir(chosen.lab) / 'secrets' / 'passwords.yml'}")
        names = [user.name for user in loaded.settings.users]
        name = shlex.join(() if chosen.lab == DEFAULT_LAB else ("--name", chosen.lab))
        tries = [
            f"lemonstand mail send {again} --from {names[0]} --to {names[-1]} --subject Hello",
            f"lemonstand lab ssh {name} store journalctl -u dovecot -n 20",
            f"lemonstand verify {again}",
        ]
    console.print("Try:")
    for line in tries:
        console.print(f"  {' '.join(line.split())}", soft_wrap=True)


@main.command()
@site_options
@click.argument("names", nargs=-1, metavar="[MUTANT]…")
@click.option("--list", "listing", is_flag=True, help="Only say which mutants there are.")
def mutate(chosen: Chosen, names: tuple[str, ...], listing: bool) -> None:
    """Breaks a lab on purpose, one mutant after the other, and sees whether the checks notice. Each is mended before the next.

    1 if a named check missed its mutant, or the lab is not as it was.
    """
    from lemonstand import mutants as breaks  # noqa: PLC0415 - starts pytest

    known = {mutant.name: mutant for mutant in breaks.load_mutants()}
    if listing:
        for mutant in known.values():
            click.echo(f"{mutant.name:<40} {mutant.host:<9} {', '.join(mutant.controls)}")
        return
    wrong = [name for name in names if name not in known]
    if wrong:
        raise InputError(f"there is no mutant '{wrong[0]}'", "MUTANT", suggest(wrong[0], known, "`lemonstand mutate --list` names them"))
    if chosen.lab is None:
        raise InputError("mutants break hosts on purpose: labs only", "--site", "name a lab's inventory")
    chosen.load()
    console = Console(highlight=False)
    verdicts = []
    for name in names or known:
        verdict = breaks.mutate(known[name], chosen.lab, chosen.path)
        verdicts.append(verdict)
        word = "[green]noticed[/]" if verdict.good else "[bold red]MISSED[/]" if verdict.missed else "[bold red]NOT MENDED[/]"
        console.print(f"{name:<40} {word}  {verdict.seconds:5.1f} s  {', '.join(verdict.noticed)}", soft_wrap=True)
        for missed in verdict.missed:
            console.print(f"  [bold red]did not notice:[/] {missed}", soft_wrap=True)
    good = sum(verdict.good for verdict in verdicts)
    console.print(f"{good} of {len(verdicts)} mutants noticed and mended in {sum(v.seconds for v in verdicts):.0f} s")
    click.get_current_context().exit(0 if good == len(verdicts) else 1)


@main.command()
@site_options
def dns(chosen: Chosen) -> None:
    """Prints the DNS records the site needs, as lines of a zone file."""
    from lemonstand.policy.dns import records  # noqa: PLC0415

    for record in records(chosen.load()):
        click.echo(str(record))


@main.command("firewall-request")
@site_options
@click.option("--format", "form", type=click.Choice(["md", "html"]), default="md", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file instead.")
def firewall_request(chosen: Chosen, form: str, output: Path | None) -> None:
    """Writes what the owner of an existing firewall is asked for: openings, times, ICMP, and why."""
    from lemonstand.policy.change_request import change_request, render  # noqa: PLC0415

    text = render(change_request(chosen.load()), form)
    if output is None:
        click.echo(text, nl=False)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    click.echo(f"written: {output}")


@main.group("lab", cls=Group)
def lab_group() -> None:
    """Hosts to try it on: containers with systemd, on networks of their own."""


def name_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--name` to a lab command."""
    return click.option("--name", default=DEFAULT_LAB, show_default=True, help="The lab's name.")(command)


@lab_group.command("up")
@name_option
@click.option("--prefix", metavar="A.B", help="First two octets of its private network.  [default: that of last time, else 10.83]")
def lab_up(name: str, prefix: str | None) -> None:
    """Brings a lab up, or finishes one that was interrupted."""
    from lemonstand import lab as labs  # noqa: PLC0415

    console = Console(highlight=False)
    labs.up(name, prefix, lambda line: console.print(line, markup=False, soft_wrap=True))


@lab_group.command("status")
@name_option
@click.pass_context
def lab_status(ctx: click.Context, name: str) -> None:
    """Shows each host's state, addresses and memory; 1 if not all run."""
    from lemonstand import lab as labs  # noqa: PLC0415

    rows = labs.status(name)
    table = Table(box=None, pad_edge=False)
    for heading in ("host", "container", "systemd", "memory", "addresses"):
        table.add_column(heading, justify="right" if heading == "memory" else "left")
    for row in rows:
        memory = f"{row['memory'] / 1024**2:.0f} MiB" if row["memory"] else ""
        table.add_row(row["host"], row["state"], row["systemd"], memory, " ".join(row["addresses"]))
    Console(highlight=False).print(table)
    ctx.exit(0 if all(row["systemd"] == "running" for row in rows) else 1)


@lab_group.command("ssh", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("host")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def lab_ssh(ctx: click.Context, name: str, host: str, argv: tuple[str, ...]) -> None:
    """Opens a shell on a host, or runs a command there."""
    from lemonstand import lab as labs  # noqa: PLC0415

    ctx.exit(labs.ssh(name, host, list(argv)))


@lab_group.command("logs")
@name_option
@click.argument("host", required=False)
@click.pass_context
def lab_logs(ctx: click.Context, name: str, host: str | None) -> None:
    """Prints a host's journal; without a host, where the lab's logs lie."""
    from lemonstand import lab as labs  # noqa: PLC0415

    ctx.exit(labs.logs(name, host))


@lab_group.command("down")
@name_option
@click.option("--all", "every", is_flag=True, help="All labs of this user.")
def lab_down(name: str, every: bool) -> None:
    """Removes a lab with all its secrets."""
    from lemonstand import lab as labs  # noqa: PLC0415

    for each in labs.names() if every else [name]:
        labs.down(each)


@lab_group.command("lock")
def lab_lock() -> None:
    """Makes the versions in the package cache the ones every lab is compared with."""
    from lemonstand.lab import images  # noqa: PLC0415

    click.echo(f"written: {images.write_lock()}")


@lab_group.command("forget")
def lab_forget() -> None:
    """Drops the caches: base images and Debian packages."""
    from lemonstand.lab import images  # noqa: PLC0415

    images.forget()


@lab_group.command("env")
@name_option
def lab_env(name: str) -> None:
    """Prints the variables for plain Ansible: eval "$(lemonstand lab env)"."""
    from lemonstand import lab as labs  # noqa: PLC0415

    for key, value in labs.environment(name).items():
        click.echo(f"export {key}={shlex.quote(value)}")


@main.group("mail", cls=Group)
def mail_group() -> None:
    """A small client to look with."""


@mail_group.command("send")
@site_options
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="A user of the site, who logs in.")
@click.option("--to", "recipients", required=True, multiple=True, metavar="ADDRESS", help="A recipient; may be repeated.")
@click.option("--subject", required=True, metavar="TEXT")
@click.option("--body", default="", metavar="TEXT")
@click.option("--attach", "attachments", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE")
def mail_send(chosen: Chosen, *, sender: str, recipients: tuple[str, ...], subject: str, body: str, attachments: tuple[Path, ...]) -> None:
    """Submits a message: in a lab from the handset, else from here.

    The password comes from the lab's own, from LEMONSTAND_PASSWORD, or is asked for.
    """
    from lemonstand import mail  # noqa: PLC0415

    loaded = chosen.load()
    settings = loaded.settings
    known = [user.name for user in settings.users]
    if chosen.lab is not None and sender not in known:
        raise InputError(f"'{sender}' is no user of this lab", "--from", f"use one of {', '.join(known)}")
    private = settings.public_certificate.source == "private_ca"
    order = mail.Order(
        server=settings.public_name,
        address=str(settings.public_ipv4 or "") if chosen.lab else "",
        ca=_public_ca(settings.pki_dir) if private else "",
        user=sender,
        password=_password(loaded, chosen, sender),
        recipients=recipients,
        message=mail.compose(sender, recipients, subject, body, attachments),
    )
    click.echo(mail.send(order, chosen.lab))


def _public_ca(pki: Path) -> str:
    path = pki / "public" / "ca.crt"
    if not path.is_file():
        raise LemonstandError("there is no certificate of the CA 'public' yet", str(path), "run `lemonstand apply` first")
    return path.read_text(encoding="ascii")


def _password(site: Site, chosen: Chosen, user: str) -> str:
    given = os.environ.get("LEMONSTAND_PASSWORD")
    if given is not None:
        return given
    if chosen.lab is not None:  # on a real site the inventory's password is only the first one
        known = site.password_of(user)
        if known is not None:
            return known
    return str(click.prompt(f"Password of {user}", hide_input=True, err=True))


def _run(console: Console, chosen: Chosen, site: Site, *, check: bool, diff: bool, limit: str | None, tags: str | None) -> RunResult:
    return run_playbook(
        chosen.path,
        [data_dir("playbooks") / "site.yml"],
        runs=chosen.state(site) / "runs",
        check=check,
        diff=diff,
        limit=f"{limit}:{NEEDED}" if limit else None,
        tags=tags,
        env=chosen.env,
        observer=observer(console, show_differences=diff),
    )


def _finish(console: Console, chosen: Chosen, result: RunResult, command: str, limit: str | None) -> None:
    """Prints the summary and what to do next, and leaves with the run's exit code."""
    if result.record.hosts:
        table = Table(box=None, pad_edge=False)
        table.add_column("host")
        for heading in ("ok", "changed", "failures", "tasks"):
            table.add_column(heading, justify="right")
        for host, tally in sorted(result.record.hosts.items()):
            style = "bold red" if tally.failures else "yellow" if tally.changed else "green"
            table.add_row(host, str(tally.ok), str(tally.changed), str(tally.failures), str(tally.tasks), style=style)
        console.print(table)
    for stage, seconds in result.record.stage_seconds.items():
        console.print(f"{seconds:7.1f} s  {escape(stage)}", highlight=False)
    again = ["lemonstand", command, *chosen.options]
    for failure in result.record.failures:
        limited = shlex.join(again if failure.stage == PREFLIGHT else [*again, "--limit", failure.host])
        console.print(
            f"\n[bold red]{escape(failure.host)}: {escape(failure.task)}[/bold red]\n{escape(failure.message)}\n"
            f"where:  {escape(failure.path)} (stage {escape(failure.stage)})\nrepeat: {escape(limited)}",
            highlight=False,
            soft_wrap=True,
        )
    if result.message:
        console.print(f"\n{result.message}", markup=False, highlight=False, soft_wrap=True)
    if result.exit_code:
        console.print(f"plain Ansible: {result.command}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"log: {result.log}   {result.seconds:.0f} s", markup=False, highlight=False, soft_wrap=True)
    if result.exit_code == INTERRUPTED:
        words = again if limit is None else [*again, "--limit", limit]
        console.print(f"interrupted; finish it with: {shlex.join(words)}", markup=False, highlight=False, soft_wrap=True)
    click.get_current_context().exit(result.exit_code)


def _print_hosts(console: Console, site: Site) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("host", "is", "zones and addresses"):
        table.add_column(heading)
    for host in site.hosts.values():
        legs = "\n".join(f"{zone} {' '.join(str(address) for address in leg.addresses)}" for zone, leg in host.interfaces.items())
        table.add_row(host.name, ", ".join(host.groups), legs)
    console.print(table)
