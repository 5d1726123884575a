"""Accounts in the directory, one order at a time: list, add, passwd, lock, unlock, place, delete; and whether twins have the same: as
it is (step), or after a change that means nothing (beat).

Runs on the directory's host as root, who is the administrator on the local socket. An order is one JSON object on standard input, so that
no password is ever an argument; the answer is one JSON object on standard output, and holds none.

    {"action": "list"}
    {"action": "passwd", "name": "alice@example.org", "password": "..."}

With twins, the answer to a change says of each of them whether it has it (`twins`: by name, `in step` or why not), and after how many
`seconds`.
"""

# ruff: noqa: PLC0415 - ldap3 is a package of the host

import json
import re
import sys
import time
from typing import Any

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
    hash_of,
    numbers,
    prepare,
    remember,
    twin,
)

LOCKED_BY_OPERATOR = "000001010000Z"
"""The value that locks until somebody unlocks (slapo-ppolicy(5))."""
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
    if name.partition("@")[0].lower() in prepared.lower() and len(prepared) < 2 * least:
        raise SeedError("the password holds the user's name")


def state_of(attributes: dict[str, list[str]]) -> str:
    """Return `locked`, `no password` or `active`."""
    if attributes.get("pwdAccountLockedTime"):
        return "locked"
    known = attributes.get("userPassword") and NO_PASSWORD not in attributes.get("description", [])
    return "active" if known else "no password"


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

    def everybody(self) -> list[dict[str, str]]:
        """Return every account with its store, its state and when its password was set; no hash leaves the host."""
        import ldap3

        entries = self._connection.extend.standard.paged_search(
            f"ou=people,{self._base}",
            "(objectClass=inetOrgPerson)",
            search_scope=ldap3.LEVEL,
            attributes=["uid", "mailHost", "description", "userPassword", "pwdAccountLockedTime", "pwdChangedTime"],
            paged_size=500,
            generator=True,
        )
        people = []
        for entry in entries:
            attributes = {key: [value.decode() for value in values] for key, values in entry["raw_attributes"].items()}
            first = {key: (attributes.get(key) or [""])[0] for key in ("uid", "mailHost", "pwdChangedTime")}
            people.append(
                {
                    "name": first["uid"],
                    "store": first["mailHost"],
                    "state": state_of(attributes),
                    "password_set": first["pwdChangedTime"][:8] if NO_PASSWORD not in attributes.get("description", []) else "",
                }
            )
        return sorted(people, key=lambda each: each["name"])

    def add(self, name: str, store: str, aliases: list[str], password: str) -> str:
        """Add an account, or give one without a password its first."""
        found = self._find(name)
        if found is not None and found.get("userPassword") and not _unknown(found):
            raise SeedError(f"{name} has a password already; `passwd` sets another")
        check_password(password, name, self._least())
        hashed = hash_of(password, self._argon2, name)
        if found is not None:
            self._set(name, found, hashed)
            return "password set"
        add_person(self._connection, self._dn(name), {"name": name, "store": store, "aliases": aliases}, hashed, self._argon2)
        remember(self._base, {name})
        return "added"

    def passwd(self, name: str, password: str) -> str:
        """Set a password. Sessions that are open stay open; `lock` ends them."""
        found = self._known(name)
        check_password(password, name, self._least())
        self._set(name, found, hash_of(password, self._argon2, name))
        return "password set"

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

    def delete(self, name: str) -> str:
        """Remove the account; mail is not the directory's. Its name is remembered: no seed brings its first password back."""
        self._known(name)
        remember(self._base, {name})
        self._connection.delete(self._dn(name))
        done_or_error(self._connection, f"deleting {name}")
        return "deleted"

    def place(self, stores: dict[str, str]) -> str:
        """Say which host has whose mail from now on: {name: inner name}."""
        for name, store in stores.items():
            self._known(name)
            self._modify(name, {"mailHost": [("MODIFY_REPLACE", [store.lower()])]})
        return f"{len(stores)} placed"

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
            attributes=["description", "userPassword", "pwdAccountLockedTime"],
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


def carry_out(order: dict[str, Any], accounts: Accounts) -> dict[str, Any]:
    """Do one order."""
    action, name = order["action"], str(order.get("name", "")).lower()
    if action == "list":
        return {"users": accounts.everybody()}
    if action == "add":
        return {"done": accounts.add(name, order["store"], order.get("aliases", []), order["password"])}
    if action == "passwd":
        return {"done": accounts.passwd(name, order["password"])}
    if action == "place":
        return {"done": accounts.place({str(user).lower(): str(store) for user, store in order["stores"].items()})}
    if action == "beat":
        return {"done": accounts.beat()}
    if action in {"lock", "unlock", "delete"}:
        return {"done": getattr(accounts, action)(name)}
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
