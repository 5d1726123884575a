"""Writes to which store each user's mail goes, and where the second copy of it, from the placement (docs/decisions/0036).

A user whose store has a standby gets each message twice: his store by LMTP, as ever, and the standby's shelf, as an address of its own in
the domain `DOMAIN.STORE.kept`. Both are recipients of one message, so the relay's queue keeps it until both have it.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, "/usr/local/lib/lemonstand")

import placement

SETTINGS = Path("/etc/lemonstand/relay-placement.json")
ALIASES = Path("/etc/postfix/aliases")
PLACE = Path("/var/lib/lemonstand/relay")
KEPT = "kept"
EVERYBODY = "all"
"""In place of a store's name: of an address that is several users'."""


def tables(told: dict[str, Any], settings: dict[str, Any], aliases: str) -> dict[str, str]:
    """Return Postfix's tables by name.

    Args:
        told: the placement.
        settings: `members` ({store: [host]}), `addresses` ({host: [address]}), `users` ({address: user}: login names and the aliases that
            are one user's alone), `domains`, `port`.
        aliases: the table of addresses that are several users'.
    """
    members, everybody = settings["members"], settings["users"]
    hops = {
        host: "lmtp:" + ", ".join(f"[{address}]:{settings['port']}" for address in addresses)
        for host, addresses in settings["addresses"].items()
    }
    paired = {store for store, hosts in members.items() if len(hosts) > 1}
    transport, kept, shelves = [], {}, {}
    for address, user in sorted(everybody.items()):
        store = told["users"].get(user)
        if store not in members:
            continue
        transport.append(f"{address} {hops[placement.active(told, store)]}")
        if store in paired:
            kept[address] = f"{address}.{store}.{KEPT}"
    for store in sorted(paired):
        other = next(host for host in members[store] if host != placement.active(told, store))
        transport.append(f".{store}.{KEPT} {hops[other]}")
    for line in aliases.splitlines():
        address, _, users = line.partition(" ")
        copies = [kept[user.strip()] for user in users.split(",") if user.strip() in kept]
        if not line.startswith("#") and copies:
            kept[address] = f"{address}.{EVERYBODY}.{KEPT}"
            shelves[kept[address]] = ", ".join(copies)
    transport += [f"{domain} error:5.1.1 no such user here" for domain in settings["domains"]]
    lines = {
        "transport": transport,
        "kept": [f"{address} {copy}" for address, copy in sorted(kept.items())],
        "kept_aliases": [f"{address} {copies}" for address, copies in sorted(shelves.items())],
    }
    return {name: "".join(f"{line}\n" for line in each) for name, each in lines.items()}


def main() -> int:
    """Write the tables; if one differs, let Postfix read them anew, which cuts nothing off."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
    changed = []
    for name, text in tables(placement.read(), settings, ALIASES.read_text(encoding="utf-8")).items():
        path = PLACE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        temporary = path.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)
        temporary.replace(path)
        changed.append(name)
    if changed:
        print(f"changed: {PLACE} ({', '.join(changed)})")
        if subprocess.run(["systemctl", "is-active", "--quiet", "postfix.service"], check=False).returncode == 0:
            subprocess.run(["postfix", "reload"], capture_output=True, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
