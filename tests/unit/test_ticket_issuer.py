"""The issuer's own rules, without Flask and the directory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "roles" / "ticket_issuer" / "files" / "ticket_issuer.py"


@pytest.fixture(scope="module")
def issuer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ticket_issuer", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ticket_issuer"] = module
    spec.loader.exec_module(module)
    return module


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _refusals(issuer: ModuleType, clock: Clock, per_client: int = 3, per_user: int = 5):  # type: ignore[no-untyped-def]
    return issuer.Refusals(600, per_client, per_user, clock)


def test_a_name_is_not_tried_after_its_limit_from_one_address(issuer: ModuleType) -> None:
    clock = Clock()
    refusals = _refusals(issuer, clock)
    for _ in range(3):
        assert not refusals.too_many("alice@lemon.test", "192.0.2.1")
        refusals.add("alice@lemon.test", "192.0.2.1")
    assert refusals.too_many("alice@lemon.test", "192.0.2.1")
    assert not refusals.too_many("alice@lemon.test", "192.0.2.2"), "another address may still ask"
    assert not refusals.too_many("bob@lemon.test", "192.0.2.1"), "another user behind the same address may still ask"


def test_a_name_has_a_limit_over_all_addresses(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    for number in range(5):
        refusals.add("alice@lemon.test", f"192.0.2.{number}")
    assert refusals.too_many("alice@lemon.test", "192.0.2.99")


def test_refusals_are_forgotten_after_the_window(issuer: ModuleType) -> None:
    clock = Clock()
    refusals = _refusals(issuer, clock)
    for _ in range(3):
        refusals.add("alice@lemon.test", "192.0.2.1")
    clock.now += 599
    assert refusals.too_many("alice@lemon.test", "192.0.2.1")
    clock.now += 2
    assert not refusals.too_many("alice@lemon.test", "192.0.2.1")


def test_the_right_password_clears_its_own_address_only(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    for address in ("192.0.2.1", "192.0.2.2"):
        for _ in range(2):
            refusals.add("alice@lemon.test", address)
    refusals.forget("alice@lemon.test", "192.0.2.1")
    refusals.add("alice@lemon.test", "192.0.2.2")
    assert refusals.too_many("alice@lemon.test", "192.0.2.2")
    refusals.forget("alice@lemon.test", "192.0.2.2")
    assert refusals.too_many("alice@lemon.test", "192.0.2.2"), "five in all still count"


def test_memory_has_an_end(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    refusals.MOST_KEYS = 10
    for number in range(100):
        refusals.add(f"user{number}@lemon.test", "192.0.2.1")
    assert len(refusals._times) == 10


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Alice@Lemon.Test ", "alice@lemon.test"),
        ("a+b@lemon.test", "a+b@lemon.test"),
        ("alice", None),
        ("alice@lemon.test)(uid=*", None),
        ("alice@lemon.test\0", None),
        ("ä@lemon.test", None),
        ("x" * 300 + "@lemon.test", None),
    ],
)
def test_names_have_one_form_or_none(issuer: ModuleType, raw: str, name: str | None) -> None:
    assert issuer.normalise_login(raw) == name


def test_a_name_can_not_leave_its_place_in_the_directory(issuer: ModuleType) -> None:
    assert issuer.person_dn("a+b=c@lemon.test", "dc=x") == r"uid=a\+b\=c@lemon.test,ou=people,dc=x"


def test_a_frontend_is_whom_its_certificate_names(issuer: ModuleType) -> None:
    names = issuer.certificate_names({"subjectAltName": (("DNS", "Frontend.site"), ("IP Address", "192.0.2.1"))})
    assert names == {"frontend.site"}
    assert issuer.authenticated_client("frontend.site", names, ("frontend.site",)) == "frontend.site"
    assert issuer.authenticated_client("frontend.site", names, ("other.site",)) is None
    assert issuer.authenticated_client("other.site", names, ("other.site",)) is None
    assert issuer.authenticated_client(None, names, ("frontend.site",)) is None
