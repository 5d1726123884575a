"""A deployed site holds what it promises, and says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lemonstand.paths import lab_dir

from .conftest import Command

LIVE = ("PRO-E2E-01", "LEM-3-03", "LEM-8-11", "LEM-8-06", "LEM-5-05")
"""Controls that nothing but a probe answers well."""


@pytest.fixture(scope="module")
def verified(deployed: str, lemonstand: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence of a whole verification; `junit.xml` lies beside it."""
    folder = tmp_path_factory.mktemp("verified")
    lemonstand("verify", "--lab", deployed, "--json", str(folder / "evidence.json"), "--junit", str(folder / "junit.xml"))
    return folder / "evidence.json"


def test_every_check_passes(verified: Path, deployed: str, lemonstand: Command, tmp_path: Path) -> None:
    evidence = json.loads(verified.read_text(encoding="utf-8"))
    outcomes = {result["outcome"] for result in evidence["results"]}
    assert outcomes <= {"pass", "not-measurable", "not-applicable"}
    assert evidence["counts"]["failed"] == evidence["counts"]["invalid"] == 0
    assert all(host["running"]["ssh"]["version"] for host in evidence["hosts"].values() if "running" in host)
    standings = {each["id"]: each for each in evidence["controls"]}
    assert {standings[name]["class"] for name in LIVE} == {"live"}
    assert verified.with_name("junit.xml").stat().st_size > 0
    # A second look at an unchanged lab: other times, and no difference.
    lemonstand("verify", "--lab", deployed, "-k", "test_network or test_imap", "--json", str(tmp_path / "again.json"))
    assert lemonstand("evidence", "diff", str(verified), str(tmp_path / "again.json")).stdout == "no change\n"
    assert lemonstand("plan", "--lab", deployed).stdout.startswith("nothing would change; all is as it was verified on ")


def test_no_secret_gets_into_the_evidence(verified: Path, deployed: str) -> None:
    text = verified.read_text(encoding="utf-8")
    assert {"test_tickets.py", "test_imap.py"} <= {result["check"].partition("::")[0] for result in json.loads(text)["results"]}
    secrets = (lab_dir(deployed) / "secrets" / "passwords.yml").read_text(encoding="utf-8")
    passwords = [line.split(": ", 1)[1] for line in secrets.splitlines()]
    assert len(passwords) > 3
    assert not [password for password in passwords if password in text]
    assert "eyJ" not in text, "a ticket starts like this"


def test_what_is_broken_is_told(deployed: str, lemonstand: Command, on: object) -> None:
    on("frontend", "systemctl", "stop", "dovecot")  # type: ignore[operator]
    done = lemonstand("verify", "--lab", deployed, "-k", "test_the_handset_reaches_both_services", code=1)
    assert "LEM-3-03" in done.stdout
    assert "the handset does not reach both" in done.stdout
    lemonstand("apply", "--lab", deployed, "--limit", "frontend", "--stage", "activate")
    lemonstand("verify", "--lab", deployed, "-k", "test_the_handset_reaches_both_services")


@pytest.mark.long
def test_sessions_outlive_routine_work_soft_errors_and_a_forgetful_edge(deployed: str, lemonstand: Command) -> None:
    words = "routine_work or learnt_again or soft_errors or silent_connections"
    lemonstand("verify", "--lab", deployed, "--disruptive", "-k", words)


def test_somebody_sees_what_a_phone_would(deployed: str, lemonstand: Command) -> None:
    watch = [sys.executable, "-m", "lemonstand", "mail", "watch", "--lab", deployed, "--user", "bob@lemon.test", "--for", "20"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert "connected" in watching.stdout.readline()
        lemonstand("mail", "send", "--lab", deployed, "--from", "alice@lemon.test", "--to", "bob@lemon.test", "--subject", "wake up")
        said = watching.stdout.read()
    assert watching.returncode == 0
    assert "1 pushes, 0 keep-alives" in said and said.rstrip().endswith("1 connections, 0 lost"), said
