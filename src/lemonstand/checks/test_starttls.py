"""The start of TLS on the wire: versions, suites, and nothing that crosses it."""

from __future__ import annotations

import pytest

from lemonstand.checks import expect, not_measurable
from lemonstand.checks.conftest import Measure
from lemonstand.checks.vantage import Prober
from lemonstand.probes.transport import UNABLE, WEAK
from lemonstand.probes.wire import Door

pytestmark = pytest.mark.answer("live")

PORTS = [143, 587]
OLD, NEW = ("TLSv1", "TLSv1.1"), ("TLSv1.2", "TLSv1.3")


@pytest.mark.control("LEM-8-19")
@pytest.mark.parametrize("port", PORTS)
def test_versions_and_suites(prober: Prober, vantage: str, door: Door, port: int, *, family: int, measure: Measure) -> None:
    """TLS 1.2 and 1.3 are taken, 1.0, 1.1, CBC and RSA key exchange are not (RFC 8996, RFC 9325)."""
    found = prober.ask(vantage, "tls-versions", door=door, port=port)
    for name, what in found.items():
        measure(name, what)
    if all(found[name].startswith(UNABLE) for name in OLD):
        not_measurable("the vantage's OpenSSL can't offer old versions")
    refused = [f"{name}: {found[name]}" for name in NEW if not found[name].startswith(f"agreed {name} ")]
    expect(not refused, "a current version is refused", seen=refused, expected="TLS 1.2 and 1.3")
    taken = [f"{name}: {found[name]}" for name in (*OLD, *WEAK) if found[name].startswith("agreed")]
    expect(not taken, "an old version or a weak suite is taken", seen=taken, expected="refused")


@pytest.mark.control("LEM-8-21")
@pytest.mark.parametrize("port", PORTS)
def test_no_command_crosses_the_start_of_tls(prober: Prober, vantage: str, door: Door, port: int, *, family: int, measure: Measure) -> None:
    """A command sent in the clear together with STARTTLS is never answered behind TLS."""
    found = prober.ask(vantage, "injection", door=door, port=port)
    measure("the server", found["ended"] or "; ".join(found["answers"])[:200])
    expect(not found["early"], "a command in the clear is answered behind TLS", seen=found["answers"], expected="never")
