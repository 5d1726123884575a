"""Keys by which relays sign: how they are made, changed and forgotten, and what is said of those that can't be used."""

from __future__ import annotations

import base64
import datetime
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from cryptography.hazmat.primitives import serialization

from lemonstand.derived.dns import Record
from lemonstand.site.shipped import filter_plugin

plugin = filter_plugin("signing_keys")


def test_the_first_key_is_made_once_and_signs(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(plugin.keys, [tmp_path] * 4))
    assert found.count(found[0]) == 4
    (key,) = found[0]
    assert key["state"] == "signs" and key["selector"].startswith("s2")
    private = serialization.load_pem_private_key(key["private"].encode(), None)
    der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert base64.b64encode(der).decode() == key["public"] and plugin.record(key) == f"v=DKIM1; k=rsa; p={key['public']}"


def test_a_plan_before_there_is_a_directory_leaves_nothing_behind(tmp_path: Path) -> None:
    (key,) = plugin.keys(tmp_path / "pki")
    assert "PRIVATE KEY" in key["private"] and plugin.record(key).startswith("v=DKIM1; k=rsa; p=")
    assert not list(tmp_path.iterdir())


def test_nobody_else_reads_them_and_the_list_holds_no_secret(tmp_path: Path) -> None:
    (key,) = plugin.keys(tmp_path)
    folder = tmp_path / "dkim"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.name != ".lock"} == {0o600}
    assert "PRIVATE" not in (folder / "keys.json").read_text(encoding="utf-8")
    assert not any("private" in each for each in plugin.known(tmp_path)) and key["private"]


def test_a_rotation_overlaps(tmp_path: Path) -> None:
    (first,) = plugin.keys(tmp_path)
    made = plugin.prepare(tmp_path)
    assert plugin.prepare(tmp_path) == made, "a second call makes no second one"
    assert [(each["selector"], each["state"]) for each in plugin.keys(tmp_path)] == [
        (first["selector"], "signs"), (made["selector"], "next"),
    ]  # fmt: skip
    plugin.switch(tmp_path)
    assert [each["state"] for each in plugin.keys(tmp_path)] == ["old", "signs"]
    plugin.retire(tmp_path, [first["selector"]])
    assert [each["selector"] for each in plugin.keys(tmp_path)] == [made["selector"]]
    assert not (tmp_path / "dkim" / f"{first['selector']}.key").exists()


def test_what_signs_is_not_forgotten_and_nothing_is_switched_to_nothing(tmp_path: Path) -> None:
    (key,) = plugin.keys(tmp_path)
    with pytest.raises(plugin.KeyFault, match="no next key"):
        plugin.switch(tmp_path)
    with pytest.raises(plugin.KeyFault, match="no old key"):
        plugin.retire(tmp_path, [key["selector"]])
    assert plugin.keys(tmp_path) == [key]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: next(folder.glob("*.key")).chmod(0o644), "others may read"),
        (lambda folder: next(folder.glob("*.key")).unlink(), "holds no key that can be read"),
        (lambda folder: next(folder.glob("*.key")).write_text("nothing"), "holds no key that can be read"),
        (lambda folder: (folder / "keys.json").unlink(), "is gone"),
        (lambda folder: (folder / "keys.json").write_text("{"), "can't be read"),
        (lambda folder: (folder / "keys.json").write_text(json.dumps({"keys": []})), "exactly one key signs"),
    ],
)
def test_keys_that_can_not_be_used_are_named_and_never_replaced(tmp_path: Path, spoil: object, said: str) -> None:
    plugin.keys(tmp_path)
    assert callable(spoil)
    spoil(tmp_path / "dkim")
    with pytest.raises(AnsibleFilterError, match=said):
        plugin.keys(tmp_path)


def test_days_count_from_the_last_change(tmp_path: Path) -> None:
    (key,) = plugin.keys(tmp_path)
    later = datetime.datetime.fromisoformat(key["since"]) + datetime.timedelta(days=8)
    assert plugin.age_days(key, later) == pytest.approx(8.0)


def test_a_long_text_is_cut_into_strings() -> None:
    line = str(Record("s1._domainkey.example.org", "TXT", "x" * 300))
    assert line == f's1._domainkey.example.org. IN TXT "{"x" * 255}" "{"x" * 45}"'
