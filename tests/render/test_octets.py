"""What messages and folders have to pass through, by the settings that would change or refuse them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .rendering import ROOT, render

INPUTS = Path(__file__).with_name("inputs")
POSTFIX = {"lmtp_line_length_limit": 998, "smtp_line_length_limit": 998, "header_size_limit": 102400, "maximal_backoff_time": 4000}
"""What Postfix does unless it is told otherwise (postconf -d)."""
Files = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def files() -> Files:
    """The files of the example site, by host and path."""
    return render(ROOT / "inventories" / "example")


def _relay(files: Files) -> dict[str, str]:
    text = next(paths["/etc/postfix/main.cf"] for name, paths in files.items() if name.startswith("relay"))
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines() if "=" in line)}


def _number(settings: dict[str, str], name: str) -> int:
    return int(settings.get(name, str(POSTFIX[name])).rstrip("s"))


def _messages() -> dict[str, bytes]:
    to = b",\r\n ".join(b"<recipient-%05d@many.invalid>" % number for number in range(6000))
    made = {"a To of 6000 addresses": b"From: <a@x.invalid>\r\nTo: " + to + b"\r\nSubject: x\r\n\r\nx\r\n"}
    for length in (997, 998, 999, 2047, 2048, 2049, 4096, 65536):
        made[f"a body line of {length}"] = b"Subject: x\r\n\r\n" + b"x" * length + b"\r\n"
        made[f"a header line of {length}"] = b"Subject: " + b"x" * (length - 9) + b"\r\n\r\nx\r\n"
    return made | {path.stem: path.read_bytes() for path in sorted(INPUTS.glob("*.eml"))}


@pytest.mark.parametrize("name", _messages())
def test_the_relay_leaves_a_message_as_it_is(files: Files, name: str) -> None:
    """Nothing breaks its longest line or cuts its longest header, towards stores and towards others."""
    data, settings = _messages()[name].replace(b"\r\n", b"\n"), _relay(files)
    longest = max(len(line) for line in data.split(b"\n"))
    for limit in ("lmtp_line_length_limit", "smtp_line_length_limit"):
        assert _number(settings, limit) == 0 or longest <= _number(settings, limit)
    headers = re.split(rb"\n(?![ \t])", data.partition(b"\n\n")[0])
    assert max(len(header) for header in headers) <= _number(settings, "header_size_limit")


def test_a_folder_may_have_a_dot(files: Files) -> None:
    """`a CREATE "amazon.de"`: Maildir++ has `.` between folders, so that one within a name has to be escaped, by what no name can hold."""
    for name, paths in files.items():
        if name.startswith("store"):
            found = re.search(r"^mailbox_list_storage_escape_char = (.)$", paths["/etc/dovecot/dovecot.conf"], re.MULTILINE)
            assert found and not "\x20" <= found.group(1) <= "\x7e", name


def test_a_deferred_message_is_tried_within_a_minute_and_then_within_five(files: Files) -> None:
    settings = _relay(files)
    run, least = int(settings["queue_run_delay"].rstrip("s")), int(settings["minimal_backoff_time"].rstrip("s"))
    # An outage of 10 s: the first retry is due after `least` or after as long as the message waited, and seen by the next run.
    assert max(least, 10) + run + int(settings["lmtp_connect_timeout"].rstrip("s")) <= 60
    assert _number(settings, "maximal_backoff_time") + run + least <= 300
