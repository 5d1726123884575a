"""TLS on the wire: what each leg agrees on, whose certificate it shows, what it takes, and nothing that crosses its start."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lemonstand.checks.background import Once
from lemonstand.checks.conftest import Measure
from lemonstand.checks.tls_endpoints import Position, client_ports, inner_positions, look, outer_positions
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.probes.clients.tls import ANONYMOUS, UNABLE, WEAK, leg_of
from lemonstand.probes.protocols.wire import Door
from lemonstand.remote.facts import Certificate
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")

PORTS = [143, 587]
OLD, NEW = ("TLSv1", "TLSv1.1"), ("TLSv1.2", "TLSv1.3")
AEAD = re.compile(r"GCM|CHACHA20")
LEAST_DAYS = 7
"""Days a served certificate must still be good for; every way of renewal begins long before."""

Seen = list[tuple[Position, dict[str, Any]]]


@pytest.fixture(scope="session")
def sessions(once: Once, prober: Prober, site: Site) -> Seen:
    """Every leg as its own client sees it."""

    def ask() -> Any:
        positions = [*outer_positions(site), *inner_positions(site)]
        return list(zip(positions, look(prober, positions), strict=True))

    return list(once("tls-legs", ask))


@pytest.mark.control("LEM-8-05", "LEM-8-14")
@pytest.mark.supports("LEM-8-19", "LEM-8-20")
def test_every_leg_is_encrypted_and_verified(sessions: Seen, measure: Measure) -> None:
    """A careful client in the place of each leg's own: TLS 1.2 or 1.3, the chain and the name verified. What was agreed is told."""
    for position, seen in sessions:
        measure(position.name, f"{seen['version']} {seen['cipher']}" if seen["version"] else seen["refused"])
    wrong = [f"{position.name}: {seen['refused']}" for position, seen in sessions if seen["version"] not in NEW]
    expect(bool(sessions) and not wrong, "a leg can't be had encrypted and verified", seen=wrong, expected="TLS for its name")
    weak = [f"{position.name}: {seen['cipher']}" for position, seen in sessions if not AEAD.search(seen["cipher"])]
    expect(not weak, "a leg agrees on a suite without AEAD", seen=weak, expected="AES-GCM or ChaCha20-Poly1305")


@pytest.mark.control("LEM-8-20")
def test_what_is_served_is_what_lies_on_disk(sessions: Seen, prober: Prober, measure: Measure) -> None:
    """Each port of each service shows the certificate in its file, for its own name, not one from before a renewal; days are counted."""
    servers = sorted({position.server for position, _ in sessions})
    with ThreadPoolExecutor(max_workers=len(servers) or 1) as pool:
        found = dict(zip(servers, pool.map(lambda name: prober.ask(name, "certificates"), servers), strict=True))
    stale, short = [], []
    for position, seen in sessions:
        pem = found[position.server]["certificates"].get(position.certificate)
        if pem is None:
            invalid(f"{position.server} has no certificate '{position.certificate}'")
        certificate = Certificate(position.certificate, pem)
        if not seen["sha256"]:
            stale.append(f"{position.name}: nothing was shown ({seen['refused']})")
        elif seen["sha256"] != certificate.sha256:
            stale.append(f"{position.name}: not {position.certificate}.crt of {position.server}")
        left = certificate.days_left_now()
        measure(f"{position.name} ends in", round(left, 1), "d")
        if left < LEAST_DAYS:
            short.append(f"{position.name}: {left:.1f} d")
    expect(bool(sessions) and not stale, "a service shows another certificate than its file", seen=stale, expected="the one on disk")
    expect(not short, "a certificate that is served ends soon", seen=short, expected=f"{LEAST_DAYS} days and more")


def _judge(found: dict[str, str], measure: Measure, where: str = "", *, weak: bool = True) -> list[str]:
    """What is wrong with the answers of `transport.versions`."""
    for name, what in found.items():
        measure(f"{where}{name}", what, volatile=False)
    wrong = [f"{where}{name}: {found[name]}, not taken" for name in NEW if not found[name].startswith(f"agreed {name} ")]
    bad = (*OLD, *ANONYMOUS, *(WEAK if weak else ()))
    return wrong + [f"{where}{name}: {found[name]}" for name in bad if found[name].startswith("agreed")]


@pytest.mark.control("LEM-8-19")
@pytest.mark.parametrize("port", [*PORTS, 993, 465])
def test_versions_and_suites(prober: Prober, site: Site, vantage: str, door: Door, port: int, *, family: int, measure: Measure) -> None:
    """TLS 1.2 and 1.3 are taken, 1.0, 1.1, CBC and RSA key exchange are not (RFC 8996, RFC 9325), on every port."""
    if port not in client_ports(site):
        measure("port", "closed: the TLS profile is seed-strict")
        return
    found = prober.ask(vantage, "tls-versions", leg=leg_of(door, port))
    wrong = _judge(found, measure)
    if all(found[name].startswith(UNABLE) for name in OLD):
        not_measurable("the vantage's OpenSSL can't offer old versions")
    expect(not wrong, "a current version is refused, or an old version or a weak suite is taken", seen=wrong, expected="TLS 1.2 and 1.3")


@pytest.mark.control("LEM-8-19")
def test_versions_and_suites_inside(prober: Prober, site: Site, measure: Measure) -> None:
    """The same on every inner leg, and the versions at the MX: there any suite with a certificate is better than none (RFC 7435)."""
    positions = [*inner_positions(site), *(each for each in outer_positions(site) if each.opportunistic)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda each: prober.ask(each.client, "tls-versions", leg=each.leg), positions))
    wrong = [
        fault
        for position, seen in zip(positions, found, strict=True)
        for fault in _judge(seen, measure, f"{position.name} ", weak=not position.opportunistic)
    ]
    if not positions or all(seen[name].startswith(UNABLE) for seen in found for name in OLD):
        not_measurable("no host's OpenSSL can offer old versions")
    expect(not wrong, "a current version is refused, or an old version or a weak suite is taken", seen=wrong, expected="TLS 1.2 and 1.3")


@pytest.mark.supports("LEM-5-01", "LEM-8-19")
def test_no_session_tickets_that_nobody_can_redeem(prober: Prober, site: Site, measure: Measure) -> None:
    """A login process serves one session and takes its keys along: its tickets would cost a radio octets and bring it nothing."""
    positions = [each for each in (*outer_positions(site), *inner_positions(site)) if each.leg["port"] in client_ports(site)]
    asked = [each for each in positions if each.certificate in {"public", "mail-store"}]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda each: prober.ask(each.client, "session-tickets", leg=each.leg), asked))
    given_away: list[str] = []
    for position, tickets in zip(asked, found, strict=True):
        measure(position.name, " ".join(version for version, given in tickets.items() if given) or "none")
        given_away += [f"{position.name} {version}" for version, given in tickets.items() if given]
    expect(bool(asked) and not given_away, "session tickets are handed out that nobody can redeem", seen=given_away, expected="none")


@pytest.mark.control("LEM-8-21")
@pytest.mark.parametrize("port", PORTS)
def test_no_command_crosses_the_start_of_tls(prober: Prober, vantage: str, door: Door, port: int, *, family: int, measure: Measure) -> None:
    """A command sent in the clear together with STARTTLS is never answered behind TLS."""
    found = prober.ask(vantage, "injection", leg=leg_of(door, port))
    measure("the server", found["ended"] or "; ".join(found["answers"])[:200])
    expect(not found["early"], "a command in the clear is answered behind TLS", seen=found["answers"], expected="never")


@pytest.mark.control("LEM-8-21")
def test_no_command_crosses_the_start_of_tls_inside(prober: Prober, site: Site, measure: Measure) -> None:
    """The same at the MX, at the store and at the relay's port for stores."""
    positions = [each for each in (*inner_positions(site), *outer_positions(site)) if each.leg["port"] in {24, 25, 143, 587}]
    inside = [each for each in positions if each.inner or each.opportunistic]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda each: prober.ask(each.client, "injection", leg=each.leg), inside))
    crossed = []
    for position, seen in zip(inside, found, strict=True):
        measure(position.name, seen["ended"] or "; ".join(seen["answers"])[:200])
        if seen["early"]:
            crossed.append(f"{position.name}: {seen['answers']}")
    expect(bool(inside) and not crossed, "a command in the clear is answered behind TLS", seen=crossed, expected="never")
