"""Whether a relay asks the right store for room, believes it, and takes mail in every doubt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from programs import load

room = load("roles/mail_relay/files/mailbox_room.py")

TABLE = """# who goes where
alice@lemon.test lmtp:[127.0.0.1]:24, [::1]:24
o'hara@lemon.test lmtp:[127.0.0.1]:24
stray@lemon.test lmtp:[192.0.2.1]:24
lemon.test error:5.1.1 no such user here
citron.test lmtp:[127.0.0.1]:24
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Any]:
    table = tmp_path / "transport"
    table.write_text(TABLE, encoding="utf-8")

    def make(answer: Callable[[str], bool] = lambda _: False, clock: Callable[[], float] = lambda: 0.0) -> Any:
        found = room.Room(
            {
                "transport": str(table),
                "delimiter": "+",
                "names": {"127.0.0.1": "store.site", "::1": "store.site"},
                "ca": "/nowhere",
                "me": "mx",
            },
            clock,
        )
        found.asked = []

        async def ask(recipient: str, _hops: list[tuple[str, int, str]]) -> bool:
            found.asked.append(recipient)
            return answer(recipient)

        found._ask = ask
        found.table = table
        return found

    return make


def request(recipient: str, state: str = "RCPT") -> dict[str, str]:
    return {"request": "smtpd_access_policy", "protocol_state": state, "recipient": recipient}


@pytest.mark.parametrize("recipient", ["alice@lemon.test", "Alice@Lemon.TEST", "alice+tag@lemon.test"])
def test_a_users_store_is_asked_at_all_its_addresses(made: Callable[..., Any], recipient: str) -> None:
    assert made().hops(recipient) == [("127.0.0.1", 24, "store.site"), ("::1", 24, "store.site")]


def test_who_has_no_line_of_his_own_goes_where_his_domain_goes(made: Callable[..., Any]) -> None:
    assert made().hops("anybody@citron.test") == [("127.0.0.1", 24, "store.site")]


@pytest.mark.parametrize("recipient", ["nobody@lemon.test", "x@lemon.test", "stray@lemon.test", "@lemon.test", "lemon.test"])
def test_who_is_no_users_store_is_not_asked(made: Callable[..., Any], recipient: str) -> None:
    assert made().hops(recipient) == []


def test_a_full_mailbox_is_said_to_be_full_for_the_time_being(made: Callable[..., Any]) -> None:
    found = made(lambda recipient: recipient.startswith("alice"))
    assert asyncio.run(room.answer(found, request("alice@lemon.test"))) == "452 4.2.2 The mailbox is full; try again later"
    assert asyncio.run(room.answer(found, request("o'hara@lemon.test"))) == "DUNNO"


def test_an_answer_is_good_for_a_while(made: Callable[..., Any]) -> None:
    now, full = [0.0], [True]
    found = made(lambda _: full[0], lambda: now[0])

    async def asked() -> bool:
        return bool(await found.is_full("alice@lemon.test"))

    assert asyncio.run(asked())
    full[0] = False
    assert asyncio.run(asked()) and len(found.asked) == 1
    now[0] = room.GOOD_SECONDS + 1
    assert not asyncio.run(asked()) and len(found.asked) == 2


@pytest.mark.parametrize("fault", [ConnectionError, TimeoutError, EOFError, ValueError, OSError])
def test_a_store_that_says_nothing_stops_no_mail(made: Callable[..., Any], fault: type[Exception]) -> None:
    def broken(_: str) -> bool:
        raise fault

    assert asyncio.run(room.answer(made(broken), request("alice@lemon.test"))) == "DUNNO"


@pytest.mark.parametrize("recipient", ["a\r\nRCPT TO:<b>@lemon.test", "alice lemon@lemon.test", "<alice@lemon.test>", "", "alice"])
def test_nothing_that_ends_a_line_is_passed_on(made: Callable[..., Any], recipient: str) -> None:
    found = made(lambda _: True)
    assert asyncio.run(room.answer(found, request(recipient))) == "DUNNO"
    assert found.asked == []


def test_only_recipients_are_judged(made: Callable[..., Any]) -> None:
    assert asyncio.run(room.answer(made(lambda _: True), request("alice@lemon.test", "DATA"))) == "DUNNO"


def test_a_table_is_read_anew_when_it_changes(made: Callable[..., Any]) -> None:
    found = made()
    assert found.hops("new@lemon.test") == []
    fresh = found.table.with_suffix(".new")
    fresh.write_text(TABLE + "new@lemon.test lmtp:[127.0.0.1]:24\n", encoding="utf-8")
    fresh.replace(found.table)
    assert found.hops("new@lemon.test") == [("127.0.0.1", 24, "store.site")]
    found.table.unlink()
    assert found.hops("new@lemon.test") == []


@pytest.mark.parametrize(
    ("line", "full"),
    [
        ("452 4.2.2 <a@b> The mailbox is full\r\n", True),
        ("552 5.2.2 <a@b> Quota exceeded\r\n", True),
        ("452 4.3.1 <a@b> out of disk\r\n", False),
        ("451 4.3.0 <a@b> Temporary internal error\r\n", False),
        ("550 5.1.1 <a@b> User doesn't exist\r\n", False),
        ("250 2.1.5 OK\r\n", False),
    ],
)
def test_only_a_full_mailbox_is_full(line: str, full: bool) -> None:
    assert (room.OVER_QUOTA.match(line) is not None) is full


def test_settings_are_those_of_the_template() -> None:
    """The program reads every key the role writes, and no other."""
    template = (Path(room.__file__).parents[1] / "templates/etc/lemonstand/mailbox-room.json.j2").read_text(encoding="utf-8")
    source = Path(room.__file__).read_text(encoding="utf-8")
    keys = [line.split("'")[1] for line in template.splitlines() if line.startswith("  '")]
    assert keys and all(f'settings["{key}"]' in source for key in keys), json.dumps(keys)
