"""The program that installs packages and lets none of their services start."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from programs import load


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with a host that has `dpkg` alone; `calls` holds what apt-get was asked and what stood in its way to start services."""
    module = load("plugins/plugin_utils/on_host/install_packages.py")
    policy = tmp_path / "policy-rc.d"
    calls: list[tuple[list[str], str]] = []

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if words[0] == "dpkg-query":
            return subprocess.CompletedProcess(words, 1, "dpkg installed\nhalf config-files\n", "no packages found matching gone")
        calls.append((words, policy.read_text() if policy.exists() else ""))
        out = (
            "Inst gone (1 x)\nInst lib-gone (1 x)\nConf gone\n"
            if "--simulate" in words
            else "Setting up lib-gone:amd64 (1) ...\nSetting up gone (1) ...\n"
        )
        return subprocess.CompletedProcess(
            words, int("wrong" in words), out, "E: Unable to locate package wrong" if "wrong" in words else ""
        )

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module, "POLICY", policy)
    monkeypatch.setattr(module, "calls", calls, raising=False)
    return module


def test_what_is_missing_is_installed_with_what_it_needs(program: Any) -> None:
    assert program.install({"names": ["dpkg"], "check": False}) == {"changed": []}
    assert program.calls == []
    assert program.install({"names": ["dpkg", "half", "gone"], "check": False}) == {"changed": ["lib-gone", "gone"]}
    ((words, policy),) = program.calls
    assert words[-3:] == ["install", "half", "gone"] and "--no-install-recommends" in words
    assert "exit 101" in policy, "no service starts with its sample configuration"
    assert not program.POLICY.exists()


def test_check_mode_asks_apt_and_changes_nothing(program: Any) -> None:
    assert program.install({"names": ["gone"], "check": True}) == {"changed": ["gone", "lib-gone"]}
    ((words, policy),) = program.calls
    assert "--simulate" in words and policy == ""


def test_what_others_say_of_services_is_put_back(program: Any) -> None:
    program.POLICY.write_text("#!/bin/sh\nexit 0\n")
    program.install({"names": ["gone"], "check": False})
    assert "exit 101" in program.calls[0][1]
    assert program.POLICY.read_text() == "#!/bin/sh\nexit 0\n"


def test_what_a_died_run_left_is_taken_away(program: Any) -> None:
    program.POLICY.write_text(program.OURS)
    program.install({"names": ["gone"], "check": False})
    assert not program.POLICY.exists()


def test_a_failure_is_told_in_apts_words(program: Any) -> None:
    found = program.install({"names": ["wrong"], "check": False})
    assert found["changed"] == [] and "Unable to locate package wrong" in found["fault"]
    assert not program.POLICY.exists()
