"""Commands that bring hosts to what the inventory says: check, plan, apply, summary."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand.cli.base import DEFAULT_LAB, Chosen, again, main, print_hosts, site_options
from lemonstand.cli.progress import observer
from lemonstand.deploy import INTERRUPTED, JUDGED, RunResult, run_playbook
from lemonstand.deploy.record import Observer
from lemonstand.derived.deviations import deviations
from lemonstand.errors import LemonstandError
from lemonstand.evidence.model import SCHEMA_VERSION
from lemonstand.paths import data_dir, lab_dir
from lemonstand.redteam.analysis import unreviewed
from lemonstand.site import Site
from lemonstand.site.families import one_family_flows
from lemonstand.site.pattern import Limit
from lemonstand.site.shipped import filter_plugin

if TYPE_CHECKING:
    from lemonstand.evidence.compare import Change
    from lemonstand.integrity import Discrepancy
    from lemonstand.remote.connections import Connection

NEEDS = {"stores": ("auths",), "auths": ("auths", "stores")}
"""Stores are given the public keys of the issuers that are met in the same run, so a limited run takes these along; a new issuer's key
has to get to the stores, and auth hosts let one another in."""
PREFLIGHT = ("Check the inventory", "Begin", "Look at the hosts")
"""Plays that stop all hosts (playbooks/preflight.yml, preflight_hosts.yml): what was asked for has to be asked for again, as a whole."""
BEFORE = ("Check the inventory", "Begin")
"""Plays that fail before a run has begun, as the site sees it (playbooks/begin.yml)."""
STAGES = ("install", "configure", "activate")
OLDER = click.option("--older", is_flag=True, help="Go back on purpose: by an older lemonstand than was here last.")


@main.command()
@site_options
def check(chosen: Chosen) -> None:
    """Checks the inventory against the site model; touches no host."""
    loaded = chosen.load()
    console = Console()
    print_hosts(console, loaded)
    settings = loaded.settings
    console.print(
        f"{len(loaded.hosts)} hosts, {len(settings.users)} users in {', '.join(settings.mail_domains)}, "
        f"{len(loaded.active_flows)} flows, timers '{settings.timer_profile}', TLS '{settings.tls_profile}': the model holds",
        highlight=False,
        soft_wrap=True,
    )
    for flow, gap in one_family_flows(loaded).items():
        console.print(f"finding:   flow '{flow}' works {gap}", markup=False, highlight=False, soft_wrap=True)
    for host in loaded.hosts:
        lines = [
            (program, ", ".join(f"{name} = {value}" for name, value in own.items())) for program, own in loaded.own_settings(host).items()
        ]
        lines += [(program, f"text of {len(text.splitlines())} lines") for program, text in loaded.drop_ins(host).items()]
        for program, own in lines:
            console.print(f"own:       {program} on {host}: {own}", markup=False, highlight=False, soft_wrap=True)
    for deviation in deviations(loaded):
        console.print(f"deviation: {deviation}", markup=False, highlight=False, soft_wrap=True)
    if settings.services.backup is None:
        console.print(
            "hint:      nothing is backed up: lemonstand_services names no repository (docs/operate.md, Backup)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


@main.command()
@site_options
@click.option("--limit", metavar="HOSTS", help="Only these hosts (an Ansible pattern), and those that keys have to come from or go to.")
@click.option("--junit", "junit_path", type=click.Path(path_type=Path, dir_okay=False), help="Also write it as JUnit XML.")
@OLDER
def plan(chosen: Chosen, limit: str | None, junit_path: Path | None, older: bool) -> None:
    """Shows what `apply` would change, and what differs from the last evidence; changes nothing. One line if nothing does."""
    from lemonstand.evidence.drift import drift  # noqa: PLC0415 - testinfra is slow to import
    from lemonstand.evidence.write import read_evidence, write_plan  # noqa: PLC0415
    from lemonstand.remote.connections import connected  # noqa: PLC0415

    judged = fingerprint(chosen)
    loaded = chosen.load()
    console = Console(highlight=False, soft_wrap=True)
    result = _run(console, chosen, loaded, judged, check=True, diff=True, limit=limit, tags=None, extra=_wishes(older, ()))
    for change in result.record.changes:
        console.print(f"would change  {change.host:<12} {escape(change.task)}")
        for detail in change.details:
            console.print(f"              {escape(detail)}")
    if result.exit_code:
        finish(console, result)
    evidence = read_evidence(chosen.state(loaded) / "evidence" / "evidence.json")
    known = evidence if evidence is not None and evidence.get("schema") == SCHEMA_VERSION else None
    since: list[Change] = []
    strange: list[tuple[str, Discrepancy]] = []
    if known:
        with connected(loaded.inventory) as connections:
            since = drift(loaded, known, connections)
            strange = _strange(loaded, connections, with_needed(loaded, chosen.limit(limit)))
    told = {change.host for change in result.record.changes} | {host for host, _ in strange}
    # What differs is named item by item: that the whole differs is no news then.
    since = [each for each in since if not (each.kind == "host" and each.subject in {f"{host} state" for host in told})]
    when = str(known["ended"])[:16].replace("T", " ") if known else ""
    for each in since:
        console.print(f"since {when}  {escape(str(each))}")
    for host, thing in strange:
        console.print(f"strange       {host:<12} {escape(str(thing))}")
        console.print(f"              by hand: {escape(thing.remedy)}")
    if junit_path is not None:
        changes = [(change.host, change.task) for change in result.record.changes]
        others = [*map(str, since), *(f"{host}: {thing}" for host, thing in strange)]
        write_plan(junit_path, loaded.settings.site_name, list(loaded.hosts), changes, others)
    if not result.record.changes and not since and not strange:
        console.print(f"nothing would change; all is as it was verified on {when}" if known else "nothing would change; never verified")
        return
    if not result.record.changes:
        console.print("nothing would change")
    finish(console, result)


@main.command()
@site_options
@click.option("--limit", metavar="HOSTS", help="Only these hosts (an Ansible pattern), and those that keys have to come from or go to.")
@click.option("--stage", type=click.Choice(STAGES), help="Only this stage of every role.")
@click.option("--diff/--no-diff", default=False, help="Show how files change (secrets stay hidden).")
@OLDER
@click.option("--without-seat", multiple=True, metavar="HOST", help="Do without the lock of this auth host or store, which can't keep it.")
def apply(chosen: Chosen, *, limit: str | None, stage: str | None, diff: bool, older: bool, without_seat: tuple[str, ...]) -> None:
    """Brings the hosts to what the inventory says. Safe to repeat and to interrupt."""
    judged = fingerprint(chosen)
    loaded = chosen.load()
    console = Console()
    reason = unreviewed(loaded)
    if reason:
        console.print(f"[yellow]not reviewed:[/] {escape(reason)}; see `lemonstand threat-analysis`", highlight=False, soft_wrap=True)
    result = _run(console, chosen, loaded, judged, check=False, diff=diff, limit=limit, tags=stage, extra=_wishes(older, without_seat))
    finish(console, result)


@main.command()
@site_options
def summary(chosen: Chosen) -> None:
    """Says what runs where, who can log in, and three things to try."""
    loaded = chosen.load()
    console = Console(highlight=False)
    print_hosts(console, loaded)
    console.print()
    console.print(f"Mail for {', '.join(loaded.settings.mail_domains)}; handsets connect to {loaded.settings.public_name} (143, 587).")
    for user in loaded.settings.users:
        aliases = f"  also {', '.join(user.aliases)}" if user.aliases else ""
        console.print(f"  {user.name:<24} mailbox on {loaded.store_of(user)}{aliases}", soft_wrap=True)
    same = shlex.join(chosen.options)
    if chosen.lab is None:
        console.print("Passwords: those the directory holds; the inventory's seed them once.")
        tries = [f"lemonstand plan {same}", f"lemonstand verify {same}", f"lemonstand apply {same}"]
    else:
        console.print(f"Passwords: {lab_dir(chosen.lab) / 'secrets' / 'passwords.yml'}")
        # What arrives in a probe user's mailbox is for checks, and emptied by them.
        names = [user.name for user in loaded.settings.users if user.name not in loaded.settings.probe_users]
        name = shlex.join(() if chosen.lab == DEFAULT_LAB else ("--name", chosen.lab))
        tries = [
            f"lemonstand mail send {same} --from {names[0]} --to {names[-1]} --subject Hello",
            f"lemonstand lab ssh {name} store journalctl -u dovecot -n 20",
            f"lemonstand verify {same}",
        ]
    console.print("Try:")
    for line in tries:
        console.print(f"  {' '.join(line.split())}", soft_wrap=True)
    from lemonstand.evidence.show import one_line, print_waivers  # noqa: PLC0415
    from lemonstand.evidence.write import read_evidence  # noqa: PLC0415

    evidence = read_evidence(chosen.state(loaded) / "evidence" / "evidence.json")
    if evidence is not None and evidence.get("schema") == SCHEMA_VERSION:
        console.print()
        print_waivers(console, evidence)
        console.print(one_line(evidence), soft_wrap=True)


def fingerprint(chosen: Chosen) -> str:
    """What the files of an inventory are, before they are judged: preflight need not judge the same again (docs/decisions/0027)."""
    return str(filter_plugin("judged").fingerprint([chosen.path]))


def _run(
    console: Console,
    chosen: Chosen,
    site: Site,
    judged: str,
    *,
    check: bool,
    diff: bool,
    limit: str | None,
    tags: str | None,
    extra: dict[str, Any],
) -> RunResult:
    hosts = with_needed(site, chosen.limit(limit))
    return play(
        chosen,
        site,
        "site.yml",
        observer(console, show_differences=diff, looks_only=check),
        check=check,
        diff=diff,
        limit=",".join(hosts) or None,
        tags=tags,
        env={JUDGED: judged},
        extra=extra,
    )


def play(chosen: Chosen, site: Site, playbook: str, watched: Observer, env: Mapping[str, str] | None = None, **how: Any) -> RunResult:
    """Runs one of our playbooks on a site, and tells the site what came of it.

    Args:
        playbook: its file in `playbooks/`.
        watched: is told what happens while it happens.
        env: variables for Ansible beside the command's own.
        how: further arguments of `run_playbook`.
    """
    result = run_playbook(
        chosen.path,
        [data_dir("playbooks") / playbook],
        runs=chosen.state(site) / "runs",
        env={**chosen.env, **(env or {})},
        observer=watched,
        command=shlex.join(again(whole=True)),
        **how,
    )
    if not how.get("check"):
        _settle(chosen, site, result)
    return result


def _wishes(older: bool, without: tuple[str, ...]) -> dict[str, Any]:
    return {**({"site_older": True} if older else {}), **({"site_lock_without": list(without)} if without else {})}


def _settle(chosen: Chosen, site: Site, result: RunResult) -> None:
    """Says to the site what came of a run that did not end well, and gives its lock back: Ansible itself may not have come to it."""
    if not result.exit_code or any(failure.stage in BEFORE for failure in result.record.failures if not failure.unreachable):
        return
    from lemonstand.admin import Hosts  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house
    from lemonstand.admin.operations import close  # noqa: PLC0415

    failed = {failure.host: f"{failure.stage}: {failure.task}" for failure in result.record.failures}
    changed = {host: tally.changed for host, tally in result.record.hosts.items()}
    try:
        with Hosts(chosen.path) as hosts:
            ended = "interrupted" if result.exit_code == INTERRUPTED else "failed"
            untold = close(site, hosts, run=result.run, result=ended, changed=changed, failed=failed)
    except LemonstandError as fault:
        untold = {"this controller": fault.what}
    for seat, why in untold.items():
        click.echo(f"not told how it ended: {seat} ({why})", err=True)


def _strange(site: Site, connections: dict[str, Connection], names: list[str]) -> list[tuple[str, Discrepancy]]:
    """What is on hosts and is none of ours, as a verification finds it: what `apply` heals is left to what it would change.

    Args:
        site: the model.
        connections: how to reach its hosts.
        names: of the hosts to tell about; none: of all.
    """
    from lemonstand.integrity import APPLY, read_integrity  # noqa: PLC0415
    from lemonstand.remote.prober import Prober  # noqa: PLC0415

    with Prober(connections) as prober:
        found = read_integrity(site, prober)
    return [
        (host, each)
        for host, kinds in found.found.items()
        for kind in kinds.values()
        for each in kind
        if each.remedy != APPLY and (not names or host in names)
    ]


def with_needed(site: Site, limit: Limit | None) -> list[str]:
    """The hosts of a `--limit`, and those they need unless they are excluded; none without a limit."""
    if limit is None:
        return []
    chosen = set(limit.hosts)
    groups = {needed for needing, others in NEEDS.items() for needed in others if chosen & {host.name for host in site.group(needing)}}
    more = [host.name for host in site.hosts.values() if groups & set(host.groups) and host.name not in {*chosen, *limit.excluded}]
    return [*limit.hosts, *more]


def finish(console: Console, result: RunResult, *, whole: bool = False) -> None:
    """Prints the summary and what to do next, and leaves with the run's exit code; a `whole` command has no --limit."""
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
    for notice, hosts in result.record.notices.items():
        console.print(f"[bold yellow]notice:[/] {escape(notice)} ({', '.join(hosts)})", highlight=False, soft_wrap=True)
    for failure in result.record.failures:
        stopped_all = whole or (failure.stage in PREFLIGHT and not failure.unreachable)
        words = again(whole=True) if stopped_all else again(limit=failure.host)
        console.print(
            f"\n[bold red]{escape(failure.host)}: {escape(failure.task)}[/bold red]\n{escape(failure.message)}\n"
            f"where:  {escape(failure.path)} (stage {escape(failure.stage)})\nrepeat: {escape(shlex.join(words))}",
            highlight=False,
            soft_wrap=True,
        )
    lost = sorted({failure.host for failure in result.record.failures if failure.unreachable})
    if lost:
        others = sorted(name for name, tally in result.record.hosts.items() if not tally.failures)
        went_on = f"; done without: {', '.join(others)}" if others else ""
        console.print(f"could not be reached: {', '.join(lost)}{went_on}", markup=False, highlight=False, soft_wrap=True)
    if result.message:
        console.print(f"\n{result.message}", markup=False, highlight=False, soft_wrap=True)
    if result.exit_code:
        console.print(f"plain Ansible: {result.command}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"log: {result.log}   {result.seconds:.0f} s", markup=False, highlight=False, soft_wrap=True)
    if result.exit_code == INTERRUPTED:
        console.print(f"interrupted; finish it with: {shlex.join(again(whole=True))}", markup=False, highlight=False, soft_wrap=True)
    click.get_current_context().exit(result.exit_code)
