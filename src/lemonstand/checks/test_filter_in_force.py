"""Packet filters run what their files say: nothing was put in or taken out by hand."""

from __future__ import annotations

import pytest

from lemonstand.checks import expect, invalid
from lemonstand.checks.conftest import HostFactory, Measure

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
