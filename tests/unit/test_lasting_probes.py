"""Probes that outlive the connection to their host: what they tell arrives once and in order, and nothing of them stays."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lemonstand.outcomes import Invalid
from lemonstand.probes import lasting as over_there
from lemonstand.remote import channel as channels
from lemonstand.remote import lasting
from lemonstand.remote.lasting import LastingChannel
from lemonstand.remote.prober import Running
from lemonstand.remote.shipment import BOOT, agent_shipment, shipment

HERE = [sys.executable, "-I", "-S", "-c", BOOT]
COUNTING = """
import time
from lemonstand.probes.events import ENOUGH, emit
def count(number, every, size=0):
    for each in range(number):
        emit("counted", each=each, filling="x" * size)
        time.sleep(every)
    return number
def wait():
    emit("waiting")
    ENOUGH.wait()
    return "enough"
"""
NARROW = """
import json, os, subprocess, sys, threading
plan, *command = sys.argv[1:]
with open(plan) as file: left = json.load(file)
here = left[0] if left else [None, None]
with open(plan, "w") as file: json.dump(left[1:], file)
inside = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def pump(source, target, most):
    while most is None or most > 0:
        more = os.read(source, 4096 if most is None else min(4096, most))
        if not more: break
        most = None if most is None else most - len(more)
        while more: more = more[os.write(target, more):]
    if most is not None and most <= 0:
        inside.kill(); inside.wait(); os._exit(255)
    os.close(target)
threading.Thread(target=pump, args=(0, inside.stdin.fileno(), here[0]), daemon=True).start()
pump(inside.stdout.fileno(), 1, here[1])
os._exit(inside.wait())
"""
"""A connection that is lost after so many octets up or down, as the plan says of each; those after the plan's hold."""
OWN = len(json.dumps(agent_shipment(lasting=True)))
Start = Callable[..., LastingChannel]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(lasting, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def channel() -> Iterator[Start]:
    """Opens channels to holders on this machine."""
    opened: list[LastingChannel] = []

    def start(command: list[str] | None = None) -> LastingChannel:
        opened.append(LastingChannel("here", command or HERE, "", []))
        return opened[-1]

    yield start
    for each in opened:
        each.close()
        _gone(each)


def _made_up(function: str) -> dict[str, Any]:
    sent = shipment("maildir")
    return {**sent, "modules": {**sent["modules"], "lemonstand.probes.made_up": COUNTING}, "function": f"made_up.{function}"}


def _order(channel: LastingChannel, function: str, seconds: float = 30, **args: Any) -> Running:
    return channel.start(_made_up(function), args, seconds)


def _sockets(channel: LastingChannel) -> list[str]:
    """The inodes of the holder's sockets; its listener's among them."""
    lines = Path("/proc/net/unix").read_text(encoding="ascii").splitlines()
    return [line.split()[6] for line in lines if line.endswith(f"@lemonstand-{channel._name}")]


def _holder(channel: LastingChannel) -> int:
    held = {f"socket:[{inode}]" for inode in _sockets(channel)}
    for place in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(place.readlink()) in held:
                return int(place.parts[2])
    raise AssertionError("no holder")


def _family(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    return [process, *map(int, children)]


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)
    return holds()


def _gone(channel: LastingChannel, seconds: float = 5) -> None:
    assert _within(seconds, lambda: not _sockets(channel)), "the holder is there still"


def _ended(processes: list[int], seconds: float = 5) -> bool:
    return _within(seconds, lambda: not any(Path(f"/proc/{each}/exe").exists() for each in processes))


def _lose(channel: LastingChannel) -> None:
    """Loses the connection; the first sign of it is the end of what comes."""
    channel._process.kill()


def _die(channel: LastingChannel) -> None:
    """The controller is gone for good: nobody comes back."""
    channel._closing.set()
    channel._come_back = lambda pause: (False, pause)  # type: ignore[method-assign]
    _lose(channel)


plans = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(1, 150), st.integers(OWN, OWN + 2500)),
        st.one_of(st.none(), st.integers(1, 150), st.integers(150, 3000)),
    ),
    max_size=5,
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(60, 1500), plan=plans, number=st.integers(1, 40), size=st.sampled_from([0, 100, 5000]))
def test_what_is_told_arrives_once_and_in_order_wherever_connections_break(
    tmp_path: Path, channel: Start, *, first: int, plan: list[tuple[int | None, int | None]], number: int, size: int
) -> None:
    """Broken in the midst of lines, up and down, several at once, with two probes that tell at the same time."""
    (tmp_path / "plan").write_text(json.dumps([(None, first), *plan]), encoding="utf-8")
    way = channel([sys.executable, "-c", NARROW, str(tmp_path / "plan"), *HERE])
    both = [_order(way, "count", number=number, every=0.01, size=size), _order(way, "count", number=number, every=0, size=size)]
    for running in both:
        told = list(running.events())
        assert [event.values["each"] for event in told[:-1]] == list(range(number))
        assert told[-1].values == {"data": number}
        assert [event.there for event in told] == sorted(event.there for event in told)
        assert 0 < running.began <= told[0].there
    way.close()
    if not _within(1, lambda: not _sockets(way)):
        # The plan took the parting words too: such a holder ends by itself, a minute later.
        for process in _family(_holder(way)):
            os.kill(process, signal.SIGKILL)


def test_an_order_given_while_nobody_can_take_it_is_carried_out_once(channel: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "FIRST_PAUSE", 0.5)
    way = channel()
    waiting = _order(way, "wait")
    waiting.wait("waiting")
    _lose(way)
    assert _within(2, lambda: not way._there)
    counted = _order(way, "count", number=3, every=0)
    waiting.enough()
    assert [event.name for event in counted.events()] == ["counted"] * 3 + ["result"]
    assert waiting.result() == "enough"
    assert len(way._absences) == 1 and way._absences[0] >= 0.4


def test_an_event_has_the_hosts_own_time_however_late_it_is_heard(channel: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "FIRST_PAUSE", 1.5)
    way = channel()
    counted = _order(way, "count", number=3, every=0.2)
    first = counted.wait("counted")
    _lose(way)
    last = counted.wait("result")
    assert last.at - first.at > 1.4
    assert last.there - first.there < 1.2


def test_the_way_back_is_tried_so_often_and_no_more(tmp_path: Path, channel: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "TRIES", 4)
    tries = tmp_path / "tries"
    script = f'echo >> {tries}; test $(wc -l < {tries}) = 1 && exec "$@"; echo "no route" >&2; exit 255'
    way = channel(["sh", "-c", script, "sh", *HERE])
    waiting = _order(way, "wait", seconds=7)
    waiting.wait("waiting")
    family = _family(_holder(way))
    _lose(way)
    with pytest.raises(Invalid, match=r"no route.*the connection was lost, and 4 tries in"):
        waiting.wait("result")
    assert len(tries.read_text(encoding="utf-8")) == 1 + 4
    assert not way.works
    assert _ended(family, 20), "it outlives its seconds"
    _gone(way)


def test_the_way_back_has_a_time(tmp_path: Path, channel: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "RETURN_SECONDS", 0.5)
    tries = tmp_path / "tries"
    script = f'echo >> {tries}; test $(wc -l < {tries}) = 1 && exec "$@"; exit 255'
    way = channel(["sh", "-c", script, "sh", *HERE])
    waiting = _order(way, "wait", seconds=2)
    waiting.wait("waiting")
    _lose(way)
    started = time.monotonic()
    with pytest.raises(Invalid, match="to come back failed"):
        waiting.wait("result")
    assert time.monotonic() - started < 3


def test_pauses_grow_until_a_connection_holds(tmp_path: Path, channel: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(lasting, "LONGEST_PAUSE", 0.4)
    (tmp_path / "plan").write_text(json.dumps([(None, 200), *[(None, 12)] * 4]), encoding="utf-8")  # greeted, and lost at once
    way = channel([sys.executable, "-c", NARROW, str(tmp_path / "plan"), *HERE])
    counted = _order(way, "count", number=10, every=0)
    assert [event.values.get("each") for event in counted.events()][:-1] == list(range(10))
    assert [round(each, 1) >= pause for each, pause in zip(way._absences, (0.1, 0.2, 0.4, 0.4), strict=False)].count(False) == 0


def test_a_first_connection_that_fails_says_why_at_once(channel: Start) -> None:
    way = channel(["sh", "-c", "echo no such host >&2; exit 255"])
    with pytest.raises(Invalid, match="no such host"):
        _order(way, "wait").wait("")


def test_a_holder_that_is_gone_is_not_begun_anew(channel: Start) -> None:
    way = channel()
    waiting = _order(way, "wait")
    waiting.wait("waiting")
    family = _family(_holder(way))
    os.kill(family[0], signal.SIGKILL)
    with pytest.raises(Invalid, match="is gone"):
        waiting.wait("result")
    assert _ended(family), "a probe outlives its holder"


@pytest.mark.parametrize("lost", [False, True])
def test_closing_ends_everything_even_while_the_connection_is_lost(channel: Start, monkeypatch: pytest.MonkeyPatch, *, lost: bool) -> None:
    monkeypatch.setattr(lasting, "FIRST_PAUSE", 60)
    way = channel()
    waiting = _order(way, "wait")
    waiting.wait("waiting")
    family = _family(_holder(way))
    assert len(family) == 2
    if lost:
        _lose(way)
        assert _within(2, lambda: not way._there)
    way.close()
    assert _ended(family, 0.5) and not _sockets(way)


def test_one_that_is_stopped_ends_and_others_go_on(channel: Start) -> None:
    way = channel()
    one, other = _order(way, "wait"), _order(way, "wait")
    one.wait("waiting"), other.wait("waiting")
    _lose(way)
    one.stop()
    with pytest.raises(Invalid, match="exit status 3"):
        one.wait("")
    other.enough()
    assert other.result() == "enough"


def test_without_anybody_it_ends_when_its_time_is_over(channel: Start) -> None:
    """A probe that would go on for long, and one whose result nobody fetches."""
    way = channel()
    waiting = _order(way, "wait", seconds=6)
    waiting.wait("waiting")
    _order(way, "count", seconds=6, number=1, every=0)
    family = _family(_holder(way))
    _die(way)
    time.sleep(1)
    assert _sockets(way), "a result that may be fetched still is thrown away"
    assert _ended(family, 20)
    _gone(way)


def test_without_anybody_it_ends_at_once_when_all_was_heard(channel: Start) -> None:
    way = channel()
    assert _order(way, "count", number=2, every=0, seconds=60).result() == 2
    family = _family(_holder(way))
    time.sleep(0.2)
    _die(way)
    assert _ended(family, 2)
    _gone(way)


def test_who_says_nothing_is_not_there(channel: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is dead without a sign: the courier stays, nobody speaks by it any more."""
    sent = agent_shipment(lasting=True)
    name = over_there.__name__
    text = sent["modules"][name].replace("SILENT_SECONDS = 60.0", "SILENT_SECONDS = 1.0")
    assert text != sent["modules"][name]

    def shortened(**_: bool) -> Mapping[str, Any]:
        return {**sent, "modules": {**sent["modules"], name: text}}

    monkeypatch.setattr(channels, "agent_shipment", shortened)
    monkeypatch.setattr(lasting, "BEAT_SECONDS", 0.2)
    way = channel()
    waiting = _order(way, "wait", seconds=5)
    waiting.wait("waiting")
    time.sleep(2)
    assert way._absences == [] and way._there, "somebody who beats is sent away"
    family = _family(_holder(way))
    monkeypatch.setattr(way, "_acknowledge", lambda: None)
    way._come_back = lambda pause: (False, pause)  # type: ignore[method-assign]
    assert _within(3, lambda: not way._there), "a silent one is kept"
    assert _ended(family, 7)


def test_nothing_of_it_is_on_disk_or_in_arguments(channel: Start, tmp_path: Path) -> None:
    way = channel()
    waiting = way.start(_made_up("wait"), {}, 5, "a probe")
    waiting.wait("waiting")
    for process in _family(_holder(way)):
        words = Path(f"/proc/{process}/cmdline").read_bytes()
        assert way._name.encode() not in words and b"made_up" not in words
        places = {str(each.readlink()) for each in Path(f"/proc/{process}/fd").iterdir()}
        assert {each for each in places if each.startswith("/")} <= {os.devnull}
    waiting.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_sent_away(channel: Start) -> None:
    way = channel()
    waiting = _order(way, "wait")
    waiting.wait("waiting")
    knock = (
        "import os, socket, sys; os.setuid(int(sys.argv[2])); s = socket.socket(socket.AF_UNIX); s.settimeout(3)\n"
        "s.connect(chr(0) + 'lemonstand-' + sys.argv[1])\n"
        "try: s.sendall(b'{\"heard\": 0}\\n'); print(s.recv(100))\n"
        "except OSError as fault: print(b'')"
    )
    said = {
        user: subprocess.run([sys.executable, "-c", knock, way._name, user], capture_output=True, text=True, check=True).stdout.strip()
        for user in ("65534", "0")
    }
    assert said["65534"] == "b''" and said["0"].startswith("b'0 @ 1")
    waiting.enough()
    assert waiting.result() == "enough"


def test_who_listens_under_the_name_and_is_another_user_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    assert over_there._same_user(ours)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert not over_there._same_user(ours)
    for each in (ours, theirs):
        each.close()


def test_what_a_login_prints_is_no_line_of_ours(channel: Start) -> None:
    way = channel(["sh", "-c", 'printf "1 update waits\\n0 of 5\\n0\\n\\n2 1 > x\\n"; exec "$@"', "sh", *HERE])
    assert [event.values.get("each") for event in _order(way, "count", number=3, every=0).events()] == [0, 1, 2, None]


@pytest.mark.parametrize("octets", [1, 50, 3000])
def test_half_of_an_order_is_none(tmp_path: Path, channel: Start, octets: int) -> None:
    greeting = OWN + 1 + len(json.dumps({"name": "0" * 32, "begin": True})) + 1 + len('{"heard": 0}') + 1
    assert len(json.dumps(_made_up("count"))) > octets
    (tmp_path / "plan").write_text(json.dumps([(greeting + octets, None)]), encoding="utf-8")
    way = channel([sys.executable, "-c", NARROW, str(tmp_path / "plan"), *HERE])
    assert [event.values.get("each") for event in _order(way, "count", number=3, every=0).events()] == [0, 1, 2, None]
    assert len(way._absences) == 1
