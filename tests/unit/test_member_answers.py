"""The program that waits until a host is at work, against servers of this machine."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from programs import load


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("playbooks/files/member_answers.py")
    (tmp_path / "some.service.json").touch()
    monkeypatch.setattr(module, "CONVERGED", tmp_path)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 2)
    monkeypatch.setattr(module, "said", lambda *_: "Id=some.service\nActiveState=active\nMainPID=0\n")
    return module


@contextmanager
def server(say: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            while True:
                try:
                    wire, _ = door.accept()
                except OSError:
                    return
                with wire:
                    say(wire)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def ask(program: ModuleType, says: str, port: int, addresses: tuple[str, ...] = ("127.0.0.1",)) -> int:
    order = {"doors": [{"port": port, "says": says}], "addresses": addresses, "seconds": 0.3}
    return int(program.main_encoded(base64.b64encode(json.dumps(order).encode()).decode()))


def test_a_greeting_is_an_answer_at_any_address(program: ModuleType) -> None:
    with server(lambda wire: wire.sendall(b"* OK ready\r\n")) as port:
        assert ask(program, "* OK", port) == 0
        assert ask(program, "* OK", port, ("127.0.0.2", "127.0.0.1")) == 0


@pytest.mark.parametrize(
    ("line", "says", "words"),
    [(b"* BYE too many\r\n", "* OK", "says '* BYE too many'"), (b"", "220 ", "says ''"), (b"* OK ready\r\n", "tls", "port")],
)
def test_anything_else_is_none(program: ModuleType, line: bytes, says: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with server(lambda wire: wire.sendall(line)) as port:
        assert ask(program, says, port) == 1
    assert words in capsys.readouterr().err


def test_who_accepts_and_says_nothing_is_not_at_work(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:  # the kernel accepts for a process that was stopped
        program.ANSWER_SECONDS = 0.2
        assert ask(program, "* OK", door.getsockname()[1]) == 1
    assert "timed out" in capsys.readouterr().err


def test_a_unit_that_does_not_run_is_named(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        program, "said", lambda *_: "Id=some.service\nActiveState=failed\nMainPID=0\n\nId=other.service\nActiveState=active\n"
    )
    with server(lambda wire: wire.sendall(b"* OK ready\r\n")) as port:
        assert ask(program, "* OK", port) == 1
    assert capsys.readouterr().err.strip() == "some.service is failed"


def test_connections_of_the_other_edge_are_counted(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "cache internal:\ncurrent active connections:\t\t7\n\ncache external:\ncurrent active connections:\t\t12\n"
    monkeypatch.setattr(program, "said", lambda *_: text)
    assert program.known() == 12
