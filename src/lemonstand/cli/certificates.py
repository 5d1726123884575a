"""Commands about certificates: certificates list, certificates renew."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lemonstand.cli.base import Chosen, Group, main, site_options
from lemonstand.cli.deploy import finish, play
from lemonstand.cli.progress import observer

SOON_DAYS = 14
"""Days before its end at which a certificate is shown as a worry: what renews by itself did so long before."""

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
    rows = _rows(chosen)
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
        if soon:
            click.echo(
                f"{len(soon)} of {len(rows)} end within {days} days; new ones: lemonstand certificates renew {' '.join(chosen.options)}"
            )
    ctx.exit(1 if soon else 0)


def _rows(chosen: Chosen) -> list[dict[str, Any]]:
    """Every certificate of every host and of the controller's CAs, those that end first at the end of each host."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    from lemonstand.remote.certificates import Certificate  # noqa: PLC0415
    from lemonstand.remote.connections import connected  # noqa: PLC0415 - pytest comes with the checks
    from lemonstand.remote.prober import Prober  # noqa: PLC0415

    site = chosen.load()
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
            by = "the host (ACME)" if name in seen["renewed_here"] else "you (files)" if files else "apply"
            rows.append(_row(host, certificate, by))
    for path in sorted(site.settings.pki_dir.glob("*/ca.crt")):
        rows.append(_row("controller", Certificate(path.parent.name, path.read_text(encoding="ascii")), "you"))
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


@certificates_group.command("renew")
@site_options
@click.option("--limit", metavar="HOSTS", help="Only these hosts (an Ansible pattern).")
@click.option("--new-keys", is_flag=True, help="Make new keys too.")
@click.option("--new-authorities", is_flag=True, help="Make new CAs too; until the run has ended, hosts may refuse one another.")
def certificates_renew(chosen: Chosen, *, limit: str | None, new_keys: bool, new_authorities: bool) -> None:
    """Signs every certificate anew and has services read it; sessions go on.

    What lemonstand signs or gets by ACME needs no such run: it is renewed long before its end. This is for lost keys and changed CAs.
    """
    if limit and new_authorities:
        raise click.UsageError("--new-authorities is for all hosts: those left out would refuse the others; leave out --limit")
    loaded = chosen.load()
    hosts = chosen.limit(limit)
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
