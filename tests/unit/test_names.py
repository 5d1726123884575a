"""One grammar of names: the model, the preflight, the issuer, Dovecot's settings and the relay's maps say the same of every name."""

from __future__ import annotations

import functools
import importlib.util
import re
import string
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lemonstand.errors import InputErrors
from lemonstand.policy import load_flows, load_timers
from lemonstand.policy.names import is_any_address, load_names
from lemonstand.site import build
from lemonstand.site.model import is_host_name, is_mail_address
from lemonstand.site.raw import RawSite
from lemonstand.site.reader import read
from sample_site import Tree, sound_site, write_site

ROOT = Path(__file__).resolve().parents[2]
NAMES = load_names()
DATA = yaml.safe_load((ROOT / "playbooks" / "names.yml").read_text(encoding="utf-8"))["names"]


def _module(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


sys.path.append(str(ROOT / "roles" / "ticket_issuer" / "files"))  # the issuer imports what lies beside it
filters: Any = _module("lemonstand_name_filters", "playbooks/filter_plugins/lemonstand.py")
issuer: Any = _module("ticket_issuer_of_names", "roles/ticket_issuer/files/ticket_issuer.py")


@functools.cache
def _default(role: str, name: str) -> str:
    return str(yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text(encoding="utf-8"))[f"{role}_{name}"])


def verdicts(text: str) -> dict[str, bool]:
    """What each of those that judge a whole name says of it."""
    return {
        "the model": is_mail_address(text),
        "the issuer": issuer.normalise_login(text) == text,
        "the issuer as its role sets it up": issuer.normalise_login(text, filters.login_pattern(DATA)) == text,
    }


def hindrances(name: str) -> list[str]:
    """What keeps a name that is taken from working in the programs it goes through."""
    local, _, domain = name.partition("@")
    found = []
    for role in ("imap_frontend", "mail_store"):
        for typed in (name, name.upper(), name.title()):
            if set(typed) - set(_default(role, "login_characters")):
                found.append(f"{role}: auth_username_chars lacks a character of {typed}")
    for role in ("mail_store", "mail_relay"):
        if _default(role, "recipient_delimiter") in local:
            found.append(f"{role}: mail for it goes to another")
    if name.lower() != name:
        found.append("it has a second form")
    if ":" in name or name.startswith("#"):
        found.append("Dovecot's passwd-file ends it early")
    if re.search(r"[\s,]", name) or name[0] in "#-" or re.search(r"[!%]", name):
        found.append("Postfix's maps or routes take it for something else")
    if "/" in name or local in {".", ".."} or domain in {".", ".."} or len(local) > 255:
        found.append("its home is elsewhere")
    if issuer.loggable(name) != name[:80]:
        found.append("the issuer's log names another")
    if "?" in name or "*" in name:
        found.append("doveadm takes it for a pattern")
    return found


LOCAL = st.text(alphabet=string.ascii_lowercase + string.digits + "._'&-", min_size=1, max_size=66)
ODD = st.text(alphabet=string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~.@:,\\\"() \t\nüßK\u212a\u0660", max_size=30)
LABEL = st.text(alphabet=string.ascii_lowercase + string.digits + "-", min_size=1, max_size=64)
DOMAIN = st.lists(LABEL, min_size=1, max_size=5).map(".".join) | st.sampled_from(["lemon.test", "xn--zitrne-9za.example"])
ADDRESS = st.builds("{}@{}".format, LOCAL, DOMAIN) | st.builds("{}@{}".format, ODD, DOMAIN) | st.builds("{}@{}".format, LOCAL, ODD) | ODD


@settings(max_examples=1500)
@given(ADDRESS)
def test_all_judges_agree(text: str) -> None:
    said = verdicts(text)
    assert len(set(said.values())) == 1, f"{text!r}: {said}"
    if said["the model"]:
        assert not hindrances(text), text
        assert is_any_address(text), "nobody elsewhere could write to it"
    else:
        assert NAMES.address_fault(text), text


@settings(max_examples=400)
@given(st.builds("{}@{}".format, LOCAL, DOMAIN).filter(is_mail_address), st.data())
def test_a_name_is_the_same_in_any_case(name: str, data: st.DataObject) -> None:
    typed = "".join(data.draw(st.sampled_from([each.lower(), each.upper()])) for each in name)
    assert issuer.normalise_login(typed) == name
    assert NAMES.canonical(typed) == name
    assert set(typed) <= set(NAMES.characters)
    if typed != name:
        assert f"write it in lower case: {name}" in str(NAMES.address_fault(typed))


@settings(max_examples=300)
@given(st.builds("{}@{}".format, LOCAL, DOMAIN).filter(is_mail_address), st.text(alphabet=string.ascii_letters + "+-.", max_size=12))
def test_a_tag_never_makes_a_name(name: str, tag: str) -> None:
    local, _, domain = name.partition("@")
    tagged = f"{local}+{tag}@{domain}"
    assert not any(verdicts(tagged).values())
    assert tagged.partition("@")[0].partition(NAMES.recipient_delimiter)[0] == local, "its mail goes to the name in front of the tag"


@pytest.mark.parametrize(
    "name", ["o'brien", "d'arcy.o'neil", "r&d", "mary-jane", "_ops", "0", "a_b.c-d'e&f", "x" * 64, "a.b.c.d", "trailing-", "o''b"]
)
def test_names_that_people_have_are_taken_by_all(name: str) -> None:
    assert all(verdicts(f"{name}@example.org").values())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("first+last@lemon.test", "begins a tag"),
        ("+@lemon.test", "begins a tag"),
        ("a/b@lemon.test", "directory"),
        ("a%b@lemon.test", "route"),
        ("a!b@lemon.test", "route"),
        ("srs=x@lemon.test", "rewritten senders"),
        ("a|b@lemon.test", "pipe"),
        ("{x}@lemon.test", "variable"),
        ("a*@lemon.test", "pattern"),
        ("~a@lemon.test", "home directory"),
        ("-a@lemon.test", "first a letter or digit"),
        (".a@lemon.test", "single dots between"),
        ("a.@lemon.test", "single dots between"),
        ("a..b@lemon.test", "single dots between"),
        ('"a b"@lemon.test', "take the space out"),
        ("a b@lemon.test", "take the space out"),
        ("Alice@lemon.test", "alice@lemon.test"),
        ("alice@Lemon.Test", "alice@lemon.test"),
        ("jörg@lemon.test", "SMTPUTF8"),
        ("\u212aarl@lemon.test", "SMTPUTF8"),
        ("jo@lémon.test", "xn--"),
        ("x" * 65 + "@lemon.test", "5321 4.5.3.1.1"),
        ("x@" + ".".join(["y" * 60] * 4) + ".test-long.example", "5321 4.5.3.1.3"),
        ("x@" + "y" * 64 + ".test", "at most (RFC 1123 2.1)"),
        ("x@lemon.test.", "dot at its end"),
        ("x@lemon_1.test", "write lemon-1"),
        ("x@lemon", "has a domain"),
        ("x@192.0.2.1", "like an address"),
        ("x@-lemon.test", "no label"),
        ("alice", "name@domain"),
        ("a@b@lemon.test", "single dots between"),
    ],
)
def test_other_names_are_refused_by_all_with_the_reason(name: str, reason: str) -> None:
    assert not any(verdicts(name).values())
    assert reason in str(NAMES.address_fault(name))


# --- names of hosts -----------------------------------------------------------------------------------------------------------------------
HOST = (
    st.text(alphabet=string.ascii_letters + string.digits + "-._ ü:/'", max_size=12)
    | st.lists(LABEL, min_size=1, max_size=3).map(".".join)
    | st.ip_addresses().map(str)
    | st.integers(0, 99999).map(str)
    | st.sampled_from(NAMES.host.reserved)
)


@settings(max_examples=1000)
@given(HOST, st.sampled_from(["site.lemon.test", ".".join(["y" * 60] * 4)]))
def test_hosts_that_are_taken_have_names_that_work(name: str, domain: str) -> None:
    fault = NAMES.host_fault(name, domain)
    if fault is None:
        inner = f"{name}.{domain}"
        assert is_host_name(inner)
        assert re.fullmatch(r"[A-Za-z0-9.-]+", inner), "the frontend would not read the store's name in the issuer's answer"
        assert inner.lower() == inner, "the issuer names stores in lower case"
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", inner), "no certificate could be made for it"
    else:
        assert "; " in fault, "it says no remedy"


@settings(max_examples=300)
@given(st.text(max_size=80))
def test_the_name_a_remedy_offers_is_one(name: str) -> None:
    fault = NAMES.host_fault(name, "site.lemon.test") or ""
    offered = re.search(r"rename the host, to (\S+) for instance", fault)
    if offered and len(offered[1]) <= 63 and not offered[1].replace(".", "").isdigit() and offered[1] not in NAMES.host.reserved:
        assert NAMES.host_fault(offered[1], "site.lemon.test") is None


def _rename(tree: Tree, group: str, old: str, new: Any) -> None:
    members = tree["hosts"]["all"]["children"][group]["hosts"]
    members[new] = members.pop(old)
    for user in tree["all"]["lemonstand_users"]:
        if user.get("store") == old:
            user["store"] = new


def _faults(folder: Path) -> str:
    try:
        build(folder, RawSite.from_plain(read(folder, ROOT / "playbooks")), load_flows(), load_timers())
    except InputErrors as caught:
        return str(caught)
    return ""


@pytest.mark.parametrize(
    ("group", "old", "new", "words"),
    [
        ("stores", "store", "mail_store1", ["host mail_store1", "RFC 1123", "mail-store1"]),
        ("stores", "store", "Store", ["host Store", "store for instance"]),
        ("stores", "store", "store-", ["host store-", "rename"]),
        ("frontends", "frontend", "-front", ["host -front", "rename"]),
        ("relays", "relay", "1", ["host 1", "ansible_host"]),
        ("relays", "relay", "192.0.2.20", ["host 192.0.2.20", "ansible_host"]),
        ("auths", "auth", "a" * 64, ["host a", "63 at most"]),
        ("auths", "auth", "localhost", ["host localhost", "name of its own"]),
        ("relays", "relay", "mx.lemon.example", ["lemonstand_mx_name", "name of its own"]),
        ("stores", "store", "auth.site.lemon.example", ["the inner name of host auth"]),
    ],
)
def test_a_host_that_could_not_be_reached_by_name_is_refused(group: str, old: str, new: str, words: list[str], tmp_path: Path) -> None:
    tree = sound_site()
    _rename(tree, group, old, new)
    said = _faults(write_site(tmp_path, tree))
    assert all(word in said for word in words), said


def test_an_inner_name_is_no_public_name(tmp_path: Path) -> None:
    tree = sound_site()
    _rename(tree, "frontends", "frontend", "mail")
    tree["all"]["lemonstand_internal_domain"] = "lemon.example"
    assert "inner name mail.lemon.example is lemonstand_public_name too" in _faults(write_site(tmp_path, tree))


@pytest.mark.parametrize("new", ["mail-store1", "store.dc2", "s", "1store", "a" * 63])
def test_names_hosts_may_have(new: str, tmp_path: Path) -> None:
    tree = sound_site()
    _rename(tree, "stores", "store", new)
    assert _faults(write_site(tmp_path, tree)) == ""


def test_names_that_people_have_make_a_sound_site(tmp_path: Path) -> None:
    tree = sound_site()
    names = ["o'brien@lemon.example", "r&d@lemon.example", "d'arcy.o'neil@lemon.example"]
    tree["all"]["lemonstand_users"] += [{"name": name, "aliases": [f"x.{name}"]} for name in names]
    tree["all"]["lemonstand_user_passwords"].update(dict.fromkeys(names, "correct horse"))
    assert _faults(write_site(tmp_path, tree)) == ""


# --- written once -------------------------------------------------------------------------------------------------------------------------
def test_roles_alone_have_the_same_grammar() -> None:
    characters = filters.name_characters(DATA)
    assert NAMES.characters == characters == _default("imap_frontend", "login_characters") == _default("mail_store", "login_characters")
    assert NAMES.recipient_delimiter == _default("mail_store", "recipient_delimiter") == _default("mail_relay", "recipient_delimiter")
    assert NAMES.login_pattern == filters.login_pattern(DATA) == _default("ticket_issuer", "login_pattern") == issuer.LOGIN
    assert filters.name_pattern(DATA) == NAMES.local_pattern


def test_the_delimiter_is_in_no_name() -> None:
    assert NAMES.recipient_delimiter in NAMES.refused
    assert not set(NAMES.refused) & set(NAMES.characters)
    atext = set(string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~")
    assert set(NAMES.refused) | set(NAMES.characters) - set("@.") == atext, (
        "each character of RFC 5322 atext is taken, or refused with a reason"
    )
