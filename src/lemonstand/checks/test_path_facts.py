"""Facts about the path that a client must know of, seen live: whether its network is the Internet, and how the border translates."""

from __future__ import annotations

import pytest

from lemonstand.checks.background import measurement
from lemonstand.checks.conftest import Measure
from lemonstand.checks.live import KNOCK_SECONDS, THROUGH
from lemonstand.measure import Vantage
from lemonstand.outcomes import expect, invalid, not_measurable
from lemonstand.remote.endpoints import outsider_of
from lemonstand.site import Site

pytestmark = pytest.mark.answer("live")

ARBITRARY = (1234, 7777, 23456, 50123)
"""Ports without a service anywhere: an answer, a reset too, shows that the network carries them."""


@pytest.mark.control("LEM-3-10")
def test_the_clients_network_carries_every_port(site: Site, vantage: Vantage, outsider: str, family: int, measure: Measure) -> None:
    """From the vantage, ports nobody chose reach a host outside: this is the Internet, no gateway for a few ports (RFC 5383 section 3)."""
    leg = site.hosts[outsider].interfaces["internet"]
    address = leg.ipv4 if family == 4 else leg.ipv6
    if address is None:
        not_measurable(f"{outsider} has no address of IPv{family}")
    found = vantage.ask("reach", targets=[(str(address), port) for port in ARBITRARY], timeout=2 * KNOCK_SECONDS)
    carried = [port for _, port, what in found if what in THROUGH]
    measure("ports tried", " ".join(map(str, ARBITRARY)))
    measure("ports carried", " ".join(map(str, carried)))
    expect(
        len(carried) == len(ARBITRARY),
        "the vantage's network carries some ports only: what it shows is a gateway's, not the site's",
        seen=found,
        expected="an answer or a reset on each",
        remedy="measure from a network that carries every port",
    )


@measurement()
def translated(vantage: Vantage) -> tuple[int, set[tuple[str, int]], str]:
    """The port of a relay's socket, how it is seen outside, and what a stranger's packet to it brings."""
    edges, public = vantage.site.group("edges"), vantage.site.settings.public_ipv4
    if not edges or public is None:
        not_measurable("the border is not ours, or translates nothing: its owner knows how it does")
    relay, outsider = vantage.site.group("relays")[0], vantage.site.hosts[outsider_of(vantage.site)]
    outside, source = outsider.interfaces["internet"].ipv4, relay.interfaces["dmz"].ipv4
    if outside is None or source is None:
        not_measurable(f"{outsider.name} has no IPv4 address: IPv6 is never translated")
    targets = [(str(outside), 25), (str(outside), 53)]
    made = vantage.prober.ask(relay.name, "one-source", source=str(source), targets=targets, timeout=5)
    if len(made["opened"]) < len(targets):
        invalid(f"{relay.name} did not reach {outsider.name} on both ports: {made['opened']}")
    entries = [each for edge in edges for each in vantage.prober.ask(edge.name, "translations", source=str(source), port=made["port"])]
    if len(entries) < len(targets):
        invalid(f"the edge shows {len(entries)} of {len(targets)} connections")
    knocked = vantage.prober.ask(outsider.name, "reach", targets=[(str(public), made["port"])], timeout=2 * KNOCK_SECONDS)
    return made["port"], {(each["seen_address"], each["seen_port"]) for each in entries}, knocked[0][2]


@pytest.mark.control("LEM-7-06")
def test_how_the_border_translates_is_known(translated: tuple[int, set[tuple[str, int]], str], site: Site, measure: Measure) -> None:
    """One socket of a relay is one address and port outside, whomever it talks to; and nobody it did not talk to gets in by that."""
    inside, mapped, stranger = translated
    public = site.settings.public_ipv4
    measure("source port inside", inside)
    measure("address and port outside", " ".join(f"{address}:{port}" for address, port in sorted(mapped)))
    measure("port kept", all(port == inside for _, port in mapped))
    measure("a stranger's packet to it", stranger)
    measure("hairpin", "none: no host inside uses the public address")
    expect(len(mapped) == 1, "the mapping depends on whom the host talks to (RFC 5382 REQ-1)", seen=sorted(mapped), expected="one")
    expect({address for address, _ in mapped} == {str(public)}, "another address is used", seen=sorted(mapped), expected=str(public))
    expect(stranger not in THROUGH, "the mapping lets strangers in (RFC 5382 REQ-3)", seen=stranger, expected="silence")
