"""The program that tries settings of sshd: what it says of a file, whom it sees shut out, and how it takes settings back."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/sshd/files/sshd_settings.py"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program with its files elsewhere; the commands it runs are kept in `commands`."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_loader("sshd_settings", SourceFileLoader("sshd_settings", str(PROGRAM)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path / "sshd_config.d"
    folder.mkdir()
    (tmp_path / "sshd_config").write_text(f"Include {folder}/*.conf\nX11Forwarding yes\n", encoding="utf-8")
    for name, path in {
        "MAIN": "sshd_config", "OURS": "sshd_config.d/00-lemonstand.conf", "CONFIRMED": "var/confirmed", "ARMED": "armed",
        "TAKEN_BACK": "taken-back",
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, tmp_path / path)
    commands: list[tuple[str, ...]] = []

    def command(*words: str) -> Any:
        commands.append(words)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(module, "commands", commands, raising=False)
    monkeypatch.setattr(module, "command", command)
    monkeypatch.setattr(module, "judge", lambda text: [])
    return module


SAID = "passwordauthentication no\nallowusers root\nallowusers alice\nmaxauthtries 6\n"


def test_what_comes_out_as_the_file_says_is_sound(program: ModuleType) -> None:
    settings = program.settings(SAID)
    names = program.keywords("# PermitTunnel yes\nPasswordAuthentication no\nMatch all\n  AllowUsers root\n  AllowUsers alice\n")
    assert names == ["passwordauthentication", "allowusers"]
    assert program.differences(settings, settings, names, "everybody") == []


@pytest.mark.parametrize(
    ("real", "word"),
    [
        ("passwordauthentication yes\nallowusers root\nallowusers alice\n", "passwordauthentication yes, not no"),
        (SAID + "allowusers mallory\n", "allowusers root, alice, mallory, not root, alice"),
        ("allowusers root\nallowusers alice\n", "passwordauthentication not set, not no"),
    ],
)
def test_what_another_file_says_first_or_adds_is_named(program: ModuleType, real: str, word: str) -> None:
    (program.OURS.parent / "00-a.conf").write_text("# before\nPasswordAuthentication yes\nAllowUsers mallory\n", encoding="utf-8")
    (fault,) = program.differences(program.settings(SAID), program.settings(real), ["passwordauthentication", "allowusers"], "everybody")
    assert word in fault
    assert f"{program.OURS.parent}/00-a.conf:" in fault


def test_a_main_file_that_does_not_include_ours_is_named(program: ModuleType) -> None:
    (fault,) = program.differences(program.settings(SAID), {}, ["maxauthtries"], "everybody")
    assert "Include" in fault


OUT = [
    ("allowusers bob", "AllowUsers names bob"), ("allowusers alice@198.51.100.9", "AllowUsers names"), ("denyusers a*", "DenyUsers"),
    ("allowgroups admins", "AllowGroups"), ("denygroups staff", "DenyGroups"), ("pubkeyauthentication no", "PubkeyAuthentication"),
]  # fmt: skip
IN = ["", "allowusers bob\nallowusers alice", "allowusers alice@192.0.2.0/24", "allowusers alice@192.0.2.*", "allowgroups st*",
      "permitrootlogin no", "denyusers bob"]  # fmt: skip


@pytest.mark.parametrize(("text", "word"), OUT)
def test_who_would_be_shut_out_is_named(program: ModuleType, text: str, word: str) -> None:
    (fault,) = program.shut_out(program.settings(text), "alice", "192.0.2.254", {"staff"})
    assert word in fault and "alice" in fault and "sshd_allow_users" in fault


@pytest.mark.parametrize("text", IN)
def test_who_is_let_in_is_not(program: ModuleType, text: str) -> None:
    assert program.shut_out(program.settings(text), "alice", "192.0.2.254", {"staff"}) == []


def test_root_by_key_is_let_in_and_root_by_nothing_is_not(program: ModuleType) -> None:
    assert program.shut_out(program.settings("permitrootlogin without-password"), "root", "192.0.2.1", set()) == []
    assert program.shut_out(program.settings("permitrootlogin no"), "root", "192.0.2.1", set())


def test_new_settings_are_armed_confirmed_and_then_quiet(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    program.OURS.write_text("MaxAuthTries 6\n", encoding="utf-8")
    program.arm(45, check=True)
    assert program.commands == [] and capsys.readouterr().out == ""
    program.arm(45, check=False)
    assert capsys.readouterr().out.startswith("unconfirmed: ")
    assert any("--on-active=45" in words for words in program.commands)
    program.confirm()
    assert not program.ARMED.exists()
    program.commands.clear()
    program.arm(45, check=False)
    assert program.commands == [] and capsys.readouterr().out == ""


def test_what_nobody_confirms_goes_and_what_was_confirmed_comes_back(program: ModuleType) -> None:
    program.OURS.write_text("MaxAuthTries 6\n", encoding="utf-8")
    program.arm(45, check=False)
    program.restore()
    assert not program.OURS.exists(), "there was nothing of ours before"
    with pytest.raises(program.Fault, match="taken back"):
        program.confirm()
    program.OURS.write_text("MaxAuthTries 6\n", encoding="utf-8")
    program.arm(45, check=False)
    program.confirm()
    program.OURS.write_text("Ciphers aes128-cbc\n", encoding="utf-8")
    program.arm(45, check=False)
    program.restore()
    assert program.OURS.read_text(encoding="utf-8") == "MaxAuthTries 6\n"
    assert program.commands[-1] == ("systemctl", "reload", "ssh.service")
    # The next run writes what was confirmed: nothing is armed, and nothing of before is held against it.
    program.arm(45, check=False)
    program.confirm()


def test_the_session_is_found_above_sudo(program: ModuleType, tmp_path: Path) -> None:
    import os  # noqa: PLC0415 - the number of this process

    def process(number: int, parent: int, **variables: str) -> None:
        (tmp_path / f"{number}.environ").write_text("\0".join(f"{key}={value}" for key, value in variables.items()), encoding="utf-8")
        (tmp_path / f"{number}.status").write_text(f"Name:\tx\nPPid:\t{parent}\n", encoding="utf-8")

    where = (str(tmp_path / "{}.environ"), str(tmp_path / "{}.status"))
    ends = "192.0.2.254 4000 192.0.2.10 22"
    process(os.getpid(), 90, SUDO_USER="alice", USER="root", SSH_CONNECTION=ends)
    process(90, 80, USER="alice", SSH_CONNECTION=ends)
    process(80, 1, USER="root")
    assert program.session(*where) == ("alice", ends.split())
    process(90, 80)
    assert program.session(*where) is None
