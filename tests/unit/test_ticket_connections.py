"""Connections to the issuer: shares of addresses, and deadlines of steps over real TLS."""

from __future__ import annotations

import importlib.util
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

PATH = Path(__file__).parents[2] / "roles" / "ticket_issuer" / "files" / "ticket_connections.py"
LIMIT = 0.5
"""Seconds a step may take here; a piece comes after a tenth of it."""


@pytest.fixture(scope="module")
def connections() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ticket_connections", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ticket_connections"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tls(connections: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=issuer.test", "-days", "1", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made = ["openssl", "req", "-x509", *subject, "-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    context.sslsocket_class = connections.Bounded
    return context


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _served(tls: ssl.SSLContext, client: Callable[[socket.socket], None]) -> tuple[float, list[bytes], str]:
    """Serves one client as the worker does: seconds until it was over, what was received, and how it ended."""
    listener = socket.create_server(("127.0.0.1", 0))
    dialled = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    running = threading.Thread(target=client, args=(dialled,), daemon=True)
    running.start()
    began, received, ended = time.monotonic(), [], ""
    connection: Any = tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
    try:
        connection.handshake_within(LIMIT)
        connection.within(LIMIT)
        while piece := connection.recv(100):
            received.append(piece)
    except OSError as problem:
        ended = type(problem).__name__
    took = time.monotonic() - began
    connection.close()
    dialled.close()
    listener.close()
    running.join(5)
    return took, received, ended


def _slowly(send: Callable[[bytes], object], data: bytes) -> None:
    try:
        for octet in data:
            send(bytes([octet]))
            time.sleep(LIMIT / 10)
    except OSError:
        pass


def test_a_handshake_that_does_not_begin_has_an_end(tls: ssl.SSLContext) -> None:
    took, _, ended = _served(tls, lambda dialled: time.sleep(2 * LIMIT))
    assert ended == "TimeoutError" and LIMIT * 0.9 <= took < 2 * LIMIT


def test_a_handshake_octet_by_octet_has_the_same_end(tls: ssl.SSLContext) -> None:
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        _trusting().wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    hello = outgoing.read()
    took, _, ended = _served(tls, lambda dialled: _slowly(dialled.sendall, hello))
    assert ended == "TimeoutError" and took < 2 * LIMIT


@pytest.mark.parametrize("pieces", [0, 30], ids=["silent", "octet by octet"])
def test_a_step_after_the_handshake_has_an_end_as_a_whole(tls: ssl.SSLContext, pieces: int) -> None:
    def client(dialled: socket.socket) -> None:
        with _trusting().wrap_socket(dialled) as secured:
            _slowly(secured.sendall, b"x" * pieces)
            time.sleep(2 * LIMIT)

    took, received, ended = _served(tls, client)
    assert ended == "ConnectionResetError" and took < 3 * LIMIT
    assert bool(received) == bool(pieces)


def test_what_comes_in_time_is_received(tls: ssl.SSLContext) -> None:
    def client(dialled: socket.socket) -> None:
        with _trusting().wrap_socket(dialled) as secured:
            secured.sendall(b"question")
            # Who closes with something unread (a session ticket) resets the connection.
            secured.shutdown(socket.SHUT_WR)
            while secured.recv(4096):
                pass

    assert _served(tls, client)[1:] == ([b"question"], "")


def test_no_address_has_more_than_its_share_or_takes_that_of_others(connections: ModuleType) -> None:
    shares = connections.Shares(2)
    assert [shares.take("192.0.2.1")[0] for _ in range(4)] == [True, True, False, False]
    assert shares.take("192.0.2.2") == (True, False)
    shares.give_back("192.0.2.1")
    assert shares.take("192.0.2.1") == (True, False)
    assert shares.take("192.0.2.1") == (False, False), "it was reported a moment ago"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=100))
def test_shares_are_counted_whatever_comes_and_goes(connections: ModuleType, moves: list[tuple[bool, str]]) -> None:
    shares, held = connections.Shares(3), dict.fromkeys("abc", 0)
    for comes, address in moves:
        if comes:
            taken, _ = shares.take(address)
            assert taken == (held[address] < 3)
            held[address] += taken
        elif held[address]:
            shares.give_back(address)
            held[address] -= 1


def test_an_address_has_one_form(connections: ModuleType) -> None:
    assert connections.plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert connections.plain_address("192.0.2.1") == "192.0.2.1"
    assert connections.plain_address("2001:db8::1") == "2001:db8::1"
    assert connections.plain_address("") == ""


def test_a_connection_that_is_ended_is_reset(connections: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as dialled:
        accepted, _ = listener.accept()
        connections.reset(accepted)
        with pytest.raises(ConnectionResetError):
            dialled.recv(1)
