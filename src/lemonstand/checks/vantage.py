"""Fixtures of live checks: probes on hosts, the doors they knock at, the accounts they use.

The vantage is a host outside the site (group `handsets`), the accounts are `lemonstand_probe_users`. Without them live checks are not
measured and the others still run.
"""

from __future__ import annotations

import contextlib
import functools
import json
import queue
import shlex
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lemonstand import probes
from lemonstand.checks import Invalid, NotApplicable, NotMeasured, Unanswered, Unmet
from lemonstand.checks.connections import Connection
from lemonstand.evidence import notes
from lemonstand.policy import CONTROLLER, Cell, expected_matrix
from lemonstand.policy.flows import ZONES
from lemonstand.policy.matrix import OUTSIDE, REACHABILITY, SILENT
from lemonstand.probes.tickets import Inward
from lemonstand.probes.wire import Account, Door
from lemonstand.site import Site

FAMILIES = (4, 6)
PROBE_SECONDS = 60
GRACE_SECONDS = 10
STOP_SECONDS = 2
ARRIVAL_SECONDS = 20
"""How long a message may take from submission or MX to a mailbox."""
PEER_SENDER = "postmaster@peer.test"
"""Who sends from the lab's mail host outside."""
ELSEWHERE = "somebody@peer.test"
"""An address an open relay would take mail for: its domain exists, and is not the site's."""
LONG = {"attempts", "client_keepalive", "matrix"}
"""Fixtures whose question takes seconds and disturbs nobody; `ask_NAME` returns the function that asks."""
QUIET = {"quiet"}
"""Fixtures whose question holds sessions for minutes and needs others to leave them alone. It is asked when the first check comes that does
(it names the fixture `beside`), after all that break connections; `ask_NAME` as above."""
_FOLDER = Path(probes.__file__).parent
_BOOT = (_FOLDER / "boot.py").read_text(encoding="utf-8")
_MODULES = {f"lemonstand.probes.{path.stem}": path.read_text(encoding="utf-8") for path in sorted(_FOLDER.glob("[!_]*.py"))}
_MODULES |= {"lemonstand": "", "lemonstand.probes": ""}

K = TypeVar("K", bound=Hashable)
InBoth = Callable[[str, int, Callable[[int], Any]], Any]


@dataclass(frozen=True)
class Event:
    """Something a probe told.

    Args:
        name: `result`, `error`, or the probe's own word.
        values: what it said.
        at: when it was heard here, seconds of a monotonic clock.
    """

    name: str
    values: dict[str, Any]
    at: float


class Running:
    """A probe at work on a host.

    Args:
        host: its inventory name.
        command: the ssh command that runs it.
        order: the line it is given: secrets travel there, never as arguments.
        seconds: after which it ends itself.
        what: how evidence names it: the probe and what it was told, without secrets.
    """

    def __init__(self, host: str, command: list[str], order: str, seconds: float, what: str = "a probe") -> None:
        self._host, self._what = host, what
        self._deadline = time.monotonic() + seconds + GRACE_SECONDS
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._hear_errors, daemon=True).start()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # ssh's own words say why
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()

    def __enter__(self) -> Running:
        """Itself; the probe is stopped at the end of the block, however that ends."""
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, name: str) -> Event:
        """Waits for an event; for any, if the name is empty.

        Raises:
            Invalid: the probe failed or ended without it.
            Unmet: a service refused what it must allow.
        """
        while True:
            try:
                event = self._events.get(timeout=max(0.01, self._deadline - time.monotonic()))
            except queue.Empty:
                self.stop()
                raise Invalid(f"the probe on {self._host} did not end in time") from None
            if event is None:
                said = " ".join(self._said[-3:]).strip() or f"exit status {self._process.wait()}"
                raise Invalid(f"the probe on {self._host} ended without an answer: {said[:400]}")
            if event.name == "error":
                raise Invalid(f"the probe on {self._host} failed: {event.values['kind']}: {event.values['message']}")
            if event.name == "refused":
                raise Unmet("a service refuses what it must allow", event.values["message"], "leave", "see the service's journal")
            if name in {event.name, ""}:
                if event.name != "result":
                    notes.note("packets", self._host, f"{self._what}: {name}", event.values)
                return event

    def events(self) -> Iterator[Event]:
        """All it tells, as it tells it; the last one is its result.

        Raises:
            Invalid: the probe failed or ended without an answer.
            Unmet: a service refused what it must allow.
        """
        while True:
            event = self.wait("")
            yield event
            if event.name == "result":
                return

    def enough(self) -> None:
        """Tells the probe that the asker has seen what it wanted: one that only waits ends, and `result` has what it found."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write("enough\n")
            self._process.stdin.flush()

    def result(self) -> Any:
        """What it found."""
        with self:
            found = self.wait("result").values["data"]
        notes.note("packets", self._host, self._what, found)
        return found

    def stop(self) -> None:
        """Ends it: without anybody at its standard input it goes away by itself."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                values = json.loads(line)
                self._events.put(Event(str(values.pop("event")), values, time.monotonic()))
            except (ValueError, KeyError, AttributeError):
                self._said.append(line)
        self._process.wait()
        self._events.put(None)

    def _hear_errors(self) -> None:
        assert self._process.stderr is not None
        self._said.extend(self._process.stderr)


class Prober:
    """Starts probes on the hosts of an inventory.

    Args:
        connections: how to reach each host.
    """

    def __init__(self, connections: dict[str, Connection]) -> None:
        self._connections = connections

    def start(self, host: str, probe: str, *, seconds: int = PROBE_SECONDS, **args: Any) -> Running:
        """Starts one; see `lemonstand.probes.run.PROBES` for names and arguments.

        Args:
            host: inventory name.
            probe: its name.
            seconds: after which it ends itself.
        """
        way = self._connections[host]
        python = ["python3", "-c", _BOOT]
        command = ["ssh", *shlex.split(way.ssh_arguments), way.target, shlex.join(["sudo", "-n", *python] if way.sudo else python)]
        order = json.dumps({"modules": _MODULES, "probe": probe, "args": args, "seconds": seconds})
        return Running(host, command, order, seconds, f"probe {probe} {notes.without_secrets(args)}")

    def ask(self, host: str, probe: str, *, seconds: int = PROBE_SECONDS, **args: Any) -> Any:
        """Runs one and returns what it found.

        Raises:
            Invalid: it could not.
        """
        return self.start(host, probe, seconds=seconds, **args).result()


def results(running: Mapping[K, Running]) -> dict[K, Any]:
    """What probes found that were started side by side; if one fails, all are stopped.

    Raises:
        Invalid: one could not.
    """
    with contextlib.ExitStack() as stack:
        for each in running.values():
            stack.enter_context(each)
        return {key: each.result() for key, each in running.items()}


@pytest.fixture(scope="session")
def prober(connections: dict[str, Connection]) -> Prober:
    """Starts probes."""
    return Prober(connections)


class Once:
    """Keeps what a long question brought: several checks look at one answer."""

    def __init__(self) -> None:
        self._kept: dict[str, Future[Any]] = {}
        self._notes: dict[str, notes.Notes] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, make: Callable[[], Any]) -> None:
        """Asks, and does not wait."""
        with self._lock:
            if name not in self._kept:
                asked = self._notes.setdefault(name, {})
                self._kept[name] = _begin(functools.partial(notes.apart, asked, make))

    def begin_after(self, names: Iterable[str], asks: dict[str, Callable[[], Any]]) -> None:
        """Asks once other answers are there, and does not wait; whoever needs one sooner asks himself."""
        first = [self._kept[name] for name in names if name in self._kept]

        def work() -> None:
            futures.wait(first)
            for name, ask in asks.items():
                self.begin(name, ask)

        threading.Thread(target=work, daemon=True).start()

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned or raised the first time."""
        self.begin(name, make)
        try:
            return self._kept[name].result()
        finally:
            notes.repeat(self._notes[name])


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest) -> Once:
    """Answers that are shared; the long ones are asked for at once if any check wants them."""
    kept = Once()
    _begin_wanted(request, kept, LONG)
    asks: dict[str, Callable[[], Any]] = {}
    for mark in filter(None, (item.get_closest_marker("ahead") for item in request.session.items)):
        with contextlib.suppress(Unanswered):
            asks |= _asks(mark, request.getfixturevalue("look"))
    kept.begin_after(LONG, asks)  # they load the machine, and what dials the matrix counts the seconds
    return kept


def _begin_wanted(request: pytest.FixtureRequest, kept: Once, names: set[str]) -> None:
    """Asks the questions of fixtures that any check of this run names."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for name in names & wanted:
        # A check that can't be measured here says so itself.
        with contextlib.suppress(Unanswered):
            kept.begin(name, request.getfixturevalue(f"ask_{name}"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What disturbs waits until all is answered that was asked beside; topics with checks that ask ahead come late.

    Of what disturbs, what breaks connections comes first, then what leaves them alone, then what needed that.
    """
    patient = {item.path for item in items if item.get_closest_marker("ahead")}

    def turn(item: pytest.Item) -> tuple[bool, bool, bool, bool, bool]:
        soak, disruptive = (bool(item.get_closest_marker(name)) for name in ("soak", "disruptive"))
        fixtures = set(getattr(item, "fixturenames", ()))
        return soak, disruptive, bool(QUIET & fixtures), "beside" in fixtures, item.path in patient

    items.sort(key=turn)


@pytest.fixture(scope="session")
def beside(request: pytest.FixtureRequest, once: Once) -> None:
    """For what takes long and disturbs no session that is held: what needs quiet, if any check wants it, is asked meanwhile."""
    _begin_wanted(request, once, QUIET)


@pytest.fixture
def ahead(request: pytest.FixtureRequest, once: Once) -> Any:
    """What the check's mark `ahead` asks: `ask(look, version)`, or `ask(look)` where it names no version."""
    mark = request.node.get_closest_marker("ahead")
    asks = _asks(mark, request.getfixturevalue("look"))
    name = _ask_name(mark, request.getfixturevalue("family") if mark.args[1:] else None)
    return once(name, asks[name])


def _asks(mark: pytest.Mark, look: Any) -> dict[str, Callable[[], Any]]:
    ask, *versions = mark.args
    if not versions:
        return {_ask_name(mark, None): functools.partial(ask, look)}
    return {_ask_name(mark, version): functools.partial(ask, look, version) for version in versions}


def _ask_name(mark: pytest.Mark, version: int | None) -> str:
    return f"{mark.args[0].__module__}.{mark.args[0].__qualname__}" + (f" by IPv{version}" if version else "")


def _begin(make: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except Exception as fault:  # it belongs to whoever asks for the result
            future.set_exception(fault)

    threading.Thread(target=work, daemon=True).start()
    return future


@pytest.fixture(scope="session")
def in_both_families(once: Once) -> InBoth:
    """`in_both_families(name, family, ask)`: what `ask(family)` returned; the first call asks in both IP versions, side by side."""

    def get(name: str, wanted: int, ask: Callable[[int], Any]) -> Any:
        for each in FAMILIES:
            once.begin(f"{name} by IPv{each}", functools.partial(ask, each))
        return once(f"{name} by IPv{wanted}", functools.partial(ask, wanted))

    return get


@pytest.fixture(scope="session")
def vantage(site: Site) -> str:
    """The host outside that live checks look from.

    Raises:
        NotMeasured: the inventory has none.
    """
    hosts = site.group("handsets")
    if not hosts:
        raise NotMeasured("the inventory names no host outside the site (group 'handsets')")
    return hosts[0].name


@pytest.fixture(scope="session")
def outsider(site: Site) -> str:
    """A mail host outside the site."""
    return outsider_of(site)


def outsider_of(site: Site) -> str:
    """See `outsider`.

    Raises:
        NotMeasured: the inventory has none.
    """
    hosts = site.group("peers")
    if not hosts:
        raise NotMeasured("the inventory names no mail host outside the site (group 'peers')")
    return hosts[0].name


@pytest.fixture(scope="session")
def accounts(site: Site) -> list[Account]:
    """The accounts of live checks, two or more.

    Raises:
        NotMeasured: the inventory has none.
    """
    if not site.settings.probe_users:
        raise NotMeasured("the inventory names no accounts for checks (lemonstand_probe_users)")
    return accounts_of(site)


def accounts_of(site: Site) -> list[Account]:
    """The accounts a site names for checks; may be none."""
    return [Account(user=name, password=site.password_of(name) or "") for name in site.settings.probe_users]


@pytest.fixture(scope="session")
def public_ca(site: Site) -> str:
    """The CA that signs what clients see, as PEM; empty where it is one of the system's."""
    return ca_of_clients(site)


def ca_of_clients(site: Site) -> str:
    """See `public_ca`.

    Raises:
        Invalid: the site's own CA is not there yet.
    """
    path = site.client_roots
    if path is None:
        return ""
    if not path.is_file():
        raise Invalid(f"there is no {path}, which clients are to trust: apply the site first, or get it from the ACME server")
    return path.read_text(encoding="ascii")


def ca_of_exchangers(site: Site) -> str:
    """PEM of the CA that signs for the MX: the private one, wherever the certificate of clients comes from.

    Raises:
        Invalid: it is not there yet.
    """
    path = site.settings.pki_dir / "public" / "ca.crt"
    if not path.is_file():
        raise Invalid(f"there is no {path}: apply the site first")
    return path.read_text(encoding="ascii")


def timer(site: Site, name: str) -> int:
    """What the site's profile of timers says; seconds unless its name says otherwise."""
    return site.timers_in_force[name]


def families_of(site: Site) -> tuple[int, ...]:
    """The IP versions in which clients reach the site."""
    frontends = site.group("frontends")
    there = {4: site.settings.public_ipv4, 6: frontends[0].interfaces["dmz"].ipv6 if frontends else None}
    return tuple(version for version in FAMILIES if there[version] is not None)


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest, site: Site) -> int:
    """Both IP versions, one after the other.

    Raises:
        NotApplicable: clients do not reach the site in this one.
    """
    if request.param not in families_of(site):
        raise NotApplicable(f"the site has no public address of IPv{request.param}")
    return int(request.param)


Doors = Callable[..., Door]
"""`doors(version)`; `doors()` in the first IP version there is."""


def door_to(site: Site, ca: str, group: str, version: int | None = None) -> Door:
    """The public door of the first frontend or relay.

    Args:
        ca: PEM of the CA clients trust; empty: the system's.
        group: `frontends` or `relays`.
        version: 4 or 6; None: the first of them there is.

    Raises:
        NotApplicable: the site has no public address of that IP version.
    """
    settings = site.settings
    version = version or next(iter(families_of(site)), 4)
    address = settings.public_ipv4 if version == 4 else site.group(group)[0].interfaces["dmz"].ipv6
    if address is None:
        raise NotApplicable(f"the site has no public address of IPv{version}")
    return Door(name=settings.public_name if group == "frontends" else settings.mx_name, address=str(address), ca=ca)


@pytest.fixture(scope="session")
def doors(site: Site, public_ca: str) -> Doors:
    """`doors(family)`: the public door of mail clients."""
    return functools.partial(door_to, site, public_ca, "frontends")


@pytest.fixture
def door(doors: Doors, family: int) -> Door:
    """The public door in one IP version."""
    return doors(family)


@pytest.fixture(scope="session")
def exchangers(site: Site) -> Doors:
    """`exchangers(family)`: the site's MX."""
    return functools.partial(door_to, site, ca_of_exchangers(site), "relays")


@pytest.fixture
def mx(exchangers: Doors, family: int) -> Door:
    """The site's MX in one IP version."""
    return exchangers(family)


@pytest.fixture(scope="session")
def inward(site: Site) -> Inward:
    """What a frontend talks to inside, by IPv4 where there is one."""
    return inward_of(site)


def inward_of(site: Site) -> Inward:
    """See `inward`."""
    frontend, auth, store = (site.group(group)[0] for group in ("frontends", "auths", "stores"))
    domain = site.settings.internal_domain
    return Inward(
        issuer=f"{auth.name}.{domain}",
        issuer_address=str(auth.interfaces["auth"].addresses[0]),
        store=f"{store.name}.{domain}",
        store_address=str(store.interfaces["store"].addresses[0]),
        client=f"{frontend.name}.{domain}",
    )


EXPIRED_SECONDS = 10
"""How long ago the ticket ended that must be refused."""


@pytest.fixture(scope="session")
def ask_attempts(prober: Prober, site: Site, inward: Inward, accounts: list[Account]) -> Callable[[], Any]:
    """Tries the ways into the store, from a frontend."""
    frontend, auth = site.group("frontends")[0].name, site.group("auths")[0].name
    one, two = accounts[0], accounts[1]

    def ask() -> Any:
        spoilt = prober.ask(auth, "tickets-spoilt", user=one["user"], ago=EXPIRED_SECONDS, store=inward["store"])
        return prober.ask(frontend, "ticket-attempts", inward=inward, account=one, other=two, spoilt=spoilt)

    return ask


@pytest.fixture(scope="session")
def attempts(once: Once, ask_attempts: Callable[[], Any]) -> dict[str, Any]:
    """Ways into the store, tried from a frontend."""
    return dict(once("attempts", ask_attempts))


KNOCK_SECONDS = 1.5
THROUGH = {"open", "refused"}
"""What a SYN brings that was not held back: `refused` is an answer of the host too."""
Seen = dict[Cell, str]


@pytest.fixture(scope="session")
def ask_matrix(site: Site, prober: Prober) -> Callable[[], Seen]:
    """Dials each TCP cell, from all hosts of the inventory at once."""
    return functools.partial(_dial, site, prober)


@pytest.fixture(scope="session")
def matrix(once: Once, ask_matrix: Callable[[], Seen]) -> Seen:
    """What came of each TCP cell."""
    return dict(once("matrix", ask_matrix))


def _dial(site: Site, prober: Prober) -> Seen:
    inner = {host.name for host in site.hosts.values() if host.role_groups}
    cells = [
        cell
        for cell in expected_matrix(site)
        if cell.protocol == "tcp" and cell.source != CONTROLLER and (cell.source in inner or cell.destination in inner)
    ]
    by_source: dict[str, list[Cell]] = {}
    for cell in cells:
        by_source.setdefault(cell.source, []).append(cell)

    def ask(source: str) -> list[tuple[Cell, str]]:
        targets = sorted({(str(cell.address), cell.port) for cell in by_source[source]})
        found = {(address, port): what for address, port, what in prober.ask(source, "reach", targets=targets, timeout=KNOCK_SECONDS)}
        return [(cell, str(found[str(cell.address), cell.port])) for cell in by_source[source]]

    with ThreadPoolExecutor(max_workers=len(by_source) or 1) as pool:
        return dict(pair for pairs in pool.map(notes.carried(ask), by_source) for pair in pairs)


def keep_matrix(site: Site, matrix: Seen, table: Callable[..., None]) -> None:
    """Keeps the matrix: each way that a flow allows or that let something through, and how many others of a pair did not."""
    told = []
    silent: Counter[tuple[str, str]] = Counter()
    expected = expected_matrix(site)
    allowed = {(cell.source, cell.address, cell.port) for cell, flow in expected.items() if flow is not None}
    # A zone as a destination stands for hosts of several kinds, where not each one has the service.
    loose = {flow.name for flow in site.active_flows if flow.destination in ZONES and flow.destination != OUTSIDE}
    for cell, flow in expected.items():
        seen = matrix.get(cell, "")
        # The published address stands for several hosts; the way is told for the one that a flow leads to.
        elsewhere = flow is None and (cell.source, cell.address, cell.port) in allowed
        wanted = flow is not None and not (flow in loose and seen and seen != "open")
        if wanted or (flow is None and seen in THROUGH and not elsewhere):
            told.append([cell.source, cell.destination, str(cell.address), cell.protocol, cell.port, flow or "", seen])
        elif seen and not elsewhere:
            silent[cell.source, cell.destination] += 1
    table(REACHABILITY, ["from", "to", "address", "protocol", "port", "flow", "seen"], told)
    table(SILENT, ["from", "to", "ways"], [[*pair, ways] for pair, ways in silent.items()])
