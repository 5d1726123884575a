"""One person's way through a running site: added, renamed, locked and deleted, without an apply; and an apply that leaves it so."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lemonstand.measure import Vantage
from lemonstand.measure.vantage import open_vantage
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ELSEWHERE, PEER_SENDER
from lemonstand.site import Site

from .conftest import Command
from .test_identity import _typed

MAIN = {"store": "dovecot", "relay": "postfix", "auth": "slapd", "frontend": "dovecot"}


@pytest.fixture(scope="module")
def vantage(lab_site: Site) -> Iterator[Vantage]:
    with open_vantage(lab_site) as found:
        yield found


def _arrives(vantage: Vantage, address: str, account: Account) -> bool:
    """Whether mail for an address is taken by the MX and lies in an account's mailbox."""
    order: dict[str, Any] = {"endpoint": vantage.exchangers(4), "sender": PEER_SENDER, "recipient": address, "elsewhere": ELSEWHERE}
    seen = vantage.prober.ask(vantage.outsider, "foreign-mx", **order)
    if seen["accepted"]["code"] != 250:
        return False
    got = vantage.ask("wait-for", endpoint=vantage.endpoints(4), account=account, ident=seen["ident"], within=60)
    return got["seconds"] is not None


def _gets_in(vantage: Vantage, account: Account) -> bool:
    return bool(vantage.ask("login-answers", endpoint=vantage.endpoints(4), account=account)["imap"][0]["status"] == "OK")


def test_a_person_comes_changes_and_goes_and_nobody_else_notices(
    deployed: str,
    lemonstand: Command,
    *,
    on: Callable[..., str],
    vantage: Vantage,
    last_run: Callable[[], dict[str, Any]],
    tmp_path: Path,
) -> None:
    mark, password = secrets.token_hex(3), secrets.token_urlsafe(18)
    name, new, alias = f"one-{mark}@lemon.test", f"other-{mark}@lemon.test", f"alias-{mark}@lemon.test"
    account, renamed = Account(user=name, password=password), Account(user=new, password=password)

    def processes() -> dict[str, str]:
        return {host: on(host, "systemctl", "show", "-p", "MainPID,NRestarts", unit) for host, unit in MAIN.items()}

    before = processes()
    with vantage.start("push", seconds=600, endpoint=vantage.endpoints(4), account=vantage.accounts[0], within=500) as session:
        session.wait("idling")
        done = _typed("user", "add", "--lab", deployed, name, "--alias", alias, "--password", given=password + "\n")
        assert done.returncode == 0, done.stderr
        assert password not in done.stdout + done.stderr
        assert _gets_in(vantage, account) and _arrives(vantage, name, account) and _arrives(vantage, alias, account)
        lemonstand("user", "rename", "--lab", deployed, name, new)
        assert _gets_in(vantage, renamed) and not _gets_in(vantage, account)
        assert _arrives(vantage, new, renamed) and _arrives(vantage, name, renamed)
        lemonstand("user", "lock", "--lab", deployed, new)
        assert not _gets_in(vantage, renamed)
        lemonstand("apply", "--lab", deployed)
        assert sum(tally["changed"] for tally in last_run()["hosts"].values()) == 0
        assert not _gets_in(vantage, renamed), "an apply opened what an operator had locked"
        lemonstand("user", "unlock", "--lab", deployed, new)
        assert _gets_in(vantage, renamed)
        listed = tmp_path / "people.yml"
        listed.write_text(lemonstand("user", "export", "--lab", deployed).stdout, encoding="utf-8")
        assert "nothing was changed" in lemonstand("users", "sync", str(listed), "--plan", "--lab", deployed).stdout
        lemonstand("user", "delete", "--lab", deployed, new)
        assert not _gets_in(vantage, renamed)
        for address in (name, new, alias):
            assert not _arrives(vantage, address, renamed)
        ident = vantage.mail()
        assert session.wait("result").values["data"]["arrived"], "another user's session was ended"
    vantage.tidy(ident)
    assert processes() == before
    kept = json.loads(on("store", 'echo \'{"action": "list"}\' | python3 -I -B /usr/local/lib/lemonstand/deleted_mail.py'))["kept"]
    assert [each["name"] for each in kept if each["name"] == new] == [new]
    lemonstand("user", "purge", "--now", new, "--yes", "--lab", deployed)
    assert new not in lemonstand("user", "purge", "--plan", "--lab", deployed).stdout
