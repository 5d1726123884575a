"""Wakes sessions that were put to sleep in the moment their mailbox changed, so that no push is lost (RFC 2177 section 3, LEM-5-05).

Dovecot waits half a second after a change before it looks at a mailbox; a session that hibernates meanwhile forgets that it meant to look
(docs/decisions/0018). Dovecot tells this program of each session it has put to sleep, after the watch of the sleeping one is in place.
If a mailbox of that user changed shortly before, something that is no mail appears in its `new` and is gone: sleepers see it, wake, look,
and tell what they missed. A session that looked after the change would have stayed awake for the whole hibernation timeout, so within half
of it nobody is woken who had not something to miss; and what this program does itself is no change: no nudge is a reason for another.

Connections of Dovecot are kept by systemd (FileDescriptorStore) while this program is away, and read on when it is back. It has no
account of what it read and had not answered when it died: so it begins with all mailboxes that changed since its last sign of life.
"""

import argparse
import contextlib
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PARTS = {"new", "cur", "tmp"}
FIELD = b"field:user="
ESCAPE = b"\x01"
SECOND = 1_000_000_000
DOUBTFUL = SECOND
"""Nanoseconds after a nudge in which it counts as a change: mail that came in the same tick of the kernel's clock looks like it."""
READ_SIZE = 65536
LONGEST_LINE = 65536
FIRST_FD = 3
"""Where systemd puts the descriptors it passes (sd_listen_fds(3))."""


def mailboxes(top: Path) -> Iterator[Path]:
    """The maildirs below a directory, in whatever layout their names are kept."""
    left = [top]
    while left:
        here = left.pop()
        names: set[str] = set()
        with contextlib.suppress(OSError), os.scandir(here) as entries:
            names = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        if names >= {"new", "cur"}:
            yield here
            names -= PARTS
        left += [here / name for name in names]


def user_of(line: bytes) -> str:
    """The user a line of Dovecot's exporter is about (format tab-text); empty if it names none."""
    for field in line.split(b"\t"):
        if field.startswith(FIELD) and ESCAPE not in field:
            return field.removeprefix(FIELD).decode("utf-8", "replace")
    return ""


def home_of(mail: Path, user: str) -> Path | None:
    """Where a user's mailboxes are: as `home` in /etc/dovecot/users says; nothing for a name that would lead elsewhere."""
    local, _, domain = user.partition("@")
    if any(part in {"", ".", ".."} or "/" in part or "\0" in part for part in (local, domain)):
        return None
    return mail / domain / local


class Nudger:
    """Knows which mailboxes changed lately, and what of that was its own doing.

    Args:
        window: seconds; a change that is younger may have been missed.
    """

    def __init__(self, window: float) -> None:
        self.window = int(window * SECOND)
        self._own: dict[Path, tuple[int, int]] = {}

    def look(self, tops: Iterable[Path], since: int | None = None) -> int:
        """Nudges each mailbox below some directories that changed lately; how many there were.

        Args:
            tops: directories.
            since: nanoseconds of the real-time clock in place of the window's begin.
        """
        begin = time.time_ns() - self.window if since is None else since
        self._own = {path: seen for path, seen in self._own.items() if seen[0] >= begin}
        return sum(self._nudge(path) for top in tops for path in mailboxes(top) if self._changed(path) >= begin)

    def _changed(self, path: Path) -> int:
        """When a mailbox changed last, nanoseconds; nudges apart."""
        try:
            new, cur = ((path / part).stat().st_mtime_ns for part in ("new", "cur"))
        except OSError:
            return 0  # it was just removed
        nudged, before = self._own.get(path, (0, 0))
        if new == nudged and time.time_ns() - nudged >= DOUBTFUL:
            new = before
        return max(new, cur)

    def _nudge(self, path: Path) -> bool:
        new = path / "new"
        # Names with a dot in front are nothing to Dovecot, and `new` is read in no time even where `cur` holds 100,000 messages.
        name = new / f".nudge-{os.getpid()}"
        before = self._changed(path)
        try:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            name.unlink()
            nudged = new.stat().st_mtime_ns
        except OSError as fault:
            print(f"{new}: {fault.strerror}", file=sys.stderr, flush=True)
            return False
        known = self._own.get(path)
        self._own[path] = (nudged, known[1] if known and before == known[0] else before)
        return True


class Service:
    """Hears Dovecot and passes users on.

    Args:
        mail: the directory of all mail.
        alive: a file whose time says when an event was last dealt with.
        nudger: what is done about them.
    """

    def __init__(self, mail: Path, alive: Path, nudger: Nudger) -> None:
        self.mail, self.alive, self.nudger = mail, alive, nudger
        self._selector = selectors.DefaultSelector()
        self._rest: dict[socket.socket, bytes] = {}

    def serve(self, listening: socket.socket, kept: Iterable[socket.socket]) -> None:
        """Works for ever; connections that were kept for us are older than this process."""
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ)
        for connection in kept:
            self._take(connection)
        with contextlib.suppress(FileNotFoundError):
            since = self.alive.stat().st_mtime_ns - self.nudger.window
            count = self.nudger.look([self.mail], since)
            print(f"{count} mailboxes changed since the last sign of life", file=sys.stderr, flush=True)
        self.alive.touch()
        tell(b"READY=1")
        while True:
            users: set[str] = set()
            for key, _ in self._selector.select():
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        connection, _ = listening.accept()
                        self._take(connection)
                        tell(b"FDSTORE=1\nFDNAME=dovecot", connection)
                else:
                    users |= self._read(key.data)
            if users:
                self.nudger.look(home for home in (home_of(self.mail, user) for user in sorted(users)) if home)
                self.alive.touch()

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._rest[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ, connection)

    def _read(self, connection: socket.socket) -> set[str]:
        try:
            data = connection.recv(READ_SIZE)
        except BlockingIOError:
            return set()
        except OSError:
            data = b""
        if not data:  # systemd sees it as well and forgets its copy
            self._selector.unregister(connection)
            del self._rest[connection]
            connection.close()
            return set()
        *lines, rest = (self._rest[connection] + data).split(b"\n")
        self._rest[connection] = rest[-LONGEST_LINE:]
        return {user_of(line) for line in lines} - {""}


def tell(words: bytes, connection: socket.socket | None = None) -> None:
    """Says something to systemd (sd_notify(3)), with a descriptor if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way:
        way.connect("\0" + address[1:] if address.startswith("@") else address)
        socket.send_fds(way, [words], [connection.fileno()] if connection else [])


def passed() -> tuple[socket.socket, list[socket.socket]]:
    """The listening socket and the connections systemd kept.

    Raises:
        SystemExit: there is no listening one.
    """
    sockets = [socket.socket(fileno=FIRST_FD + number) for number in range(int(os.environ.get("LISTEN_FDS", "0")))]
    listening = [each for each in sockets if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
    if not listening:
        sys.exit("no socket was passed: start mailbox-nudge.socket")
    return listening[0], [each for each in sockets if each not in listening]


def main() -> None:
    """Reads the arguments and serves."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mail", required=True, type=Path, help="directory with DOMAIN/USER below it")
    parser.add_argument("--window", required=True, type=float, help="seconds")
    parser.add_argument("--alive", required=True, type=Path, help="file that says when an event was last dealt with")
    given = parser.parse_args()
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("mailbox-nudge", encoding="ascii")  # what `ps` shows, and what memory is counted by
    listening, kept = passed()
    Service(given.mail, given.alive, Nudger(given.window)).serve(listening, kept)


if __name__ == "__main__":
    main()
