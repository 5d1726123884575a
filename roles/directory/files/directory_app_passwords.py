"""App passwords: one a device, good for mail alone, ended by itself (docs/decisions/0046).

Each is an entry below its user's: `cn` is the id its text begins with, `description` the device. The issuer tries it there.
"""

# ruff: noqa: PLC0415 - ldap3 is a package of the host

import contextlib
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from directory_seed import SeedError, done_or_error

FORM = re.compile(r"[a-km-np-z2-9]{4}(-[a-km-np-z2-9]{5}){4}")
"""The text of one. `ticket_issuer.py` has the same."""
USES = Path("/var/lib/ticket-issuer/uses.sqlite")
"""Where the issuer of this host writes down uses."""
CLASSES = ["device", "simpleSecurityObject"]
MOST = 20
"""App passwords a user may have."""
LONGEST_DEVICE = 60
"""Characters of a device's name."""


class AppPasswords:
    """The app passwords of one directory.

    Args:
        connection: bound as the administrator.
        base: distinguished name above all entries.
        dn_of: the distinguished name of a user's entry.
    """

    def __init__(self, connection: Any, base: str, dn_of: Callable[[str], str]) -> None:
        self._connection = connection
        self._base = base
        self._dn_of = dn_of

    def of(self, name: str) -> list[dict[str, str]]:
        """Return those of a user, or of everybody (an empty name).

        Of each `name`, `id`, `device`, and when it was `made` and `used` last at this host (as slapd writes UTC; empty: never).
        """
        import ldap3

        entries = self._connection.extend.standard.paged_search(
            self._dn_of(name) if name else f"ou=people,{self._base}",
            "(objectClass=simpleSecurityObject)",
            search_scope=ldap3.SUBTREE,
            attributes=["cn", "description", "createTimestamp"],
            paged_size=500,
            generator=True,
        )
        found, used = [], uses()
        for entry in entries:
            if entry.get("type") != "searchResEntry":
                continue
            first = {key: values[0].decode() if values else "" for key, values in entry["raw_attributes"].items()}
            user, key = user_of(entry["dn"]), first["cn"]
            made = first.get("createTimestamp", "")
            found.append({"name": user, "id": key, "device": first["description"], "made": made, "used": used.get((user, key), "")})
        return sorted(found, key=lambda each: (each["name"], each["device"]))

    def add(self, name: str, device: str, text: str, hashed: str) -> str:
        """Add one.

        Args:
            text: the password; of it only the id is kept.
            hashed: its hash.
        """
        if not FORM.fullmatch(text):
            raise SeedError("an app password has four characters, then four groups of five; nothing was added")
        if not 0 < len(device) <= LONGEST_DEVICE or not device.isprintable():
            raise SeedError(f"a device is named by 1 to {LONGEST_DEVICE} printable characters; nothing was added")
        there = self.of(name)
        if any(each["device"].casefold() == device.casefold() for each in there):
            raise SeedError(f"{name} has an app password of {device!r} already; revoke it, or name this device otherwise")
        if len(there) >= MOST:
            raise SeedError(f"{name} has {MOST} app passwords; revoke one that is used no more")
        key = text.partition("-")[0]
        self._connection.add(f"cn={key},{self._dn_of(name)}", CLASSES, {"cn": [key], "description": [device], "userPassword": [hashed]})
        done_or_error(self._connection, f"adding an app password of {name}")
        return f"app password of {device!r} added"

    def revoke(self, name: str, ids: list[str]) -> str:
        """Remove some. What is gone already is no error."""
        for key in ids:
            if not re.fullmatch(r"[a-z0-9]+", key):
                raise SeedError(f"{key!r} is the id of no app password")
            self._connection.delete(f"cn={key},{self._dn_of(name)}")
            if self._connection.result["description"] != "noSuchObject":
                done_or_error(self._connection, f"removing an app password of {name}")
        return f"{len(ids)} app password{'' if len(ids) == 1 else 's'} revoked"


def uses() -> dict[tuple[str, str], str]:
    """Return when each app password was used last at this host, by user and id, as the issuer wrote it down."""
    if not USES.exists():
        return {}
    try:
        with contextlib.closing(sqlite3.connect(f"file:{USES}?mode=ro", uri=True, timeout=5)) as database:
            rows = database.execute("SELECT user, device, at FROM uses").fetchall()
    except sqlite3.Error as problem:
        raise SeedError(f"{USES} can't be read ({problem}); remove it: only when app passwords were used last is lost") from None
    return {(user, device): time.strftime("%Y%m%d%H%M%SZ", time.gmtime(at)) for user, device, at in rows}


def user_of(dn: str) -> str:
    """Return the user an app password's entry is below."""
    from ldap3.utils.dn import parse_dn

    return str(parse_dn(dn)[1][1])
