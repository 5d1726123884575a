"""Accounts in the directory, one order at a time: list, look (at some), people (add, rename, change, delete, lock), passwd, place; app
passwords (app-passwords, app-password, revoke); and whether twins have the same: as it is (step), or after a change that means nothing
(beat).

Runs on the directory's host as root, who is the administrator on the local socket. An order is one JSON object on standard input, so that
no password is ever an argument; the answer is one JSON object on standard output, and holds none.

    {"action": "list"}
    {"action": "passwd", "name": "alice@example.org", "password": "..."}

The directory counts changes of people in an entry of its own (`edition`), beginning before the first of an order is made: relays and stores
that have an older one lack something (docs/decisions/0041). With twins, the answer to a change says of each of them whether it has it
(`twins`: by name, `in step` or why not), and after how many `seconds`.
"""

# ruff: noqa: PLC0415 - ldap3 is a package of the host

import json
import re
import secrets
import sys
import time
from typing import Any

from directory_app_passwords import FORM, AppPasswords
from directory_seed import (
    CONFIGURATION,
    NO_PASSWORD,
    SeedError,
    add_person,
    behind,
    configured_suffix,
    connect,
    done_or_error,
    escape_value,
    first_hash,
    hash_of,
    numbers,
    prepare,
    remember,
    twin,
)

LOCKED_BY_OPERATOR = "000001010000Z"
"""The value that locks until somebody unlocks (slapo-ppolicy(5))."""
QUOTA = "quota "
"""Begins the note of an entry that says how many octets its user may keep; nothing enforces it yet."""
IN_STEP = "in step"
STEP_SECONDS = 5.0
"""How long twins are given to have a change before it is told that they lack it; they are to have it within two."""


def configuration(text: str) -> tuple[str, dict[str, int]]:
    """Return the base of all entries and the cost of a hash, as slapd is configured."""
    suffix = configured_suffix(text)
    cost = re.search(r"^moduleload\s+argon2\s+m=(\d+)\s+t=(\d+)\s+p=(\d+)", text, re.MULTILINE)
    if not suffix or not cost:
        raise SeedError(f"{CONFIGURATION} names no suffix or no cost of a hash; apply the site first")
    return suffix, dict(zip(("memory_kib", "iterations", "parallelism"), map(int, cost.groups()), strict=True))


def twins_of(text: str) -> dict[str, dict[str, Any]]:
    """Return this directory's twins, and how each is asked, as slapd is configured."""
    found = re.findall(
        r"^syncrepl .*?provider=ldaps://([^:\s]+):(\d+).*?tls_cert=(\S+).*?tls_key=(\S+).*?tls_cacert=(\S+)", text, re.MULTILINE | re.DOTALL
    )
    return {name: {"port": int(port), "certificate": certificate, "key": key, "ca": ca} for name, port, certificate, key, ca in found}


def steps(connection: Any, base: str, twins: dict[str, dict[str, Any]], seconds: float) -> dict[str, str]:
    """Return of each twin whether it has what this directory has, and the other way round: `in step`, or what is the matter.

    Args:
        seconds: how long to wait for it.
    """
    until = time.monotonic() + seconds
    said: dict[str, str] = {}
    waiting = dict(twins)
    while waiting:
        for name, tls in list(waiting.items()):
            try:
                theirs = numbers(twin(name, tls), base)
            except SeedError as problem:
                said[name] = str(problem).removeprefix(f"{name} ")
                continue
            own = numbers(connection, base)
            if own is None or theirs is None:
                said[name] = "has no accounts" if theirs is None else "has accounts, this directory has none"
                continue
            lacks, more = behind(theirs, own), behind(own, theirs)
            if lacks:
                said[name] = f"lacks changes since {lacks[0][:14]}Z"
            elif more:
                said[name] = f"has changes of {more[0][:14]}Z that did not come"
            else:
                said[name] = IN_STEP
                del waiting[name]
        if time.monotonic() >= until:
            break
        time.sleep(0.2)
    return said


def check_password(password: str, name: str, least: int) -> None:
    """Refuse what the policy refuses, of the password as it will be stored. slapd itself asks nothing of an administrator."""
    prepared = prepare(password)
    if len(prepared) < least:
        raise SeedError(f"the password has {len(prepared)} characters; the policy asks for {least}")
    if FORM.fullmatch(prepared):
        raise SeedError("the password has the form of an app password; take another")
    if name.partition("@")[0].lower() in prepared.lower() and len(prepared) < 2 * least:
        raise SeedError("the password holds the user's name")


def state_of(attributes: dict[str, list[str]]) -> str:
    """Return `locked`, `no password` or `active`."""
    if attributes.get("pwdAccountLockedTime"):
        return "locked"
    known = attributes.get("userPassword") and NO_PASSWORD not in attributes.get("description", [])
    return "active" if known else "no password"


def person(attributes: dict[str, list[str]]) -> dict[str, Any]:
    """Return what commands are told of an account: no hash among it."""
    first = {key: (attributes.get(key) or [""])[0] for key in ("uid", "mailHost", "pwdChangedTime", "employeeNumber")}
    notes = attributes.get("description", [])
    return {
        "name": first["uid"],
        "store": first["mailHost"],
        "aliases": sorted(attributes.get("mailLocalAddress", [])),
        "quota": next((int(note.removeprefix(QUOTA)) for note in notes if note.startswith(QUOTA)), 0),
        "id": first["employeeNumber"] or first["uid"],
        "state": state_of(attributes),
        "locked": bool(attributes.get("pwdAccountLockedTime")),
        "password_set": first["pwdChangedTime"][:8] if NO_PASSWORD not in notes else "",
    }


def escape_filter(text: str) -> str:
    """Return a value as it stands in a search filter (RFC 4515 section 3)."""
    return "".join(f"\\{ord(each):02x}" if each in "\\*()\0" else each for each in text)


def first_hash_of(user: dict[str, Any], argon2: dict[str, int]) -> str | None:
    """Return the hash an account begins with, if one is given."""
    return first_hash(user, {}, argon2, check=False) if user.get("password_hash") else None


def _unknown(found: dict[str, list[bytes]]) -> bool:
    """Tell whether an entry says that nobody knows its password."""
    return NO_PASSWORD.encode() in found.get("description", [])


class Accounts:
    """The people of one directory.

    Args:
        connection: bound as the administrator.
        base: distinguished name above all entries.
        argon2: cost of a hash.
    """

    def __init__(self, connection: Any, base: str, argon2: dict[str, int]) -> None:
        self._connection = connection
        self._base = base
        self._argon2 = argon2
        self.app_passwords = AppPasswords(connection, base, self._dn)

    def everybody(self) -> list[dict[str, Any]]:
        """Return every account; no hash leaves the host."""
        return self._people("(objectClass=inetOrgPerson)")

    def look(self, names: list[str]) -> list[dict[str, Any]]:
        """Return the accounts that have some addresses, as a name or as an alias."""
        if not names:
            return []
        ours = "".join(f"({key}={escape_filter(name)})" for name in names for key in ("uid", "mailLocalAddress"))
        return self._people(f"(&(objectClass=inetOrgPerson)(|{ours}))")

    def _people(self, wanted: str) -> list[dict[str, Any]]:
        import ldap3

        entries = self._connection.extend.standard.paged_search(
            f"ou=people,{self._base}",
            wanted,
            search_scope=ldap3.LEVEL,
            attributes=[
                "uid",
                "mailHost",
                "mailLocalAddress",
                "description",
                "employeeNumber",
                "userPassword",
                "pwdAccountLockedTime",
                "pwdChangedTime",
            ],
            paged_size=500,
            generator=True,
        )
        people = [
            person({key: [value.decode() for value in values] for key, values in entry["raw_attributes"].items()}) for entry in entries
        ]
        return sorted(people, key=lambda each: str(each["name"]))

    def edition(self) -> int:
        """Return how often people were changed."""
        if not self._connection.search(
            f"cn=edition,{self._base}", "(objectClass=device)", search_scope="BASE", attributes=["serialNumber"]
        ):
            return 0
        return int(self._connection.response[0]["raw_attributes"]["serialNumber"][0])

    def count(self, edition: int) -> None:
        """Say how often people were changed."""
        entry = f"cn=edition,{self._base}"
        self._connection.modify(entry, {"serialNumber": [("MODIFY_REPLACE", [str(edition)])]})
        if self._connection.result["description"] == "noSuchObject":
            self._connection.add(entry, ["device"], {"cn": ["edition"], "serialNumber": [str(edition)]})
        done_or_error(self._connection, f"changing {entry}")

    def change(self, order: dict[str, Any]) -> dict[str, Any]:
        """Change people: `rename` ({name, to}), `set` ({name, aliases, quota}), `delete`, `lock`, `unlock`, `add`, in this order.

        Everything is looked at before the first change; what was done already by an order that was cut off is no error.
        """
        least = self._least() if any("password" in user for user in order.get("add", [])) else 0
        for user in order.get("add", []):
            if "password" in user:
                check_password(user["password"], user["name"], least)
        self.count(int(order["edition"]))
        named = {user["name"] for user in order.get("add", [])} | {each[key] for each in order.get("rename", []) for key in ("name", "to")}
        remember(self._base, named | set(order.get("delete", [])))
        for each in order.get("rename", []):
            self.rename(each["name"], each["to"])
        for each in order.get("set", []):
            self.set(each["name"], each)
        for name in order.get("delete", []):
            if self._find(name) is not None:
                self.app_passwords.revoke(name, [each["id"] for each in self.app_passwords.of(name)])
                self._connection.delete(self._dn(name))
                done_or_error(self._connection, f"deleting {name}")
        for name in order.get("lock", []):
            self.lock(name)
        for name in order.get("unlock", []):
            self.unlock(name)
        # One password that nobody knows for all who begin without: each hash costs what a login costs.
        unknown = hash_of(secrets.token_urlsafe(32), self._argon2, "nobody") if order.get("add") else ""
        for user in order.get("add", []):
            self.add(user, unknown)
        return {"done": "changed", "edition": int(order["edition"])}

    def add(self, user: dict[str, Any], unknown: str) -> None:
        """Add an account, or give one without a password its first."""
        name = user["name"]
        found = self._find(name)
        hashed = hash_of(user["password"], self._argon2, name) if "password" in user else first_hash_of(user, self._argon2)
        if found is not None:
            if hashed and _unknown(found):
                self._set(name, found, hashed)
            return
        more: dict[str, list[str]] = {"employeeNumber": [user["id"]]}
        if user.get("quota"):
            more["description"] = [f"{QUOTA}{user['quota']}"]
        add_person(self._connection, self._dn(name), {**user, "more": more, "unknown": unknown}, hashed, self._argon2)
        if user.get("locked"):
            self.lock(name)

    def rename(self, name: str, to: str) -> None:
        """Give an account another name; the old one is an alias from then on, and who he is stays."""
        found = self._find(name)
        if found is None:
            self._known(to)  # done already
        else:
            identity = (found.get("employeeNumber") or [name.encode()])[0].decode()
            self._modify(name, {"employeeNumber": [("MODIFY_REPLACE", [identity])]})
            self._connection.modify_dn(self._dn(name), f"uid={escape_value(to)}")
            done_or_error(self._connection, f"renaming {name}")
        known = self._known(to)
        aliases = {value.decode() for value in known.get("mailLocalAddress", [])} - {to} | {name}
        values = {"cn": [to], "sn": [to], "mail": [to], "mailLocalAddress": sorted(aliases)}
        self._modify(to, {key: [("MODIFY_REPLACE", each)] for key, each in values.items()})

    def set(self, name: str, wanted: dict[str, Any]) -> None:
        """Change aliases and quota, whichever is given."""
        found = self._known(name)
        changes: dict[str, Any] = {}
        if "aliases" in wanted:
            changes["mailLocalAddress"] = [("MODIFY_REPLACE", sorted(set(wanted["aliases"])))]
        if "quota" in wanted:
            others = [value.decode() for value in found.get("description", []) if not value.startswith(QUOTA.encode())]
            changes["description"] = [("MODIFY_REPLACE", others + ([f"{QUOTA}{wanted['quota']}"] if wanted["quota"] else []))]
        if changes:
            self._modify(name, changes)

    def passwd(self, name: str, password: str) -> str:
        """Set a password. Sessions that are open stay open; `lock` ends them."""
        found = self._known(name)
        check_password(password, name, self._least())
        self._set(name, found, hash_of(password, self._argon2, name))
        return "password set"

    def app_password(self, name: str, device: str, password: str) -> str:
        """Add an app password."""
        self._known(name)
        return self.app_passwords.add(name, device, password, hash_of(password, self._argon2, name))

    def lock(self, name: str) -> str:
        """Refuse every further login, whatever the password."""
        self._known(name)
        self._modify(name, {"pwdAccountLockedTime": [("MODIFY_REPLACE", [LOCKED_BY_OPERATOR])]})
        return "locked"

    def unlock(self, name: str) -> str:
        """Let the account's password count again."""
        if not self._known(name).get("pwdAccountLockedTime"):
            return "was not locked"
        self._modify(name, {"pwdAccountLockedTime": [("MODIFY_DELETE", [])]})
        return "unlocked"

    def place(self, stores: dict[str, str]) -> str:
        """Say which host has whose mail from now on: {name: inner name}. Who is here no more is no reason to leave the others behind."""
        there = {name: store for name, store in stores.items() if self._find(name) is not None}
        for name, store in there.items():
            self._modify(name, {"mailHost": [("MODIFY_REPLACE", [store.lower()])]})
        return f"{len(there)} placed"

    def beat(self) -> str:
        """Change what means nothing: twins that are in step get it."""
        nobody = f"cn=nobody,{self._base}"
        self._connection.modify(nobody, {"description": [("MODIFY_REPLACE", [f"beat {time.time():.3f}"])]})
        done_or_error(self._connection, f"changing {nobody}")
        return "written"

    def _dn(self, name: str) -> str:
        return f"uid={escape_value(name)},ou=people,{self._base}"

    def _find(self, name: str) -> dict[str, list[bytes]] | None:
        if not self._connection.search(
            self._dn(name),
            "(objectClass=inetOrgPerson)",
            search_scope="BASE",
            attributes=["description", "employeeNumber", "mailLocalAddress", "userPassword", "pwdAccountLockedTime"],
        ):
            return None
        attributes: dict[str, list[bytes]] = self._connection.response[0]["raw_attributes"]
        return attributes

    def _known(self, name: str) -> dict[str, list[bytes]]:
        found = self._find(name)
        if found is None:
            raise SeedError(f"{name} is not in the directory")
        return found

    def _least(self) -> int:
        policy = f"cn=policy,{self._base}"
        if not self._connection.search(policy, "(objectClass=pwdPolicy)", search_scope="BASE", attributes=["pwdMinLength"]):
            raise SeedError(f"there is no {policy}; apply the site first")
        return int(self._connection.response[0]["raw_attributes"]["pwdMinLength"][0])

    def _set(self, name: str, found: dict[str, list[bytes]], hashed: str) -> None:
        """Store a hash, and that its password is known. A lock stays: slapd takes it away with the password, unless it is told."""
        changes: dict[str, Any] = {"userPassword": [("MODIFY_REPLACE", [hashed])]}
        if found.get("pwdAccountLockedTime"):
            changes["pwdAccountLockedTime"] = [("MODIFY_REPLACE", [LOCKED_BY_OPERATOR])]
        if _unknown(found):
            changes["description"] = [("MODIFY_DELETE", [NO_PASSWORD])]
        self._modify(name, changes)

    def _modify(self, name: str, changes: dict[str, Any]) -> None:
        self._connection.modify(self._dn(name), changes)
        done_or_error(self._connection, f"changing {name}")


def _about_app_passwords(action: str, name: str, order: dict[str, Any], accounts: Accounts) -> dict[str, Any]:
    if action == "app-passwords":
        return {"app_passwords": accounts.app_passwords.of(name)}
    if action == "app-password":
        return {"done": accounts.app_password(name, str(order["device"]), order["password"])}
    return {"done": accounts.app_passwords.revoke(name, [str(each) for each in order["ids"]])}


def carry_out(order: dict[str, Any], accounts: Accounts) -> dict[str, Any]:
    """Do one order."""
    action, name = order["action"], str(order.get("name", "")).lower()
    if action in {"app-passwords", "app-password", "revoke"}:
        return _about_app_passwords(action, name, order, accounts)
    if action in {"list", "look"}:
        users = accounts.everybody() if action == "list" else accounts.look([str(each) for each in order["names"]])
        return {"users": users, "edition": accounts.edition()}
    if action == "people":
        return accounts.change(order)
    if action == "passwd":
        return {"done": accounts.passwd(name, order["password"])}
    if action == "place":
        if order.get("edition"):
            accounts.count(int(order["edition"]))
        return {"done": accounts.place({str(user).lower(): str(store) for user, store in order["stores"].items()})}
    if action == "beat":
        return {"done": accounts.beat()}
    raise SeedError(f"there is no action {action!r}")


def main() -> int:
    """Read an order, do it, print what came of it."""
    try:
        text = CONFIGURATION.read_text(encoding="utf-8")
        base, argon2 = configuration(text)
        order, connection, twins = json.loads(sys.stdin.readline()), connect(), twins_of(text)
        if order["action"] == "step":
            answer: dict[str, Any] = {"twins": steps(connection, base, twins, float(order.get("seconds", 0)))}
        else:
            answer = carry_out(order, Accounts(connection, base, argon2))
            if twins and "done" in answer:
                began = time.monotonic()
                answer["twins"] = steps(connection, base, twins, STEP_SECONDS)
                answer["seconds"] = round(time.monotonic() - began, 3)
    except (SeedError, OSError, KeyError, ValueError) as problem:
        # ValueError of json would show the line, which may hold a password.
        said = "the order is no JSON" if isinstance(problem, json.JSONDecodeError) else f"{problem}"
        print(json.dumps({"error": said}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
