"""The strict model of a site: types and meaning of every `lemonstand_*` variable. Rules between variables are in `rules.py`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StrictBool, StrictInt, model_validator

from lemonstand.policy import Flow, Flows, Timers
from lemonstand.policy.flows import several
from lemonstand.policy.kinds import MANAGEMENT, load_kinds
from lemonstand.policy.names import is_any_address, load_names
from lemonstand.policy.settings import load_defaults
from lemonstand.policy.waivers import ControlWaiver, Waiver

PREFIX = "lemonstand_"
ROLE_GROUPS = load_kinds().groups
"""The groups of a site, in the order in which a message from outside meets them."""
OUTER_GROUPS = tuple(load_kinds().outer)
"""Groups of machines that stand for the rest of the world."""
TLS_PROFILES = ("both", "seed-strict", "modern")
MIN_MESSAGE_SIZE = 64 * 1024
"""Bytes. RFC 5321 section 4.5.3.1.7: no limit below 64 000 octets."""
MAX_DEVICES = 64
"""Devices per user a connection limit may be sized for; more would undo the limit."""

FOREIGN_TABLE = r"^(ip|ip6|inet|arp|netdev|legacy-ip|legacy-ip6) [^\s]+$"
"""A table as preflight names it: family and name; `legacy-` for those of xtables."""

SettingName = Annotated[str, Field(pattern=r"^[a-z][a-zA-Z0-9_]{1,60}$")]
MAX_DROP_IN = 65536
"""Characters of one text of a site's own."""
SettingValue = StrictBool | StrictInt | Annotated[str, Field(pattern=r"^[!-;=-~][ -~]{0,400}$")]
"""In one line, and no name of a file that Dovecot would read in its place (`<`)."""
MILTER = r"^(unix:/[A-Za-z0-9_./-]{1,90}|inet:(127\.0\.0\.1|\[::1\]|localhost):[0-9]{1,5})$"
"""On the relay itself: what is elsewhere would need a flow."""

ACCOUNT = r"^[a-z_][a-z0-9_-]{0,31}$"
"""A local account as Debian's useradd takes it: nothing in it is a pattern to sshd."""


def is_host_name(text: str) -> bool:
    """Whether a text is a host name with a domain (RFC 1123 section 2.1, lower case)."""
    return load_names().domain_fault(text) is None


def is_mail_address(text: str) -> bool:
    """Whether a text is a login name or an alias here (`playbooks/names.yml`)."""
    return load_names().address_fault(text) is None


def _host_name(text: str) -> str:
    fault = load_names().domain_fault(text)
    if fault:
        raise ValueError(f"'{text}' is no host name: {fault}")
    return text


def _mail_address(text: str) -> str:
    fault = load_names().address_fault(text)
    if fault:
        raise ValueError(f"'{text}' is no mail address here: {fault}")
    return text


def _any_address(text: str) -> str:
    if not is_any_address(text):
        raise ValueError(f"'{text}' is no mail address")
    return text


def _zone_name(text: str) -> str:
    zones = load_kinds().zones
    if text not in zones:
        raise ValueError(f"'{text}' is no zone (one of {', '.join(zones)})")
    return text


def _default(name: str) -> Any:
    """What a variable is worth where a site says nothing; checked when it is used (`validate_default`)."""
    return load_defaults()[name]


ZoneName = Annotated[str, AfterValidator(_zone_name)]
HostName = Annotated[str, AfterValidator(_host_name)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
AnyAddress = Annotated[str, AfterValidator(_any_address)]
"""An address of somebody else's domain, where other rules hold."""


class Strict(BaseModel):
    """Base of all models here: unknown keys are errors, values don't change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Zone(Strict):
    """The networks of one zone; at least one family."""

    ipv4: IPv4Network | None = Field(None, description="the zone's IPv4 network, such as 192.0.2.0/24")
    ipv6: IPv6Network | None = Field(None, description="the zone's IPv6 network, such as 2001:db8:1::/64")
    more: tuple[IPv4Network | IPv6Network, ...] = Field((), description="further networks of the zone, such as [198.51.100.64/26]")

    @model_validator(mode="after")
    def _one_family(self) -> Zone:
        if self.ipv4 is None and self.ipv6 is None:
            raise ValueError("the zone has neither an IPv4 nor an IPv6 network")
        first = {4: self.ipv4, 6: self.ipv6}
        for number, network in enumerate(self.more):
            if first[network.version] is None:
                raise ValueError(f"{network} is a further network, and the zone has no ipv{network.version}: give it there")
            if any(network.version == other.version and network.overlaps(other) for other in self.networks[: -len(self.more) + number]):
                raise ValueError(f"{network} overlaps another network of the zone")
        return self

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """All its networks, IPv4 first among the first ones."""
        return (*(network for network in (self.ipv4, self.ipv6) if network is not None), *self.more)

    def network_of(self, address: IPv4Address | IPv6Address) -> IPv4Network | IPv6Network | None:
        """Its network that has an address; None: none of them."""
        return next((network for network in self.networks if address in network), None)


class Interface(Strict):
    """A host's leg in one zone."""

    device: str = Field(description="name of the network device on the host", pattern=r"^[A-Za-z0-9_.-]{1,15}$")
    ipv4: IPv4Address | None = Field(None, description="the host's IPv4 address in the zone")
    ipv6: IPv6Address | None = Field(None, description="the host's IPv6 address in the zone")
    more: tuple[IPv4Address | IPv6Address, ...] = Field(
        (), description="of an edge: its addresses in further networks of the zone, whose hosts have them as gateway"
    )

    @model_validator(mode="after")
    def _one_address(self) -> Interface:
        if not self.addresses:
            raise ValueError("the interface has neither an IPv4 nor an IPv6 address")
        return self

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Its addresses, IPv4 first, further ones last."""
        return (*(address for address in (self.ipv4, self.ipv6) if address is not None), *self.more)


class SharedAddress(Strict):
    """What the edge that is at work holds in one zone."""

    ipv4: IPv4Address | None = Field(None, description="the IPv4 address both edges share in the zone")
    ipv6: IPv6Address | None = Field(None, description="the IPv6 address both edges share in the zone")

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Both, IPv4 first."""
        return tuple(address for address in (self.ipv4, self.ipv6) if address is not None)


class User(Strict):
    """A mailbox and who may log in to it."""

    name: MailAddress = Field(description="the login name, which is the full address, such as alice@example.org")
    store: str | None = Field(None, description="inventory name of the store that holds the mailbox; may be left out if there is only one")
    aliases: tuple[MailAddress, ...] = Field((), description="further addresses that reach the mailbox")
    password_hash: str | None = Field(None, description="a hash to seed the directory with, such as {SSHA}… or {ARGON2}…", min_length=4)


class PrivateCaCertificate(Strict):
    """The public certificate is signed by the site's own CA `public`."""

    source: Literal["private_ca"] = Field(description="where it comes from: the site's own CA")


class FileCertificate(Strict):
    """The public certificate is a pair of files on the controller."""

    source: Literal["files"] = Field(description="where it comes from: files of yours")
    certificate: Path = Field(description="PEM file on the controller: the certificate and its chain")
    key: Path = Field(description="PEM file on the controller: the key, readable by you only")


class Review(Strict):
    """The decision to open the service: who has read the threat analysis, when, and which text it was."""

    by: str = Field(description="who decided and answers for it", min_length=2)
    date: dt.date = Field(description="the day of the decision, YYYY-MM-DD")
    analysis: str = Field(description="the text's SHA-256, as `lemonstand threat-analysis --hash` prints it", pattern=r"^[0-9a-f]{64}$")


class Expected(Waiver):
    """Something on hosts that the site adds on purpose, beside what roles, packages and the installer bring.

    Args:
        kind: what it is, as `lemonstand verify` names it.
        item: its name there, a shell pattern.
        hosts: patterns of host names; none: every host.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    kind: Literal[
        "packages",
        "files",
        "units",
        "accounts",
        "keys",
        "sockets",
        "filters",
        "routes",
        "kernel",
        "mounts",
        "processes",
        "copies",
        "logs",
        "clock",
    ] = Field(description="the kind, as a verification names it")
    item: str = Field(description="what a verification calls it, or a shell pattern", min_length=1)
    hosts: tuple[str, ...] = Field((), description="patterns of host names; none: every host")

    @model_validator(mode="after")
    def _says_something(self) -> Expected:
        if not self.item.strip("*?/ "):
            raise ValueError(f"the item '{self.item}' would hide everything of kind {self.kind}")
        return self


class Acceptance(Strict):
    """The word of a site's owner that a deviation, which is proposed to him, is accepted."""

    id: str = Field(description="the deviation, as `lemonstand report` names it, such as PRO-W1", pattern=r"^[A-Z][A-Z0-9]*(-[A-Z0-9]+)+$")
    by: str = Field(description="who accepts it and answers for it", min_length=2)
    date: dt.date = Field(description="the day it was accepted, YYYY-MM-DD")


class Parties(Strict):
    """Who an assessment is for and by, and what of the site it covers."""

    owner: str = Field("", description="who owns the site and signs for it")
    assessor: str = Field("", description="who assesses it")
    scope: str = Field("", description="what is assessed, if it is not the whole site")


class Middlebox(Strict):
    """A balancer or an appliance of the operator's own on the path, which lemonstand does not configure."""

    name: str = Field(description="what the operator calls it", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    between: tuple[ZoneName, ZoneName] = Field(description="the two zones it stands between, such as [internet, dmz]")
    established: StrictInt = Field(description="seconds it remembers an established connection on which nothing is sent", ge=1)
    transitory: StrictInt | None = Field(None, description="seconds it remembers a connection that opens or closes", ge=1)
    waiver: Waiver | None = Field(None, description="{reason, owner, date, expires}, if it can't do what it should")

    @model_validator(mode="after")
    def _two_zones(self) -> Middlebox:
        if self.between[0] == self.between[1]:
            raise ValueError(f"'{self.name}' stands between {self.between[0]} and itself")
        return self

    @property
    def hop(self) -> str:
        """For instance `internet and dmz`."""
        return " and ".join(self.between)


class CertificateSigner(Strict):
    """Who has the keys of the private CAs, if that is not this controller (docs/decisions/0053)."""

    command: tuple[str, ...] = Field(
        description="the command, word by word, that asks the signer; it is run on the controller for each question", min_length=1
    )


class AcmeCertificate(Strict):
    """The public certificate comes from an ACME server; the frontend itself asks for it and renews it."""

    source: Literal["acme"] = Field(description="where it comes from: an ACME server")
    directory: str = Field(description="URL of the ACME server's directory (RFC 8555)", pattern=r"^https://[^\s]+$")
    email: AnyAddress | None = Field(None, description="where the CA may write to")
    server_ca: Path | None = Field(None, description="PEM file on the controller: the CA of the ACME server's own HTTPS, if a private one")
    roots: Path | None = Field(None, description="PEM file on the controller: what clients trust, if none of the system's; for checks")


class BackupService(Strict):
    """Where backups go: a restic REST server that takes them and gives none away to be deleted."""

    name: HostName = Field(description="the name in its certificate; hosts learn its addresses from here")
    addresses: tuple[IPv4Address | IPv6Address, ...] = Field(description="its addresses, inside the site's zones", min_length=1)
    port: StrictInt = Field(8000, description="the TCP port it listens on", ge=1, le=65535)
    ca: Path | None = Field(None, description="PEM file on the controller: who signs its certificate; none: the site's own CA `backups`")


class SmarthostService(Strict):
    """Who takes the site's mail to others and hands it on."""

    name: HostName = Field(description="the name in its certificate")
    addresses: tuple[IPv4Address | IPv6Address, ...] = Field(description="its addresses; each is tried in turn", min_length=1)
    port: StrictInt = Field(587, description="the TCP port it listens on; 465: TLS from the first octet on", ge=1, le=65535)
    user: str = Field(description="the name relays log in with", pattern=r"^[^\s:]{1,254}$")
    password_file: Path = Field(description="file on the controller with the password in its one line, readable by its owner alone")
    ca: Path | None = Field(None, description="PEM file on the controller: who signs its certificate; none: the CAs Debian knows")
    spf: str | None = Field(
        None,
        description="what SPF says of where it sends from, such as include:_spf.example.net; none: its addresses",
        pattern=r"^[!-~]+( [!-~]+)*$",
    )


class PackageSource(Strict):
    """A part of a mirror, as deb822-sources(5) has it."""

    path: str = Field(description="its path on the mirror, such as /debian", pattern=r"^/[A-Za-z0-9._~/+-]*$")
    suites: tuple[str, ...] = Field(description="suites, such as trixie; a flat repository has ./", min_length=1)
    components: tuple[str, ...] = Field(("main",), description="components; of a flat repository, none")

    @model_validator(mode="after")
    def _flat_or_not(self) -> PackageSource:
        word = re.compile(r"[A-Za-z0-9._~/+-]+")
        for each in (*self.suites, *self.components):
            if not word.fullmatch(each):
                raise ValueError(f"'{each}' is no name of a suite or component")
        if any(each.endswith("/") for each in self.suites) == bool(self.components):
            raise ValueError("a suite that ends in / is a flat repository and has no components (components: []); any other has some")
        return self


class MirrorService(Strict):
    """Where hosts fetch packages, whose index is signed."""

    name: HostName = Field(description="its name; hosts learn its addresses from here")
    addresses: tuple[IPv4Address | IPv6Address, ...] = Field(description="its addresses", min_length=1)
    port: StrictInt = Field(80, description="the TCP port it listens on", ge=1, le=65535)
    sources: tuple[PackageSource, ...] = Field(
        (), description="its parts: [{path, suites, components}]; none: Debian's release, its updates and its security updates"
    )
    key: Path | None = Field(
        None, description="file on the controller with the key its index is signed by, in ASCII armor; none: Debian's own"
    )
    ca: Path | None = Field(None, description="PEM file on the controller: who signs its certificate, where it speaks HTTPS; none: HTTP")


class DirectorySearch(Strict):
    """How a user's entry is found in a directory behind."""

    base: str = Field(description="distinguished name the search begins at", min_length=1)
    filter: str = Field(description="finds one entry: a filter (RFC 4515) with {login}, {local} and {domain}", pattern=r"^\(.*\)$")
    bind_name: str = Field(description="distinguished name of who searches", min_length=1)
    password_file: Path = Field(description="file on the controller with its password in its one line, readable by its owner alone")


class DirectoryService(Strict):
    """A directory of the organisation's own, LDAP or Active Directory, that judges users' passwords."""

    name: HostName = Field(description="the name in its certificate")
    addresses: tuple[IPv4Address | IPv6Address, ...] = Field(
        description="its addresses, in a zone of the site or private ones; asked in turn", min_length=1
    )
    port: StrictInt = Field(636, description="the TCP port it listens on, with TLS from the first octet on", ge=1, le=65535)
    ca: Path = Field(description="PEM file on the controller: who signs its certificate")
    bind_name: str | None = Field(
        None, description="the name a user binds as: a distinguished name with {login}, {local} and {domain}, or a userPrincipalName"
    )
    search: DirectorySearch | None = Field(None, description="how an entry is found, in place of bind_name")
    domains: tuple[HostName, ...] = Field((), description="mail domains whose users it judges; none: all of the site")
    own_passwords: tuple[str, ...] = Field((), description="users whose passwords stay here, such as those of checks")
    locks_after: StrictInt = Field(10, description="wrong passwords after which it locks an account", ge=3, le=1000)
    locks_seconds: StrictInt = Field(
        1800, description="seconds without a wrong password after which it has forgotten those before", ge=60, le=86400
    )

    def judges(self, login: str) -> bool:
        """Whether it judges a user's password."""
        own = {each.lower() for each in self.own_passwords}
        return login not in own and (not self.domains or login.rpartition("@")[2] in self.domains)


Service = BackupService | SmarthostService | MirrorService | DirectoryService


class Services(Strict):
    """What others run for the site; each opens its flows once it is named."""

    backup: BackupService | None = Field(None, description="where backups go: {name, addresses, port, ca}")
    smarthost: SmarthostService | None = Field(
        None, description="who hands on mail to others: {name, addresses, port, user, password_file, ca, spf}"
    )
    directory: DirectoryService | None = Field(
        None,
        description="who judges passwords: {name, addresses, port, ca, bind_name or search, domains, own_passwords, locks_after, …}",
    )

    mirror: MirrorService | None = Field(
        None, description="where edges, auth hosts and stores fetch packages: {name, addresses, port, sources, key, ca}"
    )
    mirror_dmz: MirrorService | None = Field(None, description="where frontends and relays fetch packages: as `mirror`")

    def at(self, end: str) -> Service | None:
        """The service that an end of flows is named after; None: it is another end, or none is named."""
        found: Service | None = getattr(self, end) if end in type(self).model_fields else None
        return found

    def conditions(self) -> dict[str, bool]:
        """Which conditions of flows hold."""
        named = {name: getattr(self, name) is not None for name in type(self).model_fields}
        return {**named, "no_smarthost": self.smarthost is None}

    def mirror_of(self, groups: Iterable[str]) -> MirrorService | None:
        """Where a host of some groups fetches packages; None: nowhere."""
        return self.mirror_dmz if {"frontends", "relays"} & set(groups) else self.mirror


class SiteSettings(Strict):
    """Variables that say the same on every host of the site (without their prefix `lemonstand_`)."""

    site_name: str = Field(description="the site's short name (a-z, 0-9, hyphen)", pattern=r"^[a-z][a-z0-9-]{0,30}$")
    zones: dict[str, Zone] = Field(description="the networks of the zones dmz, auth, store, management")
    mail_domains: tuple[HostName, ...] = Field(description="the domains this site receives mail for", min_length=1)
    public_name: HostName = Field(description="the name handsets connect to, such as mail.example.org")
    mx_name: HostName = Field(description="the name in the MX record, such as mx.example.org")
    internal_domain: HostName = Field(description="the domain of the hosts' inner names, such as site.example.org")
    public_ipv4: IPv4Address | None = Field(
        _default("public_ipv4"), description="the address on the edge that is translated to the frontend and the relay"
    )
    routed_ipv4: StrictBool = Field(
        _default("routed_ipv4"),
        description="whether the Internet has a route to the DMZ's IPv4 network: frontends and relays are met at their own addresses, "
        "and nothing is translated",
        examples=[True],
    )
    edge_addresses: dict[ZoneName, SharedAddress] = Field(
        _default("edge_addresses"),
        description="with two edges: the addresses they share, which the one at work holds: {zone: {ipv4, ipv6}}; "
        "hosts and the Internet know these alone",
        examples=[{"dmz": {"ipv4": "192.0.2.1", "ipv6": "2001:db8:0:2::1"}}],
    )
    controllers: tuple[IPv4Address | IPv6Address, ...] = Field(description="the addresses that may open SSH", min_length=1)
    tls_profile: Literal["both", "seed-strict", "modern"] = Field(
        _default("tls_profile"), description="one of " + ", ".join(TLS_PROFILES), examples=["modern"]
    )
    timer_profile: str = Field(
        _default("timer_profile"), description="the name of a profile in playbooks/timers.yml", examples=["nat-hostile"]
    )
    timers: dict[str, StrictInt] = Field(
        _default("timers"),
        description="numbers that differ from the profile's: {timer of playbooks/timers.yml: seconds}",
        examples=[{"idle_notify": 1200}],
    )
    middleboxes: tuple[Middlebox, ...] | None = Field(
        _default("middleboxes"),
        description="balancers and appliances of your own on the path: a list of {name, between, established, transitory, waiver}, "
        "[] if there is none",
        examples=[[{"name": "balancer", "between": ["internet", "dmz"], "established": 7440}]],
    )
    managesieve: StrictBool = Field(
        _default("managesieve"), description="whether clients may manage their Sieve scripts (ManageSieve on 4190)"
    )
    self_service: StrictBool = Field(
        _default("self_service"),
        description="whether users may change their own passwords, on a page of the frontends (HTTPS on 443)",
    )
    users: tuple[User, ...] = Field(
        description="the mailboxes to begin with: a list of {name, store, aliases, password_hash}; each is seeded once, and "
        "commands change it then"
    )
    probe_users: tuple[MailAddress, ...] = Field(
        _default("probe_users"),
        description="two or more of the users, kept for live checks: their mailboxes are written to and emptied",
        max_length=16,
        examples=[["probe-one@example.org", "probe-two@example.org"]],
    )
    devices_per_user: StrictInt = Field(
        _default("devices_per_user"), description="devices one user connects at a time", ge=1, le=MAX_DEVICES
    )
    room_for: StrictInt | None = Field(
        _default("room_for"),
        description="for how many users limits and tables are made, since the directory may get more than `lemonstand_users` has; "
        "left out: for as many as that has",
        ge=1,
        examples=[10000],
    )
    deleted_mail_days: StrictInt = Field(
        _default("deleted_mail_days"),
        description="days that the mail of a deleted user is kept, before `lemonstand user purge` removes it",
        ge=0,
        examples=[90],
    )
    message_size_limit: StrictInt = Field(_default("message_size_limit"), description="the largest message in bytes", ge=MIN_MESSAGE_SIZE)
    quota: StrictInt = Field(
        _default("quota"),
        description="the most a user's mail may take, in bytes: from there on his mail is put off; 0: no limit",
        ge=0,
        examples=[2147483648],
    )
    pki_dir: Path = Field(description="absolute directory on the controller with the private CAs")
    signer: CertificateSigner | None = Field(
        _default("signer"),
        description="who has the keys of the private CAs instead: {command}; `pki_dir` has their certificates alone then",
        examples=[{"command": ["ssh", "-F", "/srv/lemonstand/signer.ssh", "signer", "sign"]}],
    )
    public_certificate: Annotated[PrivateCaCertificate | FileCertificate | AcmeCertificate, Field(discriminator="source")] = Field(
        _default("public_certificate"),
        description="{source: private_ca}, or {source: files, certificate: …, key: …}, or {source: acme, directory: …}",
    )
    services: Services = Field(
        _default("services"),
        description="what others run: `backup`, `smarthost`, `mirror`, `mirror_dmz`, `directory`; what is not named is off, flows too",
        examples=[{"backup": {"name": "backup.example.org", "addresses": ["192.0.2.250"]}}],
    )
    update_days: StrictInt = Field(
        _default("update_days"),
        description="days that an update may wait on a host before verifications fail (OPS-22)",
        ge=1,
        le=365,
        examples=[14],
    )
    flows_extra: tuple[Flow, ...] = Field(
        _default("flows_extra"),
        description="flows this site adds, in the form of playbooks/flows.yml",
        examples=[
            [
                {
                    "name": "partner-mail", "from": "relays", "to": "internet", "protocol": "tcp", "ports": [2525],
                    "reason": "a partner takes mail on this port alone",
                }
            ]
        ],
    )  # fmt: skip
    flows_disabled: tuple[str, ...] = Field(
        _default("flows_disabled"), description="names of flows this site does without", examples=[["implicit-tls"]]
    )
    expected: tuple[Expected, ...] = Field(
        _default("expected"),
        description="what the site adds to hosts on purpose: a list of {kind, item, hosts, reason, owner, date, expires}",
        examples=[
            [
                {
                    "kind": "units",
                    "item": "node-exporter.service",
                    "hosts": ["store*"],
                    "reason": "the monitoring reads it",
                    "owner": "Jane Doe",
                    "date": "2026-11-30",
                    "expires": "2027-05-30",
                }
            ]
        ],
    )
    waivers: tuple[ControlWaiver, ...] = Field(
        _default("waivers"),
        description="requirements this site knowingly does not meet: a list of {id, title, controls, reason, owner, date, expires}",
        examples=[
            [
                {
                    "id": "SITE-W1",
                    "title": "no mail by IPv6",
                    "controls": ["LEM-3-05"],
                    "reason": "the provider has none yet",
                    "owner": "Jane Doe",
                    "date": "2026-11-30",
                    "expires": "2027-05-30",
                }
            ]
        ],
    )
    accepts: tuple[Acceptance, ...] = Field(
        _default("accepts"),
        description="deviations that are proposed and that this site accepts: a list of {id, by, date}",
        examples=[[{"id": "PRO-W1", "by": "Jane Doe", "date": "2026-11-30"}]],
    )
    assessment: Parties = Field(
        _default("assessment"),
        description="{owner, assessor, scope}: what reports name; what is empty is left to be filled in by hand",
        examples=[{"owner": "Jane Doe, Example Ltd", "assessor": "John Roe, Audit Ltd"}],
    )
    review: Review | None = Field(
        _default("review"),
        description="{by, date, analysis}: the decision to open the service, after the threat analysis",
        examples=[{"by": "Jane Doe", "date": "2026-11-30", "analysis": "b65f…20ebd"}],
    )
    dovecot_extra: dict[Literal["frontends", "stores"], dict[SettingName, SettingValue]] = Field(
        _default("dovecot_extra"),
        description="the site's own settings of Dovecot, by group: {frontends: {setting: value}, stores: {setting: value}}; "
        "what controls depend on is refused",
        examples=[{"stores": {"mail_max_keyword_length": 80}}],
    )
    postfix_extra: dict[SettingName, SettingValue] = Field(
        _default("postfix_extra"),
        description="the site's own settings of Postfix on relays: {setting: value}; what controls depend on is refused",
        examples=[{"qmgr_message_active_limit": 30000}],
    )
    relay_milters: tuple[Annotated[str, Field(pattern=MILTER)], ...] = Field(
        _default("relay_milters"),
        description="mail filters on each relay, in their order, as Postfix names them: unix:/PATH or inet:127.0.0.1:PORT; "
        "one that gives no answer puts mail off",
        examples=[["inet:127.0.0.1:11332"]],
    )
    drop_ins: dict[Literal["frontends", "auths", "stores", "relays"], dict[str, Annotated[str, Field(max_length=MAX_DROP_IN)]]] = Field(
        _default("drop_ins"),
        description="the site's own text for Dovecot and for services, by kind of host and program: "
        "{stores: {dovecot: …, dovecot.service: …}}; what controls depend on is refused",
        examples=[{"stores": {"dovecot.service": "[Service]\nMemoryHigh=6G\n"}}],
    )
    dmarc_policy: Literal["none", "quarantine", "reject"] = Field(
        _default("dmarc_policy"),
        description="what others are asked to do with mail in the domains' names that neither SPF nor DKIM shows to be theirs (DMARC)",
        examples=["quarantine"],
    )
    foreign_variables: tuple[str, ...] = Field(
        _default("foreign_variables"), description="names of variables in this folder that belong to others", examples=[["backup_server"]]
    )

    @property
    def room(self) -> int:
        """For how many users limits and tables are made."""
        return max(len(self.users), self.room_for or 0)


class HostSettings(Strict):
    """Variables that may differ from host to host (without their prefix `lemonstand_`)."""

    interfaces: dict[str, Interface] = Field(
        _default("interfaces"),
        description="the host's legs: {zone: {device, ipv4, ipv6}}",
        examples=[{"dmz": {"device": "ens3", "ipv4": "192.0.2.10", "ipv6": "2001:db8:0:2::10"}}],
    )
    ntp_servers: tuple[IPv4Address | IPv6Address, ...] = Field(
        _default("ntp_servers"), description="addresses of time servers", examples=[["192.0.2.1"]]
    )
    dns_resolvers: tuple[IPv4Address | IPv6Address, ...] = Field(
        _default("dns_resolvers"), description="addresses of resolvers", examples=[["198.51.100.53"]]
    )
    clock_is_ours: StrictBool = Field(_default("clock_is_ours"), description="false where the host may not set its clock, in a container")
    foreign_tables: tuple[Annotated[str, Field(pattern=FOREIGN_TABLE)], ...] = Field(
        _default("foreign_tables"),
        description="nftables tables of others that may drop or translate: a list such as [inet f2b-table]; each is for you to judge",
        examples=[["inet f2b-table"]],
    )
    accept_ra: tuple[ZoneName, ...] = Field(
        _default("accept_ra"),
        description="zones in which routers tell this host its IPv6 route (router advertisements); elsewhere nobody is listened to",
        examples=[["dmz"]],
    )
    ssh_users: tuple[Annotated[str, Field(pattern=ACCOUNT)], ...] = Field(
        _default("ssh_users"),
        description="accounts that may log in by SSH beside the one Ansible comes as (ansible_user)",
        examples=[["alice"]],
    )
    standby_of: str | None = Field(
        _default("standby_of"),
        description="of a host in stores: the store whose mail it keeps a copy of, and in whose place it serves once it is promoted",
        examples=["store1"],
    )
    user_passwords: dict[str, SecretStr] = Field(
        _default("user_passwords"),
        description="{login name: password} to seed the directory with; from a vault",
        examples=[{"probe-one@example.org": "{{ vault_probe_one }}"}],
    )


class Host(Strict):
    """A host of the inventory."""

    name: str
    groups: tuple[str, ...]
    settings: HostSettings
    shell_port: int = 22
    """The port Ansible comes in by."""

    @property
    def role_groups(self) -> tuple[str, ...]:
        """The groups of the site it is in (edges, frontends, …)."""
        return tuple(group for group in ROLE_GROUPS if group in self.groups)

    @property
    def interfaces(self) -> dict[str, Interface]:
        """Its legs by zone."""
        return self.settings.interfaces

    @property
    def way_in(self) -> str | None:
        """The zone by which controllers reach it: management; with one leg alone, that leg's (record 0051). None: it has no leg."""
        return MANAGEMENT if MANAGEMENT in self.interfaces else next(iter(self.interfaces), None)


class Site(Strict):
    """A whole site that passed every rule."""

    inventory: Path
    settings: SiteSettings
    hosts: dict[str, Host]
    apart: dict[str, Host] = {}
    """Machines of a lab of which the site knows an address alone (`lemonstand_services`)."""
    flows: Flows
    timers: Timers

    @cached_property
    def active_flows(self) -> tuple[Flow, ...]:
        """The flows of this site: the shipped ones without the disabled ones, and its own, where their condition holds."""
        disabled = set(self.settings.flows_disabled)
        every = (*self.flows.flows, *self.settings.flows_extra)
        conditions = {
            "implicit_tls": self.settings.tls_profile != "seed-strict",
            "managesieve": self.settings.managesieve,
            "self_service": self.settings.self_service,
            "acme": self.settings.public_certificate.source == "acme",
            **self.settings.services.conditions(),
            **several(self.group),
        }
        return tuple(self._at_its_port(flow) for flow in every if flow.name not in disabled and flow.holds(conditions))

    def _at_its_port(self, flow: Flow) -> Flow:
        """A flow with the port on which the site's service listens, if it leads to one."""
        service = self.settings.services.at(flow.destination)
        return flow if service is None else flow.model_copy(update={"ports": (service.port,)})

    @cached_property
    def own_flows(self) -> frozenset[str]:
        """The names of the flows that the site itself adds."""
        return frozenset(flow.name for flow in self.settings.flows_extra)

    @cached_property
    def timers_in_force(self) -> dict[str, int]:
        """The numbers of the site's profile, with those the site changes."""
        return {**self.timers.profiles[self.settings.timer_profile], **self.settings.timers}

    def own_settings(self, host: str) -> dict[str, dict[str, str]]:
        """What the site itself sets on a host: {program: {setting: value as the program has it}}."""
        groups, found = self.hosts[host].groups, {}
        for group, settings in self.settings.dovecot_extra.items():
            if group in groups and settings:
                found["dovecot"] = settings
        if "relays" in groups:
            milters = {"smtpd_milters": ", ".join(self.settings.relay_milters)} if self.settings.relay_milters else {}
            found |= {"postfix": {**self.settings.postfix_extra, **milters}} if self.settings.postfix_extra or milters else {}
        plain = {True: "yes", False: "no"}
        return {
            program: {name: plain[value] if isinstance(value, bool) else str(value) for name, value in settings.items()}
            for program, settings in found.items()
        }

    def drop_ins(self, host: str) -> dict[str, str]:
        """The site's own text on a host, by program: `dovecot`, or a unit."""
        groups = self.hosts[host].groups
        return {name: text for group, texts in self.settings.drop_ins.items() if group in groups for name, text in texts.items()}

    def group(self, name: str) -> tuple[Host, ...]:
        """The hosts of a group, in the order of the inventory."""
        return tuple(host for host in self.hosts.values() if name in host.groups)

    @cached_property
    def pairs(self) -> dict[str, tuple[str, ...]]:
        """The stores by name, each with the hosts that may serve its users: itself, then its standby."""
        stores = self.group("stores")
        return {
            store.name: (store.name, *(other.name for other in stores if other.settings.standby_of == store.name))
            for store in stores
            if store.settings.standby_of is None
        }

    def store_of(self, user: User) -> str:
        """The inventory name of the store that has a user's mailbox when the site begins; where it is now is the placement's to say."""
        return user.store or next(iter(self.pairs))

    def password_of(self, name: str) -> str | None:
        """The password a user was seeded with, None if the inventory has a hash only."""
        for host in self.hosts.values():
            if name in host.settings.user_passwords:
                return host.settings.user_passwords[name].get_secret_value()
        return None

    def met_at(self, host: Host, version: int) -> IPv4Address | IPv6Address | None:
        """The address at which the Internet meets a frontend or relay; None: by that IP version it does not."""
        if version == 4 and not self.settings.routed_ipv4:
            return self.settings.public_ipv4
        leg = host.interfaces["dmz"]
        return leg.ipv4 if version == 4 else leg.ipv6

    @property
    def client_roots(self) -> Path | None:
        """PEM file on the controller with the roots clients of this site trust; None: those of their systems."""
        certificate = self.settings.public_certificate
        if isinstance(certificate, AcmeCertificate):
            return certificate.roots
        return self.settings.pki_dir / "public" / "ca.crt" if isinstance(certificate, PrivateCaCertificate) else None

    @property
    def is_lab(self) -> bool:
        """Whether it has machines that stand for the rest of the world."""
        return bool(self.group("peers"))


def variables() -> dict[str, Any]:
    """Every variable of a site with its meaning: name to description."""
    return {PREFIX + name: info.description for model in (SiteSettings, HostSettings) for name, info in model.model_fields.items()}
