"""From where a site is looked at, and what came of it."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lemonstand.measure.edges import at_work_and_other
from lemonstand.outcomes import Invalid, NotMeasurable, NotMeasured
from lemonstand.probes.clients.tickets import InnerServices
from lemonstand.probes.protocols.wire import Account, Endpoint
from lemonstand.remote.connections import connected
from lemonstand.remote.endpoints import (
    accounts_of,
    ca_of_clients,
    ca_of_exchangers,
    endpoint_of,
    families_of,
    inner_services_of,
    outsider_of,
    vantage_of,
)
from lemonstand.remote.prober import PROBE_SECONDS, Prober, Running
from lemonstand.remote.serving import home_of
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
class Vantage:
    """A host outside a site, from which it is measured as its clients meet it. What the inventory does not name is missed where it is used.

    Args:
        prober: starts probes on hosts of the inventory.
        site: what is measured.
    """

    prober: Prober
    site: Site

    @cached_property
    def host(self) -> str:
        """The host outside.

        Raises:
            NotMeasured: the inventory names none.
        """
        return vantage_of(self.site)

    @cached_property
    def outsider(self) -> str:
        """A mail host outside the site.

        Raises:
            NotMeasured: the inventory names none.
        """
        return outsider_of(self.site)

    @cached_property
    def accounts(self) -> list[Account]:
        """The accounts of live checks, two or more.

        Raises:
            NotMeasured: the inventory has none.
        """
        found = accounts_of(self.site)
        if not found:
            raise NotMeasured("the inventory names no accounts for checks (lemonstand_probe_users)")
        return found

    def endpoints(self, version: int | None = None) -> Endpoint:
        """The public endpoint of mail clients in an IP version; None: the first there is.

        Raises:
            Invalid: the site's own CA is not there yet.
            NotApplicable: the site has no public address of that IP version.
        """
        return endpoint_of(self.site, ca_of_clients(self.site), "frontends", version)

    def exchangers(self, version: int | None = None) -> Endpoint:
        """The site's MX, likewise."""
        return endpoint_of(self.site, ca_of_exchangers(self.site), "relays", version)

    @property
    def families(self) -> tuple[int, ...]:
        """The IP versions in which clients reach the site."""
        return families_of(self.site)

    @property
    def border(self) -> str:
        """The host all mail of clients passes: of two edges the one at work, which may be another one each time it is asked.

        Raises:
            NotMeasurable: it is not ours.
            Invalid: of two edges not exactly one is at work.
        """
        edges = self.site.group("edges")
        if not edges:
            raise NotMeasurable("the site has no edge of its own: nothing can be made or read there")
        return edges[0].name if len(edges) == 1 else at_work_and_other(self.prober, self.site)[0]

    @property
    def outward(self) -> str:
        """The border's device towards the clients."""
        return self.site.hosts[self.border].interfaces["internet"].device

    @property
    def inner_services(self) -> InnerServices:
        """What a frontend talks to inside, for the first account of live checks if there is one."""
        accounts = accounts_of(self.site)
        return inner_services_of(self.site, store=self.home(accounts[0]) if accounts else "")

    def home(self, account: Account) -> str:
        """The host that serves an account now.

        Raises:
            Invalid: no store says.
        """
        return home_of(self.prober, self.site, account["user"])

    def ask(self, probe: str, *, seconds: int = PROBE_SECONDS, **args: Any) -> Any:
        """Asks from outside."""
        return self.prober.ask(self.host, probe, seconds=seconds, **args)

    def start(self, probe: str, *, seconds: int = PROBE_SECONDS, lasting: bool = False, **args: Any) -> Running:
        """Starts a probe outside; one that is `lasting` goes on if the connection to the host is lost."""
        return self.prober.start(self.host, probe, seconds=seconds, lasting=lasting, **args)

    def near(self, version: int) -> Endpoint:
        """The frontend's own endpoint, for whoever stands behind the edge."""
        leg = self.site.group("frontends")[0].interfaces["dmz"]
        address = leg.ipv4 if version == 4 else leg.ipv6
        return {**self.endpoints(version), "address": str(address)}

    @contextlib.contextmanager
    def in_both(self, probe: str, ready: str, *, within: float, **args: Any) -> Iterator[dict[int, Running]]:
        """A probe at work outside in each IP version, all of them `ready`; they are stopped at the end of the block."""
        with contextlib.ExitStack() as stack:
            seconds = int(within) + SPARE_SECONDS
            running = {
                family: stack.enter_context(self.start(probe, seconds=seconds, endpoint=self.endpoints(family), within=within, **args))
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
        sent = self.ask("deliver", endpoint=self.endpoints(), account=self.accounts[1], recipient=self.accounts[0]["user"])
        if sent["code"] != 250:
            raise Invalid(f"no message could be sent: {sent['code']} {sent['text']}")
        return str(sent["ident"])

    def tidy(self, ident: str, within: float = 20) -> None:
        """Takes a message out of the first account's INBOX; what can't be found stays."""
        with contextlib.suppress(Invalid):
            self.ask("wait-for", endpoint=self.endpoints(), account=self.accounts[0], ident=ident, within=within)


@contextlib.contextmanager
def open_vantage(site: Site) -> Iterator[Vantage]:
    """A site as it is met from the first of its `handsets`, as its `lemonstand_probe_users`; ssh sessions end with the block.

    Raises:
        NotMeasurable: the inventory names neither.
        Invalid: the site's own CA is not there yet.
    """
    if len(accounts_of(site)) < 2:
        raise NotMeasurable("the inventory names no accounts for probes: two in lemonstand_probe_users")
    with _probing(site) as vantage:
        vantage.endpoints()  # says now what is missing
        yield vantage


def watching(site: Site, user: str, password: str, seconds: int, version: int) -> Iterator[str]:
    """What a phone sees of a mailbox, a line at a time, and a line of counts at the end.

    Raises:
        NotMeasurable: the inventory names no host outside.
        Invalid: the host outside could not be used.
        Unmet: the login is refused.
    """
    endpoint = endpoint_of(site, ca_of_clients(site), "frontends", version)
    account = Account(user=user, password=password)
    with (
        _probing(site) as vantage,
        vantage.start("watch", seconds=seconds + SPARE_SECONDS, endpoint=endpoint, account=account, within=seconds) as running,
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
def _probing(site: Site) -> Iterator[Vantage]:
    vantage_of(site)
    with connected(site.inventory) as connections, Prober(connections) as prober:
        yield Vantage(prober, site)
