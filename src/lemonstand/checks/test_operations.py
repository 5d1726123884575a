"""A site that people change for years: hosts say by what they were set up, the site says who did what, and two never change it at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lemonstand.admin import Hosts
from lemonstand.admin.operations import Log, ask, read_log, seats
from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect
from lemonstand.site import Site
from lemonstand.site.digest import inventory_digest
from lemonstand.site.shipped import filter_plugin

ASKED = {"dovecot": "doveconf -h", "postfix": "postconf -h"}
"""How the programs are asked for a setting in force."""
STAMP = "/var/lib/lemonstand/stamp.json"
OWNER = "root root 644"
DOVECOT_CONF = "/etc/dovecot/dovecot.conf"


@measurement(waits=True)
def site_log(vantage: Vantage) -> Log:
    """What the seats remember."""
    with Hosts(vantage.site.inventory) as hosts:
        return read_log(vantage.site, hosts)


@measurement(waits=True)
def inventory_now(vantage: Vantage) -> str:
    """The digest of the inventory as it is."""
    return inventory_digest(vantage.site.inventory)


def stamp_of(host: HostFactory, name: str) -> dict[str, Any]:
    """A host's stamp; empty without one that can be read."""
    try:
        found = json.loads(host(name).run(f"cat {STAMP}").stdout)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-01")
def test_a_host_is_stamped_with_what_it_was_brought_to(host: HostFactory, node: str, inventory_now: str, measure: Measure) -> None:
    """The stamp is root's, of the newest layout, and of the inventory as it is; by which version and commit is told and not judged."""
    stamp, code = stamp_of(host, node), filter_plugin("operation").code()
    measure("lemonstand", f"{stamp.get('version', 'none')} {str(stamp.get('commit', ''))[:12]}{'+' if stamp.get('dirty') else ''}".strip())
    measure("when and by whom", f"{stamp.get('when', '')} {stamp.get('who', '')}".strip(), volatile=True)
    expect(
        bool(stamp), "nobody can say what this host was brought to", seen=f"no stamp in {STAMP}", expected="one", remedy="lemonstand apply"
    )
    owner = host(node).run(f"stat -c '%U %G %a' {STAMP}").stdout.strip()
    expect(owner == OWNER, "others may write the stamp", seen=owner, expected=OWNER, remedy=f"chown root:root {STAMP}; chmod 644 {STAMP}")
    wanted = {"layout": code["layout"], "inventory": inventory_now, "result": "ok"}
    seen = {key: stamp.get(key) for key in wanted}
    expect(
        seen == wanted, "this host was not brought to what the inventory says now", seen=seen, expected=wanted, remedy="lemonstand apply"
    )


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-02")
def test_who_changed_the_site_is_remembered(site_log: Log, site: Site, measure: Measure) -> None:
    """Each auth host and store has the history, whole and for root alone to read; all of them know of the same runs."""
    measure("runs remembered", len(site_log.runs), volatile=True)
    measure("kept by", ", ".join(site_log.stamps))
    expect(not site_log.unasked, "the history can't be read", seen=dict(site_log.unasked), expected="an answer of each auth host and store")
    expect(
        not site_log.broken, "lines of the history were taken out or changed",
        seen={seat: f"before {', '.join(places)}" for seat, places in site_log.broken.items()}, expected="each line follows the one before",
        remedy="`lemonstand log` shows what is left; the histories of the other auth hosts and stores have the rest",
    )  # fmt: skip
    expect(
        any(run.result == "ok" for run in site_log.runs), "no run is remembered", seen="none", expected="at least the last apply",
        remedy="lemonstand apply",
    )  # fmt: skip


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-02")
def test_a_host_was_changed_by_runs_that_are_remembered(host: HostFactory, node: str, site_log: Log, measure: Measure) -> None:
    """The run of each host's stamp is one the site remembers: a stamp that somebody wrote himself is of none."""
    run = str(stamp_of(host, node).get("run", ""))
    measure("run", run, volatile=True)
    known = {each.id for each in site_log.runs}
    expect(
        run in known, "a run that nobody remembers set this host up", seen=run or "no run",
        expected="one of `lemonstand log`", remedy="lemonstand apply, after a look at who was on this host",
    )  # fmt: skip


@pytest.mark.answer("live")
@pytest.mark.control("OPS-03")
@pytest.mark.disruptive
def test_two_controllers_do_not_change_the_site_at_once(site: Site, measure: Measure) -> None:
    """While one is at work each auth host and store refuses another, and says who it is; after that anybody may."""
    plugin = filter_plugin("operation")
    code = {**plugin.code(), **plugin.controller(), "command": "lemonstand verify", "limit": "", "lock": True}
    one = {**code, "id": plugin.new_id(), "trial": True}
    other = {**code, "id": plugin.new_id(), "controller": "another", "who": "somebody@else", "living": [], "check": True}
    refused, free = {}, {}
    with Hosts(site.inventory) as hosts:
        for seat in seats(site):
            taken = ask(hosts, seat, "begin", one)
            try:
                expect(not taken["held"], "somebody is at work", seen=taken["held"], expected="nobody", remedy="wait, or lemonstand unlock")
                refused[seat] = (ask(hosts, seat, "begin", other)["held"] or {}).get("who", "nobody")
            finally:
                ask(hosts, seat, "end", {"id": one["id"], "result": "ok", "hosts": {}, "failed": {}})
            free[seat] = ask(hosts, seat, "begin", other)["held"] is None
    measure("refused by", ", ".join(refused))
    expect(
        set(refused.values()) == {code["who"]} and all(free.values()), "two controllers can change the site at once",
        seen={"who was named to the second": refused, "free again": free}, expected="the first, and free when it has ended",
    )  # fmt: skip


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-03")
def test_the_lock_is_the_operators_own(host: HostFactory, site: Site, measure: Measure) -> None:
    """What keeps others out is root's to write, and lies on no host that stands where the Internet comes first."""
    found = {}
    for seat in seats(site):
        found[seat] = host(seat).run("stat -c '%U %a' /run/lemonstand /var/lib/lemonstand/operations").stdout.split("\n")[:2]
        kinds = site.hosts[seat].role_groups
        expect(not {"frontends", "relays", "edges"} & set(kinds), f"{seat} keeps the lock", seen=kinds, expected="auth hosts and stores")
    measure("kept by", ", ".join(found))
    wanted = ["root 755", "root 700"]
    expect(
        all(each == wanted for each in found.values()), "others may write the lock or the history", seen=found, expected=wanted,
        remedy="chown root /run/lemonstand /var/lib/lemonstand/operations; chmod 755 and 700",
    )  # fmt: skip


@pytest.mark.answer("configuration")
@pytest.mark.control("OPS-04")
def test_own_settings_are_those_the_site_declares(host: HostFactory, site: Site, node: str, measure: Measure) -> None:
    """What the site sets itself is in force as declared; its names are judged with the inventory, the rest of the files by integrity."""
    wanted = {f"{program} {name}": value for program, settings in site.own_settings(node).items() for name, value in settings.items()}
    seen = {}
    for each, value in wanted.items():
        program, _, name = each.partition(" ")
        seen[each] = host(node).run(f"{ASKED[program]} %s", name).stdout.strip()
        measure(f"the site's own: {each}", value)
    for program, text in site.drop_ins(node).items():
        each, declared = f"text for {program}", f"{len(text.splitlines())} lines"
        place = DOVECOT_CONF if program == "dovecot" else f"/etc/systemd/system/{program}.d/lemonstand-site.conf"
        holds = text.strip() in host(node).run(f"cat {place}").stdout
        read = place == DOVECOT_CONF or _reads(host, node, program, place)
        wanted[each] = declared
        seen[each] = declared if holds and read else f"not in {place}, or not read since"
        measure(f"the site's own: {each}", declared)
    measure("the site's own settings", len(wanted))
    expect(seen == wanted, "the site's own settings are not in force", seen=seen, expected=wanted, remedy="lemonstand apply")


def _reads(host: HostFactory, node: str, unit: str, drop_in: str) -> bool:
    """Whether systemd has a drop-in of a unit as it lies on disk."""
    told = host(node).run("systemctl show -P DropInPaths -P NeedDaemonReload %s", unit).stdout.split()
    return drop_in in told and "no" in told
