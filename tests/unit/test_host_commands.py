"""What readings of a host make of commands that are not there, fail or hang."""

from __future__ import annotations

import pytest

from lemonstand.probes.hosts import facts, shared


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "SECONDS", 0.2)


def test_what_a_command_prints() -> None:
    assert shared.command("echo", "x") == facts.command("echo", "x") == "x\n"


@pytest.mark.parametrize("words", [("false",), ("/nowhere/at/all",)])
def test_what_fails_or_is_not_there_says_nothing(words: tuple[str, ...]) -> None:
    assert shared.command(*words) is None
    assert facts.command(*words) is None


def test_what_hangs_is_no_empty_answer() -> None:
    """Nothing strange would be found in it. A service that hangs is for its own checks to tell."""
    with pytest.raises(TimeoutError, match=r"sleep 9 does not end within 0\.2 s"):
        shared.command("sleep", "9")
    assert facts.command("sleep", "9") is None
