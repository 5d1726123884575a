"""Who asks a site, and where: its public endpoints, what lies inside, the accounts and certificates to ask with.

Read from the site's model; no host is touched.
"""

from __future__ import annotations

from collections.abc import Callable

from lemonstand.outcomes import Invalid, NotApplicable, NotMeasured
from lemonstand.probes.clients.tickets import InnerServices
from lemonstand.probes.protocols.wire import Account, Endpoint
from lemonstand.site import Site

Endpoints = Callable[..., Endpoint]
"""`endpoints(version)`; `endpoints()` in the first IP version there is."""
FAMILIES = (4, 6)
ARRIVAL_SECONDS = 20
"""How long a message may take from submission or MX to a mailbox."""
PEER_SENDER = "postmaster@peer.test"
"""Who sends from the lab's mail host outside."""
ELSEWHERE = "somebody@peer.test"
"""An address an open relay would take mail for: its domain exists, and is not the site's."""


def outsider_of(site: Site) -> str:
    """A mail host outside the site.

    Raises:
        NotMeasured: the inventory has none.
    """
    return _first(site, "peers", "mail host")


def vantage_of(site: Site) -> str:
    """The host outside that live checks look from.

    Raises:
        NotMeasured: the inventory has none.
    """
    return _first(site, "handsets", "host")


def _first(site: Site, group: str, what: str) -> str:
    hosts = site.group(group)
    if not hosts:
        raise NotMeasured(f"the inventory names no {what} outside the site (group '{group}')")
    return hosts[0].name


def accounts_of(site: Site) -> list[Account]:
    """The accounts a site names for checks; may be none."""
    return [Account(user=name, password=site.password_of(name) or "") for name in site.settings.probe_users]


def ca_of_clients(site: Site) -> str:
    """The CA that signs what clients see, as PEM; empty where it is one of the system's.

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
    return tuple(version for version in FAMILIES if frontends and site.met_at(frontends[0], version) is not None)


def endpoint_of(site: Site, ca: str, group: str, version: int | None = None) -> Endpoint:
    """The public endpoint of the first frontend or relay.

    Args:
        ca: PEM of the CA clients trust; empty: the system's.
        group: `frontends` or `relays`.
        version: 4 or 6; None: the first of them there is.

    Raises:
        NotApplicable: the site has no public address of that IP version.
    """
    settings = site.settings
    version = version or next(iter(families_of(site)), 4)
    address = site.met_at(site.group(group)[0], version)
    if address is None:
        raise NotApplicable(f"the site has no public address of IPv{version}")
    return Endpoint(name=settings.public_name if group == "frontends" else settings.mx_name, address=str(address), ca=ca)


def public_endpoints(site: Site, ca: str, group: str) -> list[tuple[tuple[str, ...], Endpoint]]:
    """Every address at which frontends or relays are met from outside, with those of them that may answer there.

    An IPv4 address that the edge translates stands for all of them; any other belongs to one.

    Args:
        site: the site.
        ca: PEM of the CA clients trust; empty: the system's.
        group: `frontends` or `relays`.
    """
    name = site.settings.public_name if group == "frontends" else site.settings.mx_name
    shared, hosts = site.settings.public_ipv4, site.group(group)
    found = [(tuple(host.name for host in hosts), Endpoint(name=name, address=str(shared), ca=ca))] if shared is not None else []
    for host in hosts:
        own = [each for version in FAMILIES if (each := site.met_at(host, version)) is not None and each != shared]
        found += [((host.name,), Endpoint(name=name, address=str(address), ca=ca)) for address in own]
    return found


def members_endpoints(site: Site, ca: str, group: str) -> dict[str, Endpoint]:
    """Those of `public_endpoints` that belong to one host alone, by `NAME IPvN`."""
    own = [(names[0], endpoint) for names, endpoint in public_endpoints(site, ca, group) if len(names) == 1]
    return {f"{name} IPv{6 if ':' in endpoint['address'] else 4}": endpoint for name, endpoint in own}


def inner_services_of(site: Site, *, frontend: str = "", auth: str = "", store: str = "") -> InnerServices:
    """What a frontend talks to inside, by IPv4 where there is one.

    Args:
        site: the site.
        frontend: who asks; default: the first frontend.
        auth: whom it asks; default: the first auth host.
        store: the host it talks to for a user (`serving.home_of`); default: the first store.
    """
    named = ((frontend, "frontends"), (auth, "auths"), (store, "stores"))
    asking, issuing, keeping = (site.hosts[name] if name else site.group(group)[0] for name, group in named)
    domain = site.settings.internal_domain
    return InnerServices(
        issuer=f"{issuing.name}.{domain}",
        issuer_address=str(issuing.interfaces["auth"].addresses[0]),
        store=f"{keeping.name}.{domain}",
        store_address=str(keeping.interfaces["store"].addresses[0]),
        client=f"{asking.name}.{domain}",
    )
