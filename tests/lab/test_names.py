"""Generated login names on running hosts: from the inventory to login, MX, submission and BURL."""

from __future__ import annotations

import random
import secrets
import shutil
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lemonstand.policy.names import load_names
from lemonstand.probes.clients.names import retyped
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.connections import read_connections, sockets_directory
from lemonstand.remote.endpoints import PEER_SENDER, accounts_of, ca_of_clients, ca_of_exchangers, endpoint_of
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

from .conftest import INVENTORY, Command

NAMES = load_names()
KNOWN = ["o'brien", "r&d", "_ops", "d'arcy.o'neil-smith", "0", "x" * NAMES.local_part.longest]


def generated(count: int, seed: int) -> list[str]:
    """Names of the grammar that nobody thought of."""
    chance = random.Random(seed)  # noqa: S311 - the same names in each run
    letters = string.ascii_lowercase + string.digits
    found: list[str] = []
    while len(found) < count:
        atoms = [
            "".join(chance.choices(letters + NAMES.local_part.marks * 3, k=chance.randint(1, 12))) for _ in range(chance.randint(1, 3))
        ]
        if NAMES.address_fault(f"{'.'.join(atoms)}@lemon.test") is None:
            found.append(".".join(atoms))
    return found


@pytest.fixture(scope="module")
def named(deployed: str, lab_site: Site, lemonstand: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Account]]:
    """Accounts under such names, beside the lab's own."""
    accounts = [Account(user=f"{name}@lemon.test", password=secrets.token_urlsafe(12)) for name in [*KNOWN, *generated(4, 20)]]
    folder = tmp_path_factory.mktemp("named")
    shutil.copytree(INVENTORY, folder, dirs_exist_ok=True)
    users = folder / "group_vars" / "all" / "users.yml"
    data = yaml.safe_load(users.read_text(encoding="utf-8"))
    data["lemonstand_users"] += [{"name": each["user"]} for each in accounts]
    known = {user.name: lab_site.password_of(user.name) for user in lab_site.settings.users}
    data["lemonstand_user_passwords"] = {**known, **{each["user"]: each["password"] for each in accounts}}
    users.write_text(yaml.safe_dump(data), encoding="utf-8")
    users.chmod(0o600)
    lemonstand("apply", "--site", str(folder), timeout=1800)
    yield accounts
    lemonstand("apply", "--lab", deployed, timeout=1800)
    for each in accounts:
        lemonstand("user", "delete", "--lab", deployed, each["user"])


@pytest.mark.long
def test_generated_names_go_all_the_way(named: list[Account], lab_site: Site) -> None:
    prober = Prober(read_connections(INVENTORY, sockets_directory()))
    endpoint, other = endpoint_of(lab_site, ca_of_clients(lab_site), "frontends", 4), accounts_of(lab_site)[0]
    exchanger = endpoint_of(lab_site, ca_of_exchangers(lab_site), "relays", 4)
    for account in named:
        name = account["user"]
        seen = prober.ask("handset", "names-marked", seconds=120, endpoint=endpoint, owner=account, other=other)
        assert [case for case, each in seen.items() if each.get("code", 250) != 250] == [], f"{name}: {seen}"
        assert seen["fetched"]["got"], f"{name}: {seen['fetched']}"
        assert [case for case, seconds in seen["arrived"].items() if seconds is None] == [], name
        came = prober.ask("peer", "names-incoming", endpoint=exchanger, sender=PEER_SENDER, recipients=[retyped(name)])
        assert [each["code"] for each in came.values()] == [250], f"{name}: {came}"
        (ident,) = [each["ident"] for each in came.values()]
        assert prober.ask("handset", "wait-for", endpoint=endpoint, account=account, ident=ident, within=30)["seconds"] is not None, name


def test_the_generator_makes_names_with_every_mark() -> None:
    made = [*KNOWN, *generated(4, 20)]
    assert len(set(made)) == len(made)
    assert {each for name in made for each in name} >= set(NAMES.local_part.marks)
    assert Path(INVENTORY, "group_vars", "all", "users.yml").is_file()
