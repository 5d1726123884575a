"""From where a site is looked at, and what came of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lemonstand.outcomes import Invalid, NotMeasurable
from lemonstand.probes.clients.tickets import Inward
from lemonstand.probes.protocols.wire import Account, Door
from lemonstand.remote.connections import read_connections, sockets_directory
from lemonstand.remote.endpoints import accounts_of, ca_of_clients, door_to, families_of, inward_of
from lemonstand.remote.prober import Prober, Running
from lemonstand.site import Site

SPARE_SECONDS = 30
"""What a probe gets beyond the time it works, to open its session and to close it."""


@dataclass(frozen=True)
class Value:
    """One thing that was measured."""

    name: str
    value: object
    unit: str = ""


@dataclass(frozen=True)
class Finding:
    """What a question brought.

    Args:
        values: for people, with units.
        data: for checks.
    """

    values: list[Value]
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """From where and as whom.

    Args:
        prober: starts probes on hosts of the inventory.
        site: what is looked at.
        vantage: the host outside.
        doors: the public door of mail clients in an IP version.
        accounts: two or more.
    """

    prober: Prober
    site: Site
    vantage: str
    doors: Callable[..., Door]
    accounts: list[Account]

    @property
    def families(self) -> tuple[int, ...]:
        """The IP versions in which clients reach the site."""
        return families_of(self.site)

    @property
    def border(self) -> str:
        """The host all mail of clients passes.

        Raises:
            NotMeasurable: it is not ours.
        """
        edges = self.site.group("edges")
        if not edges:
            raise NotMeasurable("the site has no edge of its own: nothing can be made or read there")
        return edges[0].name

    @property
    def outward(self) -> str:
        """The border's device towards the clients."""
        return self.site.hosts[self.border].interfaces["internet"].device

    @property
    def inward(self) -> Inward:
        """What a frontend talks to inside."""
        return inward_of(self.site)

    def ask(self, probe: str, *, seconds: int = 60, **args: Any) -> Any:
        """Asks from outside."""
        return self.prober.ask(self.vantage, probe, seconds=seconds, **args)

    def near(self, version: int) -> Door:
        """The frontend's own door, for whoever stands behind the edge."""
        leg = self.site.group("frontends")[0].interfaces["dmz"]
        address = leg.ipv4 if version == 4 else leg.ipv6
        return {**self.doors(version), "address": str(address)}

    @contextlib.contextmanager
    def in_both(self, probe: str, ready: str, *, within: float, **args: Any) -> Iterator[dict[int, Running]]:
        """A probe at work outside in each IP version, all of them `ready`; they are stopped at the end of the block."""
        with contextlib.ExitStack() as stack:
            seconds = int(within) + SPARE_SECONDS
            running = {
                family: stack.enter_context(
                    self.prober.start(self.vantage, probe, seconds=seconds, door=self.doors(family), within=within, **args)
                )
                for family in self.families
            }
            for each in running.values():
                each.wait(ready)
            yield running

    def mail(self) -> str:
        """Submits a message from the second account to the first; its Message-ID.

        Raises:
            Invalid: it was refused.
        """
        sent = self.ask("deliver", door=self.doors(), account=self.accounts[1], recipient=self.accounts[0]["user"])
        if sent["code"] != 250:
            raise Invalid(f"no message could be sent: {sent['code']} {sent['text']}")
        return str(sent["ident"])

    def tidy(self, ident: str, within: float = 20) -> None:
        """Takes a message out of the first account's INBOX; what can't be found stays."""
        with contextlib.suppress(Invalid):
            self.ask("wait-for", door=self.doors(), account=self.accounts[0], ident=ident, within=within)


@contextlib.contextmanager
def looking(site: Site) -> Iterator[Look]:
    """A look at a site from the first of its `handsets`, as its `lemonstand_probe_users`; ssh sessions end with the block.

    Raises:
        NotMeasurable: the inventory names neither.
        Invalid: the site's own CA is not there yet.
    """
    accounts = accounts_of(site)
    if len(accounts) < 2:
        raise NotMeasurable("the inventory names no accounts for probes: two in lemonstand_probe_users")
    with _probing(site) as (prober, vantage):
        yield Look(prober, site, vantage, functools.partial(door_to, site, ca_of_clients(site), "frontends"), accounts)


def watching(site: Site, user: str, password: str, seconds: int, version: int) -> Iterator[str]:
    """What a phone sees of a mailbox, a line at a time, and a line of counts at the end.

    Raises:
        NotMeasurable: the inventory names no host outside.
        Invalid: the host outside could not be used.
        Unmet: the login is refused.
    """
    door = door_to(site, ca_of_clients(site), "frontends", version)
    account = Account(user=user, password=password)
    with (
        _probing(site) as (prober, vantage),
        prober.start(vantage, "watch", seconds=seconds + SPARE_SECONDS, door=door, account=account, within=seconds) as running,
    ):
        for event in running.events():
            now = f"{dt.datetime.now().astimezone():%H:%M:%S}"
            match event.name:
                case "opened":
                    yield f"{now}  connected   in {event.values['seconds']} s"
                case "heard":
                    yield f"{now}  {event.values['kind']:<11} {event.values['text']}"
                case "closed":
                    yield f"{now}  lost        after {event.values['held']} s: {event.values['text']}"
                case "failed":
                    yield f"{now}  no way      {event.values['text']}; again in {event.values['again']} s"
                case "result":
                    yield ", ".join(f"{count} {name.replace('_', '-')}" for name, count in event.values["data"].items())


@contextlib.contextmanager
def _probing(site: Site) -> Iterator[tuple[Prober, str]]:
    hosts = site.group("handsets")
    if not hosts:
        raise NotMeasurable("the inventory names no host outside the site (group 'handsets')")
    sockets = sockets_directory()
    try:
        with Prober(read_connections(site.inventory, sockets)) as prober:
            yield prober, hosts[0].name
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
