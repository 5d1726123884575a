"""Keys that sign tickets: what is on each issuer, and which of them the stores take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from lemonstand.admin.access import Hosts
from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir
from lemonstand.site import Site

STORE_KEYS = "/etc/lemonstand/ticket-keys/default/RS256"


@dataclass(frozen=True)
class TicketKey:
    """A signing key.

    Args:
        kid: its fingerprint.
        issuer: the host that has it.
        state: `signs`, `next`, `old`; `unknown` if a store takes it and no issuer has it.
        made: the day; empty if unknown.
        stores: who takes its tickets.
    """

    kid: str
    issuer: str
    state: str
    made: str
    stores: tuple[str, ...]


def list_keys(site: Site, hosts: Hosts) -> list[TicketKey]:
    """Every key of every issuer, and those that stores take beside them.

    Raises:
        LemonstandError: a host gave no answer.
    """
    program = (data_dir("roles") / "ticket_issuer" / "files" / "ticket_keys.py").read_text(encoding="utf-8")
    stores = [host.name for host in site.group("stores")]
    taken: dict[str, list[str]] = {}
    for store, answer in hosts.run_on(stores, ["ls", STORE_KEYS]).items():
        if isinstance(answer, LemonstandError):
            raise answer
        for kid in answer.split():
            taken.setdefault(kid, []).append(store)
    rows = []
    for host in site.group("auths"):
        said = hosts.run(host.name, ["/usr/bin/python3", "-"], f"{program}\nraise SystemExit(rotate('list', bits=0))\n")
        for kid, entry in json.loads(said)["keys"].items():
            made = datetime.fromtimestamp(entry["made"], UTC).date().isoformat() if entry["made"] else ""
            rows.append(TicketKey(kid, host.name, entry["state"], made, tuple(taken.pop(kid, []))))
    return rows + [TicketKey(kid, "", "unknown", "", tuple(where)) for kid, where in taken.items()]
