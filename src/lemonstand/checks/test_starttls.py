"""TLS on the wire: what each leg agrees on, whose certificate it shows, what it takes, and nothing that crosses its start."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lemonstand.admin.health import least_days
from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.checks.tls_endpoints import TlsPath, client_ports, inner_ways, outer_ways, seen_by_clients
from lemonstand.measure import Vantage
from lemonstand.observations import Pool
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.probes.clients.tls import ANONYMOUS, UNABLE, WEAK, hop_of
from lemonstand.remote.certificates import Certificate

pytestmark = pytest.mark.answer("live")

PORTS = [143, 587]
OLD, NEW = ("TLSv1", "TLSv1.1"), ("TLSv1.2", "TLSv1.3")
AEAD = re.compile(r"GCM|CHACHA20")
Seen = list[tuple[TlsPath, dict[str, Any]]]


@measurement()
def sessions(vantage: Vantage) -> Seen:
    """Every leg as its own client sees it."""
    ways = [*outer_ways(vantage.site), *inner_ways(vantage.site)]
    return list(zip(ways, seen_by_clients(vantage.prober, ways), strict=True))


@measurement()
def on_disk(vantage: Vantage) -> dict[str, dict[str, str]]:
    """The certificates in the files of each server, by its name."""
    site = vantage.site
    servers = sorted({server for way in (*outer_ways(site), *inner_ways(site)) for server in way.servers})
    with Pool(max_workers=len(servers) or 1) as pool:
        found = pool.map(lambda name: vantage.prober.ask(name, "certificates")["certificates"], servers)
        return dict(zip(servers, found, strict=True))


@measurement()
def versions(vantage: Vantage, version: int) -> dict[int, dict[str, str]]:
    """What the public ports agree on when a client offers one version or suite alone."""
    endpoint = vantage.endpoints(version)
    return {port: vantage.ask("tls-versions", hop=hop_of(endpoint, port)) for port in client_ports(vantage.site)}


@measurement()
def versions_inside(vantage: Vantage) -> Seen:
    """The same on every inner leg and at the MX."""
    ways = [*inner_ways(vantage.site), *(each for each in outer_ways(vantage.site) if each.opportunistic)]
    return _asked(vantage, "tls-versions", ways)


@measurement()
def tickets_given(vantage: Vantage) -> Seen:
    """Whether session tickets are handed out, on the ports of clients."""
    ways = [each for each in (*outer_ways(vantage.site), *inner_ways(vantage.site)) if each.hop["port"] in client_ports(vantage.site)]
    return _asked(vantage, "session-tickets", [each for each in ways if each.certificate in {"public", "mail-store"}])


@measurement()
def injected(vantage: Vantage, version: int) -> dict[int, dict[str, Any]]:
    """A command sent in the clear together with STARTTLS, at the public ports."""
    endpoint = vantage.endpoints(version)
    return {port: vantage.ask("injection", hop=hop_of(endpoint, port)) for port in PORTS}


@measurement()
def injected_inside(vantage: Vantage) -> Seen:
    """The same at the MX, at the store and at the relay's port for stores."""
    ways = [each for each in (*inner_ways(vantage.site), *outer_ways(vantage.site)) if each.hop["port"] in {24, 25, 143, 587}]
    return _asked(vantage, "injection", [each for each in ways if each.inner or each.opportunistic])


def _asked(vantage: Vantage, probe: str, ways: list[TlsPath]) -> Seen:
    with Pool(max_workers=4) as pool:
        return list(zip(ways, pool.map(lambda way: vantage.prober.ask(way.client, probe, hop=way.hop), ways), strict=True))


@pytest.mark.control("LEM-8-05", "LEM-8-14")
@pytest.mark.supports("LEM-8-19", "LEM-8-20")
def test_every_leg_is_encrypted_and_verified(sessions: Seen, measure: Measure) -> None:
    """A careful client in the place of each leg's own: TLS 1.2 or 1.3, the chain and the name verified. What was agreed is told."""
    for way, seen in sessions:
        measure(way.name, f"{seen['version']} {seen['cipher']}" if seen["version"] else seen["refused"])
    wrong = [f"{way.name}: {seen['refused']}" for way, seen in sessions if seen["version"] not in NEW]
    expect(bool(sessions) and not wrong, "a leg can't be had encrypted and verified", seen=wrong, expected="TLS for its name")
    weak = [f"{way.name}: {seen['cipher']}" for way, seen in sessions if not AEAD.search(seen["cipher"])]
    expect(not weak, "a leg agrees on a suite without AEAD", seen=weak, expected="AES-GCM or ChaCha20-Poly1305")


@pytest.mark.control("LEM-8-20")
@pytest.mark.supports("OPS-31")
def test_what_is_served_is_what_lies_on_disk(sessions: Seen, on_disk: dict[str, dict[str, str]], measure: Measure) -> None:
    """Each port of each service shows the certificate in its file, for its own name, not one from before a renewal; days are counted."""
    stale, short = [], []
    for way, seen in sessions:
        missing = [server for server in way.servers if way.certificate not in on_disk[server]]
        if missing:
            invalid(f"{' and '.join(missing)} have no certificate '{way.certificate}'")
        certificates = [Certificate(way.certificate, on_disk[server][way.certificate]) for server in way.servers]
        if not seen["sha256"]:
            stale.append(f"{way.name}: nothing was shown ({seen['refused']})")
        elif seen["sha256"] not in {each.sha256 for each in certificates}:
            stale.append(f"{way.name}: not {way.certificate}.crt of {' or '.join(way.servers)}")
        first = min(certificates, key=Certificate.days_left_now)
        left, least = first.days_left_now(), least_days(first.life)
        measure(f"{way.name} ends in", round(left, 1), "d")
        if left < least:
            short.append(f"{way.name}: {left:.2f} d, {least:.2f} at least")
    expect(bool(sessions) and not stale, "a service shows another certificate than its file", seen=stale, expected="the one on disk")
    expect(not short, "a certificate that is served ends soon", seen=short, expected="21 days and more, or 7/30 of a short life")


def _judge(found: dict[str, str], measure: Measure, where: str = "", *, weak: bool = True) -> list[str]:
    """What is wrong with the answers of the probe `tls-versions`."""
    for name, what in found.items():
        measure(f"{where}{name}", what, volatile=False)
    wrong = [f"{where}{name}: {found[name]}, not taken" for name in NEW if not found[name].startswith(f"agreed {name} ")]
    bad = (*OLD, *ANONYMOUS, *(WEAK if weak else ()))
    return wrong + [f"{where}{name}: {found[name]}" for name in bad if found[name].startswith("agreed")]


@pytest.mark.control("LEM-8-19")
@pytest.mark.parametrize("port", [*PORTS, 993, 465])
def test_versions_and_suites(versions: dict[int, dict[str, str]], port: int, family: int, measure: Measure) -> None:
    """TLS 1.2 and 1.3 are taken, 1.0, 1.1, CBC and RSA key exchange are not (RFC 8996, RFC 9325), on every port."""
    if port not in versions:
        measure("port", "closed: the TLS profile is seed-strict")
        return
    found = versions[port]
    wrong = _judge(found, measure)
    if all(found[name].startswith(UNABLE) for name in OLD):
        not_measurable("the vantage's OpenSSL can't offer old versions")
    expect(not wrong, "a current version is refused, or an old version or a weak suite is taken", seen=wrong, expected="TLS 1.2 and 1.3")


@pytest.mark.control("LEM-8-19")
def test_versions_and_suites_inside(versions_inside: Seen, measure: Measure) -> None:
    """The same on every inner leg, and the versions at the MX: there any suite with a certificate is better than none (RFC 7435)."""
    wrong = [fault for way, seen in versions_inside for fault in _judge(seen, measure, f"{way.name} ", weak=not way.opportunistic)]
    if all(seen[name].startswith(UNABLE) for _, seen in versions_inside for name in OLD):
        not_measurable("no host's OpenSSL can offer old versions")
    expect(not wrong, "a current version is refused, or an old version or a weak suite is taken", seen=wrong, expected="TLS 1.2 and 1.3")


@pytest.mark.supports("LEM-5-01", "LEM-8-19")
def test_no_session_tickets_that_nobody_can_redeem(tickets_given: Seen, measure: Measure) -> None:
    """A login process serves one session and takes its keys along: its tickets would cost a radio octets and bring it nothing."""
    given_away: list[str] = []
    for way, tickets in tickets_given:
        measure(way.name, " ".join(version for version, given in tickets.items() if given) or "none")
        given_away += [f"{way.name} {version}" for version, given in tickets.items() if given]
    expect(
        bool(tickets_given) and not given_away, "session tickets are handed out that nobody can redeem", seen=given_away, expected="none"
    )


@pytest.mark.control("LEM-8-21")
@pytest.mark.parametrize("port", PORTS)
def test_no_command_crosses_the_start_of_tls(injected: dict[int, dict[str, Any]], port: int, family: int, measure: Measure) -> None:
    """A command sent in the clear together with STARTTLS is never answered behind TLS."""
    found = injected[port]
    measure("the server", found["ended"] or "; ".join(found["answers"])[:200])
    expect(not found["early"], "a command in the clear is answered behind TLS", seen=found["answers"], expected="never")


@pytest.mark.control("LEM-8-21")
def test_no_command_crosses_the_start_of_tls_inside(injected_inside: Seen, measure: Measure) -> None:
    """The same at the MX, at the store and at the relay's port for stores."""
    crossed = []
    for way, seen in injected_inside:
        measure(way.name, seen["ended"] or "; ".join(seen["answers"])[:200])
        if seen["early"]:
            crossed.append(f"{way.name}: {seen['answers']}")
    expect(bool(injected_inside) and not crossed, "a command in the clear is answered behind TLS", seen=crossed, expected="never")
