"""Commands about kept evidence: show, diff, bundle, verify, oscal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from lemonstand.cli.base import Chosen, Group, main, site_options
from lemonstand.errors import InputError, LemonstandError

EVIDENCE = click.Path(path_type=Path, dir_okay=False)
THERE = click.Path(path_type=Path, dir_okay=False, exists=True)


@main.group("evidence", cls=Group)
def evidence_group() -> None:
    """What verifications saw: show it, compare it, hand it on, check it."""


@evidence_group.command("show")
@site_options
@click.argument("path", required=False, type=EVIDENCE)
@click.option("--control", "controls", multiple=True, metavar="ID", help="All there is about this control; may be repeated.")
def evidence_show(chosen: Chosen, path: Path | None, controls: tuple[str, ...]) -> None:
    """Shows evidence: the site's last, or that in a file or bundle."""
    from lemonstand.evidence.show import print_control, print_summary  # noqa: PLC0415
    from lemonstand.policy.controls import load_controls  # noqa: PLC0415

    path = path or _latest(chosen)
    evidence = _read(path)
    catalogue = load_controls()
    console = Console(highlight=False)
    if not controls:
        print_summary(console, evidence, catalogue, path)
        return
    known = {each["id"]: each for each in evidence["controls"]}
    for name in controls:
        if name not in known:
            raise InputError(f"the evidence has no control '{name}'", "--control", f"name one such as {next(iter(known))}")
        print_control(console, known[name], evidence)


@evidence_group.command("diff")
@click.argument("old", type=EVIDENCE)
@click.argument("new", type=EVIDENCE)
@click.pass_context
def evidence_diff(ctx: click.Context, old: Path, new: Path) -> None:
    """Says what changed between two documents or bundles: answers, versions, states, values. 1 if anything did.

    Times, and values that differ between any two runs, don't count.
    """
    from lemonstand.evidence.compare import compare  # noqa: PLC0415

    changes = compare(_read(old), _read(new))
    for change in changes:
        click.echo(str(change))
    click.echo("no change" if not changes else f"{len(changes)} changes")
    ctx.exit(1 if changes else 0)


@evidence_group.command("bundle")
@site_options
@click.option("--output", type=EVIDENCE, metavar="FILE", help="The bundle.  [default: SITE-TIME.evidence.tar.gz here]")
@click.option("--sign", "key", type=THERE, metavar="KEY", help="Sign it with this SSH key.")
def evidence_bundle(chosen: Chosen, output: Path | None, key: Path | None) -> None:
    """Writes the site's evidence, in all its forms, into one file with a hash of each; signs them if given a key."""
    from lemonstand.evidence.bundle import write_bundle  # noqa: PLC0415
    from lemonstand.evidence.forms import FORMS, pretty  # noqa: PLC0415
    from lemonstand.evidence.oscal import documents  # noqa: PLC0415

    folder = chosen.state(chosen.load()) / "evidence"
    evidence = _read(folder / "evidence.json")
    whole = (folder / "evidence.json").read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    parts = {
        "evidence.json": whole,
        **{name: pretty(document).encode() for name, document in documents(evidence).items()},
        # Made anew: one that lies beside the evidence may be of an older run.
        **{name: form(evidence, digest).encode() for name, form in FORMS.items()},
        **{name: (folder / name).read_bytes() for name in ("junit.xml",) if (folder / name).is_file()},
    }
    stamp = evidence["ended"][:19].replace("-", "").replace(":", "")
    output = output or Path(f"{evidence['site']}-{stamp}.evidence.tar.gz")
    write_bundle(output, parts, evidence, key)
    click.echo(f"written: {output} ({', '.join(sorted(parts))}{'; signed' if key else ''})")
    if not evidence["complete"]:
        click.echo("its newest run was interrupted: it is half a verification", err=True)


@evidence_group.command("verify")
@click.argument("path", type=EVIDENCE)
@click.option("--signers", type=THERE, metavar="FILE", help="Who may sign (allowed_signers).")
def evidence_verify(path: Path, signers: Path | None) -> None:
    """Checks a bundle: every part is what its hash says, the evidence keeps its form, and one of the signers signed it."""
    from lemonstand.evidence.bundle import read_bundle  # noqa: PLC0415
    from lemonstand.evidence.show import one_line  # noqa: PLC0415

    verdict = read_bundle(path, signers)
    unknown = "signed; name --signers to see by whom" if verdict.signed else "not signed"
    said = f"signed by {verdict.signer}" if verdict.signer else unknown
    click.echo(f"whole: {', '.join(verdict.parts)}; {said}")
    half = "" if verdict.evidence["complete"] else " (half a verification: its newest run was interrupted)"
    click.echo(f"{verdict.evidence['site']} {verdict.evidence['ended']}{half}\n{one_line(verdict.evidence)}")


@evidence_group.command("oscal")
@site_options
@click.argument("path", required=False, type=EVIDENCE)
@click.option("--output", type=EVIDENCE, metavar="FILE", help="Write it to this file instead.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Write catalog, profile, plan and results into this folder."
)
def evidence_oscal(chosen: Chosen, path: Path | None, output: Path | None, folder: Path | None) -> None:
    """Prints evidence as OSCAL assessment results (1.1.3, JSON), or writes them with all they refer to."""
    from lemonstand.evidence.forms import pretty  # noqa: PLC0415
    from lemonstand.evidence.oscal import assessment_results, documents  # noqa: PLC0415
    from lemonstand.evidence.write import write_text  # noqa: PLC0415

    evidence = _read(path or _latest(chosen))
    if folder is not None:
        if output is not None:
            raise InputError("--output is for one document, --folder for four", "--output", "give one of them")
        for name, document in documents(evidence).items():
            write_text(folder / name, pretty(document))
            click.echo(f"written: {folder / name}")
        return
    text = pretty(assessment_results(evidence))
    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text)
    click.echo(f"written: {output}")


def _latest(chosen: Chosen) -> Path:
    return chosen.state(chosen.load()) / "evidence" / "evidence.json"


def _read(path: Path) -> dict[str, Any]:
    """Evidence from its JSON or from a bundle."""
    from lemonstand.evidence.bundle import read_bundle  # noqa: PLC0415
    from lemonstand.evidence.write import check_form  # noqa: PLC0415

    if not path.is_file():
        raise InputError("there is no evidence", str(path), "lemonstand verify")
    if path.read_bytes()[:2] == b"\x1f\x8b":
        return read_bundle(path).evidence
    try:
        evidence: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError("this is neither evidence nor a bundle", str(path), "name evidence.json, or a bundle") from None
    try:
        check_form(evidence)
    except LemonstandError as fault:
        raise InputError(f"this is no evidence of today's form: {fault.what}", str(path), "lemonstand verify writes it anew") from None
    return evidence
