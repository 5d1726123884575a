"""A lost host: one command brings a fresh machine to where it was."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from lemonstand.cli.base import Chosen, again, main, site_options
from lemonstand.cli.deploy import fingerprint, play
from lemonstand.cli.progress import observer
from lemonstand.deploy import INTERRUPTED, JUDGED
from lemonstand.errors import LemonstandError
from lemonstand.site import Site

if TYPE_CHECKING:
    from lemonstand.admin.access import Hosts
    from lemonstand.admin.rebuild import Found, Rebuild, Source

BACK, AT_WORK = "back", "at work"
"""How far a rebuild came: what it had is there; its services began."""


@main.command("rebuild")
@site_options
@click.argument("host")
@click.option("--plan", "plan_only", is_flag=True, help="Say what would be done and where what it had comes from; change nothing.")
@click.option("--host-key", metavar="SHA256:…", help="The fresh machine's SSH key, as its console shows it: ssh-keygen -lf FILE.pub")
@click.option("--at", "at", metavar="BACKUP", default="", help="Another backup than the newest, as `backup list` names it.")
@click.option("--empty", is_flag=True, help="Begin with nothing, where nothing can be brought back: what the host alone had is lost.")
def rebuild(chosen: Chosen, *, host: str, plan_only: bool, host_key: str | None, at: str, empty: bool) -> None:
    """Brings HOST, lost and now a fresh Debian at its address, to where it was, and tells everybody who has to know.

    What it had comes from its twin, its standby or its backup. A host that holds anything is refused. Safe to interrupt and to repeat.
    """
    from lemonstand import admin  # noqa: PLC0415 - what reaches hosts loads pytest's side of the house
    from lemonstand.admin.operations import operation  # noqa: PLC0415
    from lemonstand.admin.rebuild import Rebuild  # noqa: PLC0415

    judged = fingerprint(chosen)
    site = chosen.load()
    began = time.monotonic()
    with admin.Hosts(chosen.path) as hosts:
        work = Rebuild(site, hosts, host, click.echo)
        if host_key:
            _accept(hosts, host, host_key)
        found = work.look()
        if found.holds and found.mark is None:
            raise LemonstandError(
                f"{host} is not fresh: {'; '.join(found.holds)}",
                host,
                f"a host that holds something is mended by `lemonstand apply --limit {host}`; to begin anew, install Debian there first",
            )
        source = _source(work, found, empty=empty)
        click.echo(f"{host} is fresh" if found.mark is None else f"{host} is being rebuilt; this goes on where that was cut off")
        for number, line in enumerate(work.plan(source, (found.mark or {}).get("snapshot", at)), 1):
            click.echo(f"  {number}. {line}")
        if plan_only:
            return
        with operation(site, hosts, shlex.join(again(whole=True)), host):
            mark = found.mark or {"source": vars(source), "snapshot": at, "made": "", "phase": ""}
            work.mark(mark)
            _carry_out(_Run(chosen, site, judged, work, source, mark))
    click.echo(f"{host} is back after {time.monotonic() - began:.0f} s; all of the site is measured by: lemonstand verify")


def _accept(hosts: Hosts, host: str, given: str) -> None:
    from lemonstand.remote.host_keys import accept  # noqa: PLC0415

    if accept(host, hosts.way(host), given):
        click.echo(f"{host}: its SSH key is {given} from now on")


def _source(work: Rebuild, found: Found, *, empty: bool) -> Source:
    """Where what the host had comes from; of a rebuild that is under way, as it was decided."""
    from lemonstand.admin.rebuild import BACKUP, NOTHING, Source  # noqa: PLC0415

    if found.mark and (found.mark["phase"] or not empty):
        known = found.mark["source"]
        return Source(known["kind"], known["host"], promote=known["promote"])
    source = work.source()
    if source.kind == BACKUP and empty:
        return Source(NOTHING)
    if source.kind == NOTHING and work.kind in ("auths", "stores") and not empty:
        raise LemonstandError(
            f"nobody has what {work.name} had: no other host answers for it, and nothing of this site is backed up",
            "lemonstand_services",
            "bring a host back that has it; or begin with nothing: --empty",
        )
    return source


@dataclass
class _Run:
    """One rebuild on its way.

    Args:
        chosen: the site as it was named; `site`: the model; `judged`: what its files are.
        work: what is done beside the runs of Ansible.
        source: where what the host had comes from.
        mark: how far it is, as the host has it.
        notes: what an operator should know in the end.
    """

    chosen: Chosen
    site: Site
    judged: str
    work: Rebuild
    source: Source
    mark: dict[str, Any]
    console: Console = field(default_factory=Console)
    notes: list[str] = field(default_factory=list)

    def came_to(self, phase: str, **more: str) -> None:
        """Remembers how far it is."""
        self.mark = {**self.mark, "phase": phase, **more}
        self.work.mark(self.mark)

    def apply(self, stages: str | None = None) -> None:
        """Runs the site's playbook on the host and those that have to know.

        Args:
            stages: those before something is brought back; None: all.

        Raises:
            LemonstandError: the host itself did not come to what the inventory says.
        """
        hosts = self.work.prepared_on if stages else self.work.runs_on
        result = play(
            self.chosen, self.site, "site.yml", observer(self.console), limit=",".join(hosts), tags=stages,
            env={JUDGED: self.judged}, extra={"site_waits": False},
        )  # fmt: skip
        if result.exit_code == INTERRUPTED:
            raise KeyboardInterrupt
        others: dict[str, str] = {}
        for failure in result.record.failures:
            if failure.host == self.work.name:
                raise LemonstandError(
                    f"{self.work.name}: {failure.task}: {failure.message}",
                    failure.path,
                    "mend that, and give the command again: it goes on",
                )
            others.setdefault(failure.host, "could not be reached" if failure.unreachable else f"{failure.task}: {failure.message}")
        if result.exit_code and not others:
            raise LemonstandError(result.message or "the run failed", str(result.log), "mend that, and give the command again: it goes on")
        if stages is None:
            self.notes += [f"{name} was left out ({why}): lemonstand apply --limit {name}" for name, why in others.items()]

    def close(self) -> None:
        """Closes the host to clients as others are: an emergency outlives the loss of a host.

        Raises:
            LemonstandError: it can't be.
        """
        closed = self.work.closed()
        if closed is None:
            return
        env = {"LEMONSTAND_CLOSE_REASON": str(closed["reason"]), "LEMONSTAND_CLOSE_CUT": str(bool(closed["cut"])).lower()}
        result = play(self.chosen, self.site, "close-service.yml", observer(self.console), env, limit=self.work.name)
        if result.exit_code:
            raise LemonstandError("the service is closed, and this host can't be", self.work.name, "give the command again: it goes on")
        self.notes.append(f"the service is closed since {closed['since']}, here as well: lemonstand service open")


def _carry_out(run: _Run) -> None:
    from lemonstand.admin.rebuild import BACKUP, PAIR  # noqa: PLC0415

    work, source = run.work, run.source
    if source.kind == PAIR and source.promote:
        work.promote(source.host)
    if source.kind == BACKUP and run.mark["phase"] not in (BACK, AT_WORK):
        _bring_back(run)
    if run.mark["phase"] != AT_WORK:
        run.apply()
        run.came_to(AT_WORK)
    run.close()
    if source.kind == PAIR:
        work.await_copy(source.host)
    run.notes += work.people(recover=source.kind == BACKUP and work.kind == "auths")
    if work.kind == "stores":
        work.flush()
    work.answers()
    work.done()
    click.echo(f"{work.name} answers")
    for line in run.notes:
        click.echo(f"note: {line}")
    for line in work.lost(source, run.mark["made"]):
        click.echo(f"lost: {line}")


def _bring_back(run: _Run) -> None:
    """From a backup, before a service begins."""
    run.apply("install,configure")
    chosen = run.work.snapshot(run.mark["snapshot"])
    # From here on this one counts: the host makes backups of its own as soon as it is at work.
    run.came_to("", snapshot=chosen["id"], made=chosen["time"])
    click.echo(f"backup {chosen['id']} of {chosen['time'][:19]} comes back")
    began = time.monotonic()
    done = run.work.bring_back(chosen["id"])
    if done.get("configure"):
        run.apply("configure")
        done = run.work.bring_back(chosen["id"])
    if done.get("configure"):
        raise LemonstandError(
            f"the directory of the backup {chosen['id']} has another suffix than slapd is configured for",
            run.work.name,
            "see directory_base_dn in the inventory, or take another backup with --at",
        )
    told = ", ".join(f"{done[key]} {key}" for key in ("entries", "users", "mailboxes", "messages", "scripts") if key in done)
    paths = f" and {', '.join(done['paths'])}" if done["paths"] else ""
    click.echo(f"brought back in {time.monotonic() - began:.1f} s: {told}{paths}")
    run.came_to(BACK)
