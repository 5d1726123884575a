"""Every way on which mail or credentials travel, with the host it is looked at from and the certificate that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lemonstand.observations import Pool
from lemonstand.probes.clients import own_password
from lemonstand.probes.clients.tls import TlsHop, hop_of
from lemonstand.remote.endpoints import ca_of_clients, public_endpoints
from lemonstand.remote.prober import Prober
from lemonstand.site import Site
from lemonstand.site.shipped import filter_plugin

IMPLICIT_PORTS = (993, 465)
"""What clients that follow RFC 8314 use; there only where the TLS profile has them."""
CLIENT_PORTS = (143, 587)


@dataclass(frozen=True)
class TlsPath:
    """A leg, and who is at its ends.

    Args:
        hop: what is dialled and how.
        client: the host that is asked to dial.
        servers: the host whose service answers; several where they share an address.
        certificate: name of the file on the server that must be shown.
        inner: whether both ends are ours.
    """

    hop: TlsHop
    client: str
    servers: tuple[str, ...]
    certificate: str
    inner: bool

    @property
    def name(self) -> str:
        """For people: `frontend to store:143`."""
        version = "" if self.inner else f" by IPv{6 if ':' in self.hop['address'] else 4}"
        return f"{self.client} to {' or '.join(self.servers)}:{self.hop['port']}{version}"

    @property
    def opportunistic(self) -> bool:
        """Whether the other side may also come without TLS: mail between mail hosts of the Internet."""
        return self.hop["port"] == 25


def client_ports(site: Site) -> tuple[int, ...]:
    """The ports mail clients use on this site, and browsers where there is a page for passwords."""
    implicit = () if site.settings.tls_profile == "seed-strict" else IMPLICIT_PORTS
    return CLIENT_PORTS + implicit + ((own_password.PORT,) if site.settings.self_service else ())


def outer_ways(site: Site) -> list[TlsPath]:
    """What handsets and foreign mail hosts see, by both IP versions; empty without a host that stands there."""
    found = []
    for vantage in site.group("handsets")[:1]:
        for names, endpoint in public_endpoints(site, ca_of_clients(site), "frontends"):
            found += [TlsPath(hop_of(endpoint, port), vantage.name, names, "public", inner=False) for port in client_ports(site)]
    for outsider in site.group("peers")[:1]:
        for names, endpoint in public_endpoints(site, _private_ca(site, "public"), "relays"):
            found.append(TlsPath(hop_of(endpoint, 25), outsider.name, names, "public", inner=False))
    return found


def inner_ways(site: Site) -> list[TlsPath]:
    """Every inner leg, from each client to each server."""
    ca = _private_ca(site, "hosts")
    ways = (
        ("frontends", "auths", "auth", (8443,), "issuer", "issuer-client"),
        ("frontends", "stores", "store", CLIENT_PORTS, "mail-store", "store-client"),
        ("stores", "relays", "dmz", (587,), "relay", "relay-client"),
        ("relays", "stores", "store", (24,), "mail-store", ""),
    )
    return [
        TlsPath(
            TlsHop(
                name=f"{server.name}.{site.settings.internal_domain}",
                address=str(server.interfaces[zone].addresses[0]),
                port=port,
                ca=ca,
                certificate=own,
            ),
            client.name,
            (server.name,),
            certificate,
            inner=True,
        )
        for clients, servers, zone, ports, certificate, own in ways
        for client in site.group(clients)
        for server in site.group(servers)
        for port in ports
    ]


def _private_ca(site: Site, name: str) -> str:
    """What hosts trust for a purpose, as the controller has it: one CA, or two while it is changed."""
    files = filter_plugin("authorities").certificate_files(site.settings.pki_dir / name)
    return "".join(path.read_text(encoding="ascii") for path in files)


def seen_by_clients(prober: Prober, ways: list[TlsPath]) -> list[dict[str, Any]]:
    """What the probe `tls-hops` finds on each leg, asked of all clients at once."""
    by_client: dict[str, list[int]] = {}
    for number, position in enumerate(ways):
        by_client.setdefault(position.client, []).append(number)
    found: list[dict[str, Any]] = [{} for _ in ways]

    def ask(client: str) -> None:
        numbers = by_client[client]
        for number, seen in zip(numbers, prober.ask(client, "tls-hops", hops=[ways[n].hop for n in numbers]), strict=True):
            found[number] = seen

    with Pool(max_workers=len(by_client) or 1) as pool:
        list(pool.map(ask, by_client))
    return found
