"""Fixtures of the checks: the site, its hosts over SSH, and the facts of each host that all configuration checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lemonstand.checks.background import measurement
from lemonstand.derived.deviations import waivers_of
from lemonstand.errors import LemonstandError
from lemonstand.measure import Vantage, silence
from lemonstand.outcomes import Invalid
from lemonstand.policy import load_flows, load_timers
from lemonstand.policy.kinds import load_kinds
from lemonstand.remote.connections import Connection, connected
from lemonstand.remote.facts import Facts
from lemonstand.remote.gather import described, gather_facts, noting, reach
from lemonstand.remote.prober import Prober
from lemonstand.site import Site, build, read_inventory

HostFactory = Callable[[str], Any]
FactsOf = Callable[[str], Facts]
Measure = Callable[..., None]
Table = Callable[[str, Iterable[str], Iterable[Iterable[Any]]], None]
Members = dict[str, list[str]]

SINGLE = {kind.one: group for group, kind in load_kinds().kinds.items()}
"""Fixtures that make a check run once for each host of a group; `node` is every host of the site."""
ALL = tuple(SINGLE.values())
ONE_STORE = "the site has one store and no standby"
NO_STANDBY = "no store of the site has a standby"
NO_REPOSITORY = "the site names no repository for backups (lemonstand_services)"


def _in(site: Site, *groups: str, needed: bool) -> list[str]:
    return [host.name for group in groups for host in site.group(group)] if needed else []


def _paired(site: Site) -> list[str]:
    return [name for name, hosts in site.pairs.items() if len(hosts) > 1]


SEVERAL: tuple[tuple[str, Callable[[Site], list[str]], str], ...] = (
    ("pair", _paired, NO_STANDBY),
    ("paired_relay", lambda site: _in(site, "relays", needed=bool(_paired(site))), NO_STANDBY),
    ("told", lambda site: _in(site, "stores", "relays", needed=len(site.group("stores")) > 1), ONE_STORE),
    ("listed", lambda site: _in(site, "stores", "relays", needed=True), "the site has no store and no relay of its own"),
    ("told_auth", lambda site: _in(site, "auths", needed=len(site.group("stores")) > 1), ONE_STORE),
    ("backed", lambda site: _in(site, "stores", "auths", needed=site.settings.services.backup is not None), NO_REPOSITORY),
    ("backed_store", lambda site: _in(site, "stores", needed=site.settings.services.backup is not None), NO_REPOSITORY),
    ("backed_auth", lambda site: _in(site, "auths", needed=site.settings.services.backup is not None), NO_REPOSITORY),
    ("spare", lambda site: _in(site, "relays", needed=len(site.group("relays")) > 1), "the site has one relay"),
)
"""Fixtures of what a site has several of: name, cases, what is said where it has not. `pair` is a store's name, the others are hosts."""
SITE = pytest.StashKey[Site]()
LIVE = ("lemonstand.checks.background", "lemonstand.checks.live")


def pytest_configure(config: pytest.Config) -> None:
    """Brings in the fixtures of live checks."""
    for plugin in LIVE:
        config.pluginmanager.import_plugin(plugin)


def _site(config: pytest.Config) -> Site:
    if SITE not in config.stash:
        given = config.getoption("--inventory")
        if not given:
            raise pytest.UsageError("name the site's inventory: --inventory DIR")
        inventory = Path(given)
        config.stash[SITE] = build(inventory, read_inventory(inventory), load_flows(), load_timers())
    return config.stash[SITE]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Reads the site first of all: without a sound one there is nothing to check."""
    try:
        _site(session.config)
    except LemonstandError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a check once for each host it asks for, or for each waiver."""
    if "waiver" in metafunc.fixturenames:
        waivers = waivers_of(_site(metafunc.config))
        cases = [pytest.param(waiver, marks=pytest.mark.supports(*waiver.controls), id=waiver.id) for waiver in waivers]
        metafunc.parametrize("waiver", cases)
    for fixture, names_of, absent_of in SEVERAL:
        if fixture in metafunc.fixturenames:
            names = names_of(_site(metafunc.config))
            metafunc.parametrize(fixture, names or [pytest.param("", marks=pytest.mark.absent(absent_of), id=f"no-{fixture}")])
    for fixture, group in {**SINGLE, "node": ""}.items():
        if fixture not in metafunc.fixturenames:
            continue
        site = _site(metafunc.config)
        names = [host.name for host in site.hosts.values() if (group in host.groups if group else host.role_groups)]
        if names:
            metafunc.parametrize(fixture, names)
        else:
            absent = pytest.param("", marks=pytest.mark.absent(f"the site has no {group or 'hosts'} of its own"), id=f"no-{fixture}")
            metafunc.parametrize(fixture, [absent])


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Site:
    """The validated model of the site under test."""
    return _site(pytestconfig)


def _names(site: Site, group: str) -> list[str]:
    return [host.name for host in site.group(group)]


@pytest.fixture(scope="session")
def edges(site: Site) -> list[str]:
    """Names of the border firewalls that are ours; may be empty."""
    return _names(site, "edges")


@pytest.fixture(scope="session")
def frontends(site: Site) -> list[str]:
    """Names of the login proxies in the DMZ."""
    return _names(site, "frontends")


@pytest.fixture(scope="session")
def auths(site: Site) -> list[str]:
    """Names of the credential hosts."""
    return _names(site, "auths")


@pytest.fixture(scope="session")
def stores(site: Site) -> list[str]:
    """Names of the hosts with mailboxes."""
    return _names(site, "stores")


@pytest.fixture(scope="session")
def relays(site: Site) -> list[str]:
    """Names of the mail relays."""
    return _names(site, "relays")


@pytest.fixture(scope="session")
def members(site: Site) -> Members:
    """The names of the hosts of every group, for checks that look at several groups at once."""
    return {group: _names(site, group) for group in ALL}


@pytest.fixture(scope="session")
def nodes(site: Site) -> list[str]:
    """Names of all hosts of the site, without those that stand for the rest of the world."""
    return [host.name for host in site.hosts.values() if host.role_groups]


@pytest.fixture(scope="session")
def connections(pytestconfig: pytest.Config, site: Site) -> Iterator[dict[str, Connection]]:
    """How to reach each host of the inventory; the ssh sessions end with the checks."""
    with connected(site.inventory) as connections:
        yield connections


@pytest.fixture(scope="session")
def host(connections: dict[str, Connection]) -> HostFactory:
    """A factory of testinfra hosts: `host("frontend").run("…")`. What they run is noted for the evidence."""
    made: dict[str, Any] = {}

    def factory(name: str) -> Any:
        if name not in connections:
            raise Invalid(f"the inventory has no host '{name}'")
        if name not in made:
            made[name] = noting(name, reach(connections[name]))
        return made[name]

    return factory


@measurement(waits=True)
def client_keepalive(vantage: Vantage) -> dict[int, dict[str, Any]]:
    """What becomes of a client's own keep-alive probes, by IP version."""
    return dict(silence.answers(vantage, 0).data["families"])


@pytest.fixture(scope="session")
def facts_of(pytestconfig: pytest.Config, prober: Prober, nodes: list[str]) -> FactsOf:
    """The state of each host as it was when the checks began, read from all of them at once."""
    taken = gather_facts(prober, nodes)
    recorder = pytestconfig.pluginmanager.get_plugin("lemonstand-recorder")
    if recorder is not None:
        for name, facts in taken.items():
            if isinstance(facts, Facts):
                recorder.saw_host(name, described(facts))

    def of(name: str) -> Facts:
        found = taken.get(name)
        if found is None:
            raise Invalid(f"'{name}' is no host of the site")
        if isinstance(found, Exception):
            raise found
        return found

    return of


@pytest.fixture(scope="session", autouse=True)
def _site_in_evidence(pytestconfig: pytest.Config, site: Site, request: pytest.FixtureRequest) -> None:
    recorder = pytestconfig.pluginmanager.get_plugin("lemonstand-recorder")
    if recorder is not None:
        recorder.saw_site(site)
        if recorder.wants_states:
            request.getfixturevalue("facts_of")
