"""What clients see of the loss of a member of a pair: an edge that falls silent or whose election dies, a frontend that falls silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lemonstand.measure.crowd import woken
from lemonstand.measure.edges import at_work_and_other, shared_addresses
from lemonstand.measure.silence import MAIL_PORTS
from lemonstand.measure.vantage import Vantage
from lemonstand.outcomes import Invalid, NotApplicable
from lemonstand.probes.protocols.wire import Endpoint
from lemonstand.remote.prober import Running

AWAY_SECONDS = 30
"""How long a member is silent at most: long enough for everything that has to happen meanwhile, on a busy machine."""
TOLD_SECONDS = 30
"""How long sleeping sessions have to be told of a message that is there."""
STEP_SECONDS = 30
"""How long an edge that is back has until it knows all connections of the other one."""
BACK_SECONDS = 15
"""How long it is looked at at least: one that takes the work back does so once it hears the other one and finds its neighbours again."""
CROWD_SECONDS = 600
SETTLE_SECONDS = 60
TROUBLES = ("alone", "twin_silent", "conflict")
"""What an edge's watch has a time for if it is so."""
EVERY = 0.5
"""Seconds from one new connection to the next."""


@dataclass
class Loss:
    """What came of the loss of a member.

    Args:
        lost: the member.
        by: who took over; empty where nobody has to.
        seconds: from the loss until it had.
        opened: sessions that slept meanwhile; `ended`, `pushed`, `answered` as `idle-crowd` has them.
        openings: new connections meanwhile, a row for each address, as `openings` has them.
        entries: connections the one that took over knew, as `tracked-connections` has them; `read_after`: seconds from the loss until they
            were read.
        back: what the lost one holds after its return; nothing is right.
        in_step: connections one edge had, and the other one knew of, after it; None: one of them could not say.
    """

    lost: str
    by: str = ""
    seconds: float | None = None
    opened: int = 0
    ended: list[str] = field(default_factory=list)
    pushed: int = 0
    answered: int = 0
    openings: list[dict[str, Any]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    read_after: float = 0.0
    back: list[str] = field(default_factory=list)
    in_step: tuple[int, int] | None = None

    @property
    def left(self) -> int:
        """The least seconds for which a connection that counts as established was remembered after it."""
        return min((entry["left"] for entry in self.entries if entry["state"] in LASTING), default=0)

    @property
    def longest(self) -> float:
        """The longest a new connection took to be greeted."""
        return max((float(each["longest"]) for each in self.openings), default=0.0)


LASTING = frozenset({"ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT"})
"""States that count as established (RFC 5382 section 5: a half-closed connection is one)."""


def settle(vantage: Vantage) -> None:
    """Waits until every edge finds all that it leads to, and no edge is alone or beside itself.

    Raises:
        Invalid: that does not come.
    """
    until = time.monotonic() + SETTLE_SECONDS
    edges = [each.name for each in vantage.site.group("edges")]
    while True:
        seen = {name: vantage.prober.ask(name, "edge-watch") for name in edges}
        wrong = [f"{name}: {member}" for name, each in seen.items() for member, one in each["members"].items() if not one["answers"]]
        wrong += [f"{name}: {key}" for name, each in seen.items() for key in TROUBLES if each[key]]
        if not wrong:
            return
        if time.monotonic() > until:
            raise Invalid(f"edges are not settled: {'; '.join(wrong)[:200]}")
        time.sleep(1)


def doors(vantage: Vantage) -> list[Endpoint]:
    """The public address by IPv4, and each frontend's own by IPv6."""
    versions = vantage.families
    found = [vantage.endpoints(4)] if 4 in versions else []
    if 6 in versions:
        legs = [host.interfaces["dmz"].ipv6 for host in vantage.site.group("frontends")]
        found += [{**vantage.endpoints(6), "address": str(address)} for address in legs if address is not None]
    return found


def edge_falls_silent(vantage: Vantage, sessions: int) -> Loss:
    """The edge at work neither hears nor says anything for a while, at all its legs but management's.

    Args:
        sessions: that sleep meanwhile, over all addresses.
    """
    at_work, other = at_work_and_other(vantage.prober, vantage.site)
    devices = [leg.device for zone, leg in vantage.site.hosts[at_work].interfaces.items() if zone != "management"]

    def lose() -> tuple[Running, float]:
        running = vantage.prober.start(at_work, "silent", seconds=AWAY_SECONDS + 60, devices=devices, within=AWAY_SECONDS)
        return running, running.wait("holding").at

    return _edge_lost(vantage, sessions, at_work, other, lose)


def election_dies(vantage: Vantage, sessions: int) -> Loss:
    """What takes part in the election at the edge at work is killed, all processes of it at once."""
    at_work, other = at_work_and_other(vantage.prober, vantage.site)

    def lose() -> tuple[Running, float]:
        begun = time.monotonic()
        return vantage.prober.start(at_work, "killed", seconds=AWAY_SECONDS + 60, units=["keepalived.service"], within=AWAY_SECONDS), begun

    return _edge_lost(vantage, sessions, at_work, other, lose)


def _edge_lost(vantage: Vantage, sessions: int, at_work: str, other: str, lose: Callable[[], tuple[Running, float]]) -> Loss:
    prober, addresses = vantage.prober, shared_addresses(vantage.site)
    settle(vantage)
    seen = Loss(at_work, other)
    taking = prober.start(other, "takes-over", seconds=CROWD_SECONDS, addresses=addresses, within=CROWD_SECONDS / 2)
    with _asleep(vantage, sessions, seen) as crowd, _knocking(vantage, seen), taking:
        taking.wait("waiting")
        running, begun = lose()
        with running:
            if taking.wait("").name == "held":
                seen.seconds = round(time.monotonic() - begun, 2)
                time.sleep(1)  # what it was told becomes its own in less
            seen.entries = prober.ask(other, "tracked-connections", ports=MAIL_PORTS)
            seen.read_after = time.monotonic() - begun
            wake(vantage, crowd, seen)
            running.enough()
            running.result()  # it undoes what it did
    _come_back(vantage, seen, addresses)
    return seen


def through(vantage: Vantage, sessions: int, act: Callable[[], None]) -> Loss:
    """Sessions sleep and new ones are opened while something is done to the site; after it each of those asleep is to be told of mail.

    Args:
        sessions: that sleep meanwhile, over all addresses.
        act: does it; it may take a few minutes.
    """
    settle(vantage)
    seen = Loss("nobody")
    with _asleep(vantage, sessions, seen) as crowd, _knocking(vantage, seen):
        act()
        settle(vantage)
        wake(vantage, crowd, seen)
    return seen


def relay_falls_silent(vantage: Vantage) -> Loss:
    """The first relay neither hears nor says anything for a while; others open connections to the MX.

    Raises:
        NotApplicable: there is one relay, no edge of the site's own, or no public IPv4 address for which it decides.
    """
    site = vantage.site
    relays, public = site.group("relays"), site.settings.public_ipv4
    if len(relays) < 2 or not site.group("edges") or public is None:
        raise NotApplicable("the site has no second relay, or no edge that leads connections to it")
    settle(vantage)
    lost = relays[0]
    seen = Loss(lost.name)
    away: dict[str, Any] = {"seconds": AWAY_SECONDS + 60, "devices": [lost.interfaces["dmz"].device], "within": AWAY_SECONDS}
    with _knocking(vantage, seen, [(str(public), 25)]), vantage.prober.start(lost.name, "silent", **away) as running:
        running.wait("holding")
        time.sleep(AWAY_SECONDS / 2)
        running.enough()
        running.result()
    return seen


def frontend_falls_silent(vantage: Vantage, sessions: int) -> Loss:
    """The first frontend neither hears nor says anything for a while; sessions sleep at the others.

    Raises:
        NotApplicable: there is one frontend, or no edge of the site's own.
    """
    frontends = vantage.site.group("frontends")
    if len(frontends) < 2 or not vantage.site.group("edges"):
        raise NotApplicable("the site has no second frontend, or no edge that leads connections to it")
    settle(vantage)
    lost = frontends[0]
    seen = Loss(lost.name)
    own = {str(address) for address in lost.interfaces["dmz"].addresses}
    ways = [each for each in doors(vantage) if ":" in each["address"] and each["address"] not in own]
    away: dict[str, Any] = {"seconds": AWAY_SECONDS + 60, "devices": [lost.interfaces["dmz"].device], "within": AWAY_SECONDS}
    with (
        _asleep(vantage, sessions, seen, ways) as crowd,
        _knocking(vantage, seen),
        vantage.prober.start(lost.name, "silent", **away) as running,
    ):
        running.wait("holding")
        time.sleep(AWAY_SECONDS / 2)
        wake(vantage, crowd, seen)
        running.enough()
        running.result()
    return seen


@contextmanager
def _asleep(vantage: Vantage, sessions: int, seen: Loss, ways: list[Endpoint] | None = None) -> Iterator[Running | None]:
    ways = doors(vantage) if ways is None else ways
    if not sessions or not ways:
        yield None
        return
    with vantage.start(
        "idle-crowd", seconds=2 * CROWD_SECONDS, endpoints=ways, accounts=vantage.accounts[:2], count=max(1, sessions // len(ways)),
        within=CROWD_SECONDS,
    ) as crowd:  # fmt: skip
        seen.opened = int(crowd.wait("idling").values["opened"])
        yield crowd


@contextmanager
def _knocking(vantage: Vantage, seen: Loss, targets: list[tuple[str, int]] | None = None) -> Iterator[None]:
    """New connections, as long as the block lasts; for IMAP if nothing else is said."""
    targets = targets or [(each["address"], 143) for each in doors(vantage)]
    with vantage.start("openings", seconds=CROWD_SECONDS, targets=targets, within=CROWD_SECONDS / 2, every=EVERY) as knocks:
        knocks.wait("opening")
        yield
        knocks.enough()
        seen.openings = knocks.result()


def wake(vantage: Vantage, crowd: Running | None, seen: Loss) -> None:
    """Sends the sleeping sessions' users a message each, from behind the loss, and sees who was told."""
    if crowd is None:
        return
    found = woken(vantage, crowd, TOLD_SECONDS)
    seen.ended, seen.pushed, seen.answered = list(found["ended"]), int(found["pushed"]), int(found["answered"])


def _come_back(vantage: Vantage, seen: Loss, addresses: list[str]) -> None:
    """What is so once the lost edge is there again: it leaves the work to the other one, and knows what that one knows."""
    prober = vantage.prober
    began = time.monotonic()
    while True:
        time.sleep(2)
        seen.back = list(prober.ask(seen.lost, "held-addresses", addresses=addresses))
        seen.in_step = known(vantage, seen.by, seen.lost)
        looked = time.monotonic() - began
        if looked > STEP_SECONDS or (looked > BACK_SECONDS and not seen.back and seen.in_step is not None and near(*seen.in_step)):
            return


def known(vantage: Vantage, at_work: str, other: str) -> tuple[int, int] | None:
    """How many connections the edge at work has, and of how many of them the other one was told; None if either can't say."""
    has, knows = vantage.prober.ask(at_work, "replicated").get("internal"), vantage.prober.ask(other, "replicated").get("external")
    return None if has is None or knows is None else (has, knows)


def near(has: int, knows: int) -> bool:
    """Whether one edge knows what the other one has, but for those that open or close in this moment; who knows nothing does not."""
    return (knows > 0 or has == 0) and abs(has - knows) <= max(10, has // 10)
