"""Users and ticket keys of a running site, as an operator handles them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lemonstand import lab as labs
from lemonstand.paths import lab_dir
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.connections import read_connections, sockets_directory
from lemonstand.remote.endpoints import accounts_of, ca_of_clients, endpoint_of
from lemonstand.remote.prober import Prober
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
        "handset",
        "login-answers",
        endpoint=endpoint_of(site, ca_of_clients(site), "frontends", 4),
        account={"user": user, "password": password},
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
    stranger = _typed("user", "add", "--lab", deployed, "stranger@elsewhere.test", given="")
    assert stranger.returncode == 2
    assert "in no mail domain of this site" in stranger.stderr
    twice = _typed("user", "add", "--lab", deployed, name, given="")
    assert twice.returncode == 2
    assert "is a user already" in twice.stderr
    nobody = _typed("user", "delete", "--lab", deployed, "nobody@lemon.test", given="")
    assert nobody.returncode == 2
    assert "not in the directory" in nobody.stderr


TYPED = (
    "it\u00b4s my password 2026",
    "Gru\u0308\u00dfe-Stra\u00dfe-2026",
    "contrase\u00f1a 1\u00aa segura \u00ba2",
    "\u05e1\u05d9\u05e1\u05de\u05d4-mail-2026-abc",
    "\u0661\u0662\u0663\u0664 \uff21\uff22 \ufb01gures",
    "  {SSHA}100%u %{user} \\ \"x\" 'y' a:b+c&d=e;f  ",
    "\U0001f600\U0001f680 without joiners",
    "\u00fc" * 512,
    "\U0001f680" * 512,
    "\uac01" * 512,
)
"""Passwords of several kinds: all can be set, and open as they are typed."""


def _answers(prober: Prober, site: Site, user: str, password: str) -> tuple[str, str]:
    """What IMAP and submission answer."""
    account = {"user": user, "password": password}
    said = prober.ask(
        "handset", "login-answers", seconds=120, endpoint=endpoint_of(site, ca_of_clients(site), "frontends", 4), account=account
    )
    return str(said["imap"][0]["code"] or said["imap"][0]["status"]), str(said["submission"][0]["status"])


@pytest.mark.parametrize("typed", ["correct \u2764\ufe0f horse battery", "family of \U0001f468\u200d\U0001f469", "soft\u00adhyphen inside"])
def test_what_can_not_be_typed_again_is_refused_when_it_is_set(deployed: str, prober: Prober, lab_site: Site, typed: str) -> None:
    user = accounts_of(lab_site)[1]
    done = _typed("user", "passwd", "--lab", deployed, user["user"], given=typed + "\n")
    assert done.returncode == 1
    assert "the password holds U+" in done.stderr
    assert typed not in done.stderr + done.stdout
    assert _answers(prober, lab_site, user["user"], typed) == ("AUTHENTICATIONFAILED", "535")
    assert _answers(prober, lab_site, user["user"], user["password"])[1] == "235", "the password of before still counts"


HASHES = {
    "{SHA512-CRYPT}": "$6$abc$rvqzMBuMVukmply9mZJpW0wJMdDfgUKLDrSNxf9l66h/ytQiKNAdqHSj5YPJpxWJpVjRXibQXRddCl9xYHQnd0",
    "{SHA256-CRYPT}": "$5$abc$6va2Z4O.keO7R84v9g0B9d2NkB7NOyTy0sMeQ5Z3LLA",
    "{BLF-CRYPT}": "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu",
    "": "$y$j9T$abcdefgh$79JhsKZwfY/UU2qrk3QcffpHl7EyEEJK0pA5pD1wu73",
    "{SHA1}": "W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
    "{SHA512}": "sQnzu7wkTrgkQZF+0G1hi5AI3Qmzvv0bXgc5THBqi7mAsdd4Xll27ASbRt9fEyavWi6m0QP9B8lThf+rDKy8hg==",
}
"""Of the password `password`, by what others call the scheme."""
STORE_HASH = """
import json, sys
sys.path.insert(0, "/usr/local/lib/lemonstand")
import directory_seed
order = json.load(sys.stdin)
connection = directory_seed.connect()
dn = "uid=" + order["name"] + ",ou=people," + directory_seed.suffix_here("")
connection.modify(dn, {"userPassword": [("MODIFY_REPLACE", [directory_seed.stored_hash(order["hash"])])]})
directory_seed.done_or_error(connection, "storing")
"""


@pytest.fixture(scope="class")
def someone(deployed: str, lab_site: Site) -> Iterator[Account]:
    """An account whose password may be set; the inventory's counts again after the last test."""
    user = accounts_of(lab_site)[1]
    yield user
    assert _typed("user", "passwd", "--lab", deployed, user["user"], given=user["password"] + "\n").returncode == 0


class TestPasswordsThatAreSet:
    """Each is set in the place of the one before."""

    @pytest.mark.parametrize("typed", TYPED, ids=range(len(TYPED)))
    def test_what_was_set_opens_both_services_in_either_spelling(
        self, deployed: str, prober: Prober, lab_site: Site, someone: Account, typed: str
    ) -> None:
        done = _typed("user", "passwd", "--lab", deployed, someone["user"], given=typed + "\n")
        assert done.returncode == 0, done.stderr
        for form in ("NFC", "NFD"):
            imap, submission = _answers(prober, lab_site, someone["user"], unicodedata.normalize(form, typed))
            assert imap not in {"AUTHENTICATIONFAILED", "UNAVAILABLE"}, form
            assert submission == "235", form
        assert _answers(prober, lab_site, someone["user"], typed + "x") == ("AUTHENTICATIONFAILED", "535")

    @pytest.mark.parametrize("scheme", HASHES)
    def test_hashes_of_other_systems_open(self, deployed: str, prober: Prober, lab_site: Site, someone: Account, scheme: str) -> None:
        _store(deployed, someone["user"], scheme + HASHES[scheme])
        assert _answers(prober, lab_site, someone["user"], "password")[1] == "235"
        assert _answers(prober, lab_site, someone["user"], "Password")[1] == "535"

    def test_a_hash_from_the_command_line_opens(self, deployed: str, prober: Prober, lab_site: Site, someone: Account) -> None:
        typed = "Gru\u0308\u00dfe aus K\u00f6ln \u00aa"
        made = _typed("user", "hash", given=typed + "\n")
        assert made.returncode == 0, made.stderr
        _store(deployed, someone["user"], made.stdout.strip())
        assert _answers(prober, lab_site, someone["user"], unicodedata.normalize("NFC", typed))[1] == "235"


def _store(deployed: str, name: str, text: str) -> None:
    """Puts a hash into the directory as it is."""
    ssh = ["ssh", "-F", str(lab_dir(deployed) / "ssh" / "config"), "auth", "python3", "-c", f"'{STORE_HASH}'"]
    order = json.dumps({"name": name, "hash": text})
    done = subprocess.run(ssh, input=order, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def _edited(deployed: str, folder: Path, edit: Callable[[dict[str, Any], dict[str, Any]], None]) -> subprocess.CompletedProcess[str]:
    """Applies the lab's inventory to its auth host after an edit of `hosts.yml` and of what the site says."""
    shutil.copytree(INVENTORY, folder)
    paths = (folder / "hosts.yml", folder / "group_vars" / "all" / "site.yml")
    trees = tuple(yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths)
    edit(*trees)
    for path, tree in zip(paths, trees, strict=True):
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "lemonstand", "apply", "--site", str(folder), "--lab", deployed, "--limit", "auths"],
        env={**os.environ, **labs.environment(deployed)},
        capture_output=True, text=True, timeout=900, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_no_edit_of_the_inventory_undoes_a_password_or_a_lock(
    deployed: str, lemonstand: Command, on: Callable[..., str], prober: Prober, *, lab_site: Site, tmp_path: Path
) -> None:
    first, second = accounts_of(lab_site)[:2]
    new = "a password set since the site was made"

    def put_first(_: dict[str, Any], site: dict[str, Any]) -> None:
        site["lemonstand_mail_domains"] = ["acme.test", "lemon.test", "third.test"]
        site["directory_base_dn"] = "dc=acme,dc=test"

    before = on("auth", "sed", "-n", "s/^suffix//p", "/etc/ldap/lemonstand.conf")
    assert _typed("user", "passwd", "--lab", deployed, second["user"], given=new + "\n").returncode == 0
    lemonstand("user", "lock", "--lab", deployed, first["user"])
    try:
        done = _edited(deployed, tmp_path / "domains", put_first)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "keeps its suffix" in done.stdout
        assert on("auth", "sed", "-n", "s/^suffix//p", "/etc/ldap/lemonstand.conf") == before
        assert _answers(prober, lab_site, second["user"], new)[1] == "235"
        assert _answers(prober, lab_site, second["user"], second["password"])[1] == "535"
        assert _answers(prober, lab_site, first["user"], first["password"])[1] == "535", "locked"
    finally:
        lemonstand("user", "unlock", "--lab", deployed, first["user"])
        assert _typed("user", "passwd", "--lab", deployed, second["user"], given=second["password"] + "\n").returncode == 0
        lemonstand("apply", "--lab", deployed, "--limit", "auth")


@pytest.mark.long
def test_an_emptied_directory_is_not_seeded(
    deployed: str, lemonstand: Command, on: Callable[..., str], prober: Prober, lab_site: Site
) -> None:
    user, there, away = accounts_of(lab_site)[1], "/var/lib/ldap/lemonstand", "/var/lib/ldap/away"
    on("auth", f"systemctl stop slapd && mv {there} {away} && install -d -o openldap -g openldap -m 0700 {there} && systemctl start slapd")
    try:
        for command in ("plan", "apply"):
            refused = lemonstand(command, "--lab", deployed, "--limit", "auth", code=1)
            assert "nobody was seeded" in refused.stdout + refused.stderr
            assert "directory.json" in refused.stdout + refused.stderr
        assert _answers(prober, lab_site, user["user"], user["password"])[1] == "535"
    finally:
        on("auth", f"systemctl stop slapd && rm -rf {there} && mv {away} {there} && systemctl start slapd")
    lemonstand("apply", "--lab", deployed, "--limit", "auth")
    assert _answers(prober, lab_site, user["user"], user["password"])[1] == "235"


def test_everybody_is_listed_and_no_hash(deployed: str, lemonstand: Command, lab_site: Site) -> None:
    shown = lemonstand("user", "list", "--lab", deployed).stdout
    assert all(user.name.split("@")[0] in shown for user in lab_site.settings.users)
    assert "ARGON2" not in shown


@pytest.mark.long
def test_a_new_signing_key_refuses_no_login(deployed: str, lemonstand: Command, prober: Prober, lab_site: Site) -> None:
    endpoint, accounts = endpoint_of(lab_site, ca_of_clients(lab_site), "frontends", 4), accounts_of(lab_site)
    before = lemonstand("keys", "list", "--lab", deployed).stdout
    rounds: list[dict[str, Any]] = []
    over = threading.Event()

    def log_in() -> None:
        while not over.is_set():
            rounds.append(
                prober.ask("handset", "logins", seconds=120, endpoint=endpoint, accounts=accounts, count=20, parallel=2, stall=60)
            )

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
