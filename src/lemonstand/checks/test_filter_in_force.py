"""Packet filters run what their files say: nothing was put in or taken out by hand."""

from __future__ import annotations

import base64
import json
import shlex

import pytest

from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.outcomes import expect, invalid
from lemonstand.paths import data_dir
from lemonstand.site import Site

PROGRAM = "/usr/local/lib/lemonstand/packet-filter"


@pytest.mark.answer("configuration")
@pytest.mark.control("LEM-6.1-02")
@pytest.mark.supports("LEM-8-06", "LEM-8-07", "LEM-8-09", "LEM-7-01")
def test_what_runs_is_what_the_file_says(host: HostFactory, node: str, measure: Measure) -> None:
    """The kernel's normal form of the file, made in an empty network namespace, is what the host runs: any rule more or less is named."""
    done = host(node).run(f"{PROGRAM} apply --check")
    if done.rc != 0:
        invalid(f"{node}: {PROGRAM} fails: {done.stderr.strip()[:200]}")
    changes = [line.removeprefix("changed: ") for line in done.stdout.splitlines() if line.startswith("changed: ")]
    measure("differences", len(changes))
    expect(not changes, "the rules in force are not those of the file", seen=changes, expected="no difference")


@pytest.mark.answer("configuration")
@pytest.mark.control("LEM-6.1-02")
@pytest.mark.supports("LEM-8-06", "LEM-8-07", "LEM-8-09", "LEM-3-01", "LEM-7-01")
def test_nobody_else_filters_or_flushes(site: Site, host: HostFactory, node: str, measure: Measure) -> None:
    """No chain of others drops or translates what ours let through, and no unit of others would flush ours (preflight asks the same)."""
    program = (data_dir("playbooks") / "files" / "host_state.py").read_text(encoding="utf-8")
    order = {
        "only": "filters",
        "settled": True,
        "routes": "edges" in site.hosts[node].groups,
        "foreign_tables": site.hosts[node].settings.foreign_tables,
    }
    told = base64.b64encode(json.dumps(order).encode()).decode()
    done = host(node).run(f"/usr/bin/python3 -c {shlex.quote(program)} {told}")
    if not done.stdout.startswith("{"):
        invalid(f"{node}: its packet filters can't be read: {done.stderr.strip()[-200:]}")
    faults = json.loads(done.stdout)["faults"]
    measure("chains, rules and units of others", len(faults))
    expect(not faults, "others have a say in what passes", seen=faults, expected="nothing beside our tables drops, translates or flushes")
