"""What explains the things on a host: the manifest, the site's model, what it declares, and what Debian does by itself."""

from __future__ import annotations

import ast
import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lemonstand.paths import data_dir
from lemonstand.policy.debian import Debian, load_debian, matches
from lemonstand.site import Site

FIRST_MARK = 0x4C00
"""As `roles/edge/files/edge_watch.py` has it; the first frontend's is one more."""


@dataclass
class Known:
    """What one host may have.

    Args:
        host: its inventory name.
        site: the model.
        entries: the manifest's, by path.
        units: those that roles bring to their files.
        accounts: those that roles make.
        texts: of a few files, by path.
        login: the account by which Ansible comes in.
        keys: fingerprints of keys with which it may come in (`SHA256:…`).
        tickets: public keys (PEM) by which issuers sign, of all auth hosts.
        authorities: the certificates (PEM) of the CAs that the controller has for this site.
        databases: what most hosts have for a version of a package, by `package=version`.
        asked: whether sudo asks that account for a password: then it has one, which opens nothing by SSH.
        debian: the data that ships.
    """

    host: str
    site: Site
    entries: Mapping[str, Mapping[str, Any]]
    units: tuple[str, ...]
    accounts: tuple[str, ...]
    texts: Mapping[str, str]
    login: str
    keys: frozenset[str]
    tickets: frozenset[str]
    authorities: tuple[str, ...]
    databases: Mapping[str, str]
    asked: bool = False
    debian: Debian = field(default_factory=load_debian)

    @property
    def is_router(self) -> bool:
        """Whether it forwards what others send."""
        return "edges" in self.site.hosts[self.host].groups

    @property
    def addresses(self) -> set[str]:
        """Its own, as the inventory has them."""
        legs = self.site.hosts[self.host].interfaces.values()
        found = {str(address) for leg in legs for address in leg.addresses}
        public = self.site.settings.public_ipv4
        found |= {str(public)} if self.is_router and public else set()
        # Of a pair of edges either may hold what both share; of several frontends each answers for the others when an edge says so.
        found |= (
            {str(address) for pair in self.site.settings.edge_addresses.values() for address in pair.addresses} if self.is_router else set()
        )
        return found | (set(self._frontends.values()) if "frontends" in self.site.hosts[self.host].groups else set())

    @property
    def handed_on(self) -> dict[int, str]:
        """Of an edge, by the mark of connections of one frontend that it hands to another: that one's IPv6 address (record 0035)."""
        return self._frontends if self.is_router else {}

    @property
    def _frontends(self) -> dict[int, str]:
        frontends = self.site.group("frontends")
        if len(frontends) < 2 or not self.site.group("edges"):
            return {}
        legs = {number: host.interfaces["dmz"].ipv6 for number, host in enumerate(frontends, 1)}
        return {FIRST_MARK + number: str(address) for number, address in legs.items() if address is not None}

    @property
    def tables(self) -> set[str]:
        """The nftables tables that are ours on it."""
        several = any(len(self.site.group(group)) > 1 for group in ("frontends", "relays"))
        return {"inet lemonstand", "inet lemonstand_closed"} | ({"inet lemonstand_spread"} if self.is_router and several else set())

    @property
    def gateways(self) -> set[str]:
        """Where a host sends what is not for its own networks: the addresses of edges in its zones; empty at a site without an edge."""
        zones = set(self.site.hosts[self.host].interfaces)
        return {
            str(address)
            for edge in self.site.group("edges")
            for zone, leg in edge.interfaces.items()
            if zone in zones and edge.name != self.host
            for address in leg.addresses
        } | {str(address) for zone, pair in self.site.settings.edge_addresses.items() if zone in zones for address in pair.addresses}

    @property
    def time_servers(self) -> set[str]:
        """The names or addresses its clock was told to ask, as its configuration has them."""
        lines = [line.split() for line in self.texts.get("/etc/chrony/chrony.conf", "").splitlines()]
        return {words[1] for words in lines if len(words) > 1 and words[0] in {"server", "pool", "peer"}}

    def is_declared(self, kind: str, item: str) -> bool:
        """Whether the site says that it adds this on purpose, and that has not ended."""
        today = dt.datetime.now(dt.UTC).date()
        return any(
            each.kind == kind and matches(item, each.item) and (not each.hosts or matches(self.host, *each.hosts)) and today < each.expires
            for each in self.site.settings.expected
        )


@cache
def policy_after_a_crash() -> str:
    """SHA-256 of the drop-in that converge-service writes for each service (record 0023)."""
    source = (data_dir("roles") / "base" / "files" / "converge_service.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == "POLICY" for each in node.targets):
            return hashlib.sha256(str(ast.literal_eval(node.value)).encode()).hexdigest()
    raise ValueError("converge_service.py has no POLICY")


def common_databases(readings: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What most hosts' dpkg remembers of the files of each package, by `package=version`; of two that differ, neither is known."""
    counted: dict[str, dict[str, int]] = {}
    for reading in readings:
        for package, digest in reading["databases"].items():
            version = reading["packages"].get(package, ["?"])[0]
            votes = counted.setdefault(f"{package}={version}", {})
            votes[digest] = votes.get(digest, 0) + 1
    found = {}
    for name, votes in counted.items():
        ranked = sorted(votes.items(), key=lambda each: -each[1])
        if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
            found[name] = ranked[0][0]
    return found
