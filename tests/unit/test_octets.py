"""What probes of octets and folders send, and how they see a change."""

from __future__ import annotations

import base64
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from lemonstand.probes.clients.mailboxes import FIXED, generated, quoted, utf7
from lemonstand.probes.clients.octets import LIMITS, LONG_HEADER, difference, samples

TRACE = b"Return-Path: <a@x.invalid>\r\nReceived: from x\r\n\tby y; now\r\n"


@settings(max_examples=5)
@given(st.integers(0, 1 << 32))
def test_samples_are_what_may_be_sent(seed: int) -> None:
    """CRLF alone ends lines, no NUL, and each limit has a line on both sides of it; who receives them makes the same ones."""
    made = samples("a@x.invalid", "b@x.invalid", seed)
    assert made == samples("a@x.invalid", "b@x.invalid", seed)
    assert len({sample.ident for sample in made.values()}) == len(made)
    for name, sample in made.items():
        assert sample.data.count(b"\r") == sample.data.count(b"\n") == sample.data.count(b"\r\n"), name
        assert b"\0" not in sample.data and sample.data.endswith(b"\r\n"), name
        assert f"<{sample.ident}>".encode() in sample.data.partition(b"\r\n\r\n")[0], name
    lengths = {len(line) for line in made["long lines"].data.split(b"\r\n")}
    assert {limit + step for limit in LIMITS for step in (-1, 0, 1)} <= lengths
    assert max(len(header) for header in re.split(rb"\r\n(?![ \t])", made["a long To"].data)) >= LONG_HEADER


@settings(max_examples=40)
@given(st.binary(min_size=60, max_size=4000), st.data())
def test_a_change_of_one_octet_is_seen(body: bytes, data: st.DataObject) -> None:
    message = b"Subject: a message that is sent\r\n\r\n" + body
    assert difference(message, TRACE + message) == ""
    at = data.draw(st.integers(35, len(message) - 1))
    for changed in (
        message[:at] + b"\r\n " + message[at:],
        message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :],
        message[:at] if message[:at] != message else b"",
        message + b"\r\n",
    ):
        if not changed.endswith(message):
            assert difference(message, TRACE + changed)
    assert difference(message, TRACE)


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20))
def test_names_are_written_in_modified_utf7(name: str) -> None:
    """By way of Python's own UTF-7, which differs in its shift and in what it leaves as it is (RFC 3501 5.1.3)."""
    coded = utf7(name)
    assert all(" " <= letter <= "~" for letter in coded)

    def plain(found: re.Match[str]) -> str:
        letters = found.group(1).replace(",", "/")
        return base64.b64decode(letters + "=" * (-len(letters) % 4)).decode("utf-16-be") if letters else "&"

    decoded = re.sub(r"&([A-Za-z0-9+,]*)-", plain, coded)
    assert decoded == name
    assert quoted('a"b\\c') == '"a\\"b\\\\c"'


def test_names_are_many_and_have_no_empty_part() -> None:
    names = [*FIXED, *generated(500, 7)]
    assert {"amazon.de", "~x", "cur", "INBOX.x"} <= set(names)
    assert all("" not in name.split("/") and len(utf7(name)) < 255 for name in names)
