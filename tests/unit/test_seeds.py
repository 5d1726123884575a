"""What the directory is seeded with: which passwords there can be, which hashes slapd compares, and that nobody is seeded twice."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
import unicodedata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "roles" / "directory" / "files"
ARGON2 = {"memory_kib": 19456, "iterations": 2, "parallelism": 1}


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.stem}_under_test", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # programs on a host find each other so
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


SEED = _load(FOLDER / "directory_seed.py")
ISSUER = _load(ROOT / "roles" / "ticket_issuer" / "files" / "ticket_issuer.py")


# ----- one form of a password


@pytest.mark.parametrize(
    "typed",
    [
        "it\u00b4s my password 2026",
        "Gru\u0308\u00dfe-Stra\u00dfe-2026",
        "contrase\u00f1a 1\u00aa segura \u00ba2",
        "\u05e1\u05d9\u05e1\u05de\u05d4-mail-2026-abc",
        "\uff21\uff22\uff23 wide letters",
        "\u0661\u0662\u0663\u0664 Arabic-Indic",
        "\ufb01gure of \u2167 \u2122",
        "  spaces at both ends  ",
        "{SSHA}looks like a hash",
        '100%{user} %u \\"quoted\\" c:\\dir a+b&c=d',
        "emoji \U0001f600\U0001f680 without joiners",
        "x" * 512,
        # RFC 8265 section 4.3, the examples that are valid
        "correct horse battery staple",
        "Correct Horse Battery Staple",
        "\u03c0\u00df\u00e5",
        "Jack of \u2666s",
    ],
)
def test_both_sides_prepare_alike(typed: str) -> None:
    prepared = SEED.prepare(typed)
    for spelling in ("NFC", "NFD"):
        assert SEED.prepare(unicodedata.normalize(spelling, typed)) == prepared
        assert ISSUER.prepare(unicodedata.normalize(spelling, typed)) == prepared
    if typed.isascii():
        assert prepared == typed, "octets of ASCII are what they were before passwords were prepared"


def test_spaces_become_one_kind() -> None:
    # RFC 8265 section 4.3: U+1680 OGHAM SPACE MARK is mapped to U+0020.
    assert SEED.prepare("foo\u1680bar") == ISSUER.prepare("foo\u1680bar") == "foo bar"
    assert SEED.prepare("a\u00a0b\u3000c") == "a b c"


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "empty"),
        ("correct \u2764\ufe0f horse battery", "U\\+FE0F VARIATION SELECTOR-16"),
        ("family \U0001f468\u200d\U0001f469", "U\\+200D ZERO WIDTH JOINER"),
        ("soft\u00adhyphen in it", "U\\+00AD SOFT HYPHEN"),
        ("zero\u200bwidth space", "U\\+200B"),
        ("my cat is a \u0009by", "control character"),  # RFC 8265 section 4.3
        ("nothing\0behind it", "control character"),
        ("\u1100 lone jamo", "U\\+1100"),
        ("mixed \u0661\u06f1 digits", "U\\+0661 .*where it can't stand"),
        ("a\u00b7b middle dot", "U\\+00B7 MIDDLE DOT where it can't stand"),
        ("not \U000e0fff assigned", "U\\+E0FFF"),
        ("broken \ufffd text", "U\\+FFFD"),
        ("broken \udcfc octet", "no UTF-8"),
        ("x" * 513, "more than 512"),
    ],
)
def test_what_can_not_be_prepared_is_refused_and_not_shown(typed: str, why: str) -> None:
    with pytest.raises(SEED.SeedError, match=why) as caught:
        SEED.prepare(typed)
    assert not typed or typed not in str(caught.value)


def test_at_a_login_it_is_tried_as_it_came() -> None:
    for typed in ("correct \u2764\ufe0f horse", "tab\there", "\u1100x"):
        assert ISSUER.prepare(typed) == typed


@given(st.text(min_size=1, max_size=40))
def test_any_password_that_can_be_set_opens_in_either_spelling(text: str) -> None:
    try:
        stored = SEED.prepare(text)
    except SEED.SeedError as problem:
        assert len(text) < 4 or text not in str(problem)
        return
    assert SEED.prepare(stored) == stored, "to prepare twice is to prepare once"
    assert {ISSUER.prepare(spelling) for spelling in (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))} == {
        stored
    }


@given(st.text(min_size=12, max_size=40))
def test_what_opened_before_passwords_were_prepared_still_opens(text: str) -> None:
    # Then the hash was made of the text as typed, and a bind of its SASLprep (NFKC among others): only what that left alone ever opened.
    assume(unicodedata.normalize("NFKC", text) == text)
    assume(not any(unicodedata.category(each) == "Zs" and each != " " for each in text))
    assert ISSUER.prepare(text) == text


# ----- hashes slapd compares

SHA512 = "$6$abc$rvqzMBuMVukmply9mZJpW0wJMdDfgUKLDrSNxf9l66h/ytQiKNAdqHSj5YPJpxWJpVjRXibQXRddCl9xYHQnd0"
BCRYPT = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu"
YESCRYPT = "$y$j9T$abcdefgh$79JhsKZwfY/UU2qrk3QcffpHl7EyEEJK0pA5pD1wu73"
ARGON = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$5oUqzQ8kJ8GmQz7wB2y2qXgLrJ1cX0rP0oZ3n1qfVdA"
DES, MD5CRYPT = "abJnggxhB/yWI", "$1$abc$BXBqpb9BZcZhXLgbee.0s/"


def _b64(size: int) -> str:
    return base64.b64encode(bytes(range(size))).decode()


@pytest.mark.parametrize(
    ("given_hash", "stored"),
    [
        ("{SHA512-CRYPT}" + SHA512, "{CRYPT}" + SHA512),
        ("{sha512-crypt}" + SHA512, "{CRYPT}" + SHA512),
        ("{CRYPT}" + SHA512, "{CRYPT}" + SHA512),
        (SHA512, "{CRYPT}" + SHA512),
        ("{BLF-CRYPT}" + BCRYPT, "{CRYPT}" + BCRYPT),
        (BCRYPT, "{CRYPT}" + BCRYPT),
        (YESCRYPT, "{CRYPT}" + YESCRYPT),
        ("{MD5-CRYPT}" + MD5CRYPT, "{CRYPT}" + MD5CRYPT),
        ("{MD5}" + MD5CRYPT, "{CRYPT}" + MD5CRYPT),
        ("{DES-CRYPT}" + DES, "{CRYPT}" + DES),
        ("{ARGON2ID}" + ARGON, "{ARGON2}" + ARGON),
        ("{argon2}" + ARGON, "{ARGON2}" + ARGON),
        (ARGON, "{ARGON2}" + ARGON),
        ("{ssha}" + _b64(28), "{SSHA}" + _b64(28)),
        ("{SHA1}" + _b64(20), "{SHA}" + _b64(20)),
        ("{LDAP-MD5}" + _b64(16), "{MD5}" + _b64(16)),
        ("{SMD5}" + _b64(24), "{SMD5}" + _b64(24)),
        ("{SSHA256}" + _b64(40), "{SSHA256}" + _b64(40)),
        ("{SSHA512}" + _b64(68), "{SSHA512}" + _b64(68)),
    ],
)
def test_hashes_of_others_are_translated(given_hash: str, stored: str) -> None:
    assert SEED.stored_hash(given_hash) == stored


@pytest.mark.parametrize(
    "given_hash",
    [
        "{SHA512-CRYPT}$6$...",
        "{SHA512-CRYPT}" + SHA512[:-1],
        "{CRYPT}$apr1$abc$BXBqpb9BZcZhXLgbee.0s/",
        "{CRYPT}*",
        "{CRYPT}!" + SHA512,
        "{BLF-CRYPT}" + BCRYPT[:-2],
        "{ARGON2}$argon2id$v=19$m=19456,t=2,p=1$short",
        "{ARGON2}" + SHA512,
        "{CRYPT}" + ARGON,
        "{PBKDF2}$1$abc$1000$def",
        "{PBKDF2-SHA512}10000$abc$def",
        "{SCRAM-SHA-256}4096,abc,def",
        "{PLAIN}hunter2hunter2",
        "{CLEARTEXT}hunter2hunter2",
        "{CLEAR}hunter2hunter2",
        "{SASL}alice@lemon.example",
        "{UNIX}alice",
        "{SSHA}%%% no base64 %%%",
        "{SSHA}" + _b64(20),
        "{SHA}" + _b64(19),
        "{SHA256}" + _b64(20),
        "{SSHA224}" + _b64(40),
        "{CRAM-MD5}" + "0" * 64,
        "{}" + SHA512[1:],
        "hunter2hunter2",
        DES,
        "{SSHA" + _b64(28),
        "{SSHA}" + _b64(28) + "\n",
    ],
)
def test_what_slapd_can_not_compare_is_refused(given_hash: str) -> None:
    with pytest.raises(SEED.SeedError) as caught:
        SEED.stored_hash(given_hash)
    assert "hunter2" not in str(caught.value)


# ----- nobody is seeded twice


class Directory:
    """As much of a connection to slapd as seeding asks for: entries by name, whatever the suffix."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}
        self.result = {"result": 0, "description": "success", "message": ""}
        self.response: list[dict[str, Any]] = []
        self.extend = self
        self.standard = self

    def search(self, dn: str, _filter: str, **_: Any) -> bool:
        found = self.entries.get(dn)
        self.response = (
            [] if found is None else [{"raw_attributes": {key: [str(each).encode() for each in values] for key, values in found.items()}}]
        )
        return found is not None

    def paged_search(self, base: str, _filter: str, **_: Any) -> list[dict[str, Any]]:
        return [
            {"raw_attributes": {key: [each.encode() for each in values] for key, values in entry.items()}}
            for dn, entry in self.entries.items()
            if dn.endswith(f",{base}")
        ]

    def add(self, dn: str, _classes: Any, attributes: dict[str, Any]) -> None:
        self.entries[dn] = {key: value if isinstance(value, list) else [value] for key, value in attributes.items()}

    def modify(self, dn: str, changes: dict[str, Any]) -> None:
        for key, ((_, values),) in changes.items():
            self.entries[dn][key] = values

    def password(self, name: str) -> str | None:
        (entry,) = [entry for dn, entry in self.entries.items() if dn.startswith(f"uid={name},")]
        values = entry.get("userPassword")
        return values[0] if values else None


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with nothing on it."""
    monkeypatch.setattr(SEED, "RECORD", tmp_path / "var" / "directory.json")
    monkeypatch.setattr(SEED, "CONFIGURATION", tmp_path / "lemonstand.conf")
    monkeypatch.setattr(SEED, "DATABASE", tmp_path / "ldap" / "data.mdb")
    monkeypatch.setattr(SEED, "hash_of", lambda password, argon2, whose: f"{{ARGON2}} of {SEED.prepare(password)}, m=19456,t=2,p=1")
    return tmp_path


ALICE, BOB = "alice@lemon.example", "bob@acme.example"


def _order(*names: str, **changes: Any) -> dict[str, Any]:
    return {
        "check": False,
        "base_dn": "o=lemonstand",
        "users": [{"name": name, "store": "store.site"} for name in names],
        "passwords": dict.fromkeys(names, "the first password"),
        "password_length": 12,
        "argon2": ARGON2,
        **changes,
    }


def test_a_new_directory_is_seeded_once(host: Path) -> None:
    directory = Directory()
    first = SEED.seed(_order(ALICE, BOB), directory)
    assert [line for line in first if "added" in line] == [f"changed: user {ALICE} added", f"changed: user {BOB} added"]
    assert SEED.RECORD.stat().st_mode & 0o777 == 0o600
    assert json.loads(SEED.RECORD.read_text())["names"] == [ALICE, BOB]
    assert SEED.seed(_order(ALICE, BOB), directory) == [], "a second run changes nothing"


def test_who_was_deleted_or_renamed_is_not_seeded_again(host: Path) -> None:
    directory = Directory()
    SEED.seed(_order(ALICE, BOB), directory)
    del directory.entries[f"uid={BOB},ou=people,o=lemonstand"]
    again = SEED.seed(_order(ALICE, BOB), directory)
    assert again == [f"notice: 1 users of the inventory were deleted or renamed since they were seeded, and stay so: {BOB}"]
    assert f"uid={BOB},ou=people,o=lemonstand" not in directory.entries


def test_aliases_are_seeded_once_and_are_the_directorys_then(host: Path) -> None:
    directory = Directory()
    first = {**_order(ALICE), "users": [{"name": ALICE, "store": "store.site", "aliases": ["a@lemon.example"]}]}
    SEED.seed(first, directory)
    entry = directory.entries[f"uid={ALICE},ou=people,o=lemonstand"]
    assert entry["mailLocalAddress"] == ["a@lemon.example"]
    entry["mailLocalAddress"] = ["other@lemon.example", BOB]
    assert SEED.seed(first, directory) == []
    assert entry["mailLocalAddress"] == ["other@lemon.example", BOB]
    both = {**first, "users": [*first["users"], {"name": BOB, "store": "store.site"}], "passwords": {BOB: "the first password"}}
    assert [line for line in SEED.seed(both, directory) if "added" in line] == [], "somebody else has that address"


def test_an_emptied_database_is_not_filled_again(host: Path) -> None:
    SEED.seed(_order(ALICE, BOB), Directory())
    for check in (True, False):
        empty = Directory()
        with pytest.raises(SEED.SeedError, match=r"had 2 accounts and has none now.*Restore .*remove .*directory\.json") as caught:
            SEED.seed(_order(ALICE, BOB, check=check), empty)
        assert empty.entries == {}
    assert str(SEED.RECORD) in str(caught.value)
    SEED.RECORD.unlink()  # as the message says
    fresh = Directory()
    SEED.seed(_order(ALICE), fresh)
    assert fresh.password(ALICE) is not None


def test_a_directory_of_before_the_record_is_kept_as_it_is(host: Path) -> None:
    old = "dc=lemon,dc=example"
    SEED.CONFIGURATION.write_text(f'database mdb\nsuffix "{old}"\nrootdn "x"\n')
    directory = Directory()
    SEED.seed(_order(ALICE), directory)
    assert f"uid={ALICE},ou=people,{old}" in directory.entries
    directory.modify(f"uid={ALICE},ou=people,{old}", {"userPassword": [("MODIFY_REPLACE", ["{ARGON2}set since"])]})
    SEED.RECORD.unlink()
    assert not any("suffix" in line for line in SEED.seed(_order(ALICE, BOB), directory)), "nobody chose another"
    lines = SEED.seed(_order(ALICE, BOB, base_dn="dc=acme,dc=example"), directory)
    assert directory.password(ALICE) == "{ARGON2}set since"
    assert lines == [f"notice: this host's directory keeps its suffix {old}; dc=acme,dc=example is for a new one"]
    assert not any("o=lemonstand" in dn for dn in directory.entries)


@given(domains=st.permutations(["lemon.example", "acme.example", "third.example"]), several=st.integers(1, 3))
def test_no_order_of_domains_and_no_variable_moves_the_suffix(domains: list[str], several: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SEED, "read_record", lambda: {"suffix": "dc=lemon,dc=example", "names": [ALICE]})
        wanted = ",".join(f"dc={part}" for domain in domains[:several] for part in domain.split("."))
        assert SEED.suffix_here(wanted) == "dc=lemon,dc=example"


def test_a_database_of_which_nothing_is_known_stops_the_run(host: Path) -> None:
    SEED.DATABASE.parent.mkdir()
    SEED.DATABASE.write_bytes(b"x")
    with pytest.raises(SEED.SeedError, match=r"neither .*directory\.json nor .*lemonstand\.conf says"):
        SEED.suffix_here("o=lemonstand")
    SEED.CONFIGURATION.write_text("suffix o=ours\n")
    assert SEED.suffix_here("o=lemonstand") == "o=ours"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"suffix": 1, "names": []}', '{"suffix": "o=x"}', '{"suffix": "o=x", "names": [1]}', "\0\0"]
)
def test_a_broken_record_is_named_and_nothing_is_done(host: Path, text: str) -> None:
    SEED.RECORD.parent.mkdir()
    SEED.RECORD.write_text(text)
    directory = Directory()
    with pytest.raises(SEED.SeedError, match=r"directory\.json can't be read"):
        SEED.seed(_order(ALICE), directory)
    assert directory.entries == {}


def test_a_seed_that_opens_nothing_leaves_the_directory_as_it_was(host: Path) -> None:
    directory = Directory()
    for spoilt in (
        _order(ALICE, BOB, passwords={ALICE: "the first password", BOB: "soft\u00adhyphen"}),
        _order(ALICE, users=[{"name": ALICE, "store": "s", "password_hash": "{PLAIN}the first password"}]),
    ):
        for check in (True, False):
            with pytest.raises(SEED.SeedError, match=r"user .*@.*nobody was seeded") as caught:
                SEED.seed({**spoilt, "check": check}, directory)
            assert "the first password" not in str(caught.value)
    assert directory.entries == {}
    assert not SEED.RECORD.exists()


def test_a_seed_of_somebody_who_is_there_is_not_looked_at(host: Path) -> None:
    directory = Directory()
    SEED.seed(_order(ALICE), directory)
    assert SEED.seed(_order(ALICE, passwords={ALICE: "soft\u00adhyphen"}), directory) == []


def test_a_check_run_writes_nothing(host: Path) -> None:
    directory = Directory()
    lines = SEED.seed(_order(ALICE, check=True), directory)
    assert f"changed: user {ALICE} added" in lines
    assert directory.entries == {}
    assert not SEED.RECORD.exists()


def test_a_second_record_adds_names_and_loses_none(host: Path) -> None:
    assert SEED.remember("o=lemonstand", {BOB})
    assert SEED.remember("o=lemonstand", {ALICE})
    assert not SEED.remember("o=lemonstand", {ALICE, BOB})
    assert SEED.read_record() == {"suffix": "o=lemonstand", "names": [ALICE, BOB]}
    assert [path.name for path in SEED.RECORD.parent.iterdir()] == ["directory.json"]


# ----- several directories


def test_what_another_directory_has_more_is_told_by_origin() -> None:
    own = {"064": "20261130163130.657367Z#000000#064#000000"}
    same = {**own}
    newer = {"064": "20261130163131.000000Z#000000#064#000000"}
    strange = {**own, "0c8": "20261130163152.617411Z#000000#0c8#000000"}
    assert SEED.behind(own, same) == []
    assert SEED.behind(own, newer) == list(newer.values())
    assert SEED.behind(own, strange) == [strange["0c8"]]
    assert SEED.behind(strange, own) == []
    assert SEED.behind(None, own) == list(own.values())
    assert SEED.behind(own, None) == []
