"""Ticket issuer: an OAuth 2.0 token endpoint for an isolated credential host.

One question: "is this the user's password?" (resource owner password credentials grant, RFC 6749 section 4.3), asked by a frontend
that has shown its certificate (mutual TLS client authentication, RFC 8705 section 2). One answer: a JWT (RFC 7519), signed with
RS256, that is good for one user at one mail store for about a minute, together with that store's name. There is no call that lists,
searches or reads anything, and nothing is remembered between two questions but how often a name was refused and where it got in.

Passwords are tried by an LDAP simple bind as the user; the issuer has no account in the directory. Where an organisation's own directory
judges them, that one is asked (`ticket_behind`), about users whom the directory here knows. It runs on Debian's packages
(gunicorn, Flask, Authlib, ldap3), which are imported only where they are used, so that the rest can be tested without them.
"""

# ruff: noqa: PLC0415 - see above

import contextlib
import dataclasses
import functools
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import random
import re
import secrets
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from ticket_behind import APP_PASSWORD, Behind, DirectoryBehind, DirectoryUnavailable, dn_value
from ticket_turns import Busy, Turns
from ticket_uses import Uses

if TYPE_CHECKING:
    from flask import Flask, Response

log = logging.getLogger("ticket_issuer")

# Longer than any real name or password, shorter than what would keep a hash function busy.
LONGEST_LOGIN = 254
LONGEST_PASSWORD = 512
LONGEST_FORM = 16384
NOT_A_NAME = "-not-a-name-"
LONGEST_HOLD = 3.0
"""Seconds an answer that cost nothing is held back, at most."""

# What a login name looks like in lower case, unless the settings say otherwise.
LOGIN = (
    r"(?=[^@]{1,64}@)[a-z0-9_][a-z0-9_'&\-]*(\.[a-z0-9_'&\-]+)*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?![0-9]+$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
APP_SERVICES = frozenset({"imap", "submission"})
"""What an app password is good for, as frontends name it."""
_LOGGABLE = re.compile(r"[^A-Za-z0-9.:/@+_='&-]")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the operator decides. The keys of the settings file are the names of these fields."""

    issuer: str
    frontends: tuple[str, ...]
    directory_base_dn: str
    scope: str = "mail"
    lifetime_seconds: int = 60
    clock_leeway_seconds: int = 5
    directory_url: str = "ldap://127.0.0.1:389"
    directory_socket: str = "ldapi:///run/slapd/ldapi"
    directory_timeout_seconds: int = 15
    parallel_passwords: int = 0
    queue_seconds: int = 40
    queue_per_user: int = 100
    refusal_milliseconds: int = 500
    refusals_window_seconds: int = 3600
    refusals_per_client: int = 10
    refusals_per_place: int = 100
    refusals_per_user: int = 100
    refusals_per_network: int = 100
    refusals_per_frontend: int = 1000
    refusals_wait_seconds: int = 30
    refusals_longest_wait_seconds: int = 900
    refusals_file: str = ":memory:"
    uses_file: str = ":memory:"
    peers: tuple[str, ...] = ()
    login_pattern: str = LOGIN
    behind: Behind | None = None
    self_service: bool = False
    self_service_per_hour: int = 60
    password_length: int = 12

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Settings":
        """Build settings from a settings file's content; an unknown or missing key is an error."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        names = {key: tuple(name.lower() for name in values.get(key, ())) for key in ("frontends", "peers")}
        behind = {"behind": Behind.from_mapping(values["behind"])} if values.get("behind") else {}
        return cls(**{**values, **names, **behind})

    @classmethod
    def from_file(cls, path: Path) -> "Settings":
        """Read the settings file."""
        return cls.from_mapping(json.loads(path.read_text(encoding="utf-8")))


@dataclasses.dataclass(frozen=True)
class Person:
    """A user who has proved who he is.

    Args:
        login: his name.
        store: the inner name of the host that has his mail.
        device: the id of the app password it was; empty: his own.
    """

    login: str
    store: str
    device: str = ""

    def get_user_id(self) -> str:
        """Name the user (Authlib asks for it)."""
        return self.login


class Directory(Protocol):
    """Whoever can tell whether a password is right."""

    def check(self, login: str, password: str) -> Person | None:
        """Return the user if the password is his, None if not; raise DirectoryUnavailable if that can't be told now."""

    def has(self, login: str) -> bool:
        """Tell whether this is a user's name; raise DirectoryUnavailable if that can't be told now."""

    def elsewhere(self, login: str, password: str) -> bool:
        """Tell whether a directory behind is asked about this password, as it was given; settings alone decide."""

    def replace(self, login: str, old: str, new: str) -> bool:
        """Put a password in the place of another; False if that is not the user's; raise DirectoryUnavailable if it can't be done now."""


@dataclasses.dataclass(frozen=True)
class SigningKey:
    """The private key that signs tickets, and the id its public half goes by."""

    pem: bytes = dataclasses.field(repr=False)
    kid: str

    @functools.cached_property
    def loaded(self) -> Any:
        """The key as Authlib takes it. Loading checks the primes, which takes longer than all the rest of an answer: once is enough."""
        from authlib.jose import RSAKey

        return RSAKey.import_key(self.pem)

    @classmethod
    def from_pem(cls, pem: bytes) -> "SigningKey":
        """Load a key; its id is the start of its fingerprint, as ticket_keys.py computes it."""
        from cryptography.hazmat.primitives import serialization

        public = serialization.load_pem_private_key(pem, password=None).public_key()
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(pem=pem, kid=hashlib.sha256(der).hexdigest()[:16])


class Refused(NamedTuple):
    """What came of counting a refusal.

    Args:
        later: whether it is told as "later", not as "wrong password".
        reached: the counts whose limit it reached, for the log.
    """

    later: bool
    reached: list[str]


class Refusals:
    """Counts refusals: nobody can go on guessing, nobody is locked out for good, nobody is shut out by what others do elsewhere.

    | count | of | asked for | at its limit |
    |---|---|---|---|
    | client | a name as one network asks for it, since the user last got in there | always | closes |
    | place | the same, whether he got in or not | always | closes |
    | user | a name, whoever asks | where he did not get in lately | closes |
    | network | different names one network asks for, and what is no name | where he did not | closes |
    | behind | what a directory behind refused of a name | where that one is asked | closes |
    | stranger | the same, up to where it closes | where he did not | closes |
    | frontend | all that one frontend asks | never | is told of |

    `behind` and `stranger` do not drain: they are counted as that directory counts before it locks the account (docs/decisions/0049). Each
    begins anew once the seconds are over after which it forgets, `behind` with the right password as well; at their limit it is not asked
    before that.

    A count drains evenly, its limit within a window. At its limit it closes for a while, twice as long after each further refusal, up to a
    longest wait; then one question is let through. So a count never stays closed longer than that wait, and in the long run guesses come no
    faster than it drains, or than one in each longest wait.

    A carrier puts thousands of handsets behind one address, and some of them always have an old password: so a network is charged for a
    name once, however often it asks, and it keeps nobody out of a place he uses.

    What is answered must not tell where a user got in. There a password is tried when it would not be elsewhere; if it is wrong, the answer
    is that of elsewhere, and counts nothing that can be seen elsewhere. So `client` and `place` count what was not tried as well.

    It lives in SQLite, which keeps it right over a restart and among several processes. No password is ever handed to it.

    With other issuers beside this one, what was counted here is kept as events, which `ticket_peers` brings to them, and theirs are counted
    here: one more on a count, a count that begins anew, a place where somebody got in. An event says what was done, not why, so that all
    issuers come to the same counts, whatever each of them had before.

    Args:
        settings: limits and times.
        clock: Unix time, since counts outlive the process.
    """

    MOST_ROWS = 50_000
    KNOWN_SECONDS = 30 * 86400
    OWN = ("client", "place", "behind")
    OTHERS = ("user", "network", "stranger")
    QUIET = ("behind", "stranger")
    _TABLES = """
        CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, level REAL NOT NULL, at REAL NOT NULL, until REAL NOT NULL);
        CREATE INDEX IF NOT EXISTS counts_at ON counts (at);
        CREATE TABLE IF NOT EXISTS places (key TEXT PRIMARY KEY, at REAL NOT NULL);
        CREATE INDEX IF NOT EXISTS places_at ON places (at);
        CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL);
    """
    _SHARED = """
        CREATE TABLE IF NOT EXISTS events
            (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, what TEXT NOT NULL, key TEXT NOT NULL);
        CREATE TABLE IF NOT EXISTS heard (origin TEXT PRIMARY KEY, number INTEGER NOT NULL);
    """
    """What was counted here and is to be told; and up to which event each other issuer's were counted here."""
    MOST_EVENTS = 100_000
    COUNT, CLEAR, PLACE = "count", "clear", "place"

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._limits = {
            "client": settings.refusals_per_client,
            "place": settings.refusals_per_place,
            "user": settings.refusals_per_user,
            "network": settings.refusals_per_network,
            "frontend": settings.refusals_per_frontend,
            **(settings.behind.most if settings.behind else {}),
        }
        self._quiet = settings.behind.quiet_seconds if settings.behind else 0
        self._clock = clock
        self._lock = threading.Lock()
        self._database = self._open(settings.refusals_file)

    def closed(self, login: str | None, address: str, frontend: str, *, behind: bool = False) -> str | None:
        """Return which count keeps a name (None: what is no name) from being tried now, or None.

        Args:
            behind: whether it would be tried in a directory behind.
        """
        keys = self._keys(login, address, frontend, behind=behind)
        found: str | None = self._with(lambda database: self._closed(database, keys), None)
        return found

    def refused(self, login: str | None, address: str, frontend: str, *, tried: bool, behind: bool = False) -> Refused:
        """Count what was not granted: a wrong password, or a question that was not tried because a count is closed.

        Args:
            behind: whether a directory behind has counted it, or would have.
        """
        keys = self._keys(login, address, frontend, behind=behind)
        counted: Refused = self._with(lambda database: self._refused(database, keys, tried), Refused(not tried, []))
        return counted

    def known(self, login: str, address: str) -> bool:
        """Tell whether the user got in from this network lately."""
        known: bool = self._with(lambda database: self._known(database, f"{login} {network(address)}"), False)
        return known

    def forget(self, login: str, address: str, *, behind: bool = False) -> None:
        """The right password came from this network: it is known now, and what came from others still counts.

        Args:
            behind: whether a directory behind took it, and has forgotten what was wrong before.
        """
        self._with(lambda database: self._forget(database, login, address, behind), None)

    def shown(self, login: str, is_user: Callable[[str], bool]) -> str:
        """Return a name as logs have it: itself if a user has it; else a keyed digest, since it may be a password in the wrong field.

        Args:
            is_user: tells of a name that never got in.
        """
        secret, seen = self._with(lambda database: self._for_logs(database, login), (b"", False))
        if seen or is_user(login):
            return login
        return "unknown:" + (hmac.digest(secret, login.encode(), "sha256").hex()[:12] if secret else "")

    def _for_logs(self, database: sqlite3.Connection, login: str) -> tuple[bytes, bool]:
        database.execute("INSERT OR IGNORE INTO secrets VALUES ('names', ?)", (secrets.token_bytes(32),))
        (secret,) = database.execute("SELECT value FROM secrets WHERE name = 'names'").fetchone()
        seen = database.execute("SELECT 1 FROM places WHERE key >= ? AND key < ?", (f"{login} ", f"{login}!")).fetchone()
        return secret, seen is not None

    def _closed(self, database: sqlite3.Connection, keys: Mapping[str, str]) -> str | None:
        kinds = self.OWN if self._known(database, keys.get("known", "")) else (*self.OWN, *self.OTHERS)
        return next((kind for kind in kinds if kind in keys and self._waits(database, keys[kind])), None)

    def _waits(self, database: sqlite3.Connection, key: str) -> bool:
        row = database.execute("SELECT until FROM counts WHERE key = ?", (key,)).fetchone()
        now = self._clock()
        # A clock that was set back must not make a wait longer than the longest.
        return bool(row and now < row[0] <= now + self._longest(key.partition(" ")[0]))

    def _longest(self, kind: str) -> int:
        return self._quiet if kind in self.QUIET else self._settings.refusals_longest_wait_seconds

    def _known(self, database: sqlite3.Connection, key: str) -> bool:
        since = self._clock() - self.KNOWN_SECONDS
        return database.execute("SELECT 1 FROM places WHERE key = ? AND at > ?", (key, since)).fetchone() is not None

    def _refused(self, database: sqlite3.Connection, keys: Mapping[str, str], tried: bool) -> Refused:
        elsewhere = any(self._waits(database, keys[kind]) for kind in self.OTHERS if kind in keys)
        own = any(self._waits(database, keys[kind]) for kind in self.OWN if kind in keys)
        kinds = ["client", "place"] if tried or not own else []
        kinds += ["behind"] if tried else []
        # Where a count is closed for others it would not have been tried elsewhere, and counted nothing.
        if tried and not elsewhere:
            kinds += ["user", "stranger", "frontend", *(["network"] if self._is_new(database, keys.get("place", "")) else [])]
        reached = [kind for kind in kinds if kind in keys and self._count(database, kind, keys[kind], self._clock())]
        self._note(database, [(self.COUNT, keys[kind]) for kind in kinds if kind in keys])
        window = 2 * max(self._settings.refusals_window_seconds, self._settings.refusals_longest_wait_seconds, self._quiet)
        self._trim(database, "counts", self._clock() - window)
        return Refused(not tried or elsewhere, reached)

    def _is_new(self, database: sqlite3.Connection, key: str) -> bool:
        """Tell whether a network did not ask for a name within the window."""
        row = database.execute("SELECT at FROM counts WHERE key = ?", (key,)).fetchone()
        return row is None or abs(self._clock() - row[0]) > self._settings.refusals_window_seconds

    def _count(self, database: sqlite3.Connection, kind: str, key: str, now: float) -> bool:
        """Add one to a count; tell whether that closed it."""
        limit, closes = self._limits[kind], False
        level, at, until = database.execute("SELECT level, at, until FROM counts WHERE key = ?", (key,)).fetchone() or (0.0, now, 0.0)
        if kind in self.QUIET:
            level = (level if abs(now - at) < self._quiet else 0.0) + 1
        else:
            level = max(0.0, level - max(0.0, now - at) * limit / self._settings.refusals_window_seconds) + 1
        # What was under way when the count closed adds nothing to the wait.
        if level > limit - 1 + 1e-6 and not now < until <= now + self._longest(kind):
            doublings = min(16, max(0, round(level - limit)))
            wait = self._quiet if kind in self.QUIET else self._settings.refusals_wait_seconds * 2**doublings
            until = now + min(self._longest(kind), wait)
            closes = True
        # An event of another issuer may be older than what is here: the time of a count never goes back for it.
        seen = min(max(at, now), self._clock())
        database.execute("INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?)", (key, min(level, limit + 16.0), seen, until))
        return closes

    def _forget(self, database: sqlite3.Connection, login: str, address: str, behind: bool) -> None:
        now, place = self._clock(), network(address)
        key = f"{login} {place}"
        keys = self._keys(login, address, "", behind=behind)
        for own in [keys[kind] for kind in ("client", "behind") if kind in keys]:
            if database.execute("DELETE FROM counts WHERE key = ?", (own,)).rowcount:
                self._note(database, [(self.CLEAR, own)])
        row = database.execute("SELECT at FROM places WHERE key = ?", (key,)).fetchone()
        # Once a day is enough: a login writes nothing otherwise.
        if place and (row is None or abs(now - row[0]) > 86400):
            database.execute("INSERT OR REPLACE INTO places VALUES (?, ?)", (key, now))
            self._note(database, [(self.PLACE, key)])
            self._trim(database, "places", now - self.KNOWN_SECONDS)

    def _note(self, database: sqlite3.Connection, done: list[tuple[str, str]]) -> None:
        """Keep what was done for the other issuers, where there are any."""
        if self._settings.peers and done:
            now = self._clock()
            database.executemany("INSERT INTO events (at, what, key) VALUES (?, ?, ?)", [(now, *each) for each in done])
            database.execute("DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (self.MOST_EVENTS,))

    def events(self, after: int, most: int) -> tuple[int, list[tuple[int, float, str, str]]]:
        """Return the number of the first event that is still kept (0: none was ever kept), and what was counted here after an event."""

        def read(database: sqlite3.Connection) -> tuple[int, list[tuple[int, float, str, str]]]:
            (first,) = database.execute("SELECT min(number) FROM events").fetchone()
            rows = database.execute("SELECT number, at, what, key FROM events WHERE number > ? ORDER BY number LIMIT ?", (after, most))
            return first or 0, rows.fetchall()

        found: tuple[int, list[tuple[int, float, str, str]]] = self._with(read, (0, []))
        return found

    def origin(self) -> str:
        """Return the name of this file of counts, drawn when it was made: the events of another one begin anew."""

        def read(database: sqlite3.Connection) -> str:
            database.execute("INSERT OR IGNORE INTO secrets VALUES ('origin', ?)", (secrets.token_bytes(16),))
            return bytes(database.execute("SELECT value FROM secrets WHERE name = 'origin'").fetchone()[0]).hex()

        return str(self._with(read, ""))

    def everything(self) -> dict[str, Any]:
        """Return all counts and places, and the number of the last event that is in them, for an issuer that has none of it."""

        def read(database: sqlite3.Connection) -> dict[str, Any]:
            (last,) = database.execute("SELECT max(number) FROM events").fetchone()
            counts = database.execute("SELECT key, level, at, until FROM counts").fetchall()
            return {"number": last or 0, "counts": counts, "places": database.execute("SELECT key, at FROM places").fetchall()}

        return dict(self._with(read, {"number": 0, "counts": [], "places": []}))

    def heard(self, origin: str) -> int | None:
        """Return up to which event those of another issuer were counted here; None if none ever was."""

        def read(database: sqlite3.Connection) -> int | None:
            row = database.execute("SELECT number FROM heard WHERE origin = ?", (origin,)).fetchone()
            return row[0] if row else None

        number: int | None = self._with(read, None)
        return number

    def hear(self, origin: str, events: Iterable[tuple[int, float, str, str]]) -> None:
        """Count what another issuer counted, each of its events once."""

        def write(database: sqlite3.Connection) -> None:
            row = database.execute("SELECT number FROM heard WHERE origin = ?", (origin,)).fetchone()
            last = row[0] if row else 0
            for number, at, what, key in events:
                if number <= last:
                    continue
                last = number
                # A clock that is ahead over there makes no wait longer here.
                self._hear(database, min(at, self._clock()), what, key)
            database.execute("INSERT OR REPLACE INTO heard VALUES (?, ?)", (origin, last))

        self._with(write, None)

    def _hear(self, database: sqlite3.Connection, at: float, what: str, key: str) -> None:
        if what == self.COUNT and key.partition(" ")[0] in self._limits:
            self._count(database, key.partition(" ")[0], key, at)
        elif what == self.CLEAR and key.startswith(("client ", "behind ")):
            database.execute("DELETE FROM counts WHERE key = ? AND at <= ?", (key, at))
        elif what == self.PLACE:
            database.execute("INSERT INTO places VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET at = max(at, excluded.at)", (key, at))

    def take(self, origin: str, found: Mapping[str, Any]) -> None:
        """Take over all another issuer has (`everything`); of a count that is here as well the higher one stays."""

        def write(database: sqlite3.Connection) -> None:
            database.executemany(
                "INSERT INTO counts VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                " level = max(level, excluded.level), at = max(at, excluded.at), until = max(until, excluded.until)",
                [(str(key), float(level), float(at), float(until)) for key, level, at, until in found["counts"]],
            )
            for key, at in found["places"]:
                self._hear(database, float(at), self.PLACE, str(key))
            database.execute("INSERT OR REPLACE INTO heard VALUES (?, ?)", (origin, int(found["number"])))

        self._with(write, None)

    @staticmethod
    def _keys(login: str | None, address: str, frontend: str, *, behind: bool = False) -> dict[str, str]:
        place = network(address)
        keys = {"network": f"network {surroundings(address)}", "frontend": f"frontend {frontend}"}
        if login is not None:
            keys |= {kind: f"{kind} {login} {place}" for kind in ("client", "place")}
            keys |= {"user": f"user {login}", "known": f"{login} {place}"}
            keys |= {kind: f"{kind} {login}" for kind in ("behind", "stranger") if behind}
        return keys

    def _trim(self, database: sqlite3.Connection, table: str, oldest: float) -> None:
        """Keep a table bounded: what is too old goes, and of too many the oldest."""
        database.execute(f"DELETE FROM {table} WHERE at < ?", (oldest,))  # noqa: S608 - one of two names above
        (rows,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        if rows > self.MOST_ROWS:
            database.execute(f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} ORDER BY at LIMIT ?)", (rows - self.MOST_ROWS,))  # noqa: S608

    def _with(self, work: Callable[[sqlite3.Connection], Any], otherwise: Any) -> Any:
        """Do something in one transaction. If the file fails (a full disk), go on in memory: neither logins nor limits end with it."""
        with self._lock:
            for _ in range(2):
                try:
                    self._database.execute("BEGIN IMMEDIATE")
                    result = work(self._database)
                    self._database.execute("COMMIT")
                except sqlite3.Error as problem:
                    warn("alarm=limits-file reason=%s", loggable(str(problem)))
                    with contextlib.suppress(sqlite3.Error):
                        self._database.close()
                    self._database = self._open(":memory:")
                else:
                    return result
        return otherwise

    def _open(self, path: str) -> sqlite3.Connection:
        try:
            return self._connect(path)
        except sqlite3.OperationalError as problem:
            # A disk that is full or can only be read: the file may be sound, so it stays, and this process counts in memory.
            warn("alarm=limits-file reason=%s", loggable(str(problem)))
            return self._connect(":memory:")
        except sqlite3.DatabaseError as problem:
            # Not a database any more. What it held is lost, which is better than an issuer that does not start.
            warn("alarm=limits-file reason=%s", loggable(str(problem)))
            for suffix in ("", "-wal", "-shm"):
                Path(path + suffix).unlink(missing_ok=True)
            return self._connect(path)

    def _connect(self, path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=2, isolation_level=None, check_same_thread=False)
        # A crash of the process loses nothing; one of the machine the last moments.
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(self._TABLES + (self._SHARED if self._settings.peers else ""))
        return database


def network(address: str) -> str:
    """Return whom an address stands for: itself, or the IPv6 network of 64 bits in which one client may take any (RFC 6177)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if parsed.version == 6:
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def surroundings(address: str) -> str:
    """Return what one who rents an address has at hand: itself, or the IPv6 network of 56 bits a customer gets (RFC 6177 section 2)."""
    place = network(address)
    return str(ipaddress.ip_network(place).supernet(new_prefix=56)) if ":" in place else place


def warn(form: str, *values: object) -> None:
    """Write a line that an operator must see: the prefix makes it one of priority "warning" in the journal (sd-daemon(3))."""
    log.warning("<4>" + form, *values)


def normalise_login(raw: str, pattern: str = LOGIN) -> str | None:
    """Return a login name in the one form it has here, or None if it can't be one.

    Only ASCII is lowered: a Kelvin sign is no k, and Dovecot, which lowers names before the session begins, does not take it for one.
    """
    login = raw.strip().lower() if raw.isascii() else ""
    if len(login) > LONGEST_LOGIN or not re.fullmatch(pattern, login):
        return None
    return login


def prepare(password: str) -> str:
    """Return a password in the form its hash was made of: OpaqueString (RFC 8265 section 4.2), so that `ü` is `ü` however it was typed.

    What has no such form is returned as it came. Nobody can set such a password, so it is refused, at the cost of every refusal; but it may
    have been set before passwords were prepared.
    """
    from precis_i18n import get_profile

    try:
        prepared: str = get_profile("OpaqueString").enforce(password)
    except UnicodeEncodeError:
        return password
    return prepared


def person_dn(login: str, base_dn: str) -> str:
    """Return the distinguished name of a user's entry, the login name escaped as RFC 4514 section 2.4 has it."""
    return f"uid={dn_value(login)},ou=people,{base_dn}"


def app_password_dn(login: str, device: str, base_dn: str) -> str:
    """Return the distinguished name of the entry that has an app password of a user's."""
    return f"cn={device},{person_dn(login, base_dn)}"


def loggable(value: str | None) -> str:
    """Return a value that somebody else chose, fit for one field of one log line."""
    return _LOGGABLE.sub("?", value or "")[:80] or "-"


def certificate_names(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the DNS names of a peer certificate (as `ssl.SSLSocket.getpeercert` gives it). The subject does not count."""
    if not certificate:
        return frozenset()
    return frozenset(value.lower() for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")


def authenticated_client(client_id: str | None, names: Iterable[str], frontends: Iterable[str]) -> str | None:
    """Return the frontend that asks, or None.

    RFC 8705 section 2: the request names its client_id, and the certificate has to be that client's; ours is the one whose SAN
    (tls_client_auth_san_dns) is the id itself. The certificate's chain was checked by TLS before.
    """
    if not client_id:
        return None
    wanted = client_id.lower()
    return wanted if wanted in frozenset(frontends) and wanted in frozenset(names) else None


def ticket_claims(person: Person, settings: Settings, now: float) -> dict[str, str | int]:
    """Return the claims of a ticket (RFC 7519 section 4.1).

    `iat` and `nbf` are dated back a little for stores whose clock is behind; the end is counted from the true time.
    """
    issued = int(now) - settings.clock_leeway_seconds
    return {
        "iss": settings.issuer,
        "sub": person.login,
        "aud": person.store,
        "scope": settings.scope,
        "iat": issued,
        "nbf": issued,
        "exp": int(now) + settings.lifetime_seconds,
        "jti": secrets.token_hex(16),
    }


def sign_ticket(claims: Mapping[str, str | int], key: SigningKey) -> str:
    """Return the signed ticket. The header says typ=JWT: Dovecot 2.3 takes nothing else (RFC 7519 section 5.1)."""
    from authlib.jose import JsonWebToken

    token: bytes = JsonWebToken(["RS256"]).encode({"alg": "RS256", "typ": "JWT", "kid": key.kid}, dict(claims), key.loaded)
    return token.decode("ascii")


class LdapDirectory:
    """Tries passwords by an LDAP simple bind as the user (RFC 4513 section 5.1.3) and reads his store as himself.

    Every refusal costs one password hash. slapd computes none for a name nobody has and for an account that is locked; then the password
    is tried on an entry nobody knows the password of. Whether one was computed is asked over the local socket, as the Unix user the
    issuer is: he may see that an entry exists and whether it is locked, and can neither search nor list.
    """

    # Result codes that mean "not with this name and password" (RFC 4511 appendix A); all others mean "ask later".
    REFUSED = frozenset({32, 34, 48, 49, 50, 53})
    QUIET_SECONDS = 60.0
    """Between two lines about a directory behind that gives no answer."""

    def __init__(self, url: str, socket: str, base_dn: str, timeout: int, behind: Behind | None = None) -> None:
        self._url = url
        self._socket = socket
        self._base_dn = base_dn
        self._timeout = timeout
        self._behind = behind
        self._other = DirectoryBehind(behind) if behind else None
        self._told = -self.QUIET_SECONDS

    def replace(self, login: str, old: str, new: str) -> bool:
        """Give a user another password, as himself (RFC 4511 section 4.6); slapd hashes it.

        Returns:
            False if the old one is not his (any more), or he is locked.

        Raises:
            DirectoryUnavailable: it can't be done now.
        """
        from ldap3.core.exceptions import LDAPException

        dn = person_dn(login, self._base_dn)
        before, after = (text.encode("utf-8", "surrogateescape") for text in (old, new))
        try:
            with self._connection(self._url, user=dn, password=before, read_only=False) as connection:
                if not connection.bind():
                    if connection.result["result"] in self.REFUSED:
                        return False
                    raise DirectoryUnavailable(f"bind: {connection.result['description']}")
                if not connection.modify(dn, {"userPassword": [("MODIFY_REPLACE", [after])]}):
                    raise DirectoryUnavailable(f"modify: {connection.result['description']}")
        except (LDAPException, OSError) as problem:
            raise DirectoryUnavailable(f"{type(problem).__name__}") from problem
        return True

    def elsewhere(self, login: str, password: str) -> bool:
        """Tell whether the directory behind is asked about this password."""
        return self._behind is not None and self._behind.is_asked(login, password)

    def check(self, login: str, password: str) -> Person | None:
        """Return the user if the directory takes the password for his, or for one of his devices'."""
        from ldap3.core.exceptions import LDAPException

        if self._other is not None and self.elsewhere(login, password):
            return self._judged(self._other, login, password)

        # Octets: ldap3 runs SASLprep over text, which is not what the hash was made of, and raises an error for some.
        octets = password.encode("utf-8", "surrogateescape")
        try:
            device, dn = self._whose(login, password)
            if not device and self._behind is not None and self._behind.judges(login):
                # The form of an app password that is gone. What was his own here once opens nothing.
                dn = f"cn=nobody,{self._base_dn}"
            with self._connection(self._url, user=dn, password=octets) as connection:
                if connection.bind():
                    return self._read(connection, login, device)
                if connection.result["result"] not in self.REFUSED:
                    raise DirectoryUnavailable(f"bind: {connection.result['description']}")
            if not dn.startswith("cn=nobody,") and not self._was_hashed(dn):
                with self._connection(self._url, user=f"cn=nobody,{self._base_dn}", password=octets) as connection:
                    connection.bind()
        except (LDAPException, OSError) as problem:
            raise DirectoryUnavailable(f"{type(problem).__name__}") from problem
        return None

    def _whose(self, login: str, password: str) -> tuple[str, str]:
        """Return the one entry a password is tried on, and before it the id if that is an app password's: each question costs one hash."""
        form = APP_PASSWORD.fullmatch(password)
        if form:
            dn = app_password_dn(login, form[1], self._base_dn)
            if self._looked_up(dn) is not None:
                return form[1], dn
        return "", person_dn(login, self._base_dn)

    def _judged(self, other: DirectoryBehind, login: str, password: str) -> Person | None:
        """Return the user if the directory behind takes the password for his, and he is one of ours who is not locked, before and after."""
        try:
            taken = other.takes(login, password, known=self._place(login) is not None)
        except DirectoryUnavailable as problem:
            if time.monotonic() - self._told >= self.QUIET_SECONDS:
                self._told = time.monotonic()
                warn("alarm=directory-behind reason=%s", loggable(str(problem)))
            raise
        return self._place(login) if taken else None

    def _place(self, login: str) -> Person | None:
        """Return a user who may log in, without asking for a password; None if there is none, or he is locked."""
        from ldap3.core.exceptions import LDAPException

        try:
            found = self._looked_up(person_dn(login, self._base_dn))
        except (LDAPException, OSError) as problem:
            raise DirectoryUnavailable(f"{type(problem).__name__}") from problem
        return None if found is None else self._person(found, login)

    def has(self, login: str) -> bool:
        """Tell whether there is such an entry, locked or not."""
        from ldap3.core.exceptions import LDAPException

        try:
            return self._looked_up(person_dn(login, self._base_dn)) is not None
        except (LDAPException, OSError) as problem:
            raise DirectoryUnavailable(f"{type(problem).__name__}") from problem

    @contextlib.contextmanager
    def _connection(self, url: str, **options: Any) -> Any:
        import ldap3

        server = ldap3.Server(url, get_info=ldap3.NONE, connect_timeout=self._timeout)
        connection = ldap3.Connection(server, receive_timeout=self._timeout, **{"read_only": True, **options})
        try:
            yield connection
        finally:
            connection.unbind()

    def _was_hashed(self, dn: str) -> bool:
        """Tell whether slapd compared a hash when it refused this entry."""
        found = self._looked_up(dn)
        return found is not None and not found.get("pwdAccountLockedTime")

    def _looked_up(self, dn: str) -> dict[str, Any] | None:
        """Return of an entry what the issuer may see; None if there is none."""
        import ldap3

        me = f"gidNumber={os.getegid()}+uidNumber={os.geteuid()},cn=peercred,cn=external,cn=auth"
        # The name slapd gives the issuer anyway: ldap3 does not send an empty one, and slapd then waits for more.
        options = {"authentication": ldap3.SASL, "sasl_mechanism": ldap3.EXTERNAL, "sasl_credentials": f"dn:{me}"}
        with self._connection(self._socket, **options) as connection:
            if not connection.bind():
                raise DirectoryUnavailable(f"local socket: {connection.result['description']}")
            if not connection.search(dn, "(objectClass=*)", search_scope="BASE", attributes=["pwdAccountLockedTime", "mailHost"]):
                return None
            found = [each for each in connection.response if each.get("type") == "searchResEntry"]
            return dict(found[0]["raw_attributes"]) if found else None

    def _read(self, connection: Any, login: str, device: str) -> Person | None:
        """Read the store's name from the user's entry; None if he is locked, which slapd does not look at for an app password."""
        dn, wanted = person_dn(login, self._base_dn), ["mailHost", "pwdAccountLockedTime"]
        if not connection.search(dn, "(objectClass=inetOrgPerson)", search_scope="BASE", attributes=wanted):
            raise DirectoryUnavailable("own entry not readable")
        return self._person(connection.response[0]["raw_attributes"], login, device)

    @staticmethod
    def _person(found: Mapping[str, Any], login: str, device: str = "") -> Person | None:
        if found.get("pwdAccountLockedTime"):
            return None
        values = found.get("mailHost") or []
        if not values:
            raise DirectoryUnavailable("entry without a store")
        return Person(login=login, store=values[0].decode("ascii").lower(), device=device)


class OneAtATime:
    """Lets one question of a name pass at a time.

    Args:
        patience: seconds a question waits for the one before it.
    """

    def __init__(self, patience: float = 10.0) -> None:
        self._patience = patience
        self._over = threading.Condition()
        self._names: set[str] = set()

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Wait for one's turn, and have it within the block.

        Raises:
            Busy: it did not come.
        """
        with self._over:
            if not self._over.wait_for(lambda: name not in self._names, self._patience):
                raise Busy("one question of a name at a time")
            self._names.add(name)
        try:
            yield
        finally:
            with self._over:
                self._names.discard(name)
                self._over.notify_all()


class Tries:
    """Passwords are tried in turn (`ticket_turns`), no more at a time than there are processors, and each who asks is counted.

    Args:
        settings: how many at a time, and how long a question waits.
        users: who tells whether a password is right.
        refusals: the limits; they are looked at again when the turn comes, since others may have reached them meanwhile.
    """

    BEHIND_AT_ONCE = 16

    def __init__(self, settings: Settings, users: Directory, refusals: Refusals) -> None:
        slots = settings.parallel_passwords or len(os.sched_getaffinity(0))
        self._turns = Turns(slots, settings.queue_seconds, settings.queue_per_user)
        # A directory behind costs this host no processor. Who waits for it keeps nobody waiting who does not ask it.
        self._turns_behind = Turns(self.BEHIND_AT_ONCE, settings.queue_seconds, settings.queue_per_user)
        self._one = OneAtATime()
        self._users = users
        self._refusals = refusals
        self._refused_in: deque[float] = deque(maxlen=32)
        # Of this process alone: what is kept of a waiting password, to know the same one by, tells nobody what it is.
        self._secret = secrets.token_bytes(32)

    def of(self, login: str, password: str, address: str, frontend: str, waiting: Callable[[], None]) -> tuple[str | None, Person | None]:
        """Return which limit was reached meanwhile, and the user if the password is his.

        Raises:
            DirectoryUnavailable: the directory could not tell.
            Busy: the turn did not come.
        """
        # Where a user got in before he waits for himself alone; elsewhere each network has its turn: a wave of names is one of them.
        known = self._refusals.known(login, address)
        path = (frontend, "known", login) if known else (frontend, "new", surroundings(address), login)
        digest = hashlib.blake2b(password.encode("utf-8", "surrogatepass"), key=self._secret).digest()
        work = functools.partial(self._try, login, password, address, frontend)
        turns = self._turns_behind if self._users.elsewhere(login, password) else self._turns
        began = time.monotonic()
        answer: tuple[str | None, Person | None] = turns.ask(path, (frontend, login, network(address), digest), work, waiting)
        if answer[1] is None:
            self._refused_in.append(time.monotonic() - began)
        return answer

    def put_off(self, login: str, address: str, frontend: str, *, behind: bool = False, askers: int = 1) -> str | None:
        """Return the limit that keeps a name from being tried now, and count who asked; None if none does."""
        limit = self._refusals.closed(login, address, frontend, behind=behind)
        for _ in range(askers if limit else 0):
            self._refusals.refused(login, address, frontend, tried=False, behind=behind)
        return limit

    def nameless(self, address: str, frontend: str) -> str | None:
        """Count what is no name or no password, which is tried nowhere; return the limit that was reached before."""
        limit = self._refusals.closed(None, address, frontend)
        for reached in self._refusals.refused(None, address, frontend, tried=not limit).reached:
            alarm(reached, NOT_A_NAME, frontend, address)
        return limit

    def lately(self) -> float:
        """Return the seconds a refusal took lately, one of many: what is not tried takes as long, so that its time tells nothing."""
        return min(LONGEST_HOLD, random.choice([*self._refused_in] or [0.0]))  # noqa: S311 - no secret

    def _try(self, login: str, password: str, address: str, frontend: str, askers: int) -> tuple[str | None, Person | None]:
        if not self._users.elsewhere(login, password):
            return self._tried(login, password, address, frontend, askers)
        # A directory behind locks accounts: between the look at the limit and the count no other question of the name may pass.
        with self._one.of(login):
            return self._tried(login, password, address, frontend, askers, behind=True)

    def _tried(
        self, login: str, password: str, address: str, frontend: str, askers: int, *, behind: bool = False
    ) -> tuple[str | None, Person | None]:
        limit = self.put_off(login, address, frontend, behind=behind, askers=askers)
        if limit:
            return limit, None
        person = self._users.check(login, password)
        if person is not None:
            self._refusals.forget(login, address, behind=behind)
            return None, person
        # However many asked the same, a directory behind was asked once.
        counted = [self._refusals.refused(login, address, frontend, tried=True, behind=behind and not more) for more in range(askers)]
        for reached in [kind for each in counted for kind in each.reached]:
            alarm(reached, self.shown(login), frontend, address)
        return ("as-elsewhere" if counted[0].later else None), None

    def shown(self, login: str, *, ask: bool = True) -> str:
        """Return a name as logs have it.

        Args:
            ask: whether the directory is asked about a name that never got in; what was not tried is not worth a question.
        """
        return self._refusals.shown(login, self._is_user if ask else lambda _: False)

    def _is_user(self, login: str) -> bool:
        try:
            return self._users.has(login)
        except DirectoryUnavailable:
            return False


def alarm(limit: str, login: str, frontend: str, address: str) -> None:
    """Write that a count reached its limit."""
    warn("alarm=guessing limit=%s user=%s frontend=%s client=%s", *map(loggable, (limit, login, frontend, address)))


def say_wait(environ: Mapping[str, Any]) -> None:
    """Tell whoever asked with "Prefer: wait" (RFC 7240 section 4.3) that we are at it (102, RFC 2518 section 10.1).

    It is how a frontend tells an issuer that is busy from one that is gone. Clients that did not ask for it may not expect it.

    Raises:
        OSError: whoever asked is gone.
    """
    connection = environ.get("gunicorn.socket")
    if connection is not None and "wait" in environ.get("HTTP_PREFER", ""):
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")


def hold_until(moment: float) -> None:
    """Wait until the monotonic clock shows a moment."""
    remaining = moment - time.monotonic()
    if remaining > 0:
        time.sleep(remaining)


def who_asks(conf: Settings, claimed: str | None) -> str | None:
    """Return the frontend that asks, if its certificate, which TLS has verified, has the name it goes by (RFC 8705 section 2.1)."""
    from flask import g, request

    peer = request.environ.get("gunicorn.socket")
    names = certificate_names(peer.getpeercert() if hasattr(peer, "getpeercert") else None)
    client_id = authenticated_client(claimed, names, conf.frontends)
    g.frontend = client_id or "unknown:" + ",".join(sorted(names))
    return client_id


def told(conf: Settings, tries: Tries, started: float, verdict: str, status: int) -> None:
    """Write the line about an answer, and hold a refusal back for as long as they all take.

    Args:
        started: when the question came, by the monotonic clock.
    """
    from flask import g, request

    if "login" not in g and "asked_for" in g:
        g.login = tries.shown(g.asked_for, ask=verdict == "invalid_grant" or g.get("limit") == "as-elsewhere")
    log.info(
        "decision=%s status=%d user=%s frontend=%s client=%s service=%s session=%s store=%s ticket=%s%s%s%s",
        verdict,
        status,
        loggable(g.get("login")),
        loggable(g.get("frontend")),
        loggable(request.headers.get("X-Client-IP")),
        loggable(g.get("service") or request.headers.get("X-Client-Service")),
        loggable(request.headers.get("X-Client-Session")),
        loggable(g.get("store")),
        loggable(g.get("ticket")),
        f" device={g.device}" if g.get("device") else "",
        f" limit={g.limit}" if g.get("limit") else "",
        f" reason={g.reason!r}" if "reason" in g else "",
    )
    if verdict in {"invalid_grant", "slow_down"}:
        # Refusals cost one hash; the least time hides what else differs between them. What was not tried takes as long as they do.
        least = conf.refusal_milliseconds / 1000
        hold_until(started + (max(least, tries.lately()) if g.get("limit") not in {None, "as-elsewhere"} else least))


def create_app(
    settings: Settings | None = None,
    directory: Directory | None = None,
    key: SigningKey | None = None,
    clock: Callable[[], float] = time.time,
) -> "Flask":
    """Build the WSGI application; without arguments from the files the unit names."""
    from authlib.integrations.flask_oauth2 import AuthorizationServer
    from authlib.oauth2 import OAuth2Error
    from authlib.oauth2.rfc6749 import ClientMixin, InvalidClientError, InvalidGrantError, InvalidScopeError, grants
    from flask import Flask, g, request

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    conf = settings or Settings.from_file(Path(os.environ["TICKET_ISSUER_SETTINGS"]))
    users = directory or LdapDirectory(
        conf.directory_url, conf.directory_socket, conf.directory_base_dn, conf.directory_timeout_seconds, conf.behind
    )
    signing_key = key or SigningKey.from_pem(Path(os.environ["TICKET_ISSUER_SIGNING_KEY"]).read_bytes())

    class TemporarilyUnavailable(OAuth2Error):  # type: ignore[misc,unused-ignore]
        """We can't tell now. RFC 6749 has no such error at the token endpoint; the status is what frontends go by."""

        error = "temporarily_unavailable"
        status_code = 503

    class SlowDown(OAuth2Error):  # type: ignore[misc,unused-ignore]
        """Too many refusals (RFC 6585 section 4). Frontends say "try later", which tells nothing about this password."""

        error = "slow_down"
        status_code = 429

    refusals = Refusals(conf)
    tries = Tries(conf, users, refusals)
    uses = Uses(conf.uses_file)

    class Frontend(ClientMixin):  # type: ignore[misc,unused-ignore]
        """A frontend as an OAuth client (RFC 6749 section 2): one grant, one scope, one way to prove itself."""

        def __init__(self, client_id: str) -> None:
            self.client_id = client_id

        def get_client_id(self) -> str:
            return self.client_id

        def get_allowed_scope(self, scope: str | None) -> str:
            return conf.scope

        def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
            return method == "tls_client_auth" and endpoint == "token"

        def check_grant_type(self, grant_type: str) -> bool:
            return grant_type == "password"

    class PasswordGrant(grants.ResourceOwnerPasswordCredentialsGrant):  # type: ignore[misc,unused-ignore]
        """RFC 6749 section 4.3, with the directory as the judge."""

        TOKEN_ENDPOINT_AUTH_METHODS: ClassVar[list[str]] = ["tls_client_auth"]

        def authenticate_user(self, username: str, password: str) -> Person:
            if (self.request.payload.scope or conf.scope).split() != [conf.scope]:
                raise InvalidScopeError()
            login = normalise_login(username, conf.login_pattern)
            address = request.headers.get("X-Client-IP", "")
            given, password = password, prepare(password)
            if login is None or not password or len(password) > LONGEST_PASSWORD:
                # Somebody may have typed his password where his name belongs: what can't be a name is not logged.
                g.login = NOT_A_NAME
                g.limit = tries.nameless(address, g.frontend)
                raise SlowDown() if g.limit else InvalidGrantError()
            g.asked_for = login
            behind = users.elsewhere(login, password)
            # Which form a password has in a directory behind is not ours to say.
            password = given if behind else password
            g.limit = tries.put_off(login, address, g.frontend, behind=behind)
            if g.limit:
                raise SlowDown()
            try:
                g.limit, person = tries.of(login, password, address, g.frontend, functools.partial(say_wait, request.environ))
            except (DirectoryUnavailable, Busy) as problem:
                g.reason = str(problem)
                raise TemporarilyUnavailable() from problem
            if g.limit:
                raise SlowDown()
            if person is None:
                raise InvalidGrantError()
            g.device = person.device
            if person.device:
                if request.headers.get("X-Client-Service", "") not in APP_SERVICES:
                    g.reason = "an app password is good for IMAP and submission"
                    raise InvalidGrantError()
                uses.note(login, person.device)
            g.login, g.store = login, person.store
            return person

        def validate_requested_scope(self) -> None:
            """Done above, before the password is tried."""

    def authenticate_frontend(query_client: Callable[[str], Frontend | None], oauth_request: Any) -> Frontend:
        """RFC 8705 section 2.1: the certificate TLS has verified, and the name it carries."""
        client_id = who_asks(conf, oauth_request.form.get("client_id"))
        client = query_client(client_id) if client_id else None
        if client is None:
            raise InvalidClientError(status_code=401)
        return client

    def make_ticket(*, user: Person, **_: Any) -> dict[str, str | int]:
        """The answer of RFC 6749 section 5.1, with the store's name beside the ticket, and which app password it was."""
        claims = ticket_claims(user, conf, clock())
        g.ticket = claims["jti"]
        return {
            "access_token": sign_ticket(claims, signing_key),
            "token_type": "Bearer",
            "expires_in": conf.lifetime_seconds,
            "scope": conf.scope,
            "store": user.store,
            **({"device": user.device} if user.device else {}),
        }

    app = Flask("ticket_issuer", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LONGEST_FORM
    server = AuthorizationServer(
        app,
        query_client=lambda client_id: Frontend(client_id) if client_id in conf.frontends else None,
        save_token=lambda token, oauth_request: None,
    )
    server.register_client_auth_method("tls_client_auth", authenticate_frontend)
    server.register_token_generator("default", make_ticket)
    server.register_grant(PasswordGrant)

    def token() -> "Response":
        """Answer one question and write one line about it."""
        started = time.monotonic()
        response: Response = server.create_token_response()
        answer = response.get_json(silent=True) or {}
        told(conf, tries, started, "granted" if response.status_code == 200 else str(answer.get("error")), response.status_code)
        return response

    app.add_url_rule("/token", view_func=token, methods=["POST"])
    if conf.self_service:
        from ticket_own_password import OwnPasswords, offer

        offer(app, OwnPasswords(conf, users, tries), functools.partial(who_asks, conf), functools.partial(told, conf, tries))
    return app


def show_names(settings: Path, names: Iterable[str]) -> None:
    """Print how the log shows names: what nobody has is a digest there, by which its lines are found."""
    conf = Settings.from_file(settings)
    refusals = Refusals(conf)
    for name in names:
        login = normalise_login(name, conf.login_pattern)
        print(refusals.shown(login, lambda _: False) if login else NOT_A_NAME)


if __name__ == "__main__":
    show_names(Path("/etc/lemonstand/ticket/issuer.json"), sys.stdin)
