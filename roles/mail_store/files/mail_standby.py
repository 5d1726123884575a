"""Keeps a copy of each user's mail on the other member of the pair, and takes the other's (docs/decisions/0036).

The member that serves pushes: it looks every few seconds whose mailboxes, subscriptions, scripts or attributes changed, and brings the copy
to them (`doveadm backup`, over TLS with certificates on both sides). The standby runs `doveadm dsync-server` for whoever the placement says
serves, as the owner of all mail and never as root, and for nobody else: what it keeps is a copy, and it gives nothing away by this port.
Relays hand the standby a copy of each message beside the delivery; it goes when the mailbox's copy holds the message, and is delivered
once this member serves. So nothing that was accepted depends on one disk.

    mail_standby.py serve          the service
    mail_standby.py pipe SOCKET    what doveadm starts: its ends of the conversation, passed on
    mail_standby.py order          one order of an operator's command, JSON on standard input, answer on standard output

Standard library alone.
"""

import concurrent.futures
import contextlib
import fcntl
import json
import os
import re
import selectors
import shutil
import signal
import smtplib
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, "/usr/local/lib/lemonstand")

import home_commands
import home_names
import placement

SETTINGS = Path("/etc/lemonstand/mail-standby.json")
RUN = Path("/run/lemonstand-mail")
STATUS = RUN / "status.json"
EXPECTED = RUN / "expected"
TAKING_OVER = RUN / "taking-over"
"""Locked while numbers are left out: nothing is brought meanwhile."""
MARK = ".copy-of"
"""File in a home: of whom it is a copy, and since which generation that one serves."""
WHOLE = "whole"
"""Stands there too once all of it was brought."""
ASIDE = ".set-aside"
KEPT = ".kept"
FIRST_WORD_SECONDS = 10.0
PUSH_SECONDS = 3600
BREATH_SECONDS = 5.0
LONGEST_WORD = 4 * 1024 * 1024
"""Octets of one: the longest have the names of all scripts and attributes of a user."""
STALE_SECONDS = 60
SETTLED_SECONDS = 120
"""How much later than a message's arrival a push has to begin to have brought whatever the store made of it: relays try again sooner."""
UNDER_WAY_SECONDS = 300.0
"""After so long a relay has tried again what it holds (its longest pause is four minutes)."""
WHOLE_SECONDS = 600
"""How often everybody is pushed, changed or not: what only an index knows (rare keywords) is no change that can be seen."""
LMTP = "/run/dovecot/lmtp"
HEAD = 16384
OWNER = "vmail"


class Refused(Exception):
    """The other side does not take it, and says why."""


# --- what is said over TLS ----------------------------------------------------------------------------------------------------------


def say(connection: ssl.SSLSocket, word: dict[str, Any]) -> None:
    """Send one line of JSON."""
    connection.sendall(json.dumps(word).encode() + b"\n")


def hear(connection: ssl.SSLSocket) -> dict[str, Any]:
    """Receive one line of JSON, octet by octet: what follows it is doveadm's.

    Raises:
        OSError, ValueError: the other side went, or said something else.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        octet = connection.recv(1)
        if not octet or len(line) > LONGEST_WORD:
            raise ConnectionError("the other side ended the conversation")
        line += octet
    word = json.loads(line)
    if not isinstance(word, dict):
        raise ValueError("no order")
    return word


LATER = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)
ROOM = 1 << 20


def _received(end: socket.socket) -> bytes | None:
    """What one side sent: nothing if it ended, None if it says nothing now."""
    try:
        return end.recv(65536)
    except LATER:
        return None
    except OSError:
        return b""


def _sent(end: socket.socket, data: bytes) -> int:
    """How many octets one side took; -1 if it is gone."""
    try:
        return end.send(data) if data else 0
    except LATER:
        return 0
    except OSError:
        return -1


def pump(secure: ssl.SSLSocket, plain: socket.socket) -> None:
    """Pass on octets both ways until one side ends."""
    ends: tuple[socket.socket, socket.socket] = (secure, plain)
    waiting: dict[socket.socket, bytes] = {secure: b"", plain: b""}
    other: dict[socket.socket, socket.socket] = {secure: plain, plain: secure}
    ended: set[socket.socket] = set()
    for each in ends:
        each.setblocking(False)
    while True:
        moved = False
        for each in ends:
            if each not in ended and len(waiting[other[each]]) < ROOM and (data := _received(each)) is not None:
                moved = True
                waiting[other[each]] += data
                ended |= set() if data else {each}
        for each in ends:
            if (count := _sent(each, waiting[each])) < 0:
                return
            moved = moved or count > 0
            waiting[each] = waiting[each][count:]
        if any(not waiting[other[each]] for each in ended) or not (moved or _stirs(ends, waiting, ended)):
            return


def _stirs(ends: Iterable[socket.socket], waiting: dict[socket.socket, bytes], ended: set[socket.socket]) -> bool:
    """Wait until something can be passed on; tell whether it can within five minutes."""
    with selectors.DefaultSelector() as selector:
        for each in ends:
            events = (0 if each in ended else selectors.EVENT_READ) | (selectors.EVENT_WRITE if waiting[each] else 0)
            if events:
                selector.register(each, events)
        return bool(selector.select(timeout=300))


def notice_loss(connection: socket.socket) -> None:
    """Let a connection end whose other side is gone without a word (tcp(7)): after 20 seconds, whether anything is under way or not."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 3), (socket.TCP_KEEPCNT, 3), (socket.TCP_USER_TIMEOUT, 20_000)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Way:
    """How the stores of a site reach one another.

    Args:
        settings: of this host (/etc/lemonstand/mail-standby.json).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self._client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._client.minimum_version = ssl.TLSVersion.TLSv1_2
        self._client.load_verify_locations(settings["server_ca"])
        self._client.load_cert_chain(settings["client_certificate"], settings["client_key"])

    def server(self) -> ssl.SSLContext:
        """Return what a listener needs: whoever comes shows a certificate of the CA for this purpose."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.settings["client_ca"])
        context.load_cert_chain(self.settings["server_certificate"], self.settings["server_key"])
        context.num_tickets = 0
        return context

    def caller(self, connection: ssl.SSLSocket) -> str:
        """Return the name in the inventory of the store that calls; empty if it is none of this site."""
        shown: Any = (connection.getpeercert() or {}).get("subjectAltName", ())
        names = [str(value) for kind, value in shown if kind == "DNS"]
        hosts = {f"{host}.{self.settings['domain']}": host for host in self.settings["addresses"]}
        return next((hosts[name] for name in names if name in hosts), "")

    def call(self, host: str, word: dict[str, Any], seconds: float = 5.0) -> ssl.SSLSocket:
        """Connect to another store and ask it for something.

        Raises:
            OSError: it gives no answer, or its certificate is not its own.
            Refused: it does not do that.
        """
        plain = socket.create_connection((self.settings["addresses"][host], self.settings["port"]), timeout=seconds)
        notice_loss(plain)
        try:
            connection = self._client.wrap_socket(plain, server_hostname=f"{host}.{self.settings['domain']}")
        except BaseException:
            plain.close()
            raise
        try:
            connection.settimeout(FIRST_WORD_SECONDS)
            say(connection, word)
            answer = hear(connection)
            if "refused" in answer:
                raise Refused(str(answer["refused"]))
        except BaseException:
            connection.close()
            raise
        self.heard = answer
        return connection


# --- homes --------------------------------------------------------------------------------------------------------------------------


def home_of(settings: dict[str, Any], user: str) -> Path:
    """Where a user's mail lies.

    Raises:
        Refused: the name would lead elsewhere.
    """
    local, _, domain = user.partition("@")
    if any(part in {"", ".", ".."} or "/" in part or "\0" in part or part.startswith(".") for part in (local, domain)):
        raise Refused("no such user")
    return Path(settings["directory"], domain, local)


def prepare(home: Path, directory: Path, mark: str) -> None:
    """Let nothing be in a home that is no copy of what is pushed: what is there goes aside, and is an operator's to look at and remove."""
    try:
        if (home / MARK).read_text(encoding="utf-8").splitlines()[:1] == [mark]:
            return
    except OSError:
        pass
    if home.exists() and any(home.iterdir()):
        place = (
            directory
            / ASIDE
            / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.{time.time_ns() % 1_000_000_000:09d}Z"
            / home.parent.name
            / home.name
        )
        for each in reversed([place.parent, *place.parent.parents]):
            if each.is_relative_to(directory) and not each.exists():
                each.mkdir(mode=0o700)
                shutil.chown(each, OWNER, OWNER)
        home.rename(place)
        print(f"{home}: was no copy of {mark}, and lies in {place} now", flush=True)
    for each in (home.parent, home):
        if not each.exists():
            each.mkdir(mode=0o700)
            shutil.chown(each, OWNER, OWNER)
    (home / MARK).write_text(mark, encoding="utf-8")
    shutil.chown(home / MARK, OWNER, OWNER)


def is_whole(home: Path) -> bool:
    """Whether a copy was brought to its end once; since then it is a little late at the most."""
    try:
        return WHOLE in (home / MARK).read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return False


def maildirs(home: Path) -> Iterator[Path]:
    """The mailboxes of a user, in the order of their names."""
    top = home / "Maildir"
    yield top
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(top), key=lambda each: each.name):
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def signature(home: Path) -> tuple[Any, ...]:
    """What changes when a user's mailboxes, flags, subscriptions, scripts or attributes do."""
    seen: list[Any] = []
    for name in ("dovecot-attributes", ".dovecot.sieve", "sieve", "Maildir/subscriptions"):
        with contextlib.suppress(OSError):
            found = os.lstat(home / name)
            seen.append((name, found.st_mtime_ns, found.st_ino))
    for box in maildirs(home):
        for part in ("new", "cur"):
            with contextlib.suppress(OSError):
                seen.append((box.name, part, (box / part).stat().st_mtime_ns))
    return tuple(seen)


def identity(head: bytes) -> bytes:
    """What a message is known by from the relay on: the trace line that the relay put on it (RFC 5321 section 4.4), in one line.

    The same relay gives no other message the same queue name and time; copies of one message have the same line.
    """
    found = re.search(rb"^Received:(.*(?:\r?\n[ \t].*)*)", head, re.MULTILINE)
    return b" ".join(found.group(1).split()) if found else b""


def holds(home: Path, wanted: bytes, since: float) -> bool:
    """Whether a user has a message in any mailbox.

    Args:
        wanted: its identity.
        since: Unix time it came at the earliest.
    """
    for box in maildirs(home):
        for part in ("new", "cur"):
            with contextlib.suppress(OSError):
                for entry in os.scandir(box / part):
                    with contextlib.suppress(OSError):
                        if entry.stat().st_mtime >= since and identity(_head(Path(entry.path))) == wanted:
                            return True
    return False


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEAD)


# --- pushing ------------------------------------------------------------------------------------------------------------------------


def push(way: Way, host: str, user: str, home: Path, generation: int, *, whole: bool = False, merge: bool = False) -> None:
    """Bring another store's copy of a user to what is here.

    Args:
        home: where his mail lies here.
        generation: in which this host began to serve him.
        whole: compare every message, also of mailboxes that seem equal.
        merge: he is served there by now: add what is here alone, take nothing away.

    Raises:
        OSError, Refused: it could not be done, and why.
    """
    connection = way.call(
        host, {"want": "copy", "user": user, "since": generation, "merge": merge, "names": sorted(home_names.names(home))}
    )
    folder = Path(tempfile.mkdtemp(prefix="push-", dir=RUN))
    try:
        shutil.chown(folder, OWNER, OWNER)
        with connection, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(str(folder / "way"))
            shutil.chown(folder / "way", OWNER, OWNER)
            listening.listen(1)
            listening.settimeout(30)
            words = [
                "doveadm",
                *(["sync", "-1"] if merge else ["backup"]),
                *(["-f"] if whole else []),
                "-u",
                user,
                "/usr/bin/python3",
                "-I",
                "-S",
                "-B",
                __file__,
                "pipe",
            ]
            with subprocess.Popen(
                [*words, str(folder / "way")],
                user=OWNER,
                group=OWNER,
                extra_groups=[],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as child:
                try:
                    plain, _ = listening.accept()
                    with plain:
                        pump(connection, plain)
                    said, _ = child.communicate(timeout=60)
                except (OSError, subprocess.TimeoutExpired):
                    child.kill()
                    said, _ = child.communicate()
                if child.returncode != 0:
                    raise OSError((said or f"doveadm ended with {child.returncode}").strip().splitlines()[-1][-200:])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pipe(path: str) -> int:
    """Connect standard input and output with a local socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as way, selectors.DefaultSelector() as selector:
        way.connect(path)
        selector.register(0, selectors.EVENT_READ)
        selector.register(way, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    data = os.read(0, 65536)
                    if not data:
                        return 0
                    way.sendall(data)
                else:
                    data = way.recv(65536)
                    if not data:
                        return 0
                    while data:
                        data = data[os.write(1, data) :]


class Pair:
    """What this host does for its pair.

    Args:
        settings: `me`, `store` (the pair's name), `members` ({store: [host]}), `addresses`, `directory`, `interval` (seconds).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.me, self.store = settings["me"], settings["store"]
        self.peer = next((host for host in settings["members"][self.store] if host != self.me), "")
        self.directory = Path(settings["directory"])
        self.pushed: dict[str, float] = {}
        """When the last copy of each user that is complete was begun, as the standby sees it."""
        self.in_step_there = 0.0
        """When the other one last said that all copies were whole, its own clock."""
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._whole = 0.0
        self._in_step = 0.0
        self._told = 0.0
        self.failed: dict[str, str] = {}
        """Whose copy could not be made in the last round, and why."""
        self.looked = 0.0
        """Seconds that looking for changes took in the last round."""

    @property
    def way(self) -> Way:
        """Certificates are read when they are needed, so that a renewed one counts."""
        return Way(self.settings)

    def serves(self, told: dict[str, Any]) -> bool:
        """Whether this host serves its pair's users."""
        serving: str = placement.active(told, self.store)
        return serving == str(self.me)

    def users(self, told: dict[str, Any]) -> list[str]:
        """The users of the pair."""
        return sorted(user for user, store in told["users"].items() if store == self.store)

    def ask_peer(self) -> None:
        """Hear who serves; a newer word that the controller sealed counts, whoever brings it."""
        if not self.peer:
            return
        told = placement.read()
        try:
            way = self.way
            status = json.loads(STATUS.read_text(encoding="utf-8")) if STATUS.exists() and self.serves(told) else {}
            whole = status["in_step"] if status.get("whole") else 0.0
            with way.call(self.peer, {"want": "placement", "in_step": whole}, seconds=2.0):
                sealed = way.heard.get("sealed")
        except (OSError, ValueError, Refused):
            return
        if sealed and self._is_sealed(sealed):
            said = json.loads(sealed["text"])
            # What is heard from another store takes service away and never gives any: that is the controller's to do.
            ends = said["generation"] > told["generation"] and self.serves(told) and not self.serves({**told, **said})
            if ends and placement.put({**told, **said, "sealed": sealed}):
                subprocess.run(["doveadm", "kick", "*"], capture_output=True, check=False)
                what = f"store={self.store} host={self.peer} serves since this one was away; this one keeps a copy now"
                print(f"<4>alarm=standby {what}", flush=True)

    def _is_sealed(self, sealed: dict[str, Any]) -> bool:
        """Whether the site's controller has signed it: with the key of the CA of hosts, which no host has; of two while it is changed."""
        with tempfile.TemporaryDirectory(dir=RUN) as folder:
            parts = {name: Path(folder, name) for name in ("text", "signature", "ca", "key")}
            parts["text"].write_text(str(sealed.get("text")), encoding="utf-8")
            with contextlib.suppress(ValueError):
                parts["signature"].write_bytes(bytes.fromhex(str(sealed.get("signature"))))
            for ca in re.findall(
                r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", Path(self.settings["server_ca"]).read_text(), re.DOTALL
            ):
                parts["ca"].write_text(ca + "\n", encoding="ascii")
                key = subprocess.run(["openssl", "x509", "-in", str(parts["ca"]), "-noout", "-pubkey"], capture_output=True, check=False)
                parts["key"].write_bytes(key.stdout)
                words = ["-verify", str(parts["key"]), "-signature", str(parts["signature"]), str(parts["text"])]
                if subprocess.run(["openssl", "dgst", "-sha256", *words], capture_output=True, check=False).returncode == 0:
                    return True
            return False

    def round(self) -> None:
        """Push who changed, deliver what relays kept, clear what is known; and write down how things stand."""
        told, begun = placement.read(), time.time()
        if self.serves(told):
            self.deliver_kept()
        if self.serves(told) and self.peer:
            self._push_changed(told, begun)
        elif self.peer:
            self.failed, self._in_step = {}, 0.0
            self._clear_kept(told)
        late = begun - (self._in_step or begun)
        if self.serves(told) and self.peer and late > STALE_SECONDS and begun - self._told > WHOLE_SECONDS:
            self._told = begun
            why = next(iter(self.failed.values()), "no answer")
            print(f"<4>alarm=standby store={self.store} host={self.peer} the copy is {late:.0f} s old: {why}", flush=True)
        status = {
            "at": begun,
            "serves": self.serves(told),
            "peer": self.peer,
            "generation": told["generation"],
            "in_step": self._in_step,
            "whole": self._whole > 0 and not self.failed,
            "failed": self.failed,
            "pushed": max(self.pushed.values(), default=0.0),
            "kept": sum(1 for _ in kept_copies(self.directory)),
        }
        write_json(STATUS, status)

    def _push_changed(self, told: dict[str, Any], begun: float) -> None:
        if not self._in_step:
            self._in_step = begun  # the age of a copy that was never made counts from here
        whole = begun - self._whole > WHOLE_SECONDS
        since = placement.since(told, self.store)
        self.failed, self.looked = {}, 0.0
        for user in self.users(told):
            start = time.monotonic()
            now = signature(home_of(self.settings, user))
            self.looked += time.monotonic() - start
            if not whole and self._seen.get(user) == now:
                continue
            try:
                push(self.way, self.peer, user, home_of(self.settings, user), since, whole=whole)
                self._seen[user] = now
            except (OSError, Refused, subprocess.SubprocessError) as problem:
                self.failed[user] = f"{user}: {problem}"[:300]
                if not isinstance(problem, Refused) and len(self.failed) >= 3:
                    break  # it is away: the others would only wait as well
        if not self.failed:
            self._in_step = begun
            if whole:
                self._whole = begun

    def _clear_kept(self, told: dict[str, Any]) -> None:
        """Remove what the copy of the mailbox holds, and what the store must have dealt with by itself."""
        for path, _, user in kept_copies(self.directory, self._owners()):
            with contextlib.suppress(FileNotFoundError):  # an operator's command delivered it
                came, whole = path.stat().st_mtime, max(self.pushed.get(user, 0.0), self.in_step_there)
                elsewhere = told["users"].get(user) != self.store and time.time() - came > SETTLED_SECONDS
                here = whole > came and holds(home_of(self.settings, user), identity(_head(path)), came - 3600)
                if elsewhere or here or whole > came + SETTLED_SECONDS:
                    path.unlink(missing_ok=True)

    def deliver_kept(self, least_age: float = UNDER_WAY_SECONDS, held: Iterable[str] = (), oldest: float = float("inf")) -> int:
        """Deliver what relays had handed over and the mailbox has not; what it has is a copy.

        Args:
            least_age: seconds; what is younger may be on its way still.
            held: queue names of what relays are about to deliver themselves.
            oldest: seconds; what is older was handed over by the store, or removed there by its reader.
        """
        with (RUN / "deliver.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            return self._deliver(least_age, held, oldest)

    def _deliver(self, least_age: float, held: Iterable[str], oldest: float) -> int:
        waiting = {f" id {name}".encode() for name in held}
        delivered = 0
        owners = self._owners()
        for path, address, user in kept_copies(self.directory, owners):
            try:
                came, known_by = path.stat().st_mtime, identity(_head(path))
            except FileNotFoundError:
                continue  # its mailbox has it: the service was clearing the shelf while this host began to serve
            if time.time() - came < least_age or any(name in known_by for name in waiting):
                continue
            if time.time() - came <= oldest and not holds(home_of(self.settings, user), known_by, came - 3600):
                try:
                    deliver(path, address)
                except (OSError, smtplib.SMTPException) as problem:
                    print(f"<4>{address}: what a relay handed over could not be delivered, and stays: {problem}", flush=True)
                    continue
                delivered += 1
            path.unlink(missing_ok=True)
        return delivered

    def _owners(self) -> dict[str, str]:
        """Each address with the user it is of."""
        told = placement.read()
        return {**{user: user for user in told["users"]}, **told["aliases"]}


def kept_copies(directory: Path, owners: dict[str, str] | None = None) -> Iterator[tuple[Path, str, str]]:
    """What relays handed over beside the delivery: the file, the address it was for, the user."""
    top = directory / KEPT
    for domain in sorted(top.iterdir()) if top.is_dir() else ():
        for home in sorted(domain.iterdir()):
            address = f"{home.name}@{domain.name}"
            for part in ("new", "cur"):
                folder = home / "Maildir" / part
                for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                    if owners is None or address in owners:
                        yield path, address, (owners or {}).get(address, "")


class Local(smtplib.LMTP):
    """Dovecot's own socket for deliveries, without the network."""

    def connect(self, host: str = "", port: int = 0, source_address: Any = None) -> tuple[int, bytes]:
        """Open it."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(LMTP)
        self.file = None
        return self.getreply()


def deliver(path: Path, address: str) -> None:
    """Deliver a kept message as the relay would have: under the address and from the sender it came with.

    Raises:
        OSError, smtplib.SMTPException: it was not taken.
    """
    message = path.read_bytes()
    sender = re.search(rb"^Return-Path:\s*<([^>]*)>", message[:HEAD], re.MULTILINE)
    # The lines before the relay's are those of the first delivery.
    begin = re.search(rb"^Received:", message, re.MULTILINE)
    text = message[begin.start() :] if begin else message
    with Local("localhost", local_hostname="localhost") as way:
        way.sendmail(sender.group(1).decode("ascii", "replace") if sender else "", [address], text)


def write_json(path: Path, value: Any) -> None:
    """Replace a small file in one step."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)


# --- answering ----------------------------------------------------------------------------------------------------------------------


class Server(socketserver.ThreadingTCPServer):
    """Answers the stores of this site."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.address_family = socket.AF_INET6 if ":" in pair.settings["listen"] else socket.AF_INET
        self.room = threading.Semaphore(32)
        super().__init__((pair.settings["listen"], pair.settings["port"]), Answer)

    def server_bind(self) -> None:
        """Take IPv4 as well, where the kernel lets it."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class Answer(socketserver.BaseRequestHandler):
    """One conversation."""

    server: Server

    def handle(self) -> None:
        """Shake hands, hear what is wanted, do it or say why not."""
        if not self.server.room.acquire(blocking=False):
            return
        try:
            self.request.settimeout(FIRST_WORD_SECONDS)
            notice_loss(self.request)
            way = self.server.pair.way
            with way.server().wrap_socket(self.request, server_side=True) as connection:
                self._answer(way, connection)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # whoever it was went, or speaks something else
        finally:
            self.server.room.release()

    def _answer(self, way: Way, connection: ssl.SSLSocket) -> None:
        pair, caller, word = self.server.pair, way.caller(connection), hear(connection)
        try:
            if word.get("want") == "placement" and caller == pair.peer:
                if not pair.serves(placement.read()):
                    pair.in_step_there = min(time.time(), float(word.get("in_step", 0.0)))
                say(connection, {"sealed": placement.read().get("sealed")})
            elif word.get("want") == "copy":
                take(pair, connection, caller, word)
            else:
                raise Refused("nothing you may ask for")
        except Refused as no:
            say(connection, {"refused": str(no)})


def allowed(pair: Pair, told: dict[str, Any], caller: str, user: str, since: int, *, merge: bool = False) -> str:
    """Return what a copy will be marked as that a store wants to bring; empty where it is no copy, but the rest of somebody who moved here.

    Raises:
        Refused: it may not, and why.
    """
    expected = EXPECTED / user
    if user in told["users"] and expected.exists() and merge == (told["users"][user] == pair.store):
        source = expected.read_text(encoding="utf-8").strip()
        if source.partition(":")[0] == caller:
            return "" if merge else f"moved from {source}"
    store = told["users"].get(user)
    if store != pair.store or not caller or caller != pair.peer:
        raise Refused(f"{user} is not kept here for {caller or 'a stranger'}")
    if is_taking_over():
        raise Refused(f"{pair.me} is about to serve {store}")
    if pair.serves(told):
        raise Refused(f"{pair.me} serves {store} since generation {placement.since(told, store)}")
    if placement.active(told, store) != caller or placement.since(told, store) != since:
        raise Refused(f"{placement.active(told, store)} serves {store} since generation {placement.since(told, store)}")
    return f"{caller}:{since}"


def take(pair: Pair, connection: ssl.SSLSocket, caller: str, word: dict[str, Any]) -> None:
    """Take a copy: doveadm does it, as the owner of all mail. Whoever begins to serve the user here ends it first (served_users.py).

    Raises:
        Refused: it may not be brought.
    """
    begun, user = time.time(), str(word["user"])
    home = home_of(pair.settings, user)
    with (RUN / f"lock-{user}").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        mark = allowed(pair, placement.read(), caller, user, int(word["since"]), merge=word.get("merge") is True)
        if mark:
            prepare(home, pair.directory, mark)
        # What came meanwhile is in no list yet: only what was here before can be too much.
        gone = home_names.names(home) - set(word["names"]) if mark and "names" in word else set()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                child = subprocess.Popen(
                    ["doveadm", "dsync-server", "-u", user],
                    user=OWNER,
                    group=OWNER,
                    extra_groups=[],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.PIPE,
                )
            copying = RUN / f"copying-{user}"
            copying.write_text(str(child.pid), encoding="ascii")
            try:
                # Once it can be ended by who begins to serve: is it still so?
                if mark and allowed(pair, placement.read(), caller, user, int(word["since"])) != mark:
                    raise Refused(f"{user} is served elsewhere by now")
                say(connection, {"go": True})
                pump(connection, ours)
                ours.close()
                _, said = child.communicate(timeout=60)
            except BaseException:
                child.kill()
                child.communicate()
                raise
            finally:
                copying.unlink(missing_ok=True)
        if child.returncode == 0:
            pair.pushed[user] = begun
            home_names.remove(home, gone)
            if mark:
                (home / MARK).write_text(f"{mark}\n{WHOLE}\n", encoding="utf-8")
        elif said:
            print(f"{user}: {said.decode(errors='replace').strip()[-300:]}", flush=True)


# --- orders of an operator ----------------------------------------------------------------------------------------------------------


def status(pair: Pair, _given: dict[str, Any]) -> dict[str, Any]:
    """Say how things stand here."""
    told = placement.read()
    seen = json.loads(STATUS.read_text(encoding="utf-8")) if STATUS.exists() else {}
    lacking = [user for user in pair.users(told) if not pair.serves(told) and not is_whole(home_of(pair.settings, user))]
    return {"status": seen, "lacking": lacking, "placement": {key: told[key] for key in ("generation", "active")}, "now": time.time()}


def push_now(pair: Pair, given: dict[str, Any]) -> dict[str, Any]:
    """Bring a copy of some users up to date: to the pair's standby, or to the store a user moves to."""
    since = int(given.get("since", placement.since(placement.read(), pair.store)))
    for user in given["users"]:
        push(pair.way, given.get("host") or pair.peer, user, home_of(pair.settings, user), since, whole=bool(given.get("whole")))
    return {"pushed": len(given["users"])}


def hand_over(pair: Pair, given: dict[str, Any]) -> dict[str, Any]:
    """Serve some users no more: nobody gets in, who is in goes, what was under way has a second to end, and then all of it is brought."""
    placement.put(given["placement"])
    for user in given["users"]:
        subprocess.run(["doveadm", "kick", user], capture_output=True, check=False)
    if given.get("host"):
        time.sleep(float(given.get("wait", 1.0)))
        for user in given["users"]:
            note(user, names_of(home_of(pair.settings, user)))
            push(pair.way, given["host"], user, home_of(pair.settings, user), int(given["since"]), whole=bool(given.get("whole")))
    return {user: counted(home_of(pair.settings, user)) for user in given["users"]}


def take_over(pair: Pair, given: dict[str, Any]) -> dict[str, Any]:
    """Serve some users from now on, if all of it is here.

    Raises:
        Refused: something is missing.
    """
    if "counts" in given:
        for user, there in given["counts"].items():
            if (here := counted(home_of(pair.settings, user))) != there:
                raise Refused(f"{user}: {there} were handed over, {here} are here")
        return {"taken": placement.put(given["placement"])}
    with TAKING_OVER.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        leave_gaps(pair, pair.users(placement.read()))
        return {"taken": placement.put(given["placement"])}


def leave_gaps(pair: Pair, users: Iterable[str]) -> None:
    """Leave numbers out in all mailboxes that are here of users whose last changes were not handed over.

    Raises:
        Refused: a user's mailboxes can't be told so.
    """

    def run(words: list[str]) -> str:
        done = subprocess.run(words, user=OWNER, group=OWNER, extra_groups=[], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Refused(f"no numbers can be left out: {done.stderr.strip()[-200:]}")
        return done.stdout

    def leave(user: str) -> None:
        home = home_of(pair.settings, user)
        if home.is_dir():
            home_commands.leave_gap(user, home, run)

    with concurrent.futures.ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        for _ in pool.map(leave, users):
            pass


def is_taking_over() -> bool:
    """Whether numbers are being left out, so that this host may serve."""
    with contextlib.suppress(FileNotFoundError), TAKING_OVER.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def expect(_pair: Pair, given: dict[str, Any]) -> dict[str, Any]:
    """Take a user's mail from another store while he moves here; without a source, take it no more."""
    EXPECTED.mkdir(mode=0o700, exist_ok=True)
    if given.get("source"):
        (EXPECTED / given["user"]).write_text(given["source"], encoding="utf-8")
    else:
        (EXPECTED / given["user"]).unlink(missing_ok=True)
    return {}


def count(pair: Pair, given: dict[str, Any]) -> dict[str, Any]:
    """Say how much there is of some users."""
    return {user: counted(home_of(pair.settings, user)) for user in given["users"]}


def remove(pair: Pair, given: dict[str, Any]) -> dict[str, Any]:
    """Remove what is left of a user who moved away; what was being delivered in that moment is brought along.

    Raises:
        Refused: he is here.
    """
    user = given["user"]
    home = home_of(pair.settings, user)
    if placement.read()["users"].get(user) == pair.store:
        raise Refused(f"{user} is on {pair.store}: his mail stays")
    late = names_of(home) - noted(user) if given.get("host") else set()
    if late:
        push(pair.way, given["host"], user, home_of(pair.settings, user), 0, merge=True)
    shutil.rmtree(home, ignore_errors=True)
    (RUN / f"handed-{user}").unlink(missing_ok=True)
    return {"removed": str(home), "late": len(late)}


def deliver_now(pair: Pair, given: dict[str, Any]) -> dict[str, Any]:
    """Deliver at once what only relays had handed over."""
    return {"delivered": pair.deliver_kept(0.0, given.get("held", ()), float(given.get("oldest", "inf")))}


ORDERS = {
    "status": status,
    "push": push_now,
    "hand-over": hand_over,
    "take-over": take_over,
    "expect": expect,
    "count": count,
    "remove": remove,
    "deliver-kept": deliver_now,
}


def names_of(home: Path) -> set[str]:
    """Each message of a user by its file's name in its mailbox, flags apart."""
    return {
        f"{box.name}/{name.partition(':')[0]}"
        for box in maildirs(home)
        for part in ("new", "cur")
        if (box / part).is_dir()
        for name in (each.name for each in (box / part).iterdir())
        if not name.startswith(".")
    }


def note(user: str, names: set[str]) -> None:
    """Remember what was handed over of a user."""
    write_json(RUN / f"handed-{user}", sorted(names))


def noted(user: str) -> set[str]:
    """What was handed over of a user."""
    path = RUN / f"handed-{user}"
    return set(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else set()


def counted(home: Path) -> dict[str, int]:
    """Messages and mailboxes of a user."""
    boxes = [box for box in maildirs(home) if (box / "cur").is_dir()]
    messages = sum(
        1 for box in boxes for part in ("new", "cur") for name in (each.name for each in (box / part).iterdir()) if not name.startswith(".")
    )
    return {"mailboxes": len(boxes), "messages": messages}


def serve(settings: dict[str, Any]) -> None:
    """Work for ever. Nobody is served by this host until the other one was asked who serves."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("mail-standby", encoding="ascii")  # what `ps` and `ss` show
    RUN.mkdir(mode=0o755, exist_ok=True)
    for left in RUN.glob("push-*"):
        shutil.rmtree(left, ignore_errors=True)
    pair = Pair(settings)
    pair.ask_peer()
    placement.followed()
    threading.Thread(target=Server(pair).serve_forever, daemon=True).start()
    threading.Thread(target=listen, args=(settings,), daemon=True).start()
    tell(b"READY=1")
    while True:
        try:
            pair.round()
        except (OSError, ValueError, smtplib.SMTPException, SystemExit) as problem:
            print(f"<4>{type(problem).__name__}: {problem}", flush=True)
        # Looking is cheap, but not free: never more than a twentieth of the time.
        time.sleep(max(float(settings["interval"]), min(30.0, 20 * pair.looked)))


class Anvil:
    """Has Dovecot start another anvil where one spins, as it may after many sleeping sessions were ended at once (docs/upstream.md).

    Sessions go on, and register with the next one. Until then it would take a processor for itself.
    """

    PATIENCE_SECONDS = 20.0
    """It has nothing to do that takes so long."""
    SHARE = 0.5
    """Of a processor; others may want it too."""

    def __init__(self, processes: Path = Path("/proc")) -> None:
        self._processes = processes
        self._looked = float("-inf")
        self._before: dict[int, float] = {}

    def look(self) -> list[int]:
        """End each one that was at work without a pause since the look before, if that is long ago; return which."""
        now = time.monotonic()
        passed = now - self._looked
        # A look reads something of every process here, and sessions may be thousands.
        if passed < self.PATIENCE_SECONDS:
            return []
        there, ended = self._used(), []
        for process, used in there.items():
            at_work = used - self._before.get(process, used)
            if at_work >= self.SHARE * passed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
                print(f"<4>anvil (process {process}) was at work for {at_work:.0f} of {passed:.0f} s; it is ended", flush=True)
                ended.append(process)
        self._looked, self._before = now, there
        return ended

    def _used(self) -> dict[int, float]:
        """The seconds of processor each has used (proc_pid_stat(5))."""
        found = {}
        for folder in self._processes.glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                name, _, rest = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
                if name.endswith("(anvil"):
                    found[int(folder.name)] = sum(map(int, rest.split()[11:13])) / os.sysconf("SC_CLK_TCK")
        return found


def listen(settings: dict[str, Any]) -> None:
    """Ask the other member again and again who serves, whatever else is going on."""
    pair, anvil = Pair(settings), Anvil()
    while True:
        time.sleep(float(settings["interval"]))
        anvil.look()
        with contextlib.suppress(OSError, ValueError, SystemExit):
            pair.ask_peer()


def tell(words: bytes) -> None:
    """Say something to systemd (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way:
            way.sendto(words, "\0" + address[1:] if address.startswith("@") else address)


def breathe() -> None:
    """Print an empty line now and then: how long an order takes grows with the mail it is about, and who gave it hears that it goes on."""
    with contextlib.suppress(OSError):
        while True:
            time.sleep(BREATH_SECONDS)
            print(flush=True)


def main(words: Iterable[str]) -> int:
    """Reads the arguments."""
    what, *rest = [*words, ""]
    if what == "pipe":
        return pipe(rest[0])
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    if what == "serve":
        serve(settings)
        return 0
    try:
        given = json.loads(sys.stdin.readline())
        threading.Thread(target=breathe, daemon=True).start()
        print(json.dumps(ORDERS[given["action"]](Pair(settings), given)))
    except (OSError, Refused, ValueError, KeyError, smtplib.SMTPException) as problem:
        print(json.dumps({"error": str(problem)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
