"""Bring the directory's entries in line with the site's user list, without ever resetting a password.

Runs on the directory's host as root from standard input (`python3 -`), over the local socket, where slapd knows root by its peer
credentials: no administrator's password exists. Adds missing users with their first password, corrects store and aliases of the
others, and only reports users the list no longer names: deleting an account is a decision, not a side effect.

Lines that begin with `changed:` say what was done (with `check`: would be), `notice:` what somebody should look at.
"""

# ruff: noqa: PLC0415 - ldap3 is a package of the host that a first check run comes before

import base64
import json
import re
import secrets
import subprocess
import sys
from typing import Any

SOCKET = "ldapi:///run/slapd/ldapi"
# What slapd calls root on the socket.
ROOT = "gidNumber=0+uidNumber=0,cn=peercred,cn=external,cn=auth"
PERSON = ["inetOrgPerson", "inetLocalMailRecipient"]


class SeedError(Exception):
    """Something an operator has to mend; never holds a password."""


def escape_value(value: str) -> str:
    """Escape an attribute value for a distinguished name (RFC 4514 2.4)."""
    escaped = re.sub(r'([\\",+;<>=])', r"\\\1", value)
    if escaped.startswith((" ", "#")):
        escaped = "\\" + escaped
    if escaped.endswith(" "):
        escaped = escaped[:-1] + "\\ "
    return escaped


def base_entry(dn: str) -> tuple[list[str], dict[str, str]]:
    """Return object classes and attributes of the topmost entry, which follow from its first part."""
    attribute, _, value = dn.partition(",")[0].partition("=")
    kind = attribute.strip().lower()
    classes = {"dc": ["dcObject", "organization"], "o": ["organization"], "ou": ["organizationalUnit"]}.get(kind)
    if classes is None or not value:
        raise SeedError(f"the base {dn!r} has to begin with dc=, o= or ou=; see directory_base_dn")
    attributes = {kind: value.strip()}
    if kind == "dc":
        attributes["o"] = value.strip()
    return classes, attributes


def hash_of(password: str, argon2: dict[str, int], whose: str) -> str:
    """Return the hash of a password as slapd stores it."""
    cost = f"m={argon2['memory_kib']} t={argon2['iterations']} p={argon2['parallelism']}"
    # slappasswd reads the password from its standard input: nothing of it stands in the process list.
    done = subprocess.run(
        ["slappasswd", "-o", "module-path=/usr/lib/ldap", "-o", f"module-load=argon2 {cost}", "-h", "{ARGON2}", "-T", "/dev/stdin"],
        input=password.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise SeedError(f"slappasswd could not hash the password of {whose}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode("ascii").strip()


def first_hash(user: dict[str, Any], passwords: dict[str, str], argon2: dict[str, int]) -> str | None:
    """Return the hash a new user begins with: the one given, one made of the password given, or none."""
    given: str | None = user.get("password_hash")
    if given:
        if given.startswith("{"):
            return given
        return ("{ARGON2}" if given.startswith("$argon2") else "{CRYPT}") + given
    password = passwords.get(user["name"])
    if not password:
        return None
    return hash_of(password, argon2, user["name"])


def policy_attributes(length: int) -> dict[str, list[str]]:
    """Return what the password policy says: a least length, and locks that are an operator's alone."""
    return {
        "pwdAttribute": ["userPassword"],
        "pwdMinLength": [str(length)],
        "pwdCheckQuality": ["1"],
        # Without it slapd would not look at pwdAccountLockedTime; no number of failures locks an account.
        "pwdLockout": ["TRUE"],
        "pwdMaxFailure": ["0"],
        "pwdAllowUserChange": ["FALSE"],
    }


def seed_own(order: dict[str, Any], connection: Any, lines: list[str]) -> None:
    """Bring the directory's own entries about: the policy, and the one that unknown names are tried on."""
    check, base = order["check"], order["base_dn"]
    policy, nobody = f"cn=policy,{base}", f"cn=nobody,{base}"
    wanted = policy_attributes(order["password_length"])
    if connection is None or not connection.search(policy, "(objectClass=*)", search_scope="BASE", attributes=list(wanted)):
        lines.append(f"changed: entry {policy}")
        if not check:
            connection.add(policy, ["device", "pwdPolicy"], {"cn": ["policy"], **wanted})
            done_or_error(connection, f"adding {policy}")
    else:
        found = {key: [value.decode() for value in values] for key, values in connection.response[0]["raw_attributes"].items()}
        changes = differences(found, wanted)
        if changes:
            lines.append(f"changed: entry {policy}: {', '.join(sorted(changes))}")
            if not check:
                connection.modify(policy, {key: [("MODIFY_REPLACE", values)] for key, values in changes.items()})
                done_or_error(connection, f"changing {policy}")
    # The cost of its hash has to be that of new passwords: slapd spends on an unknown name what is written there.
    mark = "m={memory_kib},t={iterations},p={parallelism}".format(**order["argon2"])
    known = connection is not None and connection.search(nobody, "(objectClass=*)", search_scope="BASE", attributes=["userPassword"])
    if not known or mark.encode() not in b"".join(connection.response[0]["raw_attributes"].get("userPassword", [])):
        lines.append(f"changed: entry {nobody}")
        if not check:
            hashed = hash_of(secrets.token_urlsafe(32), order["argon2"], "nobody")
            if known:
                connection.modify(nobody, {"userPassword": [("MODIFY_REPLACE", [hashed])]})
            else:
                connection.add(nobody, ["organizationalRole", "simpleSecurityObject"], {"cn": ["nobody"], "userPassword": [hashed]})
            done_or_error(connection, f"writing {nobody}")


def wanted_attributes(user: dict[str, Any]) -> dict[str, list[str]]:
    """Return what the list rules over. Everything else in an entry belongs to the directory."""
    name = user["name"].lower()
    return {
        "mail": [name],
        "mailHost": [user["store"].lower()],
        "mailLocalAddress": sorted({alias.lower() for alias in user.get("aliases") or []} - {name}),
    }


def differences(found: dict[str, list[str]], wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the attributes whose values have to be replaced."""
    return {key: values for key, values in wanted.items() if sorted(found.get(key, [])) != sorted(values)}


def connect() -> Any:
    """Open the local socket as root (SASL EXTERNAL, RFC 4422 appendix A)."""
    import ldap3
    from ldap3.core.exceptions import LDAPException

    try:
        connection = ldap3.Connection(
            ldap3.Server(SOCKET, get_info=ldap3.NONE),
            authentication=ldap3.SASL,
            sasl_mechanism=ldap3.EXTERNAL,
            # The name root has anyway: ldap3 does not send an empty one, and slapd then waits for more.
            sasl_credentials=f"dn:{ROOT}",
            receive_timeout=20,
        )
        if not connection.bind():
            raise SeedError(f"slapd refused root on {SOCKET}: {connection.result['description']}")
    except LDAPException as problem:
        raise SeedError(f"slapd does not answer on {SOCKET} ({problem}); see journalctl -u slapd") from None
    return connection


def read_entries(connection: Any, base: str) -> dict[str, dict[str, list[str]]]:
    """Return all people by lower-case user name."""
    import ldap3

    people: dict[str, dict[str, list[str]]] = {}
    entries = connection.extend.standard.paged_search(
        base,
        "(objectClass=inetOrgPerson)",
        search_scope=ldap3.LEVEL,
        attributes=["uid", "mail", "mailHost", "mailLocalAddress"],
        paged_size=500,
        generator=True,
    )
    for entry in entries:
        attributes = {key: [value.decode() for value in values] for key, values in entry["raw_attributes"].items()}
        for uid in attributes.get("uid", []):
            people[uid.lower()] = attributes
    return people


def done_or_error(connection: Any, what: str) -> None:
    """Turn a refused change into an error that names it."""
    if connection.result["result"] != 0:
        raise SeedError(f"{what}: {connection.result['description']} {connection.result['message']}".strip())


def seed(order: dict[str, Any], connection: Any) -> list[str]:
    """Compare and change; return the lines to print. Without a connection everything is missing."""
    check: bool = order["check"]
    base: str = order["base_dn"]
    people_dn = f"ou=people,{base}"
    lines: list[str] = []
    people: dict[str, dict[str, list[str]]] = {}
    classes, attributes = base_entry(base)
    for dn, kinds, values in ((base, classes, attributes), (people_dn, ["organizationalUnit"], {"ou": "people"})):
        if connection is None or not connection.search(dn, "(objectClass=*)", search_scope="BASE", attributes=["objectClass"]):
            lines.append(f"changed: entry {dn}")
            if not check:
                connection.add(dn, kinds, values)
                done_or_error(connection, f"adding {dn}")
        elif dn == people_dn:
            people = read_entries(connection, people_dn)
    seed_own(order, connection, lines)
    listed: set[str] = set()
    for user in order["users"]:
        name = user["name"].lower()
        if name in listed:
            raise SeedError(f"user {name} is listed twice; see directory_users")
        listed.add(name)
        dn = f"uid={escape_value(name)},{people_dn}"
        wanted = wanted_attributes(user)
        found = people.get(name)
        if found is None:
            lines.append(f"changed: user {name} added")
            hashed = None if check else first_hash(user, order["passwords"], order["argon2"])
            if not check:
                entry = {key: value for key, value in wanted.items() if value}
                entry |= {"uid": [name], "cn": [name], "sn": [name]}
                if hashed:
                    entry["userPassword"] = [hashed]
                connection.add(dn, PERSON, entry)
                done_or_error(connection, f"adding user {name}")
            if not user.get("password_hash") and not order["passwords"].get(user["name"]):
                lines.append(f"notice: user {name} has no password and can't log in")
            continue
        changes = differences(found, wanted)
        if changes:
            lines.append(f"changed: user {name}: {', '.join(sorted(changes))}")
            if not check:
                connection.modify(dn, {key: [("MODIFY_REPLACE", values)] for key, values in changes.items()})
                done_or_error(connection, f"changing user {name}")
    lines += [f"notice: user {name} is in the directory but not in the list; left alone" for name in sorted(set(people) - listed)]
    return lines


def main(order: dict[str, Any]) -> int:
    """Do one order and print what happened."""
    try:
        try:
            connection = connect()
        except (SeedError, ImportError):
            # A check run comes before the first install: then there is nothing yet, and everything would be added.
            if not order["check"]:
                raise
            connection = None
        for line in seed(order, connection):
            print(line)
    except (SeedError, ImportError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


def main_encoded(order: str) -> int:
    """Entry point of the role, which appends a call with the order as base64 of JSON to this text."""
    return main(json.loads(base64.b64decode(order)))
