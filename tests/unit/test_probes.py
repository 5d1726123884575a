"""The probes' clients against servers that say exactly what a test wants, and the way a probe is sent."""

from __future__ import annotations

import importlib
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lemonstand.outcomes import Invalid, Unmet
from lemonstand.probes import registry
from lemonstand.probes.clients import tickets
from lemonstand.probes.network import dns
from lemonstand.probes.network.reach import reach
from lemonstand.probes.protocols.imap import Imap, Literal, announced
from lemonstand.probes.protocols.messages import large, message
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Closed, Wire
from lemonstand.probes.registry import PROBES
from lemonstand.remote.prober import Channel, Running
from lemonstand.remote.shipment import BOOT, agent_shipment, shipment

Script = Callable[[socket.socket], None]


@pytest.fixture
def server() -> Iterator[Callable[[Script], tuple[str, int]]]:
    """Starts a server for one connection and returns its address."""
    listeners = []

    def start(script: Script) -> tuple[str, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                script(connection)

        threading.Thread(target=serve, daemon=True).start()
        address: tuple[str, int] = listener.getsockname()
        return address

    yield start
    for listener in listeners:
        listener.close()


def _says(*chunks: bytes, after: float = 0.0) -> Script:
    """Sends chunks one by one, each after a line from the client but the first."""

    def script(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        for number, chunk in enumerate(chunks):
            if number:
                stream.readline()
            connection.sendall(chunk)
        time.sleep(after)

    return script


def test_an_answer_holds_literals_and_code(server: Callable[[Script], tuple[str, int]]) -> None:
    address = server(
        _says(
            b"* OK [CAPABILITY IMAP4rev1 IDLE] ready\r\n",
            b"* 1 FETCH (BODY[] {6}\r\np1 OK\r FLAGS ())\r\n* 2 EXISTS\r\np1 OK [COPYUID 1 2 3] done\r\n",
        )
    )
    session = Imap(Wire(*address))
    assert announced(session.greeting) == ["IDLE", "IMAP4rev1"]
    answer = session.command("FETCH 1 BODY[]")
    assert answer.ok and answer.code == "COPYUID 1 2 3"
    assert answer.untagged[0] == b"1 FETCH (BODY[] {6}\r\np1 OK\r FLAGS ())", "a literal that looks like the end is none"
    assert answer.lines("EXISTS") == ["2 EXISTS"]


def test_a_session_that_is_ended_is_an_answer(server: Callable[[Script], tuple[str, int]]) -> None:
    session = Imap(Wire(*server(_says(b"* OK ready\r\n", b"* BYE go away\r\n"))))
    answer = session.command("NOOP")
    assert (answer.status, answer.text) == ("BYE", "BYE go away")


def test_a_literal_waits_only_where_it_is_told_to(server: Callable[[Script], tuple[str, int]]) -> None:
    heard: list[bytes] = []

    def script(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        connection.sendall(b"* OK ready\r\n")
        heard.append(stream.readline())
        heard.append(stream.readline())
        connection.sendall(b"p1 OK\r\n")
        heard.append(stream.readline())
        connection.sendall(b"+ go\r\n")
        heard.append(stream.readline())
        connection.sendall(b"p2 OK\r\n")

    session = Imap(Wire(*server(script)))
    session.command("APPEND x", Literal(b"abc", binary=True))
    session.command("APPEND x", Literal(b"abc"), sync=True)
    assert heard == [b"p1 APPEND x ~{3+}\r\n", b"abc\r\n", b"p2 APPEND x {3}\r\n", b"abc\r\n"]


def test_passwords_stay_out_of_the_transcript(server: Callable[[Script], tuple[str, int]]) -> None:
    session = Imap(Wire(*server(_says(b"* OK ready\r\n", b"p1 NO [AUTHENTICATIONFAILED] no\r\n"))))
    session.plain({"user": "alice", "password": "hidden-word"})
    text = "\n".join(session.wire.transcript)
    assert "<alice>" in text
    assert "hidden-word" not in text and "AGFsaWNl" not in text


def test_bytes_are_counted(server: Callable[[Script], tuple[str, int]]) -> None:
    session = Imap(Wire(*server(_says(b"* OK ready\r\n", b"p1 OK\r\n", after=0.2))))
    session.command("NOOP")
    assert (session.wire.sent, session.wire.received) == (len(b"p1 NOOP\r\n"), len(b"* OK ready\r\np1 OK\r\n"))
    assert session.wire.kernel_bytes() == {"sent": session.wire.sent, "received": session.wire.received}


def test_a_line_that_does_not_come_is_a_timeout(server: Callable[[Script], tuple[str, int]]) -> None:
    wire = Wire(*server(_says(b"half", after=1.0)))
    with pytest.raises(TimeoutError):
        wire.line(0.1)


def test_a_closed_connection_is_told(server: Callable[[Script], tuple[str, int]]) -> None:
    wire = Wire(*server(_says(b"bye")))
    with pytest.raises(Closed):
        wire.line()


def test_replies_of_several_lines(server: Callable[[Script], tuple[str, int]]) -> None:
    session = Smtp(Wire(*server(_says(b"220 mx ready\r\n", b"250-mx\r\n250-SIZE 10\r\n250 AUTH PLAIN LOGIN\r\n", b"421"))))
    assert session.ehlo() == {"SIZE": "10", "AUTH": "PLAIN LOGIN"}
    assert session.command("NOOP").code == 0, "half a reply is none"


def test_dots_are_doubled(server: Callable[[Script], tuple[str, int]]) -> None:
    heard: list[bytes] = []

    def script(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        connection.sendall(b"220 x\r\n")
        stream.readline()
        connection.sendall(b"354 go\r\n")
        while (line := stream.readline()) != b".\r\n":
            heard.append(line)
        connection.sendall(b"250 2.0.0 ok\r\n")

    assert Smtp(Wire(*server(script))).data(b"a\r\n.b\r\n..\r\n").ok
    assert heard == [b"a\r\n", b"..b\r\n", b"...\r\n"]


def test_messages_can_be_told_apart() -> None:
    one, two = message("a@x", "b@x"), message("a@x", "b@x")
    assert one.ident != two.ident
    assert f"Message-ID: <{one.ident}>\r\n".encode() in one.data
    assert [len(large("a@x", "b@x", size).data) for size in (100_000, 100_001, 100_077)] == [100_000, 100_001, 100_077]
    assert max(len(line) for line in large("a@x", "b@x", 100_000).data.split(b"\r\n")) <= 78


def test_a_knock_is_answered_or_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            closed = other.getsockname()[1]
            assert reach([("127.0.0.1", port), ("127.0.0.1", closed)], 1) == [["127.0.0.1", port, "open"], ["127.0.0.1", closed, "refused"]]


def test_names_in_answers_follow_pointers_backwards_only() -> None:
    packet = b"\x03foo\x04test\x00" + b"\x03bar\xc0\x04"
    assert dns._name(packet, 10) == ("bar.test", 16)
    with pytest.raises(ValueError, match="leads on"):
        dns._name(b"\xc0\x00", 0)


def test_srv_records_are_read() -> None:
    name = b"\x05_imap\x04_tcp\x01x\x00"
    target = b"\x04mail\xc0\x17"  # "x" stands behind the header (12) and two labels (6 + 5)
    record = b"\xc0\x0c" + struct.pack("!HHIH", 33, 1, 60, 6 + len(target)) + struct.pack("!3H", 0, 1, 143) + target
    answer = struct.pack("!6H", 7, 0x8180, 1, 1, 0, 0) + name + struct.pack("!2H", 33, 1) + record
    assert dns.read(answer, 33) == {"code": 0, "records": ["0 1 143 mail.x"]}
    assert dns.read(answer, 1) == {"code": 0, "records": []}, "records of other types are left out"


def test_an_unsigned_ticket_says_so() -> None:
    header, claims, signature = tickets.compact({"alg": "none"}, {"sub": "x"}, None).split(".")
    assert tickets.decode(header) == {"alg": "none"} and tickets.decode(claims) == {"sub": "x"} and signature == ""


@pytest.fixture
def here() -> Iterator[Channel]:
    """The agent, on this machine, with nothing of ours to import."""
    channel = Channel("here", [sys.executable, "-I", "-S", "-c", BOOT])
    yield channel
    channel.close()


def _asked(channel: Channel, probe: str, seconds: float = 5, **args: Any) -> Running:
    return channel.start(shipment(probe), args, seconds)


def test_a_probe_runs_where_nothing_of_ours_is(here: Channel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = _asked(here, "reach", targets=[["127.0.0.1", port]], timeout=1).result()
    assert found == [["127.0.0.1", port, "open"]]


def test_one_agent_answers_many_at_once(here: Channel) -> None:
    waiting = _asked(here, "maildir", folder="/nonexistent", ident="x", within=60, seconds=60)
    dead = [_asked(here, "imap-session", endpoint={"name": "x", "address": "127.0.0.1", "ca": ""}, account={}) for _ in range(3)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        asked = [_asked(here, "reach", targets=[["127.0.0.1", port]], timeout=1) for _ in range(8)]
        assert [running.result() for running in asked] == [[["127.0.0.1", port, "open"]]] * 8
    for running in dead:
        with pytest.raises(Invalid, match="ConnectionRefusedError"):
            running.result()
    waiting.stop()
    assert _asked(here, "listeners").result() is not None


def test_no_order_overtakes_the_modules_it_relies_on(here: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two askers at once want the same modules, which the first one's order brings: the second one's must not come before it."""
    write = here._write

    def slow(text: str) -> None:
        if json.loads(text).get("modules"):
            time.sleep(0.3)
        write(text)

    monkeypatch.setattr(here, "_write", slow)
    with futures.ThreadPoolExecutor() as pool:
        first = pool.submit(_asked, here, "reach", targets=[], timeout=1)
        time.sleep(0.1)
        second = pool.submit(_asked, here, "reach", targets=[], timeout=1)
        assert second.result().result() == first.result().result() == []


def test_a_probe_that_kills_itself_takes_nobody_along(here: Channel) -> None:
    sent = shipment("reach")
    text = "import os, signal, subprocess\ndef work():\n  subprocess.Popen(['sleep', '5'])\n  os.kill(os.getpid(), signal.SIGKILL)\n"
    broken = {**sent, "modules": {**sent["modules"], "lemonstand.probes.made_up": text}, "function": "made_up.work"}
    started = time.monotonic()
    with pytest.raises(Invalid, match="exit status 137"):
        here.start(broken, {}, 5).result()
    assert time.monotonic() - started < 4, "what a probe left behind is waited for"
    unreadable = {**sent, "modules": {**sent["modules"], "lemonstand.probes.no_text": "def"}, "function": "no_text.work"}
    with pytest.raises(Invalid, match="SyntaxError"):
        here.start(unreadable, {}, 5).result()
    assert _asked(here, "reach", targets=[], timeout=1).result() == []


def test_a_probe_that_is_not_wanted_any_more_ends(here: Channel) -> None:
    running = _asked(here, "maildir", folder="/nonexistent", ident="x", within=60)
    started = time.monotonic()
    time.sleep(0.3)
    running.stop()
    assert time.monotonic() - started < 2
    with pytest.raises(Invalid, match="exit status 3"):
        running.wait("")


def test_an_agent_that_nobody_asks_any_more_ends_with_its_probes(here: Channel) -> None:
    running = _asked(here, "maildir", folder="/nonexistent", ident="x", within=60)
    started = time.monotonic()
    children: list[str] = []
    while not children and time.monotonic() - started < 10:
        children = Path(f"/proc/{here._process.pid}/task/{here._process.pid}/children").read_text(encoding="ascii").split()
    assert len(children) == 1
    started = time.monotonic()
    here.close()
    assert here._process.returncode == 0
    while Path(f"/proc/{children[0]}/exe").exists() and time.monotonic() - started < 2:
        time.sleep(0.05)
    assert time.monotonic() - started < 2
    with pytest.raises(Invalid, match="ended without an answer"):
        running.wait("")
    with pytest.raises(Invalid, match="ended without an answer"):
        _asked(here, "reach", targets=[], timeout=1).result()


def test_a_probe_has_an_end(here: Channel) -> None:
    with pytest.raises(Invalid, match="ended without an answer: exit status 142"):
        _asked(here, "maildir", folder="/nonexistent", ident="x", within=60, seconds=1).result()


def test_a_service_that_refuses_fails_and_a_kernel_that_refuses_is_invalid(
    here: Channel, server: Callable[[Script], tuple[str, int]]
) -> None:
    address, port = server(_says(b"220 ready\r\n", b"250 x\r\n", b"454 no TLS today\r\n"))
    made_up = (
        "from lemonstand.probes.protocols.smtp import Smtp\n"
        f"def service(): Smtp.open({{'name': 'x', 'address': {address!r}, 'ca': ''}}, port={port})\n"
        "def kernel(): raise PermissionError('kernel')\n"
    )
    sent = shipment("submission-session")
    sent = {**sent, "modules": {**sent["modules"], "lemonstand.probes.made_up": made_up}}
    with pytest.raises(Unmet, match="refuses"):
        here.start({**sent, "function": "made_up.service"}, {}, 5).result()
    with pytest.raises(Invalid, match="kernel"):
        here.start({**sent, "function": "made_up.kernel"}, {}, 5).result()


def test_each_probe_has_a_name_of_its_own_and_a_function() -> None:
    text = Path(registry.__file__).read_text(encoding="utf-8")
    assert len(re.findall(r'^    "([a-z0-9-]+)": "', text, re.MULTILINE)) == len(PROBES), "a name stands for two"
    for place in PROBES.values():
        module, _, function = place.rpartition(".")
        assert callable(getattr(importlib.import_module(f"lemonstand.probes.{module}"), function)), place


def test_only_what_a_probe_imports_is_sent() -> None:
    reach_alone = shipment("reach")
    assert set(reach_alone["modules"]) - set(reach_alone["packages"]) == {"lemonstand.probes.network.reach"}
    of_checks = [name for name, place in PROBES.items() if not place.startswith("attacks.")]
    attacks = {module for name in of_checks for module in shipment(name)["modules"] if ".attacks." in module}
    assert attacks == set(), "code of attacks goes to production hosts"


def test_a_probe_finds_all_it_imports_in_what_is_sent() -> None:
    own = agent_shipment()
    code = "sent.modules.update(first['modules']); [importlib.import_module(name) for name in first['modules']]"
    for place in sorted({place.rpartition(".")[0] for place in PROBES.values()}):
        probe = next(name for name in PROBES if PROBES[name].startswith(f"{place}."))
        sent = shipment(probe)
        both = {"modules": {**own["modules"], **sent["modules"]}, "packages": [*own["packages"], *sent["packages"]]}
        boot = BOOT.replace('importlib.import_module(first["main"]).main(sent, rest)', code)
        given = json.dumps(both) + "\n"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", boot], input=given, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{probe}: {done.stderr}"


def test_probes_that_are_asked_for_exist_and_all_are_asked_for() -> None:
    root = Path(__file__).parents[2]
    sources = [*(root / "src").rglob("*.py"), *(root / "benchmarks").glob("*.py"), *(root / "tests" / "lab").glob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path != Path(registry.__file__))
    # The name follows the host, or comes first where a vantage knows the host.
    names = set(re.findall(r'\bprober\.(?:ask|start)[(,]\s*[^,"]+,\s*"([a-z0-9-]+)"', text))
    names |= set(re.findall(r'\bvantage\.(?:ask|start|in_both)[(,]\s*"([a-z0-9-]+)"', text))
    assert len(names) > 50
    assert names <= set(PROBES)
    assert [name for name in PROBES if f'"{name}"' not in text] == []
