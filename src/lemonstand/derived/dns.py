"""The DNS records a site needs, so that clients and other mail hosts find it (RFC 6186, RFC 8314 section 5.1, RFC 5321 section 5).

And those by which others know its mail for its own (RFC 6376, RFC 7208, RFC 7489; docs/decisions/0042).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lemonstand.errors import LemonstandError
from lemonstand.site.model import Site
from lemonstand.site.shipped import filter_plugin

SERVICES = {"_imap": 143, "_submission": 587}
IMPLICIT_TLS = {"_imaps": 993, "_submissions": 465}
MANAGESIEVE = {"_sieve": 4190}
"""RFC 5804 section 1.8."""
PREFERRED = {"both": IMPLICIT_TLS, "modern": IMPLICIT_TLS, "seed-strict": SERVICES}
"""The services a profile wants clients to try first: they get priority 0, the others 10."""
STRING = 255
"""Octets of one string of a TXT record (RFC 1035 section 3.3.14)."""
STRANGER = ("192.0.2.66", "2001:db8::66")
"""Addresses for examples (RFC 5737, RFC 3849): mail of nobody leaves from there."""


@dataclass(frozen=True, order=True)
class Record:
    """One record; names without the final dot.

    Args:
        name: its owner.
        kind: A, AAAA, MX, SRV, TXT or PTR.
        value: as in a zone file; of a TXT record the text.
    """

    name: str
    kind: str
    value: str

    def __str__(self) -> str:
        """A line of a zone file."""
        if self.kind == "TXT":
            # A string there has 255 octets at most; who reads them puts them together.
            strings = [self.value[start : start + STRING] for start in range(0, len(self.value), STRING)]
            return f"{self.name}. IN TXT " + " ".join(f'"{each}"' for each in strings)
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
    return found + mail_records(site)


def keys(site: Site) -> list[dict[str, str]]:
    """The keys by which relays sign, as the controller has them, without their private halves; none before the first apply.

    Raises:
        LemonstandError: they can't be read.
    """
    plugin = filter_plugin("signing_keys")
    try:
        return list(plugin.known(site.settings.pki_dir))
    except plugin.KeyFault as fault:
        raise LemonstandError("the keys for DKIM can't be read", str(site.settings.pki_dir), str(fault)) from None


def sources(site: Site) -> list[str]:
    """Where a site's mail leaves from, as SPF has it: what a border makes of relays' IPv4 addresses, or else their own; or a smarthost."""
    smarthost = site.settings.services.smarthost
    if smarthost is not None:
        return (smarthost.spf or " ".join(f"ip{each.version}:{each}" for each in smarthost.addresses)).split()
    found = []
    for relay in site.group("relays"):
        for version in (4, 6):
            address = site.met_at(relay, version)
            if address is not None:
                found.append(f"ip{version}:{address}")
    return list(dict.fromkeys(found))


def key_records(site: Site, selectors: Collection[str] | None = None) -> list[Record]:
    """The records of keys, for every domain; of some of them, if `selectors` names them."""
    text = filter_plugin("signing_keys").record
    wanted = [key for key in keys(site) if selectors is None or key["selector"] in selectors]
    return [Record(f"{key['selector']}._domainkey.{domain}", "TXT", text(key)) for domain in site.settings.mail_domains for key in wanted]


def mail_records(site: Site) -> list[Record]:
    """What tells others that mail is the site's own: SPF, DKIM and DMARC of each domain, and SPF of the names relays greet with.

    Of a name that relays greet with, because reports and notices of theirs have no other sender. Of domains `~all`: who is not listed may
    still show a signature; DMARC judges both.
    """
    found = []
    spf = " ".join(["v=spf1", *sources(site)])
    for domain in site.settings.mail_domains:
        found.append(Record(domain, "TXT", f"{spf} ~all"))
        policy = f"v=DMARC1; p={site.settings.dmarc_policy}; adkim=s; rua=mailto:postmaster@{domain}"
        found.append(Record(f"_dmarc.{domain}", "TXT", policy))
    found += key_records(site)
    found += [Record(name, "TXT", f"{spf} -all") for name in exchangers(site).values() if name not in site.settings.mail_domains]
    return found


def reverse(site: Site) -> list[Record]:
    """What whoever has the site's addresses should say of them: the name of the relay that is behind each, of several the first."""
    names: dict[str, Record] = {}
    for host, name in exchangers(site).items():
        for version in (4, 6):
            address = site.met_at(site.hosts[host], version)
            if address is not None:
                names.setdefault(str(address), Record(address.reverse_pointer, "PTR", name))
    return list(names.values())
