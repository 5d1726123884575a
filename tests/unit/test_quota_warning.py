"""What a user is told whose mailbox fills up."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs import load

quota_warning = load("roles/mail_store/files/quota_warning.py")


def test_the_warning_is_a_message_that_nothing_answers() -> None:
    message = quota_warning.warning("80", "alice@lemon.test", 1.0)
    assert (message["From"], message["To"]) == ("postmaster@lemon.test", "alice@lemon.test")
    assert message["Subject"] == "Your mailbox is 80 % full"
    assert message["Auto-Submitted"] == "auto-generated"
    assert "alice@lemon.test is 80 % full" in message.get_content()
    assert max(len(line) for line in message.as_string().splitlines()) <= 78


@pytest.mark.parametrize(("script", "code"), [("cat >$0.got", 0), ("echo no way >&2; exit 75", 1)])
def test_it_is_delivered_or_the_journal_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str, code: int
) -> None:
    program = tmp_path / "deliver"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(quota_warning, "DELIVER", (str(program),))
    assert quota_warning.main(["95", "bob@lemon.test"]) == code
    if code:
        assert "bob@lemon.test: not told that his mailbox is 95 % full: no way" in capsys.readouterr().err
    else:
        assert b"95 % full" in Path(f"{program}.got").read_bytes()
