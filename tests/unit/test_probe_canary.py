"""The search for secrets finds them in every form they may take."""

from __future__ import annotations

import base64
import gzip
import lzma
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from lemonstand.probes.hosts import canary

SECRET = "Tr0ub4dor & 3ß/horse"


def _found(data: bytes) -> set[str]:
    return {name.partition(":")[2] for name in canary.Needles([SECRET]).within(data)}


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc", b"\0alice@lemon.test\0"])
@pytest.mark.parametrize("after", [b"", b"z", b"zz", b"zzz"])
def test_base64_is_seen_wherever_the_secret_stands_in_it(before: bytes, after: bytes) -> None:
    assert _found(base64.b64encode(before + SECRET.encode() + after))
    assert _found(base64.urlsafe_b64encode(before + SECRET.encode() + after))


def test_other_forms_are_seen() -> None:
    assert _found(b"password=" + quote_plus(SECRET).encode() + b"&x=1")
    assert _found(SECRET.encode().hex().encode())
    assert _found(SECRET.encode("utf-16-le"))


def test_what_is_not_there_is_not_found() -> None:
    assert not _found(base64.b64encode(b"x" * 4000) + b"Tr0ub4dor & 3")


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter than 12"):
        canary.Needles(["correct horse battery", "short"])


def test_a_secret_across_two_blocks_is_seen() -> None:
    data = b"x" * 100 + SECRET.encode() + b"y" * 100
    assert canary.Needles([SECRET]).in_stream(iter([data[:108], data[108:]]))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_packed_files_are_searched(tmp_path: Path, pack: object) -> None:
    path = tmp_path / "messages.1"
    path.write_bytes(pack(b"x" * 5000 + SECRET.encode()))  # type: ignore[operator]
    assert canary._contents(path, canary.Needles([SECRET]))


def test_a_torn_packed_file_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "messages.1.gz"
    path.write_bytes(gzip.compress(b"x" * 5000)[:-12])
    with pytest.raises(OSError):
        canary._contents(path, canary.Needles([SECRET]))
