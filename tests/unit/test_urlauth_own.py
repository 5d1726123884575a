"""The gate in front of Dovecot's URLAUTH service passes on what a user asks for himself, and answers NO to the rest."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import string
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

PATH = Path(__file__).parents[2] / "roles" / "mail_store" / "files" / "urlauth_own.py"
_spec = importlib.util.spec_from_file_location("urlauth_own", PATH)
assert _spec is not None and _spec.loader is not None
gate: Any = importlib.util.module_from_spec(_spec)
sys.modules["urlauth_own"] = gate
_spec.loader.exec_module(gate)

HELLO = b"VERSION\timap-urlauth\t2\t0\n"
AUTH = b"AUTH\timap\t77\talice@lemon.test\tsession\ttoken\n"
NAME = st.text(alphabet=string.ascii_letters + string.digits + ".'&@-", min_size=1, max_size=20)


@given(NAME, NAME)
def test_a_user_passes_for_himself_alone(asker: str, target: str) -> None:
    session = gate.Asker()
    assert session.may_pass(HELLO)
    assert session.may_pass(f"AUTH\tsubmission\t1\t{asker}\ts\tt\n".encode())
    assert session.may_pass(f"USER\t{target}\n".encode()) == (asker.lower() == target.lower())
    assert session.may_pass(f"USER\t{asker.upper()}\n".encode())
    assert session.may_pass(b"URL\timap://x/\tbody\n")


@pytest.mark.parametrize(
    "lines",
    [
        [b"USER\talice@lemon.test\n"],
        [AUTH, b"USER\tbob@lemon.test\n"],
        [AUTH, b"USER\t\n"],
        [AUTH, b"USER\n"],
        [AUTH, b"USER\talice@lemon.test\tbob@lemon.test\n"],
        [AUTH, "USER\t\u212alice@lemon.test\n".encode()],
        [AUTH, AUTH.replace(b"alice", b"bob")],
        [AUTH.replace(b"alice@lemon.test", b"")],
    ],
)
def test_nobody_else_is_asked_for(lines: list[bytes]) -> None:
    session = gate.Asker()
    assert [session.may_pass(line) for line in lines][-1] is False


def test_across_users_all_pass() -> None:
    session = gate.Asker(across_users=True)
    assert session.may_pass(AUTH)
    assert session.may_pass(b"USER\tbob@lemon.test\n")


async def _with_gate(folder: Path, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> list[bytes]:
    """Lets a session talk through the gate to a service that answers OK to each line; what the service heard."""
    heard: list[bytes] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(line)
            writer.write(b"OK\n")
            await writer.drain()
        writer.close()

    inner = await asyncio.start_unix_server(service, str(folder / "service"))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "gate"))
    outer = await asyncio.start_unix_server(
        lambda reader, writer: gate.serve(str(folder / "service"), across_users=False, reader=reader, writer=writer), sock=listening
    )
    async with inner, outer:
        reader, writer = await asyncio.open_unix_connection(str(folder / "gate"))
        await asyncio.wait_for(talk(reader, writer), 20)
        writer.close()
    return heard


def test_it_stands_between(tmp_path: Path) -> None:
    lines = [(AUTH, b"OK\n"), (b"USER\tAlice@Lemon.TEST\n", b"OK\n"), (b"USER\tbob@lemon.test\n", b"NO\n"), (b"END\n", b"OK\n")]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line, answer in lines:
            writer.write(line)
            assert await reader.readline() == answer

    heard = asyncio.run(_with_gate(tmp_path, talk))
    assert heard == [line for line, answer in lines if answer == b"OK\n"]


def test_without_the_service_the_session_is_let_go(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (tmp_path / "service").unlink()
        again, answers = await asyncio.open_unix_connection(str(tmp_path / "gate"))
        assert await again.read() == b""
        answers.close()

    asyncio.run(_with_gate(tmp_path, talk))


def test_a_line_without_end_ends_the_session(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"URL\t" + b"x" * (70 * 1024))
        writer.write_eof()
        assert await reader.read() == b""

    assert asyncio.run(_with_gate(tmp_path, talk)) == []
