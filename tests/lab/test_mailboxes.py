"""Messages that were changed once, and mail that lay on a store before folders could have dots."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lemonstand.remote.connections import connected
from lemonstand.remote.endpoints import ARRIVAL_SECONDS, accounts_of, ca_of_clients, endpoint_of, vantage_of
from lemonstand.remote.prober import Prober
from lemonstand.site import Site

INPUTS = Path(__file__).resolve().parents[1] / "render" / "inputs"
BEFORE = ("plain", "a/b/c", "50%", "x~y", "a^2eb", "R&D", "Übersicht", "a b", "x*y")
"""Folders that could be made when a dot separated them on disk and nothing was escaped."""


@pytest.fixture(scope="module")
def prober(lab_site: Site) -> Iterator[Prober]:
    """Starts probes on the lab's hosts."""
    with connected(lab_site.inventory) as connections, Prober(connections) as prober:
        yield prober


def _inputs() -> dict[str, bytes]:
    to = b",\r\n ".join(b"user%d@example.test" % number for number in range(6000))
    many = b"From: <alice@lemon.test>\r\nTo: " + to + b"\r\nSubject: many\r\nMessage-ID: <1@x>\r\n\r\nx\r\n"
    return {"a To of 6000 addresses": many} | {path.stem: path.read_bytes() for path in sorted(INPUTS.glob("*.eml"))}


@pytest.mark.parametrize("name", _inputs())
def test_a_message_arrives_as_it_was_sent(lab_site: Site, prober: Prober, name: str) -> None:
    ident = f"{secrets.token_hex(8)}@probe.invalid"
    # What a message lacks by RFC 6409 section 8 the site adds; here it lacks nothing.
    head = f"Date: Sun, 29 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{ident}>\r\n".encode()
    data = head + re.sub(rb"Message-ID: <\d@x>\r\n", b"", _inputs()[name], count=1)
    sender, recipient = accounts_of(lab_site)[:2]
    endpoint = endpoint_of(lab_site, ca_of_clients(lab_site), "frontends", 4)
    found = prober.ask(
        vantage_of(lab_site),
        "octets-carry",
        endpoint=endpoint,
        account=sender,
        recipient=recipient,
        ident=ident,
        message=base64.b64encode(data).decode(),
        within=ARRIVAL_SECONDS,
    )
    assert found == {"code": 250, "came": True, "difference": ""}


def test_mail_from_before_is_where_it_was(lab_site: Site, on: Callable[..., str]) -> None:
    """Folders made and filled without an escape character are listed, found and read with it, under the names they had."""
    user, root = accounts_of(lab_site)[0]["user"], f"before-{secrets.token_hex(4)}"
    names = [f"{root}/{name}" for name in BEFORE]
    old = ("doveadm", "-o", "mailbox_list_storage_escape_char=")
    quoted = [f"'{name}'" for name in names]
    on("store", *old, "mailbox", "create", "-s", "-u", user, *quoted)
    for number, name in enumerate(quoted):
        on("store", f"printf 'Subject: before {number}\\n\\nx\\n' | {' '.join(old)} save -u {user} -m {name}")
    try:
        listed = on("store", "doveadm", "mailbox", "list", "-u", user, f"'{root}/*'").splitlines()
        assert set(names) <= set(listed)
        assert set(names) <= set(on("store", "doveadm", "mailbox", "list", "-s", "-u", user).splitlines())
        for number, name in enumerate(quoted):
            assert f"before {number}" in on("store", "doveadm", "fetch", "-u", user, "hdr.subject", "mailbox", name, "all")
    finally:
        on("store", "doveadm", "mailbox", "delete", "-s", "-u", user, *quoted)
