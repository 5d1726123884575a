"""Somebody else in the place of a server: with a certificate of another name, of another CA, or without TLS. No leg may be used.

These checks disturb the site: for seconds a service shows a wrong certificate, or a server that lies stands in front of it. They run
in labs only: the certificates are signed with the lab's own CAs.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lemonstand.checks.conftest import HostFactory, Measure
from lemonstand.checks.false_certificates import counterfeit
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid
from lemonstand.probes.attacks.rogue import HARMLESS
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, ELSEWHERE, PEER_SENDER, Endpoints
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

pytestmark = [pytest.mark.answer("live"), pytest.mark.disruptive]

PKI = "/etc/lemonstand/pki"
STALL_SECONDS = 45
"""How long a login may take to fail; a leg that is given up slowly is not what these checks are about."""
LYING_SECONDS = 15.0
"""How long a false server stands in front of a true one."""
QUIET_SECONDS = 4
"""How long a message must not have come, before it counts as kept back."""


@dataclass(frozen=True)
class Way:
    """A leg, how it is used, and whose certificate stands at its end.

    Args:
        servers: the group at its end.
        certificate: name of the server's file.
        reload: what makes the server use a file that changed, and its clients forget what they keep open.
        service: `imap` or `submission`: a login uses the leg; `mail`: a message from outside does.
        port: the server's port.
    """

    servers: str
    certificate: str
    reload: str
    service: str
    port: int


DOVECOT, POSTFIX, ISSUER = "systemctl reload dovecot", "systemctl restart postfix", "systemctl restart ticket-issuer"
WAYS = {
    "frontend to issuer": Way("auths", "issuer", ISSUER, "imap", 8443),
    "frontend to store": Way("stores", "mail-store", DOVECOT, "imap", 143),
    "frontend to store, submission": Way("stores", "mail-store", DOVECOT, "submission", 587),
    "store to relay": Way("relays", "relay", POSTFIX, "submission", 587),
    "relay to store": Way("stores", "mail-store", DOVECOT, "mail", 24),
}


@dataclass
class User:
    """What uses a leg as users do."""

    prober: Prober
    vantage: Vantage
    outsider: str
    endpoints: Endpoints
    exchangers: Endpoints
    accounts: list[Account]
    relays: list[Any]

    def servers(self, way: Way) -> list[str]:
        """Whoever may be at the end of a leg that this user takes: each host of the kind, but of stores the one with the mailbox."""
        if way.servers == "stores":
            return [self.vantage.home(self.accounts[1 if way.service == "mail" else 0])]
        return [each.name for each in self.vantage.site.group(way.servers)]

    def _queued(self) -> str:
        """What waits on the relays."""
        return "".join(relay.run("postqueue -j").stdout for relay in self.relays)

    def works(self, way: Way) -> str:
        """Uses the leg once; empty if it worked, else what was seen."""
        if way.service == "mail":
            return self._mail()
        done = self.vantage.ask(
            "logins", seconds=STALL_SECONDS + 30, endpoint=self.endpoints(), accounts=self.accounts[:1], count=1, parallel=1,
            stall=STALL_SECONDS, service=way.service,
        )  # fmt: skip
        return "; ".join((*done["failed"], *done["stalled"]))[:300]

    def _mail(self) -> str:
        """A message from outside; whether it came in time. One that did not come is in the relay's queue and stays there."""
        user = self.accounts[1]["user"]
        sent = self.prober.ask(
            self.outsider, "foreign-mx", endpoint=self.exchangers(), sender=PEER_SENDER, recipient=user, elsewhere=ELSEWHERE
        )
        if sent["accepted"]["code"] != 250:
            invalid(f"the MX took no message: {sent['accepted']}")
        queue = ""
        for _ in range(QUIET_SECONDS * 4):
            time.sleep(0.5)
            queue = self._queued()
            if user not in queue or "delay_reason" in queue:
                break
        return queue[:400] if user in queue else ""

    def clear(self) -> None:
        """Sends off what waits, and empties the mailbox of it."""
        for relay in self.relays:
            relay.run("postqueue -f")
        until = time.monotonic() + ARRIVAL_SECONDS
        while time.monotonic() < until and self.accounts[1]["user"] in self._queued():
            time.sleep(0.5)


@pytest.fixture(scope="session")
def user(
    lab_only: None, prober: Prober, host: HostFactory, site: Site, vantage: Vantage, outsider: str, *, endpoints: Endpoints,
    exchangers: Endpoints, accounts: list[Account],
) -> User:  # fmt: skip
    """Uses legs as users do."""
    return User(prober, vantage, outsider, endpoints, exchangers, accounts, [host(each.name) for each in site.group("relays")])


@contextlib.contextmanager
def _swapped(host: HostFactory, server: str, way: Way, pem: str) -> Iterator[None]:
    """Another certificate for the same key, in force until the end of the block."""
    machine, path = host(server), f"{PKI}/{way.certificate}.crt"
    saved = f"{path}.true"
    try:
        done = machine.run(f"cp -p {path} {saved} && printf %s {shlex.quote(pem)} >{path} && {way.reload}")
        if done.rc != 0:
            invalid(f"{server} can't be given another certificate: {done.stderr.strip()[:200]}")
        time.sleep(1)
        yield
    finally:
        machine.run(f"mv -f {saved} {path}; {way.reload}")
        time.sleep(1)


@dataclass
class Stage:
    """What the tricks need: users of legs, hosts, the site."""

    user: User
    prober: Prober
    host: HostFactory
    site: Site
    measure: Measure


@pytest.fixture
def stage(user: User, prober: Prober, host: HostFactory, site: Site, measure: Measure) -> Stage:
    """Everything a trick needs."""
    return Stage(user, prober, host, site, measure)


CASES = ("another name", "another CA")


def _refuses_an_impostor(stage: Stage, name: str, case: str) -> None:
    """Puts a wrong certificate at the end of a leg: the leg fails; with the true one it works before and after."""
    way, user, measure = WAYS[name], stage.user, stage.measure
    domain = stage.site.settings.internal_domain
    false = {}
    for server in user.servers(way):
        ca, names = ("hosts", [f"impostor.{domain}"]) if case == "another name" else ("public", [f"{server}.{domain}"])
        true = stage.host(server).run(f"cat {PKI}/{way.certificate}.crt").stdout
        false[server] = counterfeit(stage.site.settings.pki_dir / ca, true, names)
    if before := user.works(way):
        invalid(f"the leg did not work to begin with: {before}")
    # All of them, since whoever finds an impostor turns to the next one.
    with contextlib.ExitStack() as stack:
        for server, pem in false.items():
            stack.enter_context(_swapped(stage.host, server, way, pem))
        seen = user.works(way)
    user.clear()
    measure("with the wrong certificate", seen or "worked")
    after = user.works(way)
    user.clear()
    measure("with the true one", after or "worked")
    expect(bool(seen), f"the leg {name} takes a certificate with {case}", seen="it worked", expected="refused")
    if after:
        invalid(f"the leg does not work with the true certificate: {after}")


def _tells_a_liar_nothing(stage: Stage, name: str, kind: str) -> None:
    """Puts a server without TLS at the end of a leg: it is told nothing that matters, and nothing works."""
    way, user, measure = WAYS[name], stage.user, stage.measure
    with contextlib.ExitStack() as stack:
        liars = [
            stack.enter_context(
                stage.prober.start(server, "rogue", kind=kind, port=way.port, within=LYING_SECONDS, seconds=int(LYING_SECONDS) + 30)
            )
            for server in user.servers(way)
        ]
        for liar in liars:
            liar.wait("lying")
        seen = user.works(way)
        for liar in liars:
            liar.enough()
        results = [liar.result() for liar in liars]
    user.clear()
    said = sorted({command for told in results for command in told["commands"]})
    measure("the false server was told", " ".join(said) or "nothing")
    measure("the leg", seen or "worked")
    if not any(told["connections"] for told in results):
        invalid("nobody came to the false server")
    expect(set(said) <= HARMLESS, f"the leg {name} tells a server without TLS more than it may", seen=said, expected=sorted(HARMLESS))
    expect(bool(seen), f"the leg {name} works without TLS", seen="it worked", expected="refused")
    if after := user.works(way):
        invalid(f"the leg does not work with the true server: {after}")
    user.clear()


@pytest.mark.control("LEM-8-05", "LEM-8-20")
@pytest.mark.parametrize("case", CASES)
def test_frontends_know_the_issuer(stage: Stage, case: str) -> None:
    """Signed by the right CA for another name, or for the right name by another CA: no login; with the true one there is."""
    _refuses_an_impostor(stage, "frontend to issuer", case)


@pytest.mark.control("LEM-8-05", "LEM-8-20")
@pytest.mark.parametrize("name", ["frontend to store", "frontend to store, submission"])
@pytest.mark.parametrize("case", CASES)
def test_frontends_know_their_stores(stage: Stage, name: str, case: str) -> None:
    """The same for IMAP and submission of a store: no ticket goes to an impostor."""
    _refuses_an_impostor(stage, name, case)


@pytest.mark.control("LEM-8-05", "LEM-8-20")
@pytest.mark.parametrize("case", CASES)
def test_stores_know_the_relay(stage: Stage, case: str) -> None:
    """The same for the relay's port for stores: nothing is submitted by way of an impostor."""
    _refuses_an_impostor(stage, "store to relay", case)


@pytest.mark.control("LEM-8-05", "LEM-8-20")
@pytest.mark.parametrize("case", CASES)
def test_the_relay_knows_the_stores(stage: Stage, case: str) -> None:
    """The same for LMTP: mail waits in the queue rather than go to an impostor, and leaves once the true store is back."""
    _refuses_an_impostor(stage, "relay to store", case)


@pytest.mark.control("LEM-8-14", "LEM-8-15")
@pytest.mark.supports("LEM-8-05")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("frontend to store", "imap-stripped"),
        ("frontend to store", "imap-preauth"),
        ("frontend to store, submission", "smtp-stripped"),
    ],
)
def test_frontends_tell_a_store_without_tls_nothing(stage: Stage, name: str, kind: str) -> None:
    """A store that offers no TLS, or says that the client is logged in already (PREAUTH), gets no ticket and no name."""
    _tells_a_liar_nothing(stage, name, kind)


@pytest.mark.control("LEM-8-14", "LEM-8-15")
@pytest.mark.supports("LEM-8-05")
def test_stores_tell_a_relay_without_tls_nothing(stage: Stage) -> None:
    """A relay that offers no TLS gets no sender, no recipient and no message."""
    _tells_a_liar_nothing(stage, "store to relay", "smtp-stripped")


@pytest.mark.control("LEM-8-14", "LEM-8-15")
@pytest.mark.supports("LEM-8-05")
def test_the_relay_tells_a_store_without_tls_nothing(stage: Stage) -> None:
    """A store whose LMTP offers no TLS gets no mail; it waits."""
    _tells_a_liar_nothing(stage, "relay to store", "lmtp-stripped")
