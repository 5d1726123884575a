"""Updates: each host reaches its mirror and no other, none waits for long, what runs is installed, and the release is looked after."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from lemonstand.admin.upgrades import PROGRAM, REMEDY
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.outcomes import expect, named
from lemonstand.policy.releases import load_releases
from lemonstand.site import Site
from lemonstand.site.model import MirrorService

STRICT = {
    "Acquire::AllowInsecureRepositories": "false",
    "Acquire::AllowWeakRepositories": "false",
    "Acquire::AllowDowngradeToInsecureRepositories": "false",
    "Acquire::Check-Valid-Until": "true",
    "APT::Get::AllowUnauthenticated": "false",
}
"""What apt has to be told, so that a mirror that lies is not believed (apt-secure(8), apt.conf(5))."""
SOURCES = "apt-get -q --print-uris update"
"""Prints what apt would fetch from whom, of all sources it has."""
SIGNED = "apt-get indextargets --format '$(SIGNED_BY)|$(TRUSTED)'"
"""Of each index that is there: by which key, and what came of that."""


def _said(host: HostFactory, node: str, word: str) -> dict[str, Any]:
    """What the host says of its updates."""
    done = host(node).run(f"{PROGRAM} {word}")
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        found = {"error": (done.stderr.strip() or "no answer")[-300:], "remedy": REMEDY}
    return found


def _mirror(site: Site, node: str) -> MirrorService:
    return named(site.settings.services.mirror_of(site.hosts[node].groups), "no mirror is named for this host")


@pytest.mark.answer("live")
@pytest.mark.control("OPS-21")
def test_updates_are_reachable(host: HostFactory, site: Site, node: str, measure: Measure) -> None:
    """The host fetches the mirror's index, signed and not over; apt knows no other source, and believes nothing that isn't signed."""
    service = _mirror(site, node)
    found = _said(host, node, "refresh")
    expect(
        "error" not in found,
        "the mirror's index can't be had",
        seen=found.get("error"),
        expected="an index",
        remedy=found.get("remedy", ""),
    )
    measure("packages pending", len(found["pending"]), volatile=True)
    dump = dict(line.rstrip(";").split(" ", 1) for line in host(node).run("apt-config dump").stdout.splitlines() if " " in line)
    believed = {key: dump.get(key, "").strip('"') for key, value in STRICT.items() if dump.get(key, "").strip('"') != value}
    expect(not believed, "apt would believe what is not signed, or is over", seen=believed, expected=STRICT, remedy="lemonstand apply")
    asked = [line.split("'")[1] for line in host(node).run(SOURCES).stdout.splitlines() if line.startswith("'")]
    others = sorted(url for url in asked if f"://{service.name}:{service.port}/" not in url)
    expect(
        bool(asked) and not others, "packages may come from elsewhere", seen=others or "no source at all",
        expected=f"{service.name}:{service.port} alone", remedy="lemonstand apply",
    )  # fmt: skip
    signed = {line for line in host(node).run(SIGNED).stdout.splitlines() if line}
    loose = {line for line in signed if not line.split("|")[0] or not line.endswith("|yes")}
    expect(bool(signed) and not loose, "an index is not signed", seen=loose or "none", expected="a key each", remedy="lemonstand apply")


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-22")
def test_no_update_waits_for_long(host: HostFactory, site: Site, node: str, measure: Measure) -> None:
    """The mirror was asked within these days, and what it offered then is not older than that; an upgrade that was cut off was ended."""
    _mirror(site, node)
    found, most = _said(host, node, "status"), site.settings.update_days
    expect("error" not in found, "nobody can say what is pending", seen=found.get("error"), expected="an answer", remedy=REMEDY)
    asked = (found["now"] - found["looked"]) / 86400
    measure("days since the mirror was asked", round(asked, 1), volatile=True)
    expect(asked <= most, "the mirror was not asked for long", seen=f"{asked:.1f} days", expected=f"{most} at the most",
           remedy="journalctl -u lemonstand-updates")  # fmt: skip
    waits = {name: round((found["now"] - each["since"]) / 86400, 1) for name, each in found["pending"].items()}
    measure("packages pending", len(waits), volatile=True)
    late = {name: days for name, days in waits.items() if days > most}
    expect(not late, "updates wait for long", seen=late, expected=f"{most} days at the most", remedy="lemonstand upgrade --plan")
    expect(
        not found["mark"], "an upgrade was cut off", seen=found["mark"].get("phase"), expected="none", remedy=f"lemonstand upgrade {node}"
    )


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-23")
def test_what_runs_is_what_is_installed(host: HostFactory, node: str, measure: Measure) -> None:
    """No process of a service runs a program or library that was replaced since, and no newer kernel waits for a boot."""
    found = _said(host, node, "status")
    expect("error" not in found, "nobody can say what runs", seen=found.get("error"), expected="an answer", remedy=REMEDY)
    stale = found["replaced"]
    measure("units that run what was replaced", len(stale))
    expect(
        not stale, "services run what is no longer installed", seen=stale, expected="none",
        remedy=" and ".join(f"systemctl restart {unit}" for unit in stale) + f" on {node}, or lemonstand upgrade {node}",
    )  # fmt: skip
    expect(not found["boot"], "what was renewed runs after a boot", seen=found["boot"], expected="nothing", remedy=f"boot {node}")


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-24")
def test_the_release_is_looked_after(host: HostFactory, node: str, measure: Measure) -> None:
    """The host runs the release of Debian that roles are written for, and Debian's security team looks after it still."""
    lines = host(node).run("cat /etc/os-release").stdout.splitlines()
    said = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
    name, release = said.get("VERSION_CODENAME", "none"), load_releases().get(said.get("VERSION_CODENAME", ""))
    measure("release", f"{said.get('ID', '')} {name}")
    expect(
        release is not None, "the roles are not written for this release", seen=name,
        expected=f"one of {', '.join(load_releases())}", remedy="set up a fresh host of that release: lemonstand rebuild",
    )  # fmt: skip
    left = (load_releases()[name].until - dt.datetime.now(dt.UTC).date()).days
    measure("days until its end", left, volatile=True)
    expect(left >= 0, "nobody looks after this release", seen=f"for {-left} days", expected="security updates",
           remedy="a newer lemonstand, and fresh hosts: lemonstand rebuild, one after the other")  # fmt: skip
