"""Tampered hosts: all at once is named thing by thing, and what the verification prints as remedies heals them."""

from __future__ import annotations

import pytest

from lemonstand import lab as labs
from lemonstand.breaking import load_mutants
from lemonstand.integrity import APPLY, Discrepancy, read_integrity
from lemonstand.remote.connections import connected
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

from .conftest import Command

pytestmark = pytest.mark.long


def found_on(site: Site) -> list[tuple[str, str, Discrepancy]]:
    with connected(site.inventory) as connections, Prober(connections) as prober:
        integrity = read_integrity(site, prober)
    assert not integrity.unread
    return [(host, kind, each) for host, kinds in integrity.found.items() for kind, rows in kinds.items() for each in rows]


def test_none_of_many_hides_another(deployed: str, lemonstand: Command) -> None:
    said = lemonstand("mutate", "--lab", deployed, "--together", timeout=1800).stdout
    count = sum(mutant.together for mutant in load_mutants())
    assert count >= 60
    assert f"{count} of {count} mutants noticed and mended" in said


def test_each_remedy_heals(deployed: str, lab_site: Site, lemonstand: Command) -> None:
    mutants = [mutant for mutant in load_mutants() if mutant.together]
    lemonstand("lab", "snapshot", "whole", "--name", deployed)
    try:
        assert found_on(lab_site) == []
        for mutant in mutants:
            labs.run_on(deployed, mutant.host, mutant.changing())
        tampered = found_on(lab_site)
        assert len(tampered) >= len(mutants)
        # One command may heal several.
        for host, remedy in dict.fromkeys((host, each.remedy) for host, _, each in tampered):
            if remedy != APPLY:
                labs.run_on(deployed, host, remedy)
        lemonstand("apply", "--lab", deployed)
        left = [f"{host} {kind} {each}: {each.remedy}" for host, kind, each in found_on(lab_site)]
        assert left == []
    finally:
        lemonstand("lab", "restore", "whole", "--name", deployed)
