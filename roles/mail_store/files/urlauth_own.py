"""Gate in front of Dovecot's URLAUTH service: whoever asks for a URL gets at his own mailboxes through it, and at nobody else's.

A session redeems a URL itself if the user in it is its own, octet by octet. For another user it asks the service `imap-urlauth` on a local
socket; that one knows users as they are looked up, in any case. Dovecot before 2.4.3 gives a URL that was made for one user to whoever is
logged in, so this gate stands on that socket, and lets a question pass only if the user it is about is the one who asks, but for case.

What passes is judged by Dovecot as ever: who asks (by the session's token), the mailbox's key, expiry and access (RFC 4467). The protocol
is Dovecot's own, lines of fields parted by tabs: `AUTH service pid USER session token`, `USER NAME`, `URL …`; only a client's
lines are read, and it waits for the answer to each. systemd hands over the socket; the standard library is all it needs.

    urlauth_own.py SOCKET [--across-users]
"""

import asyncio
import contextlib
import socket
import sys

LONGEST_LINE = 1 << 20
"""Octets; a URL is shorter."""
HANDED_OVER = 3
"""The first descriptor of systemd (sd_listen_fds(3))."""


class Asker:
    """What one session has said so far: who it is."""

    def __init__(self, *, across_users: bool = False) -> None:
        self._across_users = across_users
        self._name: bytes | None = None

    def may_pass(self, line: bytes) -> bool:
        """Tell whether a line of the session may reach Dovecot. Names are compared without case, ASCII alone."""
        fields = line.rstrip(b"\r\n").split(b"\t")
        if fields[0] == b"AUTH":
            # The service takes the token for this name or ends the connection; a second word of it is never believed.
            if self._name is not None or len(fields) < 4 or not fields[3]:
                return False
            self._name = fields[3].lower()
        elif fields[0] == b"USER":
            return self._across_users or (len(fields) == 2 and self._name is not None and fields[1].lower() == self._name)
        return True


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry all of one direction."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def ask(asker: Asker, reader: asyncio.StreamReader, answers: asyncio.StreamWriter, service: asyncio.StreamWriter) -> None:
    """Carry a session's lines, and answer NO to those that may not pass, which is Dovecot's word for a user it can't select."""
    while line := await reader.readline():
        if asker.may_pass(line):
            service.write(line)
            await service.drain()
        else:
            answers.write(b"NO\n")
            await answers.drain()


async def serve(path: str, *, across_users: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stand between one session and the service until either goes."""
    with contextlib.suppress(OSError):
        theirs, ours = await asyncio.open_unix_connection(path)
        ways = [
            asyncio.create_task(ask(Asker(across_users=across_users), reader, writer, ours)),
            asyncio.create_task(carry(theirs, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            # What ended one way (a line too long, a peer that is gone) is no news: the other end sees its connection end.
            await asyncio.gather(*ways, return_exceptions=True)
            ours.close()
    writer.close()


async def main(path: str, *, across_users: bool) -> None:
    """Take connections from the socket systemd hands over, for good."""
    listening = socket.socket(fileno=HANDED_OVER)
    server = await asyncio.start_unix_server(
        lambda reader, writer: serve(path, across_users=across_users, reader=reader, writer=writer), sock=listening, limit=LONGEST_LINE
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], across_users="--across-users" in sys.argv[2:]))
