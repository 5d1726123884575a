"""Writes who gets mail here, from which addresses who may send, and where each user's mail goes (docs/decisions/0036 and 0041).

A user whose store has a standby gets each message twice: his store by LMTP, as ever, and the standby's shelf, as an address of its own in
the domain `DOMAIN.STORE.kept`. Both are recipients of one message, so the relay's queue keeps it until both have it.

The tables are compiled, and replaced in one step: Postfix sees that by itself before it begins with the next client, and nothing is
reloaded. What looks up transports sees it some seconds late. Meanwhile a new user's mail goes where his domain's goes: to a store, which
knows everybody, takes what is its own and puts off what is another's.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, "/usr/local/lib/lemonstand")

import placement

SETTINGS = Path("/etc/lemonstand/relay-placement.json")
ATTEMPT_SECONDS = 45
"""After so long an attempt to reach a silent host has ended, at all its addresses."""
PLACE = Path("/var/lib/lemonstand/relay")
KEPT = "kept"
EVERYBODY = "all"
"""In place of a store's name: of an address whose mail another one gets."""
ROLES = ("postmaster", "abuse")
"""What every domain owes the world (RFC 2142, RFC 5321 4.5.1)."""
HOST_ROLES = (*ROLES, "root", "mailer-daemon", "double-bounce")


def owners_of(told: dict[str, Any], members: dict[str, Any]) -> dict[str, str]:
    """Return each address with its user: login names and aliases of those whose store there is."""
    users = {user: user for user, store in told["users"].items() if store in members}
    return {**users, **{alias: user for alias, user in told["aliases"].items() if user in users}}


def role_addresses(owners: dict[str, str], settings: dict[str, Any]) -> dict[str, str]:
    """Return the addresses every domain owes the world and nobody has, with who reads their mail."""
    reader = settings["postmaster"] if settings["postmaster"] in owners else next(iter(sorted(owners)), "")
    wanted = [(role, domain) for domain in settings["domains"] for role in ROLES]
    wanted += [(role, settings["hostname"]) for role in HOST_ROLES]
    return {f"{role}@{domain}": reader for role, domain in wanted if reader and f"{role}@{domain}" not in owners}


def tables(told: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    """Return Postfix's tables by name, in the order in which they are written.

    Args:
        told: the placement.
        settings: `members` ({store: [host]}), `addresses` ({host: [address]}), `domains`, `hostname`, `postmaster`, `port`.
    """
    members = settings["members"]
    owners = owners_of(told, members)
    roles = role_addresses(owners, settings)
    hops = {
        host: "lmtp:" + ", ".join(f"[{address}]:{settings['port']}" for address in addresses)
        for host, addresses in settings["addresses"].items()
    }
    serving = {store: hops[placement.active(told, store)] for store in members}
    paired = {store for store, hosts in members.items() if len(hosts) > 1}
    first = next(iter(members))
    # A user's store is named where it is not the one his whole domain's mail goes to.
    places = {address: told["users"][user] for address, user in owners.items()}
    transport = [f"{address} {serving[store]}" for address, store in sorted(places.items()) if store != first]
    kept = {address: f"{address}.{store}.{KEPT}" for address, store in places.items() if store in paired}
    shelves = {}
    for store in sorted(paired):
        other = next(host for host in members[store] if host != placement.active(told, store))
        transport.append(f".{store}.{KEPT} {hops[other]}")
    for address, reader in sorted(roles.items()):
        if reader in kept:
            shelves[f"{address}.{EVERYBODY}.{KEPT}"] = kept[reader]
            kept[address] = f"{address}.{EVERYBODY}.{KEPT}"
    transport += [f"{domain} {serving[first]}" for domain in settings["domains"]]
    lines = {
        "transport": transport,
        "kept": [f"{address} {copy}" for address, copy in sorted(kept.items())],
        "kept_aliases": [f"{address} {copy}" for address, copy in sorted(shelves.items())],
        "senders": [f"{address} {user}" for address, user in sorted(owners.items())],
        "roles": [f"{address} {reader}" for address, reader in sorted(roles.items())],
        # Last: nobody gets mail before everything else knows him.
        "recipients": [f"{address} OK" for address in sorted(owners)],
    }
    return {name: "".join(f"{line}\n" for line in each) for name, each in lines.items()}


def write(path: Path, text: str) -> bool:
    """Replace a table and what is compiled of it; return whether it differed. One that was cut off is written again."""
    compiled, new = path.with_name(f"{path.name}.db"), path.with_name(f"{path.name}.new")
    if path.exists() and compiled.exists() and path.read_text(encoding="utf-8") == text:
        return False
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    subprocess.run(["postmap", f"hash:{new}"], capture_output=True, check=True)
    path.with_name(f"{new.name}.db").replace(compiled)
    new.replace(path)
    return True


def main() -> int:
    """Write the tables; say which differed."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
    changed = [name for name, text in tables(placement.read(), settings).items() if write(PLACE / name, text)]
    if changed:
        print(f"changed: {PLACE} ({', '.join(changed)})")
    # Another host serves: no message is to wait for the one that is gone. It cuts nothing off, and no change of people comes here.
    text, serving = json.dumps(placement.read()["active"], sort_keys=True), PLACE / "serving.json"
    if not serving.exists() or serving.read_text(encoding="utf-8") != text:
        if subprocess.run(["systemctl", "is-active", "--quiet", "postfix.service"], check=False).returncode == 0:
            subprocess.run(["postfix", "reload"], capture_output=True, check=True)
            # What was on its way to the host that is gone is put off when that attempt ends, and would rest for minutes.
            later = ["sh", "-c", f"sleep {ATTEMPT_SECONDS} && postqueue -f"]
            subprocess.Popen(later, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        new = serving.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(serving)
    return 0


if __name__ == "__main__":
    sys.exit(main())
