"""The gate in front of Dovecot's URLAUTH workers passes on what a user asks for himself, and answers in their place for the rest."""

from __future__ import annotations

import importlib.util
import socket
import string
import sys
import threading
from collections.abc import Iterator
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

HELLO = b"VERSION\timap-urlauth-worker\t2\t0\n"
ACCESS = b"ACCESS\talice@lemon.test\timap\n"
NAME = st.text(alphabet=string.ascii_letters + string.digits + ".'&@-", min_size=1, max_size=20)


@given(NAME, NAME)
def test_a_user_passes_for_himself_alone(asker: str, target: str) -> None:
    session = gate.Asker()
    assert not session.known
    session.told(f"ACCESS\t{asker}\tsubmission\n".encode())
    assert session.known
    passes = asker.lower() == target.lower()
    assert session.answer(f"USER\t{target}\n".encode()) == (None if passes else b"OK\n")
    assert session.answer(b"URL\timap://x/\tbody\n") == (None if passes else b"NO\n")
    assert session.answer(f"USER\t{asker}\n".encode()) == (None if passes else b"NO\n"), "a refused session stays so"


@pytest.mark.parametrize(
    "line",
    [
        b"USER\tbob@lemon.test\n",
        b"USER\t\n",
        b"USER\n",
        b"USER\talice@lemon.test\tbob@lemon.test\n",
        "USER\t\u212alice@lemon.test\n".encode(),
    ],
)
def test_nobody_else_is_asked_for(line: bytes) -> None:
    session = gate.Asker()
    session.told(ACCESS)
    session.told(ACCESS.replace(b"alice", b"bob"))
    assert session.answer(line) == b"OK\n"
    assert session.answer(b"URL\timap://x/\n") == b"NO\n"


def test_an_anonymous_asker_owns_nothing() -> None:
    session = gate.Asker()
    session.told(b"ACCESS\t\timap\n")
    assert session.known
    assert session.answer(b"USER\t\n") == b"OK\n"
    assert session.answer(b"URL\timap://x/\n") == b"NO\n"


def test_across_users_all_pass() -> None:
    session = gate.Asker(across_users=True)
    session.told(ACCESS)
    assert session.answer(b"USER\tbob@lemon.test\n") is None
    assert session.answer(b"URL\timap://x/\n") is None


class Bench:
    """Dovecot's two sides of the gate: the service that asks for a worker, the session, and a worker that answers OK to each line."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[bytes] = []
        path = str(folder / "workers")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen()
        self.control, theirs = socket.socketpair()
        self.session, handed_over = socket.socketpair()
        for each in (self.control, self.session):
            each.settimeout(20)
        self._threads = [
            threading.Thread(target=self._work, daemon=True),
            threading.Thread(target=gate.serve, args=(theirs, path), kwargs={"across_users": False}, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        with handed_over:
            self.control.sendall(HELLO)
            socket.send_fds(self.control, [b"0"], [handed_over.fileno()])

    def _work(self) -> None:
        control, _ = self._listening.accept()
        data, fds = b"", []
        while not fds:
            part, fds, _, _ = socket.recv_fds(control, 4096, 1)
            data += part
        control.sendall(HELLO + b"OK\n")
        self.heard += [data, control.recv(4096)]
        control.sendall(b"OK\n")
        with control, socket.socket(fileno=fds[0]) as session, session.makefile("rb") as lines:
            for line in lines:
                self.heard.append(line)
                session.sendall(b"OK\n")

    def access(self) -> None:
        """Says who asks, and waits until the worker knows."""
        said = b""
        self.control.sendall(ACCESS)
        while said.count(b"OK\n") < 2:
            said += self.control.recv(4096)

    def close(self) -> None:
        for each in (self.control, self.session, self._listening):
            each.close()
        for thread in self._threads:
            thread.join(20)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_the_users_own_reaches_the_worker(bench: Bench) -> None:
    # The session speaks before anybody has said who it is: that has to wait.
    bench.session.sendall(b"USER\tAlice@Lemon.TEST\n")
    assert bench.control.recv(4096).startswith(HELLO)
    bench.control.sendall(ACCESS)
    assert bench.session.recv(4096) == b"OK\n"
    bench.session.sendall(b"URL\timap://x/\tbody\n")
    assert bench.session.recv(4096) == b"OK\n"
    assert bench.heard == [HELLO + b"0", ACCESS, b"USER\tAlice@Lemon.TEST\n", b"URL\timap://x/\tbody\n"]


def test_anothers_does_not_and_the_session_goes_on(bench: Bench) -> None:
    bench.access()
    bench.session.sendall(b"USER\tbob@lemon.test\n")
    assert bench.session.recv(4096) == b"OK\n"
    bench.session.sendall(b"URL\timap://x/\n")
    assert bench.session.recv(4096) == b"NO\n"
    bench.session.sendall(b"END\n")
    said = b""
    while not said.endswith(b"FINISHED\n"):
        said += bench.control.recv(4096)
    assert not [line for line in bench.heard if line.startswith((b"USER", b"URL", b"END"))]


def test_a_line_without_end_ends_the_session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LONGEST_LINE", 1000)
    bench.access()
    bench.session.sendall(b"URL\t" + b"x" * 2000)
    assert bench.session.recv(4096) == b""


def test_without_a_worker_the_service_is_let_go(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    gate.serve(theirs, str(tmp_path / "nothing"), across_users=False)
    with ours:
        assert ours.recv(10) == b""
