"""The directory behind: an LDAP directory of the organisation's own that judges passwords (docs/decisions/0049).

It is asked over verified TLS with a certificate of this host's, one simple bind a question (RFC 4513 section 5.1.3), and nothing of what it
said is kept. It runs on Debian's python3-ldap3, which is imported only where it is used.
"""

# ruff: noqa: PLC0415 - see above

import contextlib
import dataclasses
import functools
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ticket_connections import Bounded

APP_PASSWORD = re.compile(r"([a-km-np-z2-9]{4})(?:-[a-km-np-z2-9]{5}){4}")
"""An app password: which one it is, and twenty characters nobody guesses (docs/decisions/0046)."""
DN = re.compile(r"[A-Za-z][A-Za-z0-9-]*=")
"""How a distinguished name begins. What a directory takes otherwise (a userPrincipalName) is no DN and is not escaped as one."""


class DirectoryUnavailable(Exception):
    """The directory gave no answer either way, so neither may we."""


@dataclasses.dataclass(frozen=True)
class Behind:
    """What the operator says of it. The keys of the settings file are the names of these fields.

    Args:
        name: in its certificate.
        addresses: asked in turn.
        ca: file with who signs its certificate; `certificate` and `key`: this host's own.
        bind_name: the name to bind as, with `{login}`, `{local}` and `{domain}`; empty: it is searched for.
        search: `base`, `filter` (as `bind_name`), `bind_name` and `password_file` of who may search.
        domains: mail domains whose users it judges; none: all.
        own_passwords: users whose passwords stay here.
        most: wrong passwords of a name, of all places and of places where the user did not get in, before it is asked no more.
        quiet_seconds: after which it forgets wrong passwords.
        seconds: for one question as a whole.
    """

    name: str
    addresses: tuple[str, ...]
    ca: str
    certificate: str
    key: str
    most: Mapping[str, int]
    quiet_seconds: int
    port: int = 636
    bind_name: str = ""
    search: Mapping[str, str] = dataclasses.field(default_factory=dict)
    domains: tuple[str, ...] = ()
    own_passwords: tuple[str, ...] = ()
    seconds: float = 5.0

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Behind":
        """Build it from a part of a settings file; an unknown or missing key is an error."""
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"unknown settings of the directory behind: {', '.join(sorted(unknown))}")
        lists = {key: tuple(str(each).lower() for each in values.get(key, ())) for key in ("addresses", "domains", "own_passwords")}
        return cls(**{**values, **lists})

    def judges(self, login: str) -> bool:
        """Tell whether this user's password is judged there: settings alone decide, whatever either directory holds."""
        return login not in self.own_passwords and (not self.domains or login.rpartition("@")[2] in self.domains)

    def is_asked(self, login: str, password: str) -> bool:
        """Tell whether a question goes there. An app password is ours, and nobody else's to see or to count."""
        return self.judges(login) and not APP_PASSWORD.fullmatch(password)


def dn_value(value: str) -> str:
    """Return a value as it stands in a distinguished name (RFC 4514 section 2.4)."""
    escaped = re.sub(r'([\\",+;<>=])', r"\\\1", value).replace("\0", r"\00")
    if escaped.startswith((" ", "#")):
        escaped = "\\" + escaped
    if escaped.endswith(" ") and not escaped.endswith("\\ "):
        escaped = escaped[:-1] + "\\ "
    return escaped


def filter_value(value: str) -> str:
    """Return a value as it stands in a search filter (RFC 4515 section 3)."""
    return "".join(f"\\{ord(each):02x}" if each in "\\*()\0" else each for each in value)


def filled(template: str, login: str) -> str:
    """Return a template with a login name in it, escaped by what the template is: a filter, a distinguished name, or neither."""
    escape = filter_value if template.startswith("(") else dn_value if DN.match(template) else str
    local, _, domain = login.rpartition("@")
    parts = {"login": escape(login), "local": escape(local), "domain": escape(domain)}
    # In one go: what a name holds is no place for another.
    return re.sub(r"\{(login|local|domain)\}", lambda found: parts[found[1]], template)


class DirectoryBehind:
    """Asks it.

    Args:
        settings: what the operator says of it.
    """

    # Result codes that mean "not with this name and password" (RFC 4511 appendix A): constraintViolation and unwillingToPerform are how
    # some say that an account is locked or disabled. All others mean "ask later", a referral (10) among them.
    REFUSED = frozenset({19, 32, 48, 49, 53})

    def __init__(self, settings: Behind) -> None:
        self._settings = settings
        self._took: deque[float] = deque(maxlen=32)

    def takes(self, login: str, password: str, *, known: bool) -> bool:
        """Tell whether it takes a password for a user's.

        Args:
            password: as the client gave it.
            known: whether there is such a user here who may log in. Nothing is said there about anybody else: the connection is made, and
                the answer takes as long as others did.

        Raises:
            DirectoryUnavailable: it could not be asked, or did not say.
        """
        from ldap3.core.exceptions import LDAPException

        try:
            with self._connection() as connection:
                # A bind with a name and no password is none, and succeeds (RFC 4513 section 5.1.2). To a server in C a NUL may be the end.
                if not known or not password or "\0" in password:
                    time.sleep(random.choice([*self._took] or [0.0]))  # noqa: S311 - no secret
                    return False
                began = time.monotonic()
                name = filled(self._settings.bind_name, login) if self._settings.bind_name else self._found(connection, login)
                taken = bool(name) and self._bound(connection, name, password.encode("utf-8", "surrogateescape"))
                if not taken:
                    self._took.append(min(self._settings.seconds, time.monotonic() - began))
                return taken
        except (LDAPException, OSError) as problem:
            raise DirectoryUnavailable(f"directory behind: {type(problem).__name__}") from problem

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        """Trust in the CA that is named alone, the name checked, TLS 1.2 or 1.3, and our certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        context.load_verify_locations(self._settings.ca)
        context.load_cert_chain(self._settings.certificate, self._settings.key)
        context.sslsocket_class = Bounded
        return context

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        """An open connection, not bound, to the first address that answers as who it should be, within the time of the whole question."""
        import ldap3
        from ldap3.core.exceptions import LDAPException

        until, name, context = time.monotonic() + self._settings.seconds, self._settings.name, self._context

        class Verified(ldap3.Tls):  # type: ignore[misc,unused-ignore]
            """ldap3's own takes a certificate of the address as well, and gives each read a time of its own."""

            def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
                # The name is checked in the handshake, before anything is said.
                wrapped: Any = context.wrap_socket(connection.socket, server_hostname=name, do_handshake_on_connect=False)
                connection.socket = wrapped
                wrapped.handshake_within(connection.server.connect_timeout)
                wrapped.within(until - time.monotonic())

        connection: Any = None
        problem: Exception = OSError("no time is left")
        for number, address in enumerate(self._settings.addresses):
            # One that says nothing leaves the others their share, of which half is for the handshake.
            share = (until - time.monotonic()) / (len(self._settings.addresses) - number) / 2
            if share <= 0:
                break
            server = ldap3.Server(address, self._settings.port, use_ssl=True, tls=Verified(), get_info=ldap3.NONE, connect_timeout=share)
            # Name and password are set before a bind.
            options = {"authentication": ldap3.SIMPLE, "user": "-", "password": "-", "auto_referrals": False, "read_only": True}
            connection = ldap3.Connection(server, **options)
            try:
                connection.open(read_server_info=False)
                break
            except (LDAPException, OSError) as found:
                problem, connection = found, None
        if connection is None:
            raise DirectoryUnavailable(f"directory behind: {type(problem).__name__} {problem}"[:200]) from problem
        try:
            yield connection
        finally:
            # Not `unbind`: it would wait for nobody, and what is over needs no farewell (RFC 4511 section 4.3.1).
            connection.strategy.close()

    def _bound(self, connection: Any, name: str, password: bytes) -> bool:
        """Bind; tell whether it was taken."""
        # Octets: ldap3 runs SASLprep over text, which is not what was given.
        connection.user, connection.password = name, password
        connection.bind(read_server_info=False)
        code = connection.result["result"]
        if code not in {0, *self.REFUSED}:
            raise DirectoryUnavailable(f"directory behind: bind: {connection.result['description']}")
        return bool(code == 0)

    def _found(self, connection: Any, login: str) -> str:
        """Search for a user's entry, as who may; empty: there is none."""
        import ldap3

        search = self._settings.search
        if not self._bound(connection, search["bind_name"], Path(search["password_file"]).read_bytes().rstrip(b"\r\n")):
            raise DirectoryUnavailable("directory behind: who searches is refused")
        connection.search(
            search["base"], filled(search["filter"], login), search_scope=ldap3.SUBTREE, dereference_aliases=ldap3.DEREF_NEVER,
            attributes=[ldap3.NO_ATTRIBUTES], size_limit=2,
        )  # fmt: skip
        # Of referrals (searchResRef) none is followed. Of two entries (4 is sizeLimitExceeded) none is the user's for certain.
        names = [each["dn"] for each in connection.response or [] if each.get("type") == "searchResEntry"]
        if connection.result["result"] not in {0, 4} or len(names) > 1:
            what = f"{len(names)} entries" if len(names) > 1 else connection.result["description"]
            raise DirectoryUnavailable(f"directory behind: search: {what}")
        return names[0] if names else ""
