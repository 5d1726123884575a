"""Of two of a kind the second is left at work when the first does not answer after its turn (record 0040)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from lemonstand import lab as labs
from lemonstand.paths import data_dir, lab_dir

from .conftest import NAME, PREFIX, Command

pytestmark = pytest.mark.long

CHANGE = ("-e", json.dumps({"ticket_issuer_directory_timeout_seconds": 16}))
"""For which what tells other issuers of refusals is started anew."""


@pytest.fixture(scope="module")
def pairs(lemonstand: Command) -> Iterator[str]:
    labs.down(NAME, lambda line: None)
    site = data_dir("inventories") / "lab-pairs"
    lemonstand("lab", "up", "--name", NAME, "--prefix", PREFIX, "--site", str(site), timeout=1800)
    try:
        lemonstand("apply", "--lab", NAME)
        yield NAME
    finally:
        labs.down(NAME, lambda line: None)


def on(host: str, command: str) -> str:
    words = ["ssh", "-F", str(lab_dir(NAME) / "ssh" / "config"), host, command]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def started(host: str) -> str:
    """Which start of it it is."""
    return on(host, "systemctl show -P InvocationID ticket-peers")


def test_an_apply_that_breaks_one_member_leaves_the_other_at_work(pairs: str, lemonstand: Command) -> None:
    before = {host: started(host) for host in ("auth1", "auth2")}
    # The issuer runs, and hears nobody.
    drop_in = "/run/systemd/system/ticket-issuer.service.d/deaf.conf"
    deaf = "[Service]\\nType=simple\\nExecStart=\\nExecStart=/bin/sleep 1d\\nExecReload=\\nExecReload=/bin/true\\n"
    on("auth1", f"mkdir -p $(dirname {drop_in}); printf '{deaf}' > {drop_in}")
    on("auth1", "systemctl daemon-reload; systemctl restart ticket-issuer")
    said = lemonstand("apply", "--lab", pairs, *CHANGE, code=1).stdout
    assert "auth1 had its turn before and does not answer" in " ".join(said.split())
    assert "port 8443" in said
    assert started("auth1") != before["auth1"]
    assert started("auth2") == before["auth2"]
    on("auth1", f"rm {drop_in}; systemctl daemon-reload; systemctl restart ticket-issuer")
    lemonstand("apply", "--lab", pairs, *CHANGE)
    assert started("auth2") != before["auth2"]


def test_a_member_that_is_down_holds_up_nobody(pairs: str, lemonstand: Command) -> None:
    before = started("auth2")
    subprocess.run(
        ["podman", "stop", "--time", "5", labs.topology_of(pairs).container("auth1")], check=True, capture_output=True, timeout=60
    )
    try:
        said = lemonstand("apply", "--lab", pairs, code=1).stdout
        assert "auth1" in said
        assert started("auth2") != before, "the change of the last run is taken back"
    finally:
        lemonstand("lab", "up", "--name", pairs)
    lemonstand("apply", "--lab", pairs)
