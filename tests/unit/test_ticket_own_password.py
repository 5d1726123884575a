"""Own passwords: who may change which, what is counted, what a new one must be. Without Flask and the directory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from programs import load

ALICE, BOB, FRONTEND, HOME = "alice@lemon.test", "bob@lemon.test", "frontend.site", "192.0.2.1"
OLD, NEW, DEVICE = "correct horse battery", "staple 4711 wagon", "k7rq-mwx3f-a9tpe-hh2vn-cz4ud"


class People:
    """A directory with two users, one of whom has an app password."""

    def __init__(self, person: Any) -> None:
        self.person = person
        self.passwords = {ALICE: OLD, BOB: f"{OLD} two"}
        self.away: Exception | None = None
        self.behind = False

    def check(self, login: str, password: str) -> Any:
        if self.away:
            raise self.away
        if login == ALICE and password == DEVICE:
            return self.person(login, "store.site", "k7rq")
        return self.person(login, "store.site") if self.passwords.get(login) == password else None

    def has(self, login: str) -> bool:
        return login in self.passwords

    def elsewhere(self, login: str, password: str) -> bool:
        return self.behind

    def replace(self, login: str, old: str, new: str) -> bool:
        if self.passwords.get(login) != old:
            return False
        self.passwords[login] = new
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """The part of an issuer that changes passwords, with what is around it."""

    def __init__(self, issuer: ModuleType, own: ModuleType, **limits: Any) -> None:
        self.settings = issuer.Settings(issuer="https://x/", frontends=(FRONTEND,), directory_base_dn="o=x", self_service=True, **limits)
        self.people, self.clock = People(issuer.Person), Clock()
        self.refusals = issuer.Refusals(self.settings)
        self.own = own.OwnPasswords(self.settings, self.people, issuer.Tries(self.settings, self.people, self.refusals), self.clock)

    def ask(self, user: str = ALICE, old: str = OLD, new: str = NEW, again: str | None = None) -> Any:
        form = {"username": user, "password": old, "new_password": new, "again": new if again is None else again}
        return self.own.change(form, HOME, FRONTEND)


@pytest.fixture(scope="module")
def issuer() -> ModuleType:
    return load("roles/ticket_issuer/files/ticket_issuer.py")


@pytest.fixture(scope="module")
def own() -> ModuleType:
    return load("roles/ticket_issuer/files/ticket_own_password.py")


@pytest.fixture
def place(issuer: ModuleType, own: ModuleType) -> Place:
    return Place(issuer, own)


def test_who_shows_the_old_password_gets_another(place: Place) -> None:
    answer = place.ask()
    assert (answer.verdict, answer.status, answer.login) == ("changed", 303, ALICE)
    assert place.people.passwords == {ALICE: NEW, BOB: f"{OLD} two"}


@pytest.mark.parametrize(
    ("user", "old"),
    [
        (ALICE, f"{OLD}x"),
        (BOB, OLD),
        ("carol@lemon.test", OLD),
        (ALICE, DEVICE),
        (ALICE, ""),
        ("*", OLD),
        (f"{ALICE},ou=people", OLD),
        ("", ""),
    ],
    ids=["a wrong one", "another user's", "nobody's", "a device's", "none", "a pattern", "a DN", "nothing"],
)
def test_nobody_else_does(place: Place, user: str, old: str) -> None:
    """All are told the same, whatever was wrong."""
    answer = place.ask(user, old)
    assert (answer.verdict, answer.status) == ("invalid_grant", 403)
    assert place.people.passwords == {ALICE: OLD, BOB: f"{OLD} two"}


@pytest.mark.parametrize(
    ("new", "again"),
    [
        ("short", None),
        (NEW, f"{NEW}x"),
        (OLD, None),
        (DEVICE, None),
        ("alice's new one", None),
        ("with\ttab and more", None),
        ("x" * 513, None),
        ("", None),
    ],
    ids=["short", "not twice", "the old one", "a device's form", "the name", "a control character", "long", "none"],
)
def test_what_nobody_may_have_asks_nobody(place: Place, new: str, again: str | None) -> None:
    """It is no guess: the directory is not asked, nothing is counted."""
    place.people.away = AssertionError("the directory was asked")
    for _ in range(30):
        answer = place.ask(new=new, again=again)
        assert (answer.verdict, answer.status) == ("unfit", 422) and answer.reason
    assert place.refusals.closed(ALICE, HOME, FRONTEND) is None


def test_a_form_is_no_cheaper_place_to_guess(place: Place) -> None:
    """Its refusals are those of logins: after ten from one network a name is tried no more, there and here."""
    answers = [place.ask(old=f"guess number {number}").status for number in range(14)]
    assert answers == [403] * 10 + [429] * 4
    assert place.refusals.closed(ALICE, HOME, FRONTEND) == "client", "a login would be put off as well"
    assert place.ask().status == 429 and place.people.passwords[ALICE] == OLD, "nor is the right one tried meanwhile"


def test_what_is_no_name_counts_for_its_network(issuer: ModuleType, own: ModuleType) -> None:
    place = Place(issuer, own, refusals_per_network=3)
    assert [place.ask(user=f"{number}*", old=OLD).status for number in range(5)] == [403, 403, 403, 429, 429]


def test_a_frontend_shuts_out_few(issuer: ModuleType, own: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """Sixty an hour, here three; an alarm says so; an hour later there is room again."""
    place = Place(issuer, own, self_service_per_hour=3)
    passwords = [OLD, NEW, f"{NEW} 2", f"{NEW} 3"]
    for old, new in itertools.pairwise(passwords):
        assert place.ask(old=old, new=new).status == 303
    answer = place.ask(old=passwords[-1], new="a fifth password")
    assert (answer.status, answer.limit) == (429, "self-service")
    assert "alarm=guessing limit=self-service" in caplog.text
    place.clock.now += own.WINDOW_SECONDS + 1
    assert place.ask(old=passwords[-1], new="a fifth password").status == 303


def test_a_directory_that_is_away_is_later(place: Place, own: ModuleType) -> None:
    place.people.away = own.DirectoryUnavailable("bind: busy")
    answer = place.ask()
    assert (answer.verdict, answer.status, answer.reason) == ("temporarily_unavailable", 503, "bind: busy")


def test_a_password_another_directory_judges_is_changed_there(place: Place) -> None:
    place.people.behind = True
    assert place.ask().status == 409 and place.ask(old="wrong password").status == 409, "it is not asked, and tells nothing"
    assert place.people.passwords[ALICE] == OLD


def test_a_new_one_is_stored_in_the_form_it_is_tried_in(place: Place) -> None:
    """RFC 8265: however ü is typed. The old one likewise."""
    place.people.passwords[ALICE] = "gr\u00fc\u00dfe aus der ferne"
    assert place.ask(old="gru\u0308\u00dfe aus der ferne", new="scho\u0308ne gr\u00fc\u00dfe 2").status == 303
    assert place.people.passwords[ALICE] == "sch\u00f6ne gr\u00fc\u00dfe 2"


@given(st.text(max_size=40))
@example("alice and her dog")
@example(DEVICE)
@example("a word \ufffd in it")
@example("x" * 513)
def test_users_and_operators_are_held_to_the_same_rules(own: ModuleType, text: str) -> None:
    """Two roles, each good alone, have the rules of a new password: what one takes the other takes."""
    directory = load("roles/directory/files/directory_users.py")

    def takes(rule: Callable[[], object], refusal: type[Exception]) -> bool:
        try:
            rule()
        except refusal:
            return False
        return True

    by_a_user = takes(lambda: own.fitting(text, ALICE, 12), own.Unfit)
    assert by_a_user == takes(lambda: directory.check_password(text, ALICE, 12), directory.SeedError)


@given(st.text(max_size=40))
def test_what_is_taken_can_be_typed_again(own: ModuleType, text: str) -> None:
    """A password that fits has one form, and keeps it."""
    try:
        fit = own.fitting(text, ALICE, 12)
    except own.Unfit:
        return
    assert own.fitting(fit, ALICE, 12) == fit and len(fit) >= 12


def test_a_form_is_read_as_it_was_typed(own: ModuleType) -> None:
    assert own.typed(b"username=a%40b&password=&again=%C3%BC+%26") == {"username": "a@b", "password": "", "again": "\u00fc &"}


@pytest.mark.parametrize(
    "body", [b"new_password=%FF%FElong", b"new_password=%ED%A0%80long", b"new_password=\xff", b"&".join([b"a=b"] * 17)]
)
def test_octets_that_are_no_text_are_no_form(own: ModuleType, body: bytes) -> None:
    """Else another password would be stored than the one that was typed."""
    with pytest.raises(ValueError):
        own.typed(body)
