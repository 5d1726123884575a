"""Sites as people have them: each is a lab that comes up, is applied twice and verified; what it can't measure it says itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import topologies
from lemonstand import lab as labs
from lemonstand.paths import data_dir, lab_dir

from .conftest import NAME, PREFIX, Command

pytestmark = pytest.mark.long

NOTHING_FAILED = (0, 2)
"""Exit statuses of `verify` that say so; 2: something could not be measured."""


EXAMPLE = "a rehearsal of the example"


@pytest.mark.parametrize("kind", [*topologies.TOPOLOGIES, EXAMPLE])
def test_a_site_of_this_shape_works(kind: str, tmp_path: Path, lemonstand: Command) -> None:
    inventory = data_dir("inventories") / "example" if kind == EXAMPLE else topologies.write(kind, tmp_path / "inventory")
    labs.down(NAME, lambda line: None)
    lemonstand("lab", "up", "--name", NAME, "--prefix", PREFIX, "--site", str(inventory), timeout=1800)
    try:
        if kind in topologies.BEHIND_ITS_OWN_EDGE:
            lemonstand("apply", "--lab", NAME, "--limit", "edges")
        lemonstand("apply", "--lab", NAME)
        lemonstand("apply", "--lab", NAME)
        newest = max((lab_dir(NAME) / "runs").glob("*/run.json"))
        record = json.loads(newest.read_text(encoding="utf-8"))
        assert {host: tally["changed"] for host, tally in record["hosts"].items()} == dict.fromkeys(record["hosts"], 0)
        evidence = tmp_path / "evidence.json"
        said = lemonstand("verify", "--lab", NAME, "--json", str(evidence), code=NOTHING_FAILED, timeout=1800).stdout
        results = json.loads(evidence.read_text(encoding="utf-8"))["results"]
        passed = [each for each in results if each["outcome"] == "pass"]
        assert len(passed) > len(results) / 2, said[-3000:]
    finally:
        labs.down(NAME, lambda line: None)
