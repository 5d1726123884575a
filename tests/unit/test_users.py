"""Rules about passwords and names, and what an operator is told."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lemonstand import admin, cli
from lemonstand.admin import users as users_module
from lemonstand.admin.access import Unreachable
from lemonstand.errors import LemonstandError
from lemonstand.site import load_site
from sample_site import host, leg, sound_site, write_site

FOLDER = Path(__file__).parents[2] / "roles" / "directory" / "files"
CONFIGURATION = 'suffix "dc=lemon,dc=test"\nmoduleload argon2 m=19456 t=2 p=1\n'


@pytest.fixture(scope="module")
def program() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("directory_users", FOLDER / "directory_users.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))


def test_base_and_cost_are_slapds_own(program: ModuleType) -> None:
    assert program.configuration(CONFIGURATION) == ("dc=lemon,dc=test", {"memory_kib": 19456, "iterations": 2, "parallelism": 1})
    with pytest.raises(program.SeedError, match="apply the site first"):
        program.configuration("suffix dc=x\n")


@pytest.mark.parametrize(
    ("password", "why"),
    [("short", "asks for 12"), ("x" * 513, "more than 512"), ("tab\tin the middle", "control character"), ("alice-alice-1", "user's name")],
)
def test_weak_passwords_are_refused_with_a_reason(program: ModuleType, password: str, why: str) -> None:
    with pytest.raises(program.SeedError, match=why) as caught:
        program.check_password(password, "alice@lemon.test", 12)
    assert password not in str(caught.value)


def test_good_passwords_are_taken(program: ModuleType) -> None:
    for password in ("correct horse battery", "пароль-из-слов", admin.generate_password()):
        program.check_password(password, "alice@lemon.test", 12)


def test_states(program: ModuleType) -> None:
    assert program.state_of({"userPassword": ["x"]}) == "active"
    assert program.state_of({"userPassword": ["x"], "pwdAccountLockedTime": ["000001010000Z"]}) == "locked"
    assert program.state_of({}) == "no password"
    assert program.state_of({"userPassword": ["x"], "description": ["no password"]}) == "no password"


def test_made_passwords_differ_and_are_long() -> None:
    made = {admin.generate_password() for _ in range(50)}
    assert len(made) == 50
    assert {len(each) for each in made} == {23}


class Hosts:
    """Answers as the hosts of a site would, and remembers what they were told."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.orders: list[dict[str, Any]] = []
        self.commands: list[list[str]] = []

    def run(self, host: str, command: Any, given: str = "", *, codes: Any = (0,)) -> str:
        self.commands.append(list(command))
        order = json.loads(given)
        self.orders.append(order)
        return json.dumps(self.answers[order["action"]])

    def run_on(self, hosts: Any, command: Any, *, codes: Any = (0,)) -> dict[str, Any]:
        self.commands.append(list(command))
        return {host: self.answers.get(host, "") for host in hosts}


@pytest.fixture
def said() -> list[str]:
    return []


def _users(tmp_path: Path, said: list[str], **answers: Any) -> tuple[admin.Users, Hosts, str]:
    site = load_site(write_site(tmp_path, sound_site()))
    hosts = Hosts(answers)
    return admin.Users(site, hosts, said.append), hosts, site.settings.users[0].name  # type: ignore[arg-type]


def test_a_password_is_never_a_word_of_a_command(tmp_path: Path, said: list[str]) -> None:
    users, hosts, name = _users(tmp_path, said, passwd={"done": "password set"})
    users.passwd(name, "correct horse battery")
    assert hosts.orders == [{"action": "passwd", "name": name, "password": "correct horse battery"}]
    assert "horse" not in str(hosts.commands) + str(said)


class Pair(Hosts):
    """Two auth hosts, of which one may be away, or without its directory, or not in step."""

    def run(self, host: str, command: Any, given: str = "", *, codes: Any = (0,)) -> str:
        self.orders.append({**json.loads(given), "host": host})
        answer = self.answers[host]
        if isinstance(answer, LemonstandError):
            raise answer
        return json.dumps(answer)


def _pair(tmp_path: Path, said: list[str], **answers: Any) -> tuple[admin.Users, Pair, str]:
    tree = sound_site()
    tree["hosts"]["all"]["children"]["auths"]["hosts"]["auth2"] = host(21, auth=leg("auth0", "192.0.2.76", "2001:db8:3::11"))
    site = load_site(write_site(tmp_path, tree))
    hosts = Pair(answers)
    return admin.Users(site, hosts, said.append), hosts, site.settings.users[0].name  # type: ignore[arg-type]


GONE = Unreachable("ssh: no route to host", "auth", "see whether it is up")
DONE = {"done": "password set", "twins": {"auth.site.lemon.example": "in step", "auth2.site.lemon.example": "in step"}}


@pytest.mark.parametrize("away", [GONE, {"error": "slapd does not answer on ldapi:///run/slapd/ldapi (x); see journalctl -u slapd"}])
def test_another_auth_host_is_told_where_the_first_is_away(tmp_path: Path, said: list[str], away: Any) -> None:
    users, hosts, name = _pair(tmp_path, said, auth=away, auth2=DONE)
    users.passwd(name, "correct horse battery")
    assert [order["host"] for order in hosts.orders] == ["auth", "auth2"]
    assert said == [f"{name}: password set (written on auth2)"]


def test_a_refusal_is_no_reason_to_ask_another(tmp_path: Path, said: list[str]) -> None:
    users, hosts, name = _pair(tmp_path, said, auth={"error": "the password has 5 characters; the policy asks for 12"}, auth2=DONE)
    with pytest.raises(LemonstandError, match="asks for 12"):
        users.passwd(name, "short")
    assert [order["host"] for order in hosts.orders] == ["auth"]


def test_where_no_auth_host_answers_all_are_named(tmp_path: Path, said: list[str]) -> None:
    users, _, name = _pair(tmp_path, said, auth=GONE, auth2=GONE)
    with pytest.raises(LemonstandError, match=r"auth: ssh.*auth2: ssh"):
        users.change({"action": "people", "edition": 1, "lock": [name]})


def test_an_auth_host_that_is_cut_off_is_told_by_itself(tmp_path: Path, said: list[str]) -> None:
    apart = {"done": "password set", "twins": {"auth2.site.lemon.example": "gives no answer"}}
    users, hosts, name = _pair(tmp_path / "a", said, auth=apart, auth2={"done": "password set"})
    users.passwd(name, "correct horse battery")
    assert [order["host"] for order in hosts.orders] == ["auth", "auth2"]
    assert "written on auth2 as well" in said[-1]
    users, hosts, name = _pair(tmp_path / "b", said, auth=apart, auth2=GONE)
    users.passwd(name, "correct horse battery")
    assert "auth2 does not have it yet" in said[-1]


def test_an_account_is_added_on_one_host_alone(tmp_path: Path, said: list[str]) -> None:
    apart = {"done": "added", "twins": {"auth2.site.lemon.example": "gives no answer"}}
    users, hosts, name = _pair(tmp_path, said, auth=apart, auth2={"done": "added"})
    users.change({"action": "people", "edition": 1, "add": [{"name": name}]})
    assert [order["host"] for order in hosts.orders] == ["auth"], "two entries of one name would be two"
    assert "auth2 does not have it yet" in said[-1]


def test_a_lock_is_put_on_a_host_that_is_cut_off_as_well(tmp_path: Path, said: list[str]) -> None:
    apart = {"done": "changed", "twins": {"auth2.site.lemon.example": "gives no answer"}}
    users, hosts, name = _pair(tmp_path, said, auth=apart, auth2={"done": "changed"})
    users.change({"action": "people", "edition": 1, "lock": [name]})
    assert [order["host"] for order in hosts.orders] == ["auth", "auth2"]


def test_twins_are_read_from_slapds_own_file(program: ModuleType) -> None:
    text = (
        "syncrepl rid=001\n  provider=ldaps://auth2.site.x:636\n  retry=x\n  tls_cert=/c.crt\n  tls_key=/c.key\n  tls_cacert=/ca\n"
        "syncrepl rid=002\n  provider=ldaps://auth3.site.x:637\n  tls_cert=/d.crt\n  tls_key=/d.key\n  tls_cacert=/da\n"
    )
    assert program.twins_of(text) == {
        "auth2.site.x": {"port": 636, "certificate": "/c.crt", "key": "/c.key", "ca": "/ca"},
        "auth3.site.x": {"port": 637, "certificate": "/d.crt", "key": "/d.key", "ca": "/da"},
    }
    assert program.twins_of(CONFIGURATION) == {}


def test_the_directorys_refusal_is_told(tmp_path: Path, said: list[str]) -> None:
    users, _, name = _users(tmp_path, said, passwd={"error": "the password has 5 characters; the policy asks for 12"})
    with pytest.raises(LemonstandError, match="asks for 12"):
        users.passwd(name, "short")


@pytest.mark.parametrize(
    "typed",
    [
        "correct horse battery",
        "Gru\u0308\u00dfe-aus-K\u00f6ln",
        "contrase\u00f1a 1\u00aa segura",
        " spaces at ends ",
        "{SSHA}looks like one",
    ],
)
def test_a_hash_is_made_of_the_prepared_password(program: ModuleType, typed: str) -> None:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415

    done = CliRunner().invoke(cli.main, ["user", "hash"], input=typed.encode() + b"\n")
    assert done.exit_code == 0, done.output
    made = done.stdout.strip()
    assert sys.modules["directory_seed"].stored_hash(made) == made
    _, kind, version, cost, salt, digest = made.split("$")
    assert (kind, version, cost) == ("argon2id", "v=19", "m=19456,t=2,p=1")
    octets = unicodedata.normalize("NFC", typed).encode()
    salt_octets, digest_octets = (base64.b64decode(each + "=" * (-len(each) % 4)) for each in (salt, digest))
    Argon2id(salt=salt_octets, length=32, iterations=2, lanes=1, memory_cost=19456).verify(octets, digest_octets)
    assert CliRunner().invoke(cli.main, ["user", "hash"], input=typed.encode() + b"\n").stdout.strip() != made, "salted"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b"short\n", "asks for 12"),
        (b"", "no password"),
        (b"Gr\xfc\xdfe aus K\xf6ln\n", "no UTF-8"),
        (b"soft\xc2\xadhyphen in it\n", "U+00AD"),
    ],
)
def test_no_hash_is_made_of_what_can_not_be_a_password(given: bytes, why: str) -> None:
    done = CliRunner().invoke(cli.main, ["user", "hash"], input=given)
    assert done.exit_code == 2
    assert why in done.stderr
    assert done.stdout == ""


def test_a_hash_costs_what_the_role_says() -> None:
    defaults = yaml.safe_load((FOLDER.parent / "defaults" / "main.yml").read_text(encoding="utf-8"))
    assert {key: defaults[f"directory_argon2_{key}"] for key in ("memory_kib", "iterations", "parallelism")} == users_module.ARGON2
    assert defaults["directory_password_length"] == users_module.LEAST_PASSWORD


@pytest.mark.parametrize(
    "typed", ["correct \u2764\ufe0f horse battery", "a\u200db and twelve", "twelve\0 letters", "\u1100 lone jamo and so on"]
)
def test_what_can_not_be_prepared_is_never_set(program: ModuleType, typed: str) -> None:
    with pytest.raises(program.SeedError):
        program.check_password(typed, "alice@lemon.test", 12)


def test_the_length_is_that_of_the_prepared_password(program: ModuleType) -> None:
    with pytest.raises(program.SeedError, match="has 6 characters"):
        program.check_password("u\u0308" * 6, "alice@lemon.test", 12)
    program.check_password("u\u0308" * 512, "alice@lemon.test", 12)
