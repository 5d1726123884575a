"""The way to the relays: passes each connection of Dovecot's on to the first relay that answers, so that the loss of one is nobody's error.

Dovecot's SMTP client knows one relay by one address. What it sends comes here, on loopback, and goes on untouched: TLS is between Dovecot
and the relay, whose certificate carries the name all relays share. A relay answers when it greets with 220 (RFC 5321 section 4.2); one that
does not within seconds is passed over, and asked last for a while. Standard library alone.

    relay_way.py PORT RELAY_PORT ADDRESS…
"""

import asyncio
import contextlib
import socket
import sys
import time

CONNECT_SECONDS = 2.0
GREETING_SECONDS = 5.0
FORGET_SECONDS = 15.0
PIECE = 65536
# What a relay that is gone without a word does not acknowledge ends the connection within ten seconds (tcp(7)). A session in which nothing
# is said is left alone: nobody waits for anything, and a phone's sleeping session is kept alive by no leg of its way (LEM-4.2-03).
UNACKNOWLEDGED_MILLISECONDS = 8_000


class Relays:
    """Knows which relays answered lately.

    Args:
        addresses: in the order they are asked in.
        port: where they listen for stores.
    """

    def __init__(self, addresses: list[str], port: int) -> None:
        self._addresses = addresses
        self._port = port
        self._failed: dict[str, float] = {}

    def order(self) -> list[str]:
        """The relays, those that failed lately last."""
        now = time.monotonic()
        return sorted(self._addresses, key=lambda address: now - self._failed.get(address, -FORGET_SECONDS) < FORGET_SECONDS)

    async def greet(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """Connect to the first one that greets; return the connection and its greeting.

        Raises:
            OSError: none does.
        """
        for address in self.order():
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(address, self._port), CONNECT_SECONDS)
            except (OSError, TimeoutError):
                self._fail(address, "no connection")
                continue
            with contextlib.suppress(OSError, TimeoutError):
                greeting = await asyncio.wait_for(reader.read(PIECE), GREETING_SECONDS)
                if greeting.startswith(b"220"):
                    connection = writer.get_extra_info("socket")
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS)
                    if self._failed.pop(address, None):
                        print(f"relay {address} answers again", flush=True)
                    return reader, writer, greeting
            writer.close()
            self._fail(address, "no greeting")
        raise OSError("no relay answers")

    def _fail(self, address: str, why: str) -> None:
        if time.monotonic() - self._failed.get(address, -FORGET_SECONDS) >= FORGET_SECONDS:
            print(f"<4>alarm=relay address={address} {why}: submitted mail goes by the others", flush=True)
        self._failed[address] = time.monotonic()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass octets on until one side ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()


async def carry(relays: Relays, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one connection. If no relay answers, Dovecot tells its client to try later."""
    try:
        back, on, greeting = await relays.greet()
    except OSError:
        writer.write(b"421 4.3.2 no relay answers, try again later\r\n")
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()
        return
    writer.write(greeting)
    ways = [asyncio.ensure_future(pass_on(reader, on)), asyncio.ensure_future(pass_on(back, writer))]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way in ways:
        way.cancel()
    for end in (on, writer):
        end.close()


async def serve(port: int, relays: Relays) -> None:
    """Listen on loopback for good."""
    server = await asyncio.start_server(lambda reader, writer: carry(relays, reader, writer), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Relays(sys.argv[3:], int(sys.argv[2]))))
