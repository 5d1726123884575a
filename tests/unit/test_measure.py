"""Segments and their causes, and what the questions make of what probes tell."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from lemonstand.measure import QUESTIONS, announcements, contents, hibernation, interruptions, silence
from lemonstand.outcomes import Invalid, NotMeasurable
from lemonstand.probes.clients import idle, script
from lemonstand.probes.network.segments import Capture, Segment, parse, wake_ups

CLIENT, SERVER = b"\xc0\x00\x02\x01", b"\xc6\x33\x64\x07"
ACK, PUSH, FIN = 0x10, 0x18, 0x11


def _packet(sequence: int, acknowledged: int, flags: int, data: bytes = b"", options: int = 0) -> bytes:
    head = struct.pack("!HHIIBBHHH", 143, 50000, sequence, acknowledged, (5 + options) << 4, flags, 1024, 0, 0) + b"\1" * 4 * options
    size = 20 + len(head) + len(data)
    return struct.pack("!BBHHHBBH", 0x45, 0, size, 1, 0x4000, 60, 6, 0) + SERVER + CLIENT + head + data


def _segment(theirs: bool, sequence: int, acknowledged: int, flags: int = ACK, length: int = 0) -> tuple[bool, Segment]:
    ports = (143, 50000) if theirs else (50000, 143)
    return theirs, Segment(SERVER, CLIENT, *ports, sequence, acknowledged, flags, length, 40 + length)


def _kinds(*segments: tuple[bool, Segment]) -> list[str]:
    capture = Capture.__new__(Capture)
    capture._port, capture._next = 50000, {}
    return [capture._kind(theirs, segment) for theirs, segment in segments]


def test_a_segment_is_read_with_its_options() -> None:
    found = parse(_packet(7, 9, PUSH, b"* OK\r\n", options=3) + b"padding of Ethernet")
    assert found is not None
    assert (found.sequence, found.acknowledged, found.length, found.size) == (7, 9, 6, 58)


@pytest.mark.parametrize("first", [0x1000, 0xFFFFFFF0], ids=["plain", "around the end of the numbers"])
def test_each_segment_has_a_cause(first: int) -> None:
    after = (first + 20) & 0xFFFFFFFF
    assert _kinds(
        _segment(True, first, 500, PUSH, 20),
        _segment(False, 500, after),
        _segment(True, (after - 1) & 0xFFFFFFFF, 500),
        _segment(False, 500, after),
        _segment(True, first, 500, PUSH, 20),
        _segment(True, after, 500, FIN),
    ) == ["data", "acknowledgement", "keep-alive", "acknowledgement", "again", "opening or end"]


def test_what_is_acknowledged_tells_a_keep_alive_of_a_side_that_never_spoke() -> None:
    assert _kinds(_segment(False, 500, 2000), _segment(True, 1999, 500), _segment(True, 1999, 500, ACK, 1)) == [
        "acknowledgement",
        "keep-alive",
        "keep-alive",
    ]


def test_segments_that_find_the_radio_awake_are_one_wake_up() -> None:
    assert wake_ups([]) == 0
    assert wake_ups([10.0, 10.1, 11.9, 20.0, 19.9]) == 2


def test_data_beside_a_line_is_the_line_and_other_data_is_tls() -> None:
    seen = [(10.0, True, "data", 80), (10.1, False, "acknowledgement", 40), (50.0, True, "data", 60), (60.0, False, "data", 60)]
    assert idle._causes(seen, [10.2]) == {"line": 1, "acknowledgement": 1, "tls": 1, "own": 1}


def test_samples_hold_what_something_that_meddles_would_change() -> None:
    datas = [sample.data for sample in script.samples("alice@lemon.test")]
    assert not any(b"\0" in data for data in datas)
    assert {byte for data in datas for byte in data} == set(range(1, 256))
    assert any(max(map(len, data.split(b"\r\n"))) >= script.LONG_LINE - 2 for data in datas)


def test_how_long_a_command_took_is_no_difference() -> None:
    one, two = (script.TIMES.sub(b"", b"OK Fetch completed (0.00%d + 0.000 secs)." % number) for number in (1, 7))
    assert one == two == b"OK Fetch completed."


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready", ["*", "OK", "CAPABILITY", "IMAP4rev1", "STARTTLS", "ready"]),
        (["AUTH PLAIN LOGIN", "SIZE 10", "STARTTLS"], ["SIZE 10", "STARTTLS"]),
        (["AUTH=PLAIN", "XTARTTLS"], ["XTARTTLS"]),
    ],
)
def test_words_about_logging_in_are_left_out(said: Any, words: list[str]) -> None:
    assert announcements._comparable(said) == words


def test_the_youngest_connection_tells_a_states_memory() -> None:
    entries = [{"family": "ipv4", "state": "TIME_WAIT", "left": left} for left in (12, 238, 100)]
    assert interruptions._longest(entries, 4, "TIME_WAIT") == 238
    with pytest.raises(Invalid, match="IPv6"):
        interruptions._longest(entries, 6, "TIME_WAIT")


@pytest.mark.parametrize(
    ("text", "address"), [("[::ffff:10.1.2.3]:143", "10.1.2.3"), ("[2001:db8::1]:587", "2001:db8::1"), ("10.1.2.3:9", "10.1.2.3")]
)
def test_addresses_as_ss_prints_them(text: str, address: str) -> None:
    assert silence._address(text) == address


def test_quoted_printable_is_undone() -> None:
    message = {"header": "MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable", "body": "Gr=C3=BC=C3=9Fe\r\n"}
    assert contents.decoded(message) == "Grüße\r\n".encode()


def test_a_question_that_takes_a_time_says_how_long() -> None:
    assert {name for name, question in QUESTIONS.items() if question.seconds} == {"sleep", "wait", "outage", "link-down", "loss"}
    assert all(question.says for question in QUESTIONS.values())


class _Sweeps:
    """A vantage whose sweeps bring what is said here, one after the other."""

    host, families = "handset", (4, 6)

    def __init__(self, *answers: dict[str, Any], hibernate: int = 30, devices: int = 40) -> None:
        self.answers, self.asked = list(answers), list[dict[str, Any]]()
        self.accounts = [{"user": "one"}, {"user": "two"}]
        settings = type("Settings", (), {"devices_per_user": devices})()
        self.site = type("Site", (), {"timers_in_force": {"hibernate": hibernate}, "settings": settings})()

    def endpoints(self, version: int) -> int:
        return version

    def ask(self, _probe: str, **args: Any) -> dict[str, Any]:
        self.asked.append(args)
        return self.answers.pop(0)


def _met(*sessions: tuple[float, float | None], early: int = 0) -> dict[str, Any]:
    return {"sessions": [list(each) for each in sessions], "early": early, "ended": []}


INSIDE = [(29.5 + number / 10, 0.3) for number in range(5)]


def test_sessions_that_were_just_falling_asleep_are_counted() -> None:
    vantage: Any = _Sweeps({"append": _met((29.4, 0.5), *INSIDE, (30.1, 0.1))})
    found = hibernation.falling_asleep(vantage, kinds=("append",))
    assert found.data["append"]["crossed"] == 5
    assert len(vantage.asked) == 1


def test_a_message_is_there_later_than_it_is_accepted() -> None:
    """Whoever is told first was told 0.4 s after the message was accepted: that long it was under way."""
    vantage: Any = _Sweeps({"delivery": _met(*((age - 0.4, 0.4) for age, _ in INSIDE))})
    assert hibernation.falling_asleep(vantage, kinds=("delivery",)).data["delivery"]["crossed"] == 5


@pytest.mark.parametrize("missed", [None, 0.4])
def test_what_met_nobody_is_asked_again_and_what_was_missed_stays_missed(missed: float | None) -> None:
    vantage: Any = _Sweeps({"append": _met((31.0, missed)), "flag": _met(*INSIDE)}, {"append": _met(*INSIDE)})
    found = hibernation.falling_asleep(vantage, kinds=("append", "flag"))
    assert [args["kinds"] for args in vantage.asked] == [["append", "flag"], ["append"]]
    assert [31.0, missed] in found.data["append"]["sessions"]
    assert found.data["append"]["crossed"] == 5


@pytest.mark.parametrize(
    ("devices", "sessions", "each", "rounds"), [(40, 0, 12, 1), (40, 500, 12, 11), (5, 0, 5, 1), (1, 0, 2, 1), (5, 500, 5, 25)]
)
def test_a_sweep_has_as_many_sessions_as_the_store_lets_a_user_have(devices: int, sessions: int, each: int, rounds: int) -> None:
    vantage: Any = _Sweeps({kind: _met(*INSIDE) for kind in hibernation.CHANGES}, devices=devices)
    hibernation.falling_asleep(vantage, sessions=sessions)
    (asked,) = vantage.asked
    assert (asked["count"], asked["rounds"]) == (each, rounds)
    assert len(hibernation.CHANGES) * each * rounds >= sessions


def test_a_site_that_puts_nobody_to_sleep_has_nothing_to_ask() -> None:
    vantage: Any = _Sweeps(hibernate=0)
    with pytest.raises(NotMeasurable):
        hibernation.falling_asleep(vantage)
