"""The DNS records a site needs, so that clients and other mail hosts find it (RFC 6186, RFC 8314 section 5.1, RFC 5321 section 5)."""

from __future__ import annotations

from dataclasses import dataclass

from lemonstand.site.model import Site

SERVICES = {"_imap": 143, "_submission": 587}
IMPLICIT_TLS = {"_imaps": 993, "_submissions": 465}
MANAGESIEVE = {"_sieve": 4190}
"""RFC 5804 section 1.8."""
PREFERRED = {"both": IMPLICIT_TLS, "modern": IMPLICIT_TLS, "seed-strict": SERVICES}
"""The services a profile wants clients to try first: they get priority 0, the others 10."""


@dataclass(frozen=True, order=True)
class Record:
    """One record; names without the final dot.

    Args:
        name: its owner.
        kind: A, AAAA, MX or SRV.
        value: as in a zone file.
    """

    name: str
    kind: str
    value: str

    def __str__(self) -> str:
        """A line of a zone file."""
        absolute = self.value if self.kind in {"A", "AAAA"} else f"{self.value}."
        return f"{self.name}. IN {self.kind} {absolute}"


def exchangers(site: Site) -> dict[str, str]:
    """The name of each relay in MX records: that of the site, and for a further one the same with its number (RFC 5321 section 5.1)."""
    first, _, domain = site.settings.mx_name.partition(".")
    return {host.name: f"{first}{number if number > 1 else ''}.{domain}" for number, host in enumerate(site.group("relays"), 1)}


def records(site: Site) -> list[Record]:
    """The records of a site, in a zone file's order.

    Args:
        site: a valid site.
    """
    settings = site.settings
    offered = SERVICES | (IMPLICIT_TLS if settings.tls_profile != "seed-strict" else {})
    offered |= MANAGESIEVE if settings.managesieve else {}
    preferred = PREFERRED[settings.tls_profile] | MANAGESIEVE
    found = []
    for domain in settings.mail_domains:
        found += [Record(domain, "MX", f"{10 * number} {name}") for number, name in enumerate(exchangers(site).values(), 1)]
        for service, port in offered.items():
            priority = 0 if service in preferred else 10
            found.append(Record(f"{service}._tcp.{domain}", "SRV", f"{priority} 1 {port} {settings.public_name}"))
    named = [(settings.public_name, site.group("frontends")), *((name, (site.hosts[host],)) for host, name in exchangers(site).items())]
    for name, hosts in named:
        if settings.public_ipv4 is not None:
            found.append(Record(name, "A", str(settings.public_ipv4)))
        for host in hosts:
            for version, kind in ((4, "A"), (6, "AAAA")):
                address = site.met_at(host, version)
                if address is not None and address != settings.public_ipv4:
                    found.append(Record(name, kind, str(address)))
    return found
