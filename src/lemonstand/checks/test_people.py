"""People are data of the directory: stores and relays know them as it does, and each mailbox is somebody's (record 0041)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lemonstand.admin import Hosts, People
from lemonstand.admin.people import STAMP
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.people_lists import programs
from lemonstand.outcomes import expect, invalid
from lemonstand.site import Site

PATIENCE_SECONDS = 20.0
"""How long somebody may be in the middle of a change."""
LOOK_SECONDS = 2.0
SHOWN = 5
LISTS = ("users", "aliases", "ids", "locked")
PLACEMENT = "/var/lib/lemonstand/placement.json"
RELAY_LISTS = "/var/lib/lemonstand/relay"


def _wrong(seen: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is wrong, if it stays so while a change that is under way could end."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (found := seen()) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    return found


def _told(host: HostFactory, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(host(name).run(f"cat {PLACEMENT}").stdout)
    except ValueError:
        invalid(f"{name} was never told who there is: `lemonstand apply` first")
    return found


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What differs of some lists, briefly: what is missing, what is there beside it."""
    seen = {}
    for kind, these in wanted.items():
        here = found.get(kind, {} if isinstance(these, dict) else [])
        lines, own = ({f"{key} {value}" for key, value in each.items()} if isinstance(each, dict) else set(each) for each in (these, here))
        if lines != own:
            seen[kind] = {"lacks": sorted(lines - own)[:SHOWN], "has besides": sorted(own - lines)[:SHOWN]}
    return seen


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-05")
def test_hosts_were_told_who_the_directory_has(host: HostFactory, site: Site, listed: str, measure: Measure) -> None:
    """Each store and relay was told the users, addresses and locks that the directory has, and no others."""
    with Hosts(site.inventory) as hosts:
        people = People(site, hosts, lambda _: None)

        def look() -> dict[str, Any]:
            wanted = people.lists()
            measure("users", len(wanted["users"]), volatile=True)
            return _differences(wanted, _told(host, listed))

        wrong = _wrong(look)
    expect(not wrong, f"{listed} knows other people than the directory", seen=wrong, expected="the same", remedy="lemonstand users push")


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-05")
@pytest.mark.supports("LEM-8-24")
def test_mail_servers_ask_what_their_host_was_told(host: HostFactory, site: Site, listed: str, measure: Measure) -> None:
    """What Dovecot and Postfix look up follows from what the host was told, entry by entry: who has mail here, and who sends as whom."""
    read = _read_relay if listed in {each.name for each in site.group("relays")} else _read_store

    def look() -> dict[str, Any]:
        wanted, found = read(host, listed)
        measure("tables", len(wanted))
        return _differences(wanted, found)

    wrong = _wrong(look)
    expect(not wrong, f"mail servers on {listed} look up something else", seen=wrong, expected="the same", remedy="lemonstand users push")


def _read_relay(host: HostFactory, name: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Postfix's tables as they should be and as they are compiled."""
    settings = json.loads(host(name).run("cat /etc/lemonstand/relay-placement.json").stdout or "{}")
    wanted = {table: text.splitlines() for table, text in programs()["relay_placement"].tables(_told(host, name), settings).items()}
    found = {}
    for table in wanted:
        lines = host(name).run(f"postmap -s hash:{RELAY_LISTS}/{table}").stdout.splitlines()
        found[table] = [" ".join(line.split(None, 1)) for line in lines]
    return wanted, found


def _read_store(host: HostFactory, name: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Dovecot's lists as they should be and as they are."""
    served, told = programs()["served_users"], _told(host, name)
    settings = json.loads(host(name).run("cat /etc/lemonstand/served-users.json").stdout or "{}")
    wanted = {each: served.lines_of(told, settings, logins=each in served.LOGINS) for each in served.PROTOCOLS}
    wanted["doveadm"] = [line for _, _, line in served.everybody(told, settings["directory"])]
    found = {each: host(name).run(f"cat {settings['lists']}/users.{each}").stdout.splitlines() for each in wanted}
    return wanted, found


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-06")
def test_each_mailbox_is_somebodys(host: HostFactory, store: str, measure: Measure) -> None:
    """No mail lies where no user's is, and no user's mailbox that was there is gone. Who never got mail has none, and need not have."""
    settings = json.loads(host(store).run("cat /etc/lemonstand/served-users.json").stdout or "{}")
    directory = settings["directory"]

    def look() -> dict[str, Any]:
        told = _told(host, store)
        lines = host(store).run(f"find {directory} -mindepth 2 -maxdepth 2 -type d -not -path '*/.*' -printf '%P\\n'").stdout
        homes = {f"{local}@{domain}" for domain, _, local in (line.partition("/") for line in lines.splitlines())}
        remembered = json.loads(host(store).run("cat /var/lib/lemonstand/homes.json").stdout or '{"there": []}')["there"]
        here = programs()["served_users"].served_here(told, settings)
        measure("mailboxes", len(homes), volatile=True)
        nobodys, lost = sorted(homes - set(told["users"])), sorted(set(remembered) & here - homes)
        words = {"of nobody": nobodys[:SHOWN], "gone": lost[:SHOWN]}
        return {key: value for key, value in words.items() if value}

    wrong = _wrong(look)
    expect(
        not wrong, f"mailboxes on {store} are not those of its users", seen=wrong, expected="each is a user's, none is lost",
        remedy="of nobody: look whose it was, and move it away; gone: bring it back from a backup (lemonstand restore mailbox)",
    )  # fmt: skip


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-06")
def test_mail_of_people_who_are_gone_is_not_kept_on(host: HostFactory, site: Site, store: str, measure: Measure) -> None:
    """What was kept aside of deleted users is removed when its time is over."""
    answer = json.loads(host(store).run('echo \'{"action": "list"}\' | python3 -I -B /usr/local/lib/lemonstand/deleted_mail.py').stdout)
    limit = datetime.now(UTC) - timedelta(days=site.settings.deleted_mail_days + 1)
    late = [each["name"] for each in answer["kept"] if datetime.strptime(each["when"], STAMP).replace(tzinfo=UTC) < limit]
    measure("kept aside", len(answer["kept"]), volatile=True)
    measure("days", site.settings.deleted_mail_days)
    expect(
        not late, f"{store} keeps mail of people who are gone for longer than said", seen=late[:SHOWN],
        expected=f"{site.settings.deleted_mail_days} days", remedy="lemonstand user purge",
    )  # fmt: skip
