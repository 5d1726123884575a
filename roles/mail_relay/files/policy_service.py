"""How Postfix asks a policy service (SMTPD_POLICY_README): on loopback, an smtpd a connection, request after request.

A module of this role's services. The standard library is all it needs.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

LONGEST_REQUEST = 16384
Answer = Callable[[Mapping[str, str]], Awaitable[str]]
"""Says what Postfix is told of a request: an action of access(5), DUNNO where nothing speaks against it."""


async def converse(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one smtpd, request after request, until it goes."""
    with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        while True:
            text = (await reader.readuntil(b"\n\n")).decode("utf-8", "replace")
            request = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
            writer.write(f"action={await answer(request)}\n\n".encode())
            await writer.drain()
    writer.close()


async def serve(port: int, answer: Answer) -> None:
    """Listen on loopback for good."""
    server = await asyncio.start_server(lambda reader, writer: converse(answer, reader, writer), "127.0.0.1", port, limit=LONGEST_REQUEST)
    async with server:
        await server.serve_forever()
