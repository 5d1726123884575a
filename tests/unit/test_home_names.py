"""What a copy of a home still has though its original lost it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from programs import load

home_names = load("roles/mail_store/files/home_names.py")

GUID = "1919d40933130e6b4d120000147e808e"
ODD = "priv/x/a\\nb"
"""A key as Dovecot writes one with a line feed in it."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "sieve" / "tmp").mkdir(parents=True)
    for name in ("out of office.sieve", "größe.sieve", "tmp/half.sieve", "notes.txt"):
        (tmp_path / "sieve" / name).write_text("keep;")
    (tmp_path / ".dovecot.sieve").symlink_to("sieve/größe.sieve")
    (tmp_path / "dovecot-attributes").write_bytes(f"priv/{GUID}/comment\nhello\n{ODD}\n\nshared/{GUID}/x\n\xff\n".encode("latin-1"))
    (tmp_path / "dovecot-attributes").chmod(0o600)
    (tmp_path / "Maildir").mkdir()
    (tmp_path / "Maildir/subscriptions").write_text("V\t2\n\nTrash\nlists\tnews\n", encoding="utf-8")
    return tmp_path


def test_scripts_the_active_one_and_attributes_have_names(home: Path) -> None:
    assert home_names.names(home) == {
        "sieve/out of office.sieve", "sieve/größe.sieve", ".dovecot.sieve",
        "Maildir/subscriptions:Trash", "Maildir/subscriptions:lists\tnews",
        f"dovecot-attributes:priv/{GUID}/comment", f"dovecot-attributes:{ODD}", f"dovecot-attributes:shared/{GUID}/x",
    }  # fmt: skip


def test_what_is_not_there_has_none(tmp_path: Path) -> None:
    assert home_names.names(tmp_path / "nobody") == set()


def test_only_what_is_named_goes(home: Path) -> None:
    gone = {"sieve/größe.sieve", ".dovecot.sieve", f"dovecot-attributes:{ODD}", "sieve/never was.sieve", "dovecot-attributes:never"}
    gone.add("Maildir/subscriptions:Trash")
    left = home_names.names(home) - gone
    home_names.remove(home, gone)
    assert home_names.names(home) == left
    assert (home / "dovecot-attributes").read_bytes() == f"priv/{GUID}/comment\nhello\nshared/{GUID}/x\n\xff\n".encode("latin-1")
    assert stat.S_IMODE((home / "dovecot-attributes").stat().st_mode) == 0o600
    assert (home / "Maildir/subscriptions").read_text(encoding="utf-8") == "V\t2\n\nlists\tnews\n"
    assert (home / "sieve" / "notes.txt").exists() and (home / "sieve" / "tmp" / "half.sieve").exists()


def test_nothing_is_written_where_nothing_goes(home: Path) -> None:
    before = (home / "dovecot-attributes").stat().st_ino
    home_names.remove(home, {"sieve/größe.sieve"})
    assert (home / "dovecot-attributes").stat().st_ino == before
