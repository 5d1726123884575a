"""The program that loads a host's rules: what it says of differences, and what it writes to close a service."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/nftables/files/packet_filter.py"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program with its files elsewhere; what it would hand to nft is kept in `loaded`."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_loader("packet_filter", SourceFileLoader("packet_filter", str(PROGRAM)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: list[str] = []
    monkeypatch.setattr(module, "CLOSED", tmp_path / "closed.nft")
    monkeypatch.setattr(module, "load", loaded.append)
    monkeypatch.setattr(module, "running", lambda table="lemonstand": "table" if (tmp_path / "closed.nft").exists() else "")
    monkeypatch.setattr(module, "loaded", loaded, raising=False)
    return module


FILE = "table inet lemonstand {\n\tchain input {\n\t\ttcp dport 143 accept\n\t}\n}\n"


def test_a_rule_put_in_by_hand_is_named(program: ModuleType) -> None:
    live = FILE.replace("\t}\n", "\t\ttcp dport 9999 accept\n\t}\n", 1)
    assert program.differences(live, FILE) == ["runs, and is not in the file: tcp dport 9999 accept"]


def test_a_rule_taken_out_is_named(program: ModuleType) -> None:
    assert program.differences(FILE.replace("\t\ttcp dport 143 accept\n", ""), FILE) == [
        "is in the file, and does not run: tcp dport 143 accept"
    ]


def test_the_same_and_an_empty_host_have_no_difference(program: ModuleType) -> None:
    assert program.differences(FILE, FILE) == program.differences("", FILE) == []


def test_many_differences_are_counted(program: ModuleType) -> None:
    live = FILE + "".join(f"# {number}\n" for number in range(40))
    assert program.differences(live, FILE)[-1] == f"and {40 - program.SHOWN} more"


def test_a_router_closes_what_comes_from_outside(program: ModuleType) -> None:
    program.close([587, 143], "internet0", False, "a  test\n of it")
    text = program.CLOSED.read_text()
    assert program.loaded == [text]
    assert "hook forward" in text
    assert 'iifname "internet0" tcp dport { 143, 587 } ct state != { established, related } drop' in text
    assert "sport" not in text
    assert program.closure()["reason"] == "a test of it"


def test_a_host_closes_itself_and_cuts_both_ways(program: ModuleType) -> None:
    program.close([143], "", True, "")
    text = program.CLOSED.read_text()
    assert "hook input" in text and "hook output" in text
    assert "tcp dport { 143 } drop" in text and "tcp sport { 143 } drop" in text


def test_closing_twice_changes_nothing_and_keeps_the_first_time(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    program.close([143], "", False, "once")
    since = program.closure()["since"]
    program.close([143], "", False, "once")
    assert capsys.readouterr().out.count("changed:") == 1
    program.close([143], "", True, "more")
    assert program.closure() == {"ports": [143], "device": "", "cut": True, "reason": "more", "since": since}


def test_a_reason_can_not_become_a_rule(program: ModuleType) -> None:
    program.close([143], "", False, '"}\ntable inet evil { chain x { accept } }')
    lines = program.CLOSED.read_text().splitlines()
    assert json.loads(lines[0].lstrip("# "))["reason"].startswith('"} table')
    assert not [line for line in lines[1:] if "evil" in line]


def test_opening_says_so_once(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    program.close([143], "", False, "")
    program.open_again()
    program.open_again()
    assert capsys.readouterr().out.count("changed: opened") == 1
    assert program.closure() is None
