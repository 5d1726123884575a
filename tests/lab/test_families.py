"""The same lab as a site of one IP version: all of it works by that one alone, and nothing asks for the other."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from lemonstand.paths import data_dir

from .conftest import Command

pytestmark = pytest.mark.long

SERVED = re.compile(r"\s+(internet|dmz|auth|store|radio): \{")
"""Lines of a zone or a leg; management keeps both versions, as the controller comes by IPv4."""
OTHER = {4: r', ipv6: "[^"]*"', 6: r'ipv4: "[^"]*", '}


def one_version(version: int, folder: Path) -> Path:
    """The lab's inventory without the other IP version."""
    shutil.copytree(data_dir("inventories") / "lab", folder)
    for path in (folder / "hosts.yml", folder / "group_vars" / "all" / "site.yml"):
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if SERVED.match(line):
                line = re.sub(OTHER[version], "", line)  # noqa: PLW2901 - the same line, with less in it
            if version == 6 and "lemonstand_public_ipv4" in line:
                continue
            if version == 6 and re.search(r"ntp_servers|dns_resolvers: \[", line):
                line = re.sub(r"\{\{ lab4 \}\}\.(\d)\.(\d+)", r"{{ lab6 }}:\1::\2", line)  # noqa: PLW2901
            lines.append(line)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("version", [4, 6])
def test_a_site_of_one_ip_version_works(deployed: str, lemonstand: Command, tmp_path: Path, version: int) -> None:
    inventory = str(one_version(version, tmp_path / "site"))
    try:
        # The peer is the rest of the Internet, which has both.
        lemonstand("apply", "--lab", deployed, "-i", inventory, "--limit", "all:!peers")
        lemonstand("verify", "--lab", deployed, "-i", inventory, "--json", str(tmp_path / "evidence.json"))
    finally:
        lemonstand("apply", "--lab", deployed)
    evidence = json.loads((tmp_path / "evidence.json").read_text(encoding="utf-8"))
    assert evidence["counts"]["proven"] > 110
    other = 10 - version
    asked = [result for result in evidence["results"] if result["check"].endswith(f"[IPv{other}]") and result["outcome"] == "pass"]
    # A box without addresses of the version still has to drop it: what is silent passes.
    assert not [result["check"] for result in asked if "test_the_handset" in result["check"] or "test_imap" in result["check"]]
    assert {result["outcome"] for result in evidence["results"]} <= {"pass", "not-measurable", "not-applicable"}
