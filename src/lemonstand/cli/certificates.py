"""Commands about certificates: which there are, new ones, by itself, and new CAs."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, main, print_or_write, site_options
from lemonstand.cli.deploy import finish, play
from lemonstand.cli.progress import observer
from lemonstand.deploy.schedule import Schedule
from lemonstand.errors import InputError
from lemonstand.files import write_text
from lemonstand.site import Site
from lemonstand.site.shipped import filter_plugin
from lemonstand.surroundings import PASSWORD_FILES, environment

if TYPE_CHECKING:
    from lemonstand.deploy import RunResult

SOON_DAYS = 21
"""Days before its end at which a certificate is shown as a worry: what renews by itself did so long before."""
DUE = "renew-due-certificates.yml"
LAST = "renewal.json"
"""In the site's state: what came of the last `renew --due` from this controller."""

WIDE = 200
"""Columns where the output is no terminal."""


@main.group("certificates", cls=Group)
def certificates_group() -> None:
    """The certificates of a site: what there is, and new ones."""


@certificates_group.command("list")
@site_options
@click.option(
    "--within", "days", default=SOON_DAYS, show_default=True, metavar="DAYS", help="Exit status 1 if one ends within so many days."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def certificates_list(ctx: click.Context, chosen: Chosen, *, days: int, as_json: bool) -> None:
    """Shows each host's certificates: names, who signed them, what they are good for, days left."""
    site = chosen.load()
    schedule = _scheduled(chosen, site)
    rows = _rows(site, "timer" if schedule else "apply")
    soon = [row for row in rows if row["days_left"] <= days]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        # A pipe has no width of its own; names that are cut off help nobody.
        console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
        table = Table(box=None, pad_edge=False)
        for heading in ("host", "certificate", "names", "use", "signed by", "renewed by", "days left"):
            table.add_column(heading, justify="right" if heading == "days left" else "left")
        for row in rows:
            style = "bold red" if row["days_left"] <= 0 else "yellow" if row in soon else None
            cells = (row["host"], row["certificate"], " ".join(row["names"]), " ".join(row["uses"]), row["signed_by"], row["renewed_by"])
            table.add_row(*(escape(cell) for cell in cells), f"{row['days_left']:.1f}", style=style)
        console.print(table)
        _tell_who_renews(chosen, site, schedule)
        if soon:
            click.echo(
                f"{len(soon)} of {len(rows)} end within {days} days; new ones: lemonstand certificates renew {' '.join(chosen.options)}"
            )
    ctx.exit(1 if soon else 0)


def _tell_who_renews(chosen: Chosen, site: Site, schedule: Schedule | None) -> None:
    """Says what happens by itself, from this controller, and what came of it last; and of a change of CAs that is not finished."""
    try:
        last = json.loads((chosen.state(site) / LAST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        last = None
    when = f"; last {last['when']}: {'ok' if last['ok'] else 'FAILED: ' + '; '.join(last['told'])}" if last else ""
    options = "".join(f" {word}" for word in chosen.options)
    if schedule is None:
        click.echo(f"no timer of this controller renews them (lemonstand certificates schedule{options}){when}")
    else:
        state = "" if (seen := schedule.state()) == "active" else f", but it is {seen}"
        click.echo(f"renewed by {schedule.timer.name} of this controller, {schedule.calendar()}{state}{when}")
    rotation = filter_plugin("authorities").rotation(site.settings.pki_dir)
    if rotation:
        names = ", ".join(rotation["authorities"])
        click.echo(f"a change of CAs ({names}) since {rotation['begun']} is not finished: lemonstand certificates rotate{options}")


def _rows(site: Site, renewer: str) -> list[dict[str, Any]]:
    """Every certificate of every host and of the CAs of controller or signer, those that end first at the end of each host."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    from lemonstand.remote.certificates import Certificate  # noqa: PLC0415
    from lemonstand.remote.connections import connected  # noqa: PLC0415 - pytest comes with the checks
    from lemonstand.remote.prober import Prober  # noqa: PLC0415

    source = site.settings.public_certificate.source
    hosts = [host.name for host in site.hosts.values() if host.role_groups]
    with connected(site.inventory) as connections, Prober(connections) as prober, ThreadPoolExecutor(max_workers=16) as pool:
        found = dict(zip(hosts, pool.map(lambda name: prober.ask(name, "certificates"), hosts), strict=True))
    rows = []
    for host, seen in found.items():
        for name, pem in seen["certificates"].items():
            if name.startswith("ca-"):
                continue
            certificate = Certificate(name, pem)
            files = source == "files" and name == "public" and "frontends" in site.hosts[host].groups
            by = "the host (ACME)" if name in seen["renewed_here"] else "you (files)" if files else renewer
            rows.append(_row(host, certificate, by))
    keeper = "signer" if site.settings.signer else "controller"
    for path in sorted(site.settings.pki_dir.glob("*/ca.crt")):
        rows.append(_row(keeper, Certificate(path.parent.name, path.read_text(encoding="ascii")), "you"))
    return rows


def _row(host: str, certificate: Any, by: str) -> dict[str, Any]:
    return {
        "host": host,
        "certificate": certificate.name,
        "names": certificate.names,
        "uses": certificate.uses or ["CA"],
        "signed_by": certificate.signer,
        "renewed_by": by,
        "serial": f"{certificate.x509.serial_number:x}",
        "ends": certificate.x509.not_valid_after_utc.isoformat(),
        "days_left": round(certificate.days_left_now(), 2),
    }


@certificates_group.command("policy")
@site_options
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.  [default: print it]")
def certificates_policy(chosen: Chosen, *, output: Path | None) -> None:
    """Proposes what a signer elsewhere should sign for the site: for each CA names and uses, and the longest life.

    Its owner reads it and takes it: `certificates_signer_policy` of the role `certificates` (tasks_from: signer). A host that is added
    needs a new one.
    """
    site = chosen.load()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.json"
        result = play(
            chosen, site, "signing-policy.yml", observer(Console(stderr=True), looks_only=True), extra={"signing_policy_file": str(file)}
        )
        if result.exit_code:
            finish(Console(stderr=True), result)
        text = file.read_text(encoding="utf-8")
    print_or_write(text, output)


def _within_option(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--within", type=click.FloatRange(0, min_open=True), metavar="DAYS", help=f"{what}  [default: the site's, 30]")


@certificates_group.command("renew")
@site_options
@click.option("--limit", metavar="HOSTS", help="Only these hosts (an Ansible pattern).")
@click.option("--due", is_flag=True, help="Only what ends soon; touch nothing else. For a timer: see `certificates schedule`.")
@_within_option("With --due: what ends within so many days.")
@click.option("--new-keys", is_flag=True, help="Make new keys too.")
@click.option(
    "--new-authorities",
    is_flag=True,
    help="Make new CAs too, for CAs that are lost or in wrong hands; until the run has ended, hosts may refuse one another.",
)
def certificates_renew(
    chosen: Chosen, *, limit: str | None, due: bool, within: float | None, new_keys: bool, new_authorities: bool
) -> None:
    """Signs every certificate anew and has services read it; sessions go on.

    What ends soon is renewed by any apply, by --due, and what comes by ACME by its host. Without --due this is for lost keys and CAs.
    """
    if limit and new_authorities:
        raise click.UsageError("--new-authorities is for all hosts: those left out would refuse the others; leave out --limit")
    if due and (new_keys or new_authorities):
        raise click.UsageError("--due makes no new keys and no new CAs; leave it out, or them")
    if within is not None and not due:
        raise click.UsageError("--within says what is due; give --due with it")
    loaded = chosen.load()
    hosts = chosen.limit(limit)
    if due:
        sys.exit(_renew_due(chosen, loaded, ",".join(hosts.hosts) if hosts else None, within))
    console = Console()
    result = play(
        chosen,
        loaded,
        "renew-certificates.yml",
        observer(console),
        limit=",".join(hosts.hosts) if hosts else None,
        extra={name: True for name, wanted in _wishes(new_keys, new_authorities).items() if wanted},
    )
    finish(console, result)


def _wishes(new_keys: bool, new_authorities: bool) -> dict[str, bool]:
    return {"certificates_new_keys": new_keys, "certificates_new_authorities": new_authorities}


def _renew_due(chosen: Chosen, site: Site, limit: str | None, within: float | None) -> int:
    """Looks what is due, and renews that; returns the exit status.

    Where nothing is due no lock is taken and nothing is written into the site's history.
    """
    console = Console()
    extra = {} if within is None else {"certificates_renew_days": within}
    looked = play(chosen, site, DUE, observer(console, looks_only=True), check=True, limit=limit, extra=extra)
    due = sorted({change.host for change in looked.record.changes})
    runs = [looked]
    if due:
        runs.append(play(chosen, site, DUE, observer(console), limit=",".join(due), extra=extra))
    done = [f"{change.host}: {detail}" for change in (runs[-1].record.changes if due else []) for detail in change.details]
    failed = dict.fromkeys(line for run in runs for line in _failed(run))
    code = max(run.exit_code for run in runs)
    told = [*done, *failed] or ["nothing is due"]
    for line in told:
        click.echo(line, err=line in failed)
    if code and not failed:
        click.echo(runs[-1].message, err=True)
    for run in runs if code else ():
        click.echo(f"log: {run.log}", err=True)
    seen = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "ok": code == 0, "told": told}
    write_text(chosen.state(site) / LAST, json.dumps(seen) + "\n")
    return code


def _failed(run: RunResult) -> list[str]:
    return [
        f"{each.host}: could not be reached; its certificates wait" if each.unreachable else f"{each.host}: {each.message}"
        for each in run.record.failures
    ]


@certificates_group.command("schedule")
@site_options
@click.option("--calendar", default="daily", show_default=True, metavar="TIME", help="When, as in systemd.time(7).")
@_within_option("Renew what ends within so many days.")
@click.option("--user/--machine", default=None, help="A timer of yours, or of this machine.  [default: of the machine if you are root]")
def certificates_schedule(chosen: Chosen, *, calendar: str, within: float | None, user: bool | None) -> None:
    """Has systemd renew what is due by itself, from this controller: `certificates renew --due` with the options given here.

    It is run once before, as systemd will run it. Passwords come from files: in the units stand their names. CA keys stay on this machine.
    """
    words = _unattended(chosen)
    site = chosen.load()
    schedule = Schedule(_name(chosen, site), os.geteuid() != 0 if user is None else user)
    command = [sys.executable, "-m", "lemonstand", "certificates", "renew", "--due", *words]
    command += [] if within is None else ["--within", f"{within:g}"]
    other = Schedule(schedule.name, not schedule.user)
    if other.is_there():
        raise InputError("this site is scheduled already", str(other.timer), "`lemonstand certificates unschedule` first")
    schedule.set_up(command, calendar, _variables(), f"Renews certificates of {_called(chosen, site)} that end soon")
    click.echo(f"{schedule.timer} renews what is due, {calendar}; the first run went well")
    linger = Path("/var/lib/systemd/linger") / (os.environ.get("USER") or "")
    if schedule.user and not linger.is_file():
        click.echo("it runs while you are logged in; so that it runs always: loginctl enable-linger")


@certificates_group.command("unschedule")
@site_options
def certificates_unschedule(chosen: Chosen) -> None:
    """Takes that timer away; certificates are renewed by any apply then."""
    schedule = _scheduled(chosen, chosen.load())
    if schedule is None:
        click.echo("nothing was scheduled")
        return
    schedule.take_away()
    click.echo(f"{schedule.timer} is gone")


def _called(chosen: Chosen, site: Site) -> str:
    return f"lab {chosen.lab}" if chosen.lab else site.settings.site_name


def _name(chosen: Chosen, site: Site) -> str:
    return "lemonstand-renew-" + re.sub(r"[^a-z0-9]+", "-", _called(chosen, site).lower()).strip("-")


def _scheduled(chosen: Chosen, site: Site) -> Schedule | None:
    """The timer of this site on this controller."""
    name = _name(chosen, site)
    return next((each for each in (Schedule(name, False), Schedule(name, True)) if each.is_there()), None)


def _unattended(chosen: Chosen) -> list[str]:
    """The options that were typed, if nobody has to be asked and none of them is a secret.

    Raises:
        InputError: somebody has to be, or one is.
    """
    remedy = "name a file that only you can read: --vault-password-file, --become-password-file, -e @FILE"
    for word in chosen.options:
        if word.startswith("--ask-") or "@prompt" in word or word == "prompt":
            raise InputError("a timer can't be asked for a password", word, remedy)
        if word == "…":
            raise InputError("what stands in a unit can be read by everybody", "-e", remedy)
        if re.match(r"(.*@)?(/dev/fd/|/proc/)", word):
            raise InputError("this file is gone when the command ends", word, remedy)
    if os.environ.get("ANSIBLE_BECOME_PASS"):
        raise InputError("a password in a variable is gone when the shell ends", "ANSIBLE_BECOME_PASS", remedy)
    return list(chosen.options)


SECRET_VARIABLE = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)


def _variables() -> dict[str, str]:
    """What of this command's environment a run by itself needs: where things lie, and names of files with passwords."""
    found = environment()
    own = {name for name in found if name.startswith("LEMONSTAND_") and not SECRET_VARIABLE.search(name)}
    return {
        name: found[name]
        for name in {"PATH", "HOME", "PYTHONPATH", "XDG_STATE_HOME", "XDG_CACHE_HOME", *PASSWORD_FILES, *own}
        if name in found
    }


@certificates_group.command("rotate")
@site_options
@click.option(
    "--authority",
    "authorities",
    multiple=True,
    metavar="NAME",
    help="Only this CA; may be given more than once.  [default: all but `public`]",
)
@click.option(
    "--hold", is_flag=True, help="Stop once hosts trust the next CAs, so that clients can be given them; without it the command goes on."
)
def certificates_rotate(chosen: Chosen, *, authorities: tuple[str, ...], hold: bool) -> None:
    """Makes new CAs and drops the old ones, with an overlap in which hosts trust both: no connection is refused, sessions go on.

    All hosts have to be there. What was cut off is finished by giving the command again. `public` is changed only if it is named: clients
    trust it as well, and need the new one first. For CAs in wrong hands: `certificates renew --new-authorities`.
    """
    site = chosen.load()
    console = Console()
    extra: dict[str, Any] = {"certificates_rotation_authorities": list(authorities)} if authorities else {}
    extra |= {"certificates_rotation_hold": True} if hold else {}
    finish(console, play(chosen, site, "rotate-authorities.yml", observer(console), extra=extra), whole=True)
