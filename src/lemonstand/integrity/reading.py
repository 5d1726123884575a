"""Reads all hosts of a site, works out what they should hold, and compares: nothing is changed on any host."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lemonstand.deploy.manifest import read_manifest
from lemonstand.integrity.discrepancies import Discrepancy
from lemonstand.integrity.judge import judge
from lemonstand.integrity.known import Known, common_databases
from lemonstand.outcomes import Invalid, Unanswered
from lemonstand.remote.connections import Connection
from lemonstand.remote.prober import Prober
from lemonstand.site import Site
from lemonstand.site.shipped import filter_plugin
from lemonstand.surroundings import environment

READ_SECONDS, READ_SECONDS_A_HOST = 180, 30
"""How long the reading of a host may take; more for each host beside it, since a lab's hosts are read on one machine, all at once."""


@dataclass
class Integrity:
    """What came of it.

    Args:
        found: by host and kind.
        declared: by host, what the site says it adds on purpose, as `kind item`.
        unread: why a host could not be read.
        cpu: seconds of CPU that the reading took on each host.
    """

    found: dict[str, dict[str, list[Discrepancy]]] = field(default_factory=dict)
    declared: dict[str, list[str]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def of(self, host: str, kind: str) -> list[Discrepancy]:
        """The discrepancies of one kind on a host.

        Raises:
            Invalid: it could not be read.
        """
        if host in self.unread:
            raise Invalid(self.unread[host])
        return self.found[host][kind]


def read_integrity(site: Site, prober: Prober) -> Integrity:
    """Reads and compares.

    Args:
        site: the model.
        prober: asks its hosts.

    Raises:
        LemonstandError: what hosts should hold can't be worked out.
    """
    names = [host.name for host in site.hosts.values() if host.role_groups]
    found = Integrity()

    def ask(name: str) -> Mapping[str, Any] | None:
        try:
            answer: Mapping[str, Any] = prober.ask(name, "integrity", seconds=READ_SECONDS + len(names) * READ_SECONDS_A_HOST)
        except Unanswered as problem:
            found.unread[name] = f"{name} can't be read: {problem}"
            return None
        return answer

    auths = [host.name for host in site.group("auths")]
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(names)))) as pool:
        asked = {name: pool.submit(ask, name) for name in names}
        # What hosts should hold follows what auth hosts have; it is worked out while the others are still being read.
        issuers = {name: reading for name in auths if (reading := asked[name].result()) is not None}
        tickets = _tickets(issuers)
        held = read_manifest(site.inventory, _known_in_run(issuers, tickets), len(names))
        readings = {name: reading for name in names if (reading := asked[name].result()) is not None}
    databases = common_databases(readings.values())
    folders = sorted(path.parent for path in site.settings.pki_dir.glob("*/ca.crt"))
    plugin = filter_plugin("authorities")
    authorities = tuple(path.read_text(encoding="ascii") for folder in folders for path in plugin.certificate_files(folder))
    for name, reading in readings.items():
        own = held.get(name, {"files": [], "units": [], "accounts": [], "texts": {}})
        login, fingerprints = _ways_in(prober.connections[name])
        known = Known(
            host=name, site=site, entries={each["path"]: each for each in own["files"]}, units=tuple(own["units"]),
            accounts=tuple(own["accounts"]), texts=own["texts"], login=login, keys=fingerprints, tickets=frozenset(tickets.values()),
            authorities=authorities, databases=databases, asked=bool(prober.connections[name].password),
        )  # fmt: skip
        found.found[name], found.declared[name] = judge(reading, known)
        found.cpu[name] = float(reading["cpu"])
    return found


def _tickets(issuers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The public halves of the keys that issuers sign tickets with, by key id.

    Args:
        issuers: what was read from auth hosts.
    """
    return {
        path.rpartition("/")[2].removesuffix(".pem"): each["public"]
        for reading in issuers.values()
        for path, each in reading.get("tickets", {}).items()
        if path.startswith("/etc/lemonstand/ticket/public/") and "public" in each
    }


def _known_in_run(issuers: Mapping[str, Mapping[str, Any]], tickets: Mapping[str, str]) -> dict[str, Any]:
    """What a run finds out from auth hosts before it writes files: the keys of issuers, the suffixes of directories."""
    known: dict[str, Any] = {"all": {"mail_store_ticket_keys": {name: f"{pem}\n" for name, pem in tickets.items()}}, "hosts": {}}
    for name, reading in issuers.items():
        if suffix := reading.get("suffix"):
            answer = {"suffix": suffix, "made": True, "names": []}
            known["hosts"][name] = {"directory_found": {"answer": answer, "stdout": json.dumps(answer)}}
    return known


def _ways_in(way: Connection) -> tuple[str, frozenset[str]]:
    """The account by which Ansible comes in, and the fingerprints of all keys that ssh here would offer for it."""
    done = subprocess.run(
        ["ssh", "-G", *shlex.split(way.ssh_arguments), way.target],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=20,
    )
    settings = [line.partition(" ")[::2] for line in done.stdout.splitlines()]
    login = next((value for name, value in settings if name == "user"), "root")
    found: set[str] = set()
    for name, value in settings:
        if name == "identityfile":
            found |= _fingerprints("ssh-keygen", "-lf", re.sub(r"^~", environment().get("HOME", "~"), value))
    return login, frozenset(found | _fingerprints("ssh-add", "-l"))


@cache
def _fingerprints(*command: str) -> frozenset[str]:
    """What a command shows of keys; most hosts have the same."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment(), timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset(re.findall(r"\bSHA256:[A-Za-z0-9+/]+", done.stdout))
