"""Gate in front of Dovecot's URLAUTH workers: whoever asks for a URL gets at his own mailboxes through it, and at nobody else's.

A session redeems a URL itself if the user in it is its own, octet by octet. For another user Dovecot's `imap-urlauth`, which has
authenticated the session by its token, hands the session's socket to a worker; that one knows users as they are looked up, in any case.
Dovecot before 2.4.3 gives a URL that was made for one user to whoever is logged in, so this gate takes the worker's place: it hands a
socket of its own to the real one, and lets a question pass only if the user it is about is the one who asks, but for case.

What passes is judged by Dovecot as ever: the mailbox's key, expiry and access (RFC 4467). The protocol is Dovecot's own. On the control
connection: a line `VERSION …`, an octet `0` with the session's socket, a line `ACCESS USER SERVICE …` (fields parted by tabs), and the
worker's answers. On the session's socket: lines `USER NAME`, `URL …`, `END`; a session waits for the answer to each.

    urlauth_own.py SOCKET_OF_THE_WORKERS [--across-users]
"""

import contextlib
import selectors
import socket
import sys
import threading

LONGEST_LINE = 1 << 20
"""Octets; a URL is shorter."""
HANDED_OVER = 3
"""The first descriptor of systemd (sd_listen_fds(3))."""


class Asker:
    """The user who asks, and what he may ask for. Names are compared without case, ASCII alone.

    Args:
        across_users: let everybody ask for everybody's.
    """

    def __init__(self, *, across_users: bool = False) -> None:
        self._across_users = across_users
        self._name: bytes | None = None
        self._refused = False

    @property
    def known(self) -> bool:
        """Whether the control connection has said who asks. A session speaks sooner and has to wait."""
        return self._name is not None

    def told(self, line: bytes) -> None:
        """Take the user's name from a line of the control connection, once."""
        fields = line.rstrip(b"\n").split(b"\t")
        if fields[0] == b"ACCESS" and len(fields) > 2 and self._name is None:
            self._name = fields[1].lower()

    def answer(self, line: bytes) -> bytes | None:
        """Return what to answer in the worker's place; None for a line that passes.

        A session that is told NO for a user dies of it (imap_urlauth_target_fail in 2.4.1); NO for a URL is a plain failure. So
        another user seems to be there, and none of his URLs is.
        """
        fields = line.rstrip(b"\r\n").split(b"\t")
        if fields[0] == b"USER" and not self._refused:
            own = len(fields) == 2 and bool(self._name) and fields[1].lower() == self._name
            self._refused = not (own or self._across_users)
            return b"OK\n" if self._refused else None
        return b"NO\n" if self._refused else None


class Lines:
    """Cuts a stream into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, data: bytes) -> list[bytes]:
        """Return the lines that are whole now.

        Raises:
            ValueError: one is longer than any URL.
        """
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ValueError("a line without end")
        return [line + b"\n" for line in whole]


def begin(control: socket.socket, worker: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Take the session's socket, and give the worker one of ours.

    Returns:
        The session, and our end of what the worker has.
    """
    data = b""
    received: list[int] = []
    while not received:
        part, received, _, _ = socket.recv_fds(control, 4096, 1)
        if not part:
            raise OSError("no session was handed over")
        data += part
    session = socket.socket(fileno=received[0])
    ours, theirs = socket.socketpair()
    with theirs:
        hello, _, rest = data.rpartition(b"\n")
        # The octet goes with the socket, the line before it by itself.
        if hello:
            worker.sendall(hello + b"\n")
        socket.send_fds(worker, [rest or b"0"], [theirs.fileno()])
    session.setblocking(True)
    return session, ours


def ask(data: list[bytes], asker: Asker, session: socket.socket, worker: socket.socket) -> bool:
    """Pass a session's lines on or answer them; return whether the session is done with a user it may not have."""
    for line in data:
        answer = asker.answer(line)
        if answer is not None and line == b"END\n":
            return True
        (worker if answer is None else session).sendall(line if answer is None else answer)
    return False


def carry(control: socket.socket, worker: socket.socket, asker: Asker) -> None:
    """Stand between one session and one worker until either goes."""
    session, ours = begin(control, worker)
    said, ordered = Lines(), Lines()
    ways = {worker: control, control: worker, ours: session}
    with session, ours, selectors.DefaultSelector() as ready:
        for each in ways:
            ready.register(each, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                data = source.recv(65536)
                if not data:
                    return
                if source is session:
                    if ask(said.of(data), asker, session, ours):
                        # Dovecot takes another worker for the next user, and tells the session.
                        control.sendall(b"FINISHED\n")
                        return
                    continue
                ways[source].sendall(data)
                if source is control and not asker.known:
                    for line in ordered.of(data):
                        asker.told(line)
                    if asker.known:
                        ready.register(session, selectors.EVENT_READ)


def serve(control: socket.socket, path: str, *, across_users: bool) -> None:
    """Serve one session. What ends it (a line too long, a peer that is gone) is no news: the other ends see their connections end."""
    with control, contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as worker:
        worker.connect(path)
        carry(control, worker, Asker(across_users=across_users))


def main(path: str, *, across_users: bool) -> None:
    """Take connections from the socket systemd hands over, for good."""
    listening = socket.socket(fileno=HANDED_OVER)
    listening.setblocking(True)
    while True:
        control, _ = listening.accept()
        threading.Thread(target=serve, args=(control, path), kwargs={"across_users": across_users}, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], across_users="--across-users" in sys.argv[2:])
