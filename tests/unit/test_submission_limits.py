"""What one user may send."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from programs import load

ALICE, BOB = "alice@lemon.test", "bob@lemon.test"


@pytest.fixture(scope="module")
def service() -> ModuleType:
    return load("roles/mail_relay/files/submission_limits.py")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_messages_and_recipients_are_counted_apart(service: ModuleType) -> None:
    limits = service.Limits(":memory:", 2, 5, clock=Clock())
    assert [limits.take(ALICE, "one") for _ in range(4)] == [None] * 4
    assert limits.take(ALICE, "two") is None
    assert limits.take(ALICE, "two") == "recipients"
    assert limits.take(BOB, "three") is None
    assert limits.take(BOB, "four") is None
    assert limits.take(BOB, "five") == "messages"


def test_accounts_of_checks_may_send_more_and_not_without_end(service: ModuleType) -> None:
    limits = service.Limits(":memory:", 1, 100, wide=[ALICE], clock=Clock())
    taken = [limits.take(ALICE, f"message {number}") for number in range(service.WIDE + 1)]
    assert taken == [None] * service.WIDE + ["messages"]
    assert [limits.take(BOB, f"message {number}") for number in range(2)] == [None, "messages"]


def test_counts_drain_and_outlive_a_restart(service: ModuleType, tmp_path: Path) -> None:
    path, clock = str(tmp_path / "sent.sqlite"), Clock()
    limits = service.Limits(path, 10, 100, clock=clock)
    for number in range(10):
        assert limits.take(ALICE, str(number)) is None
    assert service.Limits(path, 10, 100, clock=clock).take(ALICE, "next") == "messages"
    clock.now += 361
    assert limits.take(ALICE, "next") is None
    assert limits.take(ALICE, "one more") == "messages"


def _month(service: ModuleType, clock: Clock, a_day: int) -> object:
    """Limits of a relay on which a user had so many recipients on each day of a month."""
    limits = service.Limits(":memory:", 10_000, 10_000, usual=10, clock=clock)
    for _ in range(30):
        for number in range(a_day):
            assert limits.take(ALICE, f"{clock.now} {number}") is None
            clock.now += service.HOUR / 10
        clock.now += service.DAY
    return limits


@pytest.mark.parametrize(("a_day", "now"), [(0, 10), (3, 10), (25, 25)])
def test_who_writes_to_more_than_he_used_to_is_slowed(service: ModuleType, a_day: int, now: int) -> None:
    clock = Clock()
    limits: Any = _month(service, clock, a_day)
    answers = [limits.take(ALICE, f"wave {number}") for number in range(now + 3)]
    assert answers == [None] * now + ["unusual"] * 3
    clock.now += 1.01 * service.HOUR / now
    assert limits.take(ALICE, "one more, in its time") is None
    assert limits.take(ALICE, "and another") == "unusual"


def test_what_somebody_else_does_today_and_yesterday_is_not_what_an_account_is_used_for(service: ModuleType) -> None:
    clock = Clock()
    limits: Any = _month(service, clock, 3)
    for _ in range(20):  # as fast as he is let, for two days
        while limits.take(ALICE, str(clock.now)) is None:
            clock.now += 1
        clock.now += service.HOUR
    assert limits._busiest(ALICE, clock.now) <= 10


def test_accounts_of_checks_and_whole_stores_are_no_wonder(service: ModuleType) -> None:
    limits = service.Limits(":memory:", 1000, 1000, usual=2, wide=[ALICE], clock=Clock())
    assert {limits.take(ALICE, str(number)) for number in range(50)} == {None}
    assert [limits.take("store 192.0.2.1", str(number), 5) for number in range(11)] == [None] * 10 + ["unusual"]


def test_days_have_an_end(service: ModuleType) -> None:
    clock = Clock()
    limits: Any = _month(service, clock, 1)
    clock.now += 100 * service.DAY
    limits.take(BOB, "one")
    assert limits._database.execute("SELECT count(*) FROM days").fetchone()[0] == 1


def test_postfix_is_told_that_it_is_unusual(service: ModuleType) -> None:
    limits = service.Limits(":memory:", 10, 10, usual=1, clock=Clock())
    request = {"protocol_state": "RCPT", "sasl_username": ALICE, "instance": "1"}
    assert service.answer(limits, request) == "DUNNO"
    assert service.answer(limits, request).startswith("450 4.7.1 This account writes to far more recipients")


def test_the_alarm_is_told_once_in_a_while(service: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limits = service.Limits(":memory:", 1, 100, clock=clock)
    for number in range(5):
        limits.take(ALICE, str(number))
    assert caplog.text.count("<4>alarm=sending limit=messages user=alice@lemon.test") == 1
    clock.now += 601
    limits.take(ALICE, "a")
    limits.take(ALICE, "b")
    assert caplog.text.count("alarm=sending") == 2


def test_only_recipients_of_somebody_who_logged_in_count(service: ModuleType) -> None:
    limits = service.Limits(":memory:", 1, 1, clock=Clock())
    for _ in range(3):
        assert service.answer(limits, {"protocol_state": "RCPT", "sasl_username": "", "instance": "x"}) == "DUNNO"
        assert service.answer(limits, {"protocol_state": "DATA", "sasl_username": ALICE, "instance": "x"}) == "DUNNO"
    request = {"protocol_state": "RCPT", "sasl_username": "Alice@lemon.test", "instance": "x"}
    assert service.answer(limits, request) == "DUNNO"
    assert service.answer(limits, {**request, "instance": "y"}).startswith("450 4.7.1 ")


def test_what_sieve_sends_counts_apart(service: ModuleType) -> None:
    """Mail sent on counts for who sends it on, beside what he submits; with the null sender for the store, all its users together."""
    limits = service.Limits(":memory:", 1, 10, clock=Clock())
    submitted = {"protocol_state": "RCPT", "sasl_username": ALICE, "sender": ALICE, "client_address": "192.0.2.1"}
    sent_on = {"protocol_state": "RCPT", "sasl_username": "", "sender": "Alice@lemon.test", "client_address": "10.0.0.4"}
    null = {**sent_on, "sender": ""}
    counts = ((submitted, 1), (sent_on, 1), ({**sent_on, "sender": BOB}, 1), (null, 3), ({**null, "client_address": "fd00::4"}, 3))
    for request, fits in counts:
        answers = [service.answer(limits, {**request, "instance": str(number)}, 3) for number in range(fits + 1)]
        assert answers[:-1] == ["DUNNO"] * fits
        assert answers[-1].startswith("450 4.7.1 "), request


def test_it_speaks_postfix_protocol(service: ModuleType) -> None:
    async def ask() -> list[bytes]:
        limits = service.Limits(":memory:", 1, 9, clock=Clock())

        async def told(request: Mapping[str, str]) -> str:
            return str(service.answer(limits, request))

        server = await asyncio.start_server(lambda reader, writer: service.policy_service.converse(told, reader, writer), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            answers = []
            for instance in ("a", "b"):
                request = f"request=smtpd_access_policy\nprotocol_state=RCPT\nsasl_username={ALICE}\ninstance={instance}\n\n"
                writer.write(request.encode())
                answers.append(await reader.readuntil(b"\n\n"))
            writer.close()
            return answers

    first, second = asyncio.run(ask())
    assert first == b"action=DUNNO\n\n"
    assert second.startswith(b"action=450 4.7.1 ")


def test_without_room_on_its_disk_it_counts_in_memory(service: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that can't be written at the start: mail goes on, with limits, and an operator is told."""
    limits = service.Limits(str(tmp_path / "missing" / "sent.sqlite"), 1, 9, clock=Clock())
    assert [limits.take(ALICE, name) for name in ("one", "two")] == [None, "messages"]
    assert "<4>alarm=limits-file reason=" in caplog.text
