"""Commands that measure a site: verify."""

from __future__ import annotations

from pathlib import Path

import click

from lemonstand.cli.base import Chosen, main, site_options
from lemonstand.errors import InputError, LemonstandError
from lemonstand.site.fields import suggest


@main.command()
@site_options
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Copy the evidence to this file (JSON).")
@click.option("--junit", "junit_path", type=click.Path(path_type=Path, dir_okay=False), help="Copy the results to this file (JUnit XML).")
@click.option("-k", "keyword", metavar="EXPRESSION", help="Only checks whose names match, as pytest's -k.")
@click.option("--control", "controls", multiple=True, metavar="ID", help="Only checks of it (LEM-7-01, LEM-7-*); may be repeated.")
@click.option("--section", "sections", multiple=True, metavar="N", help="Only checks of its controls (4.2, profile); may be repeated.")
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="Only checks that look at this host alone; may be repeated.")
@click.option("--limit", metavar="HOSTS", help="As --host for each of these hosts (an Ansible pattern).")
@click.option("--disruptive", is_flag=True, help="Also run checks that disturb the site: outages, loss, injected errors, reloads.")
@click.option("--soak", is_flag=True, help="Also hold silent and busy connections for two hours and ten minutes.")
@click.option("--soak-seconds", type=click.IntRange(min=60), metavar="N", help="Hold them for this long; a shorter time proves less.")
@click.option("--yes-disturb", metavar="SITE", help="The second word a real site wants for --disruptive: its name.")
def verify(
    chosen: Chosen,
    *,
    json_path: Path | None,
    junit_path: Path | None,
    keyword: str | None,
    controls: tuple[str, ...],
    sections: tuple[str, ...],
    hosts: tuple[str, ...],
    limit: str | None,
    disruptive: bool,
    soak: bool,
    soak_seconds: int | None,
    yes_disturb: str | None,
) -> None:
    """Measures the running site against every control and keeps the evidence.

    Results of earlier runs stand beside the new ones as long as inventory, lemonstand and hosts are the same.
    0 if every control has an answer, 1 if one failed, 2 if something could not be measured.
    """
    from lemonstand.breaking import trials  # noqa: PLC0415 - pytest and testinfra are slow to import
    from lemonstand.evidence import UNMEASURED, Selection  # noqa: PLC0415
    from lemonstand.evidence import verify as run_verify  # noqa: PLC0415

    loaded = chosen.load()
    name = loaded.settings.site_name
    if disruptive and not loaded.is_lab and yes_disturb != name:
        raise InputError(
            f"'{name}' is no lab: a disruptive run cuts its users' connections for minutes",
            "--disruptive",
            f"add --yes-disturb {name} if that is what you want",
        )
    if soak_seconds is not None and not soak:
        raise InputError("--soak-seconds means nothing without a soak", "--soak-seconds", "add --soak")
    meant = chosen.limit(limit)
    if meant is not None:
        hosts = tuple(dict.fromkeys((*hosts, *meant.hosts)))
    for host in hosts:
        if host not in loaded.hosts:
            raise InputError(f"there is no host '{host}'", "--host", suggest(host, loaded.hosts, f"one of {', '.join(loaded.hosts)}"))
    from lemonstand.evidence.plugin import SOAK_SECONDS  # noqa: PLC0415 - pytest is slow to import

    held = (soak_seconds or SOAK_SECONDS) if soak else None
    folder = chosen.state(loaded) / "evidence"
    selection = Selection(controls, sections, hosts, keyword or "", disruptive=disruptive, soak=held)
    try:
        code = run_verify(chosen.path, folder, selection, merge=True, plugins=(trials.__name__,))
    except LemonstandError as error:
        error.exit_code = UNMEASURED  # 1 would say that a control failed
        raise
    for wanted, file in ((json_path, "evidence.json"), (junit_path, "junit.xml")):
        if wanted is not None and (folder / file).is_file():
            wanted.parent.mkdir(parents=True, exist_ok=True)
            wanted.write_bytes((folder / file).read_bytes())
    click.get_current_context().exit(code)
