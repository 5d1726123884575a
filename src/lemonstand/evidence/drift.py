"""What differs between a site as it runs and as its last evidence saw it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lemonstand.evidence.compare import Change, code_told, hosts
from lemonstand.evidence.identity import code, inventory_hash
from lemonstand.remote.connections import Connection
from lemonstand.remote.facts import Facts
from lemonstand.remote.gather import described, gather_facts
from lemonstand.remote.prober import Prober
from lemonstand.site import Site


def drift(site: Site, evidence: Mapping[str, Any], connections: Mapping[str, Connection]) -> list[Change]:
    """Reads every host of the site and compares it with evidence; changes nothing.

    Args:
        site: the model.
        evidence: schema 2.
        connections: how to reach its hosts.

    Returns:
        What differs: the inventory, lemonstand itself, hosts with their versions and state. Hosts that can't be read are told as such.
    """
    names = [host.name for host in site.hosts.values() if host.role_groups]
    with Prober(dict(connections)) as prober:
        taken = gather_facts(prober, names)
    changes = []
    now = inventory_hash(site.inventory)
    if evidence["inventory"] != now:
        changes.append(Change("inventory", "files", evidence["inventory"][:12], now[:12]))
    if evidence["code"]["sha256"] != code()["sha256"]:
        changes.append(Change("lemonstand", "itself", code_told(evidence), code_told({**evidence, "code": code()})))
    changes += [Change("host", name, "there", str(problem)) for name, problem in taken.items() if not isinstance(problem, Facts)]
    read = {name: described(facts) for name, facts in taken.items() if isinstance(facts, Facts)}
    # Hosts whose state the evidence does not know (a run that looked elsewhere) can't have changed since.
    seen = {name: host for name, host in evidence["hosts"].items() if "state" in host}
    gone = set(seen) - set(names)
    known = {name: host for name, host in seen.items() if name in read or name in gone}
    return [*changes, *hosts(known, {name: host for name, host in read.items() if name in seen or name not in evidence["hosts"]})]
