"""Where the red team stands: the lab's hosts and addresses, two accounts, and answers that several attempts share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lemonstand.derived import expected_matrix
from lemonstand.outcomes import Unanswered
from lemonstand.probes.attacks.frames import Way
from lemonstand.probes.clients.tickets import InnerServices
from lemonstand.probes.protocols.wire import Account, Endpoint
from lemonstand.remote.endpoints import accounts_of, ca_of_clients, ca_of_exchangers, endpoint_of, inner_services_of
from lemonstand.remote.prober import Prober
from lemonstand.remote.serving import home_of
from lemonstand.site import Site
from lemonstand.site.model import Interface

ISSUER_PORT = 8443
TICKET_SECONDS = 15
"""How long a ticket is used for attempts before a fresh one is asked for: none may be refused for its age alone."""


class CouldNotTry(Exception):
    """An attempt could not be made, or its positive control failed: that says nothing about what holds."""


@dataclass(frozen=True)
class Seen:
    """What an attempt brought.

    Args:
        succeeded: whether the attacker got what he wanted.
        got: what he got, or what he was told instead.
        control: what the same move with the right credentials brought.
    """

    succeeded: bool
    got: str
    control: str


def need(holds: object, what: str) -> None:
    """The positive control: without it a refusal means nothing.

    Raises:
        CouldNotTry: it does not hold.
    """
    if not holds:
        raise CouldNotTry(what)


def told(cases: dict[str, Any], taken: list[str], *, of: int | None = None) -> str:
    """One line about many cases: those that were let in, or how many were refused and how."""
    if taken:
        return "; ".join(f"{case}: {_short(cases[case])}" for case in taken[:4]) + (f" and {len(taken) - 4} more" if len(taken) > 4 else "")
    count = of if of is not None else len(cases)
    answers = sorted({_short(case)[:60] for case in cases.values()})
    return f"{count} of {count} refused: {' | '.join(answers[:3])}"


def _short(case: Any) -> str:
    if isinstance(case, dict):
        return " ".join(str(case[key]) for key in ("status", "code", "text", "body") if key in case and case[key] != "")[:100]
    return str(case)[:100]


class LabUnderAttack:
    """A lab to attack.

    Args:
        site: its model.
        prober: how to act on its hosts.
        machine: addresses of the machine that carries it: what a host of the lab must not reach.
    """

    def __init__(self, site: Site, prober: Prober, machine: tuple[str, ...] = ()) -> None:
        self.site = site
        self.prober = prober
        self.machine = machine
        self._kept: dict[str, Future[Any]] = {}
        self._lock = threading.RLock()
        self._ticket: dict[str, Any] = {}
        self._ticket_until = 0.0

    def ask(self, host: str, probe: str, *, seconds: int = 60, **args: Any) -> Any:
        """Acts on a host.

        Raises:
            CouldNotTry: that was not possible.
        """
        try:
            return self.prober.ask(host, probe, seconds=seconds, **args)
        except (Unanswered, AssertionError) as fault:
            raise CouldNotTry(str(fault)) from fault

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned, or raised, the first time it was called under this name."""
        with self._lock:
            known = name in self._kept
            future = self._kept.setdefault(name, Future())
        if not known:
            try:
                future.set_result(make())
            except BaseException as fault:
                future.set_exception(fault)
        return future.result()

    def name(self, group: str) -> str:
        """The first host of a group."""
        hosts = self.site.group(group)
        if not hosts:
            raise CouldNotTry(f"the lab has no host in the group '{group}'")
        return hosts[0].name

    @property
    def one(self) -> Account:
        """The account the attacker may have."""
        return accounts_of(self.site)[0]

    @property
    def two(self) -> Account:
        """The account he is after."""
        return accounts_of(self.site)[1]

    def endpoint(self, family: int, group: str = "frontends") -> Endpoint:
        """The public endpoint of a frontend or relay."""
        ca = ca_of_exchangers(self.site) if group == "relays" else ca_of_clients(self.site)
        return endpoint_of(self.site, ca, group, family)

    @cached_property
    def inner_services(self) -> InnerServices:
        """What a frontend talks to, for the account the attacker may have."""
        try:
            return inner_services_of(self.site, store=home_of(self.prober, self.site, self.one["user"]))
        except Unanswered as fault:
            raise CouldNotTry(str(fault)) from fault

    @property
    def ticket(self) -> dict[str, Any]:
        """A fresh ticket of the attacker's own account."""
        with self._lock:
            if time.monotonic() > self._ticket_until:
                answer = self.ask(self.name("frontends"), "obtain", inner_services=self.inner_services, account=self.one)
                need(answer["ticket"], f"the issuer gave no ticket: {answer}")
                self._ticket, self._ticket_until = dict(answer), time.monotonic() + TICKET_SECONDS
            return self._ticket

    def legs(self, host: str) -> dict[str, Any]:
        """A host's devices with their MAC addresses; whoever shares a wire learns those in a moment."""
        return dict(self.once(f"legs of {host}", lambda: self.ask(host, "legs")))

    def leg(self, host: str, zone: str) -> Interface:
        """A host's leg in a zone; without one the attempt can't be made."""
        found = self.site.hosts[host].interfaces
        need(zone in found, f"{host} has no leg in {zone}")
        return found[zone]

    def mac(self, host: str, zone: str) -> str:
        """The MAC address of a host's leg."""
        return str(self.legs(host)[self.leg(host, zone).device]["mac"])

    def addresses(self, host: str, zone: str) -> list[str]:
        """A host's addresses in a zone."""
        return [str(address) for address in self.leg(host, zone).addresses]

    def owner(self, address: str) -> str:
        """The host with an address; the address itself if it is nobody's."""
        for name, host in self.site.hosts.items():
            if any(str(each) == address for leg in host.interfaces.values() for each in leg.addresses):
                return name
        return address

    def own(self, host: str, zone: str, like: str) -> str:
        """A host's address in a zone of the same IP version as another."""
        return next(address for address in self.addresses(host, zone) if (":" in address) == (":" in like))

    @cached_property
    def allowed(self) -> set[tuple[str, str, int]]:
        """What flows allow: (source, address, TCP port)."""
        return {
            (cell.source, str(cell.address), cell.port)
            for cell, flow in expected_matrix(self.site).items()
            if flow is not None and cell.protocol == "tcp"
        }

    def way(self, host: str, leg: str, hop: str, target: str, ports: list[int]) -> Way:
        """How a host knocks at an address by one of its legs.

        Args:
            leg: the zone of its leg.
            hop: the MAC address of who is to take the frame.
        """
        device = self.leg(host, leg).device
        return Way(device=device, source=self.own(host, leg, target), target=target, hop=hop, ports=ports)
