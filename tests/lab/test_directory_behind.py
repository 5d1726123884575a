"""A directory behind: named by one variable, it judges passwords; an issuer that is less careful is noticed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.connections import read_connections, sockets_directory
from lemonstand.remote.endpoints import accounts_of, ca_of_clients, endpoint_of, inner_services_of
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

from .conftest import INVENTORY, Command

pytestmark = pytest.mark.long

CHECKS = "directory_behind or lock_here_holds or app_password or test_every_flow_gets_through or test_nothing_gets_through"
BEHIND, ISSUER = "/usr/local/lib/lemonstand/ticket_behind.py", "/usr/local/lib/lemonstand/ticket_issuer.py"
BREAKS = {
    "believes anybody": (
        f"sed -i 's/^        context.load_verify_loc/        context.check_hostname, context.verify_mode = False, 0\\n&/' {BEHIND}",
        "test_nobody_else_is_taken",
        "a false directory is believed",
    ),
    "sends a password that is none": (
        f"sed -i 's/if not known or not password or .* in password:/if not known:/' {BEHIND}",
        "test_nobody_else_is_taken",
        "a password that is none gets as far as the directory behind",
    ),
    "waits long": (
        f"sed -i 's/until, name, context = time.monotonic() + /&40 + /' {BEHIND}",
        "test_nobody_else_is_taken",
        "a directory that says nothing is waited for",
    ),
    "keeps a yes": (
        f"sed -i 's/^    def _judged(self/    @functools.lru_cache\\n&/' {ISSUER}",
        "test_a_directory_behind_that_is_away",
        "that is away reads as something else",
    ),
    "does not look at locks": (
        f"sed -i '/def _person/,/return None/s/if found.get(.pwdAccountLockedTime.):/if False:/' {ISSUER}",
        "test_a_lock_here_holds",
        "a user who is locked here gets in",
    ),
    "asks until the account is locked": (
        'sed -i \'s/"behind": 9/"behind": 19/\' /etc/lemonstand/ticket/issuer.json',
        "test_the_issuer_asks",
        "guesses here may lock accounts there",
    ),
}
"""What is done to the issuer, the check that must notice, and what it says."""
COUNTS = "/var/lib/ticket-issuer/refusals.sqlite"
FORGET = f"python3 -c \"import sqlite3; d = sqlite3.connect('{COUNTS}', timeout=20); d.execute('DELETE FROM counts'); d.commit()\""  # noqa: S608 - a constant
"""What guesses of this test have closed is open again."""


@pytest.fixture(scope="module")
def behind(request: pytest.FixtureRequest, deployed: str, lemonstand: Command) -> Iterator[str]:
    """The lab with its repository as the directory, bound to by a template or searched; its own directory judges again afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEMONSTAND_LAB_DIRECTORY", request.param)
        lemonstand("apply", "--lab", deployed)
        yield deployed
    lemonstand("apply", "--lab", deployed)


def _login(prober: Prober, site: Site, user: str, password: str) -> str:
    answers = prober.ask(
        "handset",
        "login-answers",
        endpoint=endpoint_of(site, ca_of_clients(site), "frontends", 4),
        account=Account(user=user, password=password),
    )
    answer = answers["imap"][0]
    return str(answer["status"] if answer["status"] == "OK" else answer["code"])


@pytest.mark.parametrize("behind", ["repository", "search"], indirect=True)
def test_passwords_are_judged_there(
    behind: str, lemonstand: Command, lab_site: Site, *, on: Callable[..., str], last_run: Callable[[], dict[str, Any]]
) -> None:
    lemonstand("verify", "--lab", behind, "--disruptive", "-k", CHECKS)
    lemonstand("apply", "--lab", behind)
    assert last_run()["changes"] == []
    refused = lemonstand("user", "passwd", "--lab", behind, "--generate", "alice@lemon.test", code=2)
    assert "is judged by the directory ldap.office.test" in refused.stdout + refused.stderr

    own = accounts_of(lab_site)[0]
    prober = Prober(read_connections(INVENTORY, sockets_directory()))
    assert _login(prober, lab_site, own["user"], own["password"]) == "OK"
    # Somebody that directory knows, and the site does not.
    assert _login(prober, lab_site, "stranger@lemon.test", own["password"]) == "AUTHENTICATIONFAILED"

    # Who has another password there has no other here.
    entry = f"uid={own['user'].partition('@')[0]},ou=people"
    changed = base64.b64encode(b"changed-there-1").decode()
    ldif = "/etc/ldap/lab-directory.ldif"
    on("repository", f"sed -i '/^dn: {entry}/,/^$/s/^userPassword:.*/userPassword:: {changed}/' {ldif} && systemctl restart lab-directory")
    assert _login(prober, lab_site, own["user"], own["password"]) == "AUTHENTICATIONFAILED"
    assert _login(prober, lab_site, own["user"], "changed-there-1") == "OK"

    # Guesses from everywhere: the account there is far from being locked, and the issuer says so.
    name = accounts_of(lab_site)[1]["user"]
    seen = prober.ask("frontend", "guess-with-addresses", seconds=120, inner_services=inner_services_of(lab_site), name=name, guesses=80)
    kept = on("repository", f"slapcat -f /etc/ldap/lab-directory.conf -a '(uid={name.partition('@')[0]})'")
    assert 1 <= kept.count("pwdFailureTime:") <= 9
    assert "pwdAccountLockedTime" not in kept
    assert int(seen["429"]) >= 70
    assert "alarm=guessing limit=stranger" in on("auth", "journalctl -u ticket-issuer -p warning -o cat --since -5min")
    on("auth", f"{FORGET} && systemctl reload ticket-issuer")
    lemonstand("apply", "--lab", behind, "--limit", "repository")
    assert _login(prober, lab_site, own["user"], own["password"]) == "OK"


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("behind", ["repository"], indirect=True)
def test_an_issuer_that_is_less_careful_is_noticed(behind: str, lemonstand: Command, name: str, *, on: Callable[..., str]) -> None:
    change, check, said = BREAKS[name]
    on("auth", f"{FORGET}; {change} && systemctl restart ticket-issuer")
    shown = lemonstand("verify", "--lab", behind, "--disruptive", "-k", check, code=1).stdout
    assert said in shown
    lemonstand("apply", "--lab", behind, "--limit", "auth")
    lemonstand("verify", "--lab", behind, "--disruptive", "-k", check)
