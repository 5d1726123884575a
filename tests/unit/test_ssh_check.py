"""What the check of SSH makes of sshd's settings, and what its door says to strangers."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from lemonstand.checks.test_ssh import CLOSED, WEAK, _faults
from lemonstand.outcomes import Invalid
from lemonstand.remote import ssh_server
from lemonstand.remote.connections import Connection

SOUND = {
    **{name: [value] for name, value in CLOSED.items()},
    "permitrootlogin": ["without-password"], "allowtcpforwarding": ["no"], "permitopen": ["none"], "allowusers": ["root", "alice"],
    "logingracetime": ["30"], "maxauthtries": ["6"], "loglevel": ["VERBOSE"],
}  # fmt: skip
OPEN = [
    *((name, ["yes" if value in {"no", "none"} else "no"]) for name, value in CLOSED.items()),
    ("authenticationmethods", ["any"]), ("permitrootlogin", ["yes"]), ("allowtcpforwarding", ["yes"]), ("permitopen", ["any"]),
    ("allowusers", ["root", "alice", "mallory"]), ("allowusers", []), ("logingracetime", ["0"]), ("maxauthtries", ["60"]),
    ("loglevel", ["QUIET"]),
]  # fmt: skip


def test_a_sound_server_and_a_jump_host_have_no_fault() -> None:
    assert list(_faults(SOUND, {"root", "alice"})) == []
    jump = {**SOUND, "allowtcpforwarding": ["local"], "permitopen": ["192.0.2.1:22"]}
    assert list(_faults(jump, {"root", "alice"})) == []


@pytest.mark.parametrize(("name", "values"), OPEN)
def test_each_setting_that_is_open_is_a_fault(name: str, values: list[str]) -> None:
    (fault,) = _faults({**SOUND, name: values}, {"root", "alice"})
    assert name in fault


def test_what_is_weak_is_known() -> None:
    weak = "hmac-sha1-etm@openssh.com umac-64@openssh.com aes128-cbc 3des-cbc diffie-hellman-group14-sha1 ssh-rsa hmac-md5 hmac-sha1-96"
    good = (
        "umac-128-etm@openssh.com hmac-sha2-256 chacha20-poly1305@openssh.com aes256-gcm@openssh.com sntrup761x25519-sha512 rsa-sha2-512 "
        "diffie-hellman-group16-sha512 ssh-ed25519"
    )
    assert [word for word in weak.split() if not WEAK.search(word)] == []
    assert [word for word in good.split() if WEAK.search(word)] == []


def _door(patch: pytest.MonkeyPatch, out: str, errors: str) -> None:
    def run(words: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(words, 255, out, errors)

    patch.setattr(ssh_server.subprocess, "run", run)


WAY = Connection("ssh://root@192.0.2.1", "", False)


@pytest.mark.parametrize(
    ("errors", "found"),
    [
        ("root@192.0.2.1: Permission denied (publickey).\n", {"publickey"}),
        (
            "Warning: x\nroot@h: Permission denied (publickey,password,keyboard-interactive).\n",
            {"publickey", "password", "keyboard-interactive"},
        ),
        ("", {"none"}),
    ],
)
def test_the_ways_in_are_read(errors: str, found: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _door(monkeypatch, "", errors)
    assert ssh_server.ways_in("relay", WAY) == found


def test_what_is_passed_on_is_told_and_what_is_unclear_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    _door(monkeypatch, "SSH-2.0-OpenSSH_10.0\r\n", "")
    assert ssh_server.passes_on("relay", WAY) is True
    _door(monkeypatch, "", "channel 0: open failed: administratively prohibited: open failed\n")
    assert ssh_server.passes_on("relay", WAY) is False
    _door(monkeypatch, "", "ssh: connect to host 192.0.2.1 port 22: No route to host\n")
    with pytest.raises(Invalid):
        ssh_server.passes_on("relay", WAY)
    with pytest.raises(Invalid):
        ssh_server.ways_in("relay", WAY)
