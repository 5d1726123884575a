"""Our own mail clients against servers that lie about TLS: nothing they keep to themselves is told."""

from __future__ import annotations

import pytest

from lemonstand.mail.submit import submit
from lemonstand.probes.attacks.rogue import HARMLESS, Rogue
from lemonstand.probes.events import Refused
from lemonstand.probes.protocols.imap import Imap
from lemonstand.probes.protocols.smtp import Smtp
from lemonstand.probes.protocols.wire import Account, Endpoint

ACCOUNT = Account(user="alice@lemon.test", password="correct horse")
DOOR = Endpoint(name="mail.lemon.test", address="127.0.0.1", ca="")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("imap-stripped", "STARTTLS: BAD"), ("imap-preauth", "PREAUTH"), ("imap-injected", "plain text behind the leave to start TLS")],
)
def test_an_imap_client_tells_a_liar_nothing(kind: str, reason: str) -> None:
    with Rogue(kind, "127.0.0.1") as rogue, pytest.raises(Refused, match=reason):
        Imap.open(DOOR, ACCOUNT, rogue.port)
    assert rogue.connections == 1
    assert set(rogue.commands) <= HARMLESS


@pytest.mark.parametrize(("kind", "reason"), [("smtp-stripped", "STARTTLS: 502"), ("smtp-injected", "plain text behind")])
def test_a_submission_client_tells_a_liar_nothing(kind: str, reason: str) -> None:
    with Rogue(kind, "127.0.0.1") as rogue, pytest.raises(Refused, match=reason):
        Smtp.open(DOOR, ACCOUNT, rogue.port)
    assert rogue.connections == 1
    assert set(rogue.commands) <= HARMLESS


@pytest.mark.parametrize("kind", ["smtp-stripped", "smtp-injected", "imap-preauth", "lmtp-stripped"])
def test_mail_send_tells_a_liar_nothing(kind: str) -> None:
    order = {
        "server": DOOR["name"], "address": DOOR["address"], "ca": "", "user": ACCOUNT["user"], "password": ACCOUNT["password"],
        "recipients": ["bob@lemon.test"], "message": "Subject: x\n\nx\n",
    }  # fmt: skip
    with Rogue(kind, "127.0.0.1") as rogue:
        answer = submit({**order, "port": rogue.port})
    assert "error" in answer
    assert rogue.connections == 1
    # What is no line of text is the beginning of a handshake.
    assert set(rogue.commands) <= HARMLESS | {"?"}
