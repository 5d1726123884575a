"""Give the directory the users of the inventory it never had, without ever resetting anything of those it has.

Runs on the directory's host as root from standard input (`python3 -`), over the local socket, where slapd knows root by its peer
credentials: no administrator's password exists. Adds users with their first password, once; from then on names, aliases, stores and locks
are the directory's to know and commands change them (docs/decisions/0041).

Nobody is seeded twice: a record beside the database (`RECORD`) holds the suffix and every name that ever had an entry. A name of it
without an entry was deleted or is somebody's other name by now, and does not come back; a database that is empty although the record has
names is not filled again.

Of twins one writes. A directory that is empty is filled by its twins, and seeded only if each of them has said that it is empty as well.

Lines that begin with `changed:` say what was done (with `check`: would be), `notice:` what somebody should look at.
"""

# ruff: noqa: PLC0415 - ldap3 is a package of the host that a first check run comes before

import base64
import binascii
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import Any

SOCKET = "ldapi:///run/slapd/ldapi"
# What slapd calls root on the socket.
ROOT = "gidNumber=0+uidNumber=0,cn=peercred,cn=external,cn=auth"
PERSON = ["inetOrgPerson", "inetLocalMailRecipient"]

NEW_SUFFIX = "o=lemonstand"
"""What a new directory gets if nobody chose another."""
CONFIGURATION = Path("/etc/ldap/lemonstand.conf")
DATABASE = Path("/var/lib/ldap/lemonstand/data.mdb")
RECORD = Path("/var/lib/lemonstand/directory.json")

NO_PASSWORD = "no password"  # noqa: S105 - it says that there is none
"""Stands in an entry's `description` if nobody knows its password. There is one, thrown away, so that a refusal costs what others cost."""
LONGEST_PASSWORD = 512
"""Characters after preparation; the issuer refuses more unasked."""
CONTEXT = {0xB7, 0x375, 0x5F3, 0x5F4, 0x30FB, *range(0x660, 0x66A), *range(0x6F0, 0x6FA)}
"""Code points that are allowed beside certain others only (RFC 5892 section 2.6)."""
BASE64 = r"[A-Za-z0-9+/]"
CRYPT64 = r"[./0-9A-Za-z]"
ARGON2 = re.compile(r"\$argon2(id|i)\$v=19\$m=\d+,t=\d+,p=\d+\$@{11,}\$@{22,}".replace("@", BASE64))
"""A hash of Argon2 in the form of its reference implementation."""
CRYPT = re.compile(
    r"""\$1\$[^$:]{0,8}\$@{22}
    |\$2[abxy]\$\d\d\$@{53}
    |\$5\$(rounds=\d+\$)?[^$:]{0,16}\$@{43}
    |\$6\$(rounds=\d+\$)?[^$:]{0,16}\$@{86}
    |\$g?y\$@+\$@*\$@{43}
    |\$7\$@{11,}\$@{43}
    |\$sha1\$\d+\$@*\$@{28}
    |\$md5(,rounds=\d+)?\$@*\$?\$@{22}
    |_@{19}
    |@{13}""".replace("@", CRYPT64),
    re.VERBOSE,
)
"""What Debian's libcrypt (libxcrypt) makes and compares, of the whole length (crypt(5))."""
DIGESTS = {"MD5": 16, "SHA": 20, "SHA256": 32, "SHA384": 48, "SHA512": 64}
"""Octets of the digests slapd compares (the longer ones by its module pw-sha2); with salt they are named SMD5, SSHA and so on."""
SAME = {
    "SHA1": "SHA",
    "LDAP-MD5": "MD5",
    **dict.fromkeys(("ARGON2I", "ARGON2ID"), "ARGON2"),
    **dict.fromkeys(("SHA512-CRYPT", "SHA256-CRYPT", "MD5-CRYPT", "BLF-CRYPT", "BCRYPT", "DES-CRYPT"), "CRYPT"),
}
"""Schemes by the names Dovecot and others give them."""


TWIN_SECONDS = 3
"""For one answer of a twin."""


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


def prepare(password: str) -> str:
    """Return a password in the one form in which it is hashed and tried: OpaqueString (RFC 8265 section 4.2).

    Raises:
        SeedError: it has no such form; says which character is in the way, and nothing else of the password.
    """
    from precis_i18n import get_profile

    try:
        prepared: str = get_profile("OpaqueString").enforce(password)
    except UnicodeEncodeError as problem:
        if problem.reason.endswith("/empty"):
            raise SeedError("the password is empty") from None
        # Not the library's text: it shows the password.
        raise SeedError(f"the password holds {_forbidden(problem.object[problem.start], problem.reason)}") from None
    if "\ufffd" in prepared:
        raise SeedError("the password holds U+FFFD, which stands for octets that were no UTF-8; type it in a UTF-8 terminal")
    if len(prepared) > LONGEST_PASSWORD:
        raise SeedError(f"the password has more than {LONGEST_PASSWORD} characters")
    return prepared


def _forbidden(character: str, reason: str) -> str:
    """Name a character that is no part of a password, and why."""
    if unicodedata.category(character) == "Cc":
        return "a control character, which clients can't send"
    if unicodedata.category(character) == "Cs":
        return "octets that are no UTF-8"
    named = f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
    if character in "\u200c\u200d" or "ignorable" in reason:
        return f"{named}, which nobody sees and keyboards add by themselves (to emoji, for one)"
    if "unassigned" in reason:
        return f"{named}, which Unicode {unicodedata.unidata_version} does not know"
    if ord(character) in CONTEXT:
        return f"{named} where it can't stand (RFC 8264 section 4.3.2)"
    return f"{named}, which is no part of a password (RFC 8265 section 4.2)"


def hash_of(password: str, argon2: dict[str, int], whose: str) -> str:
    """Return the hash of a password, prepared, as slapd stores it."""
    cost = f"m={argon2['memory_kib']} t={argon2['iterations']} p={argon2['parallelism']}"
    # slappasswd reads the password from its standard input: nothing of it stands in the process list.
    done = subprocess.run(
        ["slappasswd", "-o", "module-path=/usr/lib/ldap", "-o", f"module-load=argon2 {cost}", "-h", "{ARGON2}", "-T", "/dev/stdin"],
        input=prepare(password).encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise SeedError(f"slappasswd could not hash the password of {whose}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode("ascii").strip()


def stored_hash(given: str) -> str:
    """Return a hash as slapd compares it, whatever the scheme is called where it came from.

    Raises:
        SeedError: slapd would never find it equal to a password; says why, and nothing of the hash but its scheme.
    """
    found = re.fullmatch(r"\{([^{}]*)\}(.*)", given, re.DOTALL)
    scheme, rest = (found.group(1).upper(), found.group(2)) if found else ("", given)
    wanted = SAME.get(scheme, scheme)
    # Dovecot calls MD5-CRYPT by the short name too.
    if wanted == "MD5" and rest.startswith("$1$"):
        wanted = "CRYPT"
    if not wanted:
        # Without a scheme thirteen letters are as likely a password as a hash of DES.
        if not rest.startswith("$"):
            raise SeedError("this is no hash: there is neither a scheme in braces nor a '$' before it")
        wanted = "ARGON2" if rest.startswith("$argon2") else "CRYPT"
    if wanted == "ARGON2":
        whole = ARGON2.fullmatch(rest)
    elif wanted == "CRYPT":
        whole = CRYPT.fullmatch(rest)
    elif _digest(wanted) is not None:
        try:
            octets = len(base64.b64decode(rest, validate=True))
        except (binascii.Error, ValueError):
            raise SeedError(f"the hash is no base64 after {_named(wanted)}") from None
        size, salted = _digest(wanted) or (0, False)
        if octets != size if not salted else octets <= size:
            raise SeedError(f"the hash after {_named(wanted)} has {octets} octets; {'more than ' if salted else ''}{size} are right")
        return _named(wanted) + rest
    else:
        raise SeedError(f"slapd can't compare hashes of the scheme {_named(scheme[:24])}")
    if not whole:
        raise SeedError(
            f"the text after {_named(scheme[:24])} is no hash of that kind, or is cut off" if scheme else "this is no hash, or is cut off"
        )
    return _named(wanted) + rest


def _named(scheme: str) -> str:
    """Return a scheme as it stands before a hash (RFC 2307 section 5.3)."""
    return "{" + scheme + "}"


def _digest(scheme: str) -> tuple[int, bool] | None:
    """Return a digest's octets and whether salt follows; None if slapd has no such scheme."""
    if scheme in DIGESTS:
        return DIGESTS[scheme], False
    plain = {"SMD5": "MD5"}.get(scheme, scheme[1:] if scheme.startswith("SSHA") else "")
    return (DIGESTS[plain], True) if plain in DIGESTS else None


def first_hash(user: dict[str, Any], passwords: dict[str, str], argon2: dict[str, int], *, check: bool = False) -> str | None:
    """Return the hash a new user begins with: the one given, one made of the password given, or none.

    Args:
        check: judge only; the answer is not to be stored.
    """
    given: str | None = user.get("password_hash")
    try:
        if given:
            return stored_hash(given)
        password = passwords.get(user["name"])
        if not password:
            return None
        return prepare(password) if check else hash_of(password, argon2, user["name"])
    except SeedError as problem:
        raise SeedError(f"user {user['name']}: {problem}; nobody was seeded") from None
    except ImportError:
        # A check run comes before the package that prepares.
        if not check:
            raise
        return None


def read_record() -> dict[str, Any]:
    """Return what this host remembers of its directory: `suffix`, and `names` that ever had an entry. Empty if there is none."""
    try:
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        if not isinstance(record["suffix"], str) or not all(isinstance(name, str) for name in record["names"]):
            raise TypeError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise SeedError(
            f"{RECORD} can't be read ({type(problem).__name__}): restore it from a backup; without one remove it, if "
            "`lemonstand user list` still shows the accounts, and apply again"
        ) from None
    return {"suffix": record["suffix"], "names": sorted(record["names"])}


def remember(suffix: str, names: set[str], *, check: bool = False) -> bool:
    """Add names to the record; return whether it changed."""
    before = read_record()
    record = {"suffix": suffix, "names": sorted(names.union(before.get("names", [])))}
    if record == before:
        return False
    if not check:
        RECORD.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=RECORD.parent, prefix=".directory-")  # 0600
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(record, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(RECORD)
    return True


def configured_suffix(text: str) -> str | None:
    """Return the suffix slapd's configuration names."""
    found = re.search(r'^suffix\s+"?([^"\n]+)"?\s*$', text, re.MULTILINE)
    return found.group(1) if found else None


def suffix_here(wanted: str) -> str:
    """Return the suffix of this host's directory; the wanted one if it has none yet.

    Raises:
        SeedError: there is a database, and nothing says under which suffix.
    """
    recorded: str | None = read_record().get("suffix")
    if recorded:
        return recorded
    configured = configured_suffix(CONFIGURATION.read_text(encoding="utf-8")) if CONFIGURATION.exists() else None
    if configured:
        return configured
    if DATABASE.exists():
        raise SeedError(
            f"{DATABASE} holds a directory, and neither {RECORD} nor {CONFIGURATION} says under which suffix: restore one of them from "
            f"a backup; to begin anew with the passwords of the inventory, move {DATABASE.parent} away"
        )
    return wanted


def policy_attributes(length: int, *, own: bool) -> dict[str, list[str]]:
    """Return what the password policy says: a least length, locks that are an operator's alone, and whether users change their own."""
    return {
        "pwdAttribute": ["userPassword"],
        "pwdMinLength": [str(length)],
        "pwdCheckQuality": ["1"],
        # Without it slapd would not look at pwdAccountLockedTime; no number of failures locks an account.
        "pwdLockout": ["TRUE"],
        "pwdMaxFailure": ["0"],
        "pwdAllowUserChange": ["TRUE" if own else "FALSE"],
    }


def seed_own(order: dict[str, Any], connection: Any, lines: list[str]) -> None:
    """Bring the directory's own entries about: the policy, and the one that unknown names are tried on."""
    check, base = order["check"], order["base_dn"]
    policy, nobody = f"cn=policy,{base}", f"cn=nobody,{base}"
    wanted = policy_attributes(order["password_length"], own=bool(order.get("self_service")))
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
    """Return what an entry begins with."""
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


def twin(name: str, tls: dict[str, Any]) -> Any:
    """Open a connection to a twin's directory, as this host (SASL EXTERNAL by its certificate).

    Args:
        name: as in the twin's certificate.
        tls: `certificate` and `key` of this host as a client, `ca` of servers, `port`.

    Raises:
        SeedError: it gives no answer.
    """
    import ldap3
    from ldap3.core.exceptions import LDAPException

    try:
        subject = subprocess.run(
            ["openssl", "x509", "-in", tls["certificate"], "-noout", "-subject", "-nameopt", "RFC2253"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        trust = ldap3.Tls(
            local_private_key_file=tls["key"],
            local_certificate_file=tls["certificate"],
            ca_certs_file=tls["ca"],
            validate=ssl.CERT_REQUIRED,
            valid_names=[name],
        )
        server = ldap3.Server(name, port=tls["port"], use_ssl=True, tls=trust, get_info=ldap3.NONE, connect_timeout=TWIN_SECONDS)
        connection = ldap3.Connection(
            server,
            authentication=ldap3.SASL,
            sasl_mechanism=ldap3.EXTERNAL,
            sasl_credentials="dn:" + subject.partition("=")[2].strip(),
            receive_timeout=TWIN_SECONDS,
            read_only=True,
        )
        if not connection.bind():
            raise SeedError(f"{name} refuses this host's certificate: {connection.result['description']}")
    except (LDAPException, OSError, ValueError, subprocess.CalledProcessError) as problem:
        raise SeedError(f"{name} gives no answer ({type(problem).__name__})") from None
    return connection


def numbers(connection: Any, base: str) -> dict[str, str] | None:
    """Return the last change a directory has of each of its twins (contextCSN by server id, RFC 4533 section 1.3; slapd's own form).

    Returns:
        None if it has no entry at all.
    """
    if not connection.search(base, "(objectClass=*)", search_scope="BASE", attributes=["contextCSN"]):
        return None
    values = [value.decode() for value in connection.response[0]["raw_attributes"].get("contextCSN", [])]
    return {value.split("#")[2]: value for value in values}


def behind(own: dict[str, str] | None, other: dict[str, str] | None) -> list[str]:
    """Return the changes another directory has and this one lacks; each begins with its time."""
    return sorted(value for origin, value in (other or {}).items() if value > (own or {}).get(origin, ""))


def fill(order: dict[str, Any], connection: Any, base: str) -> None:
    """Wait until this directory has what its twins have; one that is empty, until all of them have said that they are empty as well.

    A directory with accounts does not wait for a twin that gives no answer: that one catches up when it is back.

    Raises:
        SeedError: it did not come in time.
    """
    if not order.get("peers"):
        return
    until = time.monotonic() + order["fill_seconds"]
    while True:
        said: dict[str, str] = {}
        theirs: list[dict[str, str]] = []
        for name in order["peers"]:
            try:
                found = numbers(twin(name, order["tls"]), base)
            except SeedError as problem:
                said[name] = str(problem)
            else:
                theirs += [found] if found is not None else []
        own = numbers(connection, base)
        if own is not None and not any(behind(own, each) for each in theirs):
            return
        if not theirs and not said and own is None and order["writes"]:
            return
        if time.monotonic() >= until:
            break
        time.sleep(0.5)
    if said and own is None:
        silent = " and ".join(said)
        raise SeedError(
            f"this directory is empty, and {'; '.join(said.values())}: nobody can tell which passwords and locks belong in it, so "
            f"nobody was seeded. See that {silent} can be asked, or take {silent} from the inventory for good; then apply again"
        )
    raise SeedError(
        f"this directory did not get within {order['fill_seconds']} s what {' and '.join(order['peers'])} has; "
        "see journalctl -u slapd on both, then apply again"
    )


def read_entries(connection: Any, base: str) -> dict[str, dict[str, list[str]]]:
    """Return all people by lower-case user name."""
    people: dict[str, dict[str, list[str]]] = {}
    entries = connection.extend.standard.paged_search(
        base,
        "(objectClass=inetOrgPerson)",
        search_scope="LEVEL",
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


def refuse_emptied(base: str, record: dict[str, Any], people: dict[str, Any] | None) -> None:
    """End the run if the database was emptied under a directory that had accounts.

    Args:
        people: who has an entry; None if nobody could be asked.

    Raises:
        SeedError: it was.
    """
    if record.get("names") and people is not None and not people:
        raise SeedError(
            f"the directory {base} had {len(record['names'])} accounts and has none now: nobody was seeded, since passwords and locks of "
            f"before would be undone. Restore {DATABASE.parent} from a backup (with slapd stopped); to begin anew with the passwords of "
            f"the inventory, remove {RECORD}. Then apply again"
        )


def first_hashes(order: dict[str, Any], known: set[str]) -> dict[str, str | None]:
    """Return what each user of the list begins with: nothing for a name that is known, now or from before.

    Raises:
        SeedError: a name is there twice, or a first password or hash would open nothing.
    """
    first: dict[str, str | None] = {}
    for user in order["users"]:
        name = user["name"].lower()
        if name in first:
            raise SeedError(f"user {name} is listed twice; see directory_users")
        first[name] = None if name in known else first_hash(user, order["passwords"], order["argon2"], check=order["check"])
    return first


Tree = tuple[str, list[str], dict[str, str]]
"""An entry above people: its name, object classes and attributes."""


def found_entries(connection: Any, base: str) -> tuple[list[Tree], dict[str, dict[str, list[str]]]]:
    """Return which entries above people are missing, and the people. Without a connection everything is missing."""
    people: dict[str, dict[str, list[str]]] = {}
    classes, attributes = base_entry(base)
    missing = []
    for dn, kinds, values in ((base, classes, attributes), (f"ou=people,{base}", ["organizationalUnit"], {"ou": "people"})):
        if connection is None or not connection.search(dn, "(objectClass=*)", search_scope="BASE", attributes=["objectClass"]):
            missing.append((dn, kinds, values))
        elif dn != base:
            people = read_entries(connection, dn)
    return missing, people


def seed(order: dict[str, Any], connection: Any) -> list[str]:
    """Compare and change; return the lines to print. Without a connection everything is missing."""
    check: bool = order["check"]
    base = suffix_here(order["base_dn"])
    lines: list[str] = []
    if connection is not None and not check:
        fill(order, connection, base)
    if order["base_dn"] not in {base, NEW_SUFFIX}:
        lines.append(f"notice: this host's directory keeps its suffix {base}; {order['base_dn']} is for a new one")
    missing, people = found_entries(connection, base)
    record = read_record()
    refuse_emptied(base, record, people if connection else None)
    known = {*record.get("names", []), *order.get("known", [])}
    if not order.get("writes", True):
        names = {user["name"].lower() for user in order["users"]}
        return [*lines, *([f"changed: record {RECORD}"] if remember(base, known.union(people, names), check=check) else [])]
    gone = known - set(people)
    # Before anything is changed: a seed that can't be one leaves the directory as it was.
    first = first_hashes(order, gone.union(people))
    for dn, kinds, values in missing:
        lines.append(f"changed: entry {dn}")
        if not check:
            connection.add(dn, kinds, values)
            done_or_error(connection, f"adding {dn}")
    seed_own({**order, "base_dn": base}, connection, lines)
    taken = {address: name for name, found in people.items() for address in found.get("mailLocalAddress", [])}
    left = []
    for user in order["users"]:
        name = user["name"].lower()
        dn = f"uid={escape_value(name)},ou=people,{base}"
        placed = {**user, "store": serving(user["store"], people.get(name, {}), people, order.get("stores") or [])}
        if name in people:
            follow(connection, dn, placed, people[name], lines, check=check)
            continue
        if name in gone or name in taken:
            left.append(name)
            continue
        lines.append(f"changed: user {name} added")
        placed["aliases"] = [alias for alias in user.get("aliases") or [] if alias.lower() not in {*taken, *people}]
        if not check:
            add_person(connection, dn, placed, first[name], order["argon2"])
        own = name not in order.get("judged_behind", [])
        if own and not user.get("password_hash") and not order["passwords"].get(user["name"]):
            lines.append(f"notice: user {name} has no password and can't log in")
    if left:
        lines.append(
            f"notice: {len(left)} users of the inventory were deleted or renamed since they were seeded, and stay so: {', '.join(left[:5])}"
        )
    if remember(base, known.union(people, first), check=check):
        lines.append(f"changed: record {RECORD}")
    return lines


def serving(store: str, found: dict[str, list[str]], people: dict[str, dict[str, list[str]]], stores: list[list[str]]) -> str:
    """Return the host that has a user's mail: where a user is, the directory knows, and no inventory moves anybody.

    Args:
        store: what the inventory says, an inner name.
        found: the user's entry; empty for a new one.
        people: all entries. A new user goes where the others of his store are served.
        stores: of the site, each with the hosts that may serve its users.
    """
    known = {host.lower() for hosts in stores for host in hosts}
    if found:
        return next((host for host in found.get("mailHost", []) if host.lower() in known), store)
    pair = next((hosts for hosts in stores if store in hosts), [store])
    counts = {host: sum(host.lower() in map(str.lower, each.get("mailHost", [])) for each in people.values()) for host in pair[1:]}
    serving_host = max(pair[1:], key=lambda host: counts[host], default=store)
    mine = sum(store.lower() in map(str.lower, each.get("mailHost", [])) for each in people.values())
    return serving_host if counts.get(serving_host, 0) > mine else store


def follow(connection: Any, dn: str, user: dict[str, Any], found: dict[str, list[str]], lines: list[str], *, check: bool) -> None:
    """Name a user's store if the directory names none of the site's; everything else of an entry is the directory's."""
    wanted = wanted_attributes(user)
    changes = differences(found, {key: wanted[key] for key in ("mail", "mailHost")})
    if changes:
        lines.append(f"changed: user {user['name'].lower()}: {', '.join(sorted(changes))}")
        if not check:
            connection.modify(dn, {key: [("MODIFY_REPLACE", values)] for key, values in changes.items()})
            done_or_error(connection, f"changing user {user['name'].lower()}")


def add_person(connection: Any, dn: str, user: dict[str, Any], hashed: str | None, argon2: dict[str, int]) -> None:
    """Add one user's entry, with a hash if he begins with one."""
    name = user["name"].lower()
    entry = {key: value for key, value in wanted_attributes(user).items() if value}
    entry |= {"uid": [name], "cn": [name], "sn": [name], **(user.get("more") or {})}
    if not hashed:
        entry["description"] = [*entry.get("description", []), NO_PASSWORD]
    entry["userPassword"] = [hashed or user.get("unknown") or hash_of(secrets.token_urlsafe(32), argon2, name)]
    connection.add(dn, PERSON, entry)
    done_or_error(connection, f"adding user {name}")


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


def main_found(asked: str) -> int:
    """Entry point of the role before files are written: print what there is, as JSON.

    Args:
        asked: base64 of JSON: `base_dn`, the suffix of a new directory.

    Returns:
        0: `suffix`, that of this host's directory (the wanted one if it has none), or `error`; `made`, whether one was seeded or filled,
            and the `names` it remembers.
    """
    order = json.loads(base64.b64decode(asked))
    found: dict[str, Any] = {}
    try:
        record = read_record()
        found |= {"suffix": suffix_here(order["base_dn"]), "made": bool(record), "names": record.get("names", [])}
    except (SeedError, OSError) as problem:
        found["error"] = str(problem)
    print(json.dumps(found))
    return 0
