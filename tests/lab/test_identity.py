"""Users and ticket keys of a running site, as an operator handles them."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lemonstand.checks.connections import read_connections, sockets_directory
from lemonstand.checks.doors import accounts_of, ca_of_clients, door_to
from lemonstand.checks.prober import Prober
from lemonstand.paths import lab_dir
from lemonstand.site import Site

from .conftest import INVENTORY, Command


@pytest.fixture(scope="module")
def prober(lab_site: Site) -> Prober:
    return Prober(read_connections(INVENTORY, sockets_directory()))


def _typed(*words: str, given: str) -> subprocess.CompletedProcess[str]:
    """The command line with a line on standard input."""
    return subprocess.run(
        [sys.executable, "-m", "lemonstand", *words], input=given, capture_output=True, text=True, timeout=300, check=False
    )


def _login(prober: Prober, site: Site, user: str, password: str) -> dict[str, Any]:
    answers = prober.ask(
        "handset", "login-answers", door=door_to(site, ca_of_clients(site), "frontends", 4), account={"user": user, "password": password}
    )
    return dict(answers["imap"][0])


def test_an_operator_sets_a_password_and_an_apply_leaves_it(deployed: str, lemonstand: Command, prober: Prober, lab_site: Site) -> None:
    user = accounts_of(lab_site)[1]
    new = secrets.token_urlsafe(18)
    done = _typed("user", "passwd", "--lab", deployed, user["user"], given=new + "\n")
    assert done.returncode == 0, done.stderr
    assert new not in done.stdout + done.stderr
    try:
        assert _login(prober, lab_site, user["user"], new)["status"] == "OK"
        assert _login(prober, lab_site, user["user"], user["password"])["code"] == "AUTHENTICATIONFAILED"
        lemonstand("apply", "--lab", deployed, "--limit", "auth")
        assert _login(prober, lab_site, user["user"], new)["status"] == "OK"
        logs = [path for path in (lab_dir(deployed) / "runs").rglob("*") if path.is_file() and new.encode() in path.read_bytes()]
        assert logs == []
    finally:
        assert _typed("user", "passwd", "--lab", deployed, user["user"], given=user["password"] + "\n").returncode == 0
    assert _login(prober, lab_site, user["user"], user["password"])["status"] == "OK"


def test_what_can_not_be_a_password_or_a_user_is_refused(deployed: str, lab_site: Site) -> None:
    name = accounts_of(lab_site)[1]["user"]
    short = _typed("user", "passwd", "--lab", deployed, name, given="short\n")
    assert short.returncode == 1
    assert "the policy asks for 12" in short.stderr
    stranger = _typed("user", "add", "--lab", deployed, "stranger@lemon.test", given="")
    assert stranger.returncode == 2
    assert "lemonstand_users" in stranger.stderr
    assert "lemonstand apply" in stranger.stderr
    still_there = _typed("user", "delete", "--lab", deployed, name, given="")
    assert still_there.returncode == 2
    assert "the next apply would add" in still_there.stderr


def test_everybody_is_listed_and_no_hash(deployed: str, lemonstand: Command, lab_site: Site) -> None:
    shown = lemonstand("user", "list", "--lab", deployed).stdout
    assert all(user.name.split("@")[0] in shown for user in lab_site.settings.users)
    assert "ARGON2" not in shown


@pytest.mark.long
def test_a_new_signing_key_refuses_no_login(deployed: str, lemonstand: Command, prober: Prober, lab_site: Site) -> None:
    door, accounts = door_to(lab_site, ca_of_clients(lab_site), "frontends", 4), accounts_of(lab_site)
    before = lemonstand("keys", "list", "--lab", deployed).stdout
    rounds: list[dict[str, Any]] = []
    over = threading.Event()

    def log_in() -> None:
        while not over.is_set():
            rounds.append(prober.ask("handset", "logins", seconds=120, door=door, accounts=accounts, count=20, parallel=2, stall=60))

    worker = threading.Thread(target=log_in)
    worker.start()
    try:
        lemonstand("keys", "rotate", "--lab", deployed)
    finally:
        over.set()
        worker.join()
    assert sum(each["count"] for each in rounds) >= 20
    assert [fault for each in rounds for fault in (*each["failed"], *each["stalled"])] == []
    after = lemonstand("keys", "list", "--lab", deployed).stdout
    assert after.count(" signs ") == 1
    assert " old " not in after and " next " not in after and "unknown" not in after
    assert before.split()[-6:] != after.split()[-6:], "it is another key"


@pytest.mark.long
def test_credentials_and_failures(deployed: str, lemonstand: Command, tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    lemonstand("verify", "--lab", deployed, "--disruptive", "-k", "test_credentials or test_failures", "--json", str(path))
    outcomes = {result["outcome"] for result in json.loads(path.read_text(encoding="utf-8"))["results"]}
    assert outcomes == {"pass"}
