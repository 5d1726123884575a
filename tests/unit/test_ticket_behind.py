"""A directory behind: whom it is asked about, by which name, and that nobody can have it lock an account."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_ticket_issuer import ALICE, BEHIND, BOB, FRONTEND, HOME, Clock, _bring, _pair, _refusals, issuer
from test_ticket_turns import Slow

__all__ = ["issuer"]

AWAY = "198.51.100.7"
APP = "k7rq-mwx3f-a9tpe-hh2vn-cz4ud"


@pytest.fixture(scope="module")
def behind(issuer: ModuleType) -> ModuleType:
    return sys.modules["ticket_behind"]


def _settings(behind: ModuleType, **more: Any) -> Any:
    return behind.Behind.from_mapping({**BEHIND, **more})


def _counted(issuer: ModuleType, clock: Clock, behind: ModuleType, **more: Any) -> Any:
    limits = {"refusals_per_client": 1000, "refusals_per_place": 1000, "refusals_per_user": 1000, "refusals_per_network": 1000}
    return _refusals(issuer, clock, behind=_settings(behind, **more), **limits)


# --- whom it is asked about, and by which name


def test_settings_alone_say_whose_password_is_judged_there(behind: ModuleType) -> None:
    some = _settings(behind, domains=["Lemon.test"], own_passwords=["Bob@lemon.test"])
    assert [some.judges(name) for name in (ALICE, BOB, "alice@other.test")] == [True, False, False]
    assert some.is_asked(ALICE, "correct horse")
    assert not some.is_asked(ALICE, APP), "an app password is nobody else's to see"
    assert _settings(behind).judges("alice@other.test")


def test_an_unknown_setting_is_refused(behind: ModuleType) -> None:
    with pytest.raises(ValueError, match="verify"):
        _settings(behind, verify=False)


@pytest.mark.parametrize(
    ("template", "login", "name"),
    [
        ("uid={local},ou=people,dc=x", "o'hara+x@lemon.test", "uid=o'hara\\+x,ou=people,dc=x"),
        ("mail={login},dc=x", 'a,b"c\\d<e>f;g=h@x', 'mail=a\\,b\\"c\\\\d\\<e\\>f\\;g\\=h@x,dc=x'),
        ("uid={local},dc=x", "#a @x", "uid=\\#a\\ ,dc=x"),
        ("uid={local},dc=x", "a\0@x", "uid=a\\00,dc=x"),
        ("{login}", "alice@lemon.test", "alice@lemon.test"),
        ("OFFICE\\{local}", "alice@lemon.test", "OFFICE\\alice"),
        ("uid={local},dc={domain}", "{domain}@lemon.test", "uid={domain},dc=lemon.test"),
        ("(mail={login})", "a*)(uid=\\\0@x", "(mail=a\\2a\\29\\28uid=\\5c\\00@x)"),
    ],
)
def test_a_login_is_a_name_there_and_nothing_more(behind: ModuleType, template: str, login: str, name: str) -> None:
    assert behind.filled(template, login) == name


@given(st.text(max_size=20))
def test_no_name_ends_a_filter_or_a_relative_name(behind: ModuleType, text: str) -> None:
    inside = behind.filled("(uid={local})", f"{text}@x")[5:-1]
    assert not set(inside) & set("()*\0")
    assert all(inside[at + 1 : at + 3] in {"5c", "2a", "28", "29", "00"} for at, each in enumerate(inside) if each == "\\")
    value = behind.dn_value(text)
    bare = [at for at, each in enumerate(value) if each in ',+"<>;=\0' and (at == 0 or value[at - 1] != "\\")]
    assert not bare


# --- it locks nobody out


class Locking:
    """A directory that counts wrong passwords as those do that lock accounts."""

    def __init__(self, clock: Clock, forgets: int) -> None:
        self._clock, self._forgets = clock, forgets
        self.wrong, self.at, self.most = 0, 0.0, 0

    def bind(self, *, right: bool) -> None:
        if right or self._clock.now - self.at >= self._forgets:
            self.wrong = 0
        if not right:
            self.wrong, self.at = self.wrong + 1, self._clock.now
            self.most = max(self.most, self.wrong)


STEPS = st.lists(st.tuples(st.sampled_from([HOME, AWAY, "203.0.113.9"]), st.booleans(), st.integers(0, 2400)), max_size=60)


@settings(max_examples=200)
@given(STEPS)
@example([(HOME, True, 0), *[(AWAY, False, 0)] * 3, *[(HOME, False, 900)] * 20])
@example([(HOME, True, 0), *[(HOME, False, 1799)] * 9, (AWAY, False, 1)])
def test_no_order_of_guesses_brings_it_to_its_limit(issuer: ModuleType, behind: ModuleType, steps: list[tuple[str, bool, int]]) -> None:
    clock = Clock()
    refusals, there = _counted(issuer, clock, behind), Locking(clock, 1800)
    for place, right, pause in steps:
        clock.now += pause
        if refusals.closed(ALICE, place, FRONTEND, behind=True):
            refusals.refused(ALICE, place, FRONTEND, tried=False, behind=True)
            continue
        there.bind(right=right)
        if right:
            refusals.forget(ALICE, place, behind=True)
        else:
            refusals.refused(ALICE, place, FRONTEND, tried=True, behind=True)
    assert there.most <= BEHIND["most"]["behind"]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from([HOME, AWAY]), st.integers(0, 2400)), max_size=40))
def test_short_of_that_answers_tell_nobody_where_a_user_got_in(
    issuer: ModuleType, behind: ModuleType, steps: list[tuple[str, int]]
) -> None:
    clock = Clock()
    known, other = (_counted(issuer, clock, behind, most={"behind": 1000, "stranger": 2}) for _ in range(2))
    known.forget(ALICE, HOME, behind=True)
    for place, pause in steps:
        clock.now += pause
        said = []
        for each in (known, other):
            tried = each.closed(ALICE, place, FRONTEND, behind=True) is None
            said.append(each.refused(ALICE, place, FRONTEND, tried=tried, behind=True).later)
        assert said[0] == said[1]


def test_who_guesses_from_elsewhere_keeps_nobody_from_where_he_is(issuer: ModuleType, behind: ModuleType) -> None:
    clock = Clock()
    refusals = _counted(issuer, clock, behind)
    refusals.forget(ALICE, HOME, behind=True)
    reached = [refusals.refused(ALICE, AWAY, FRONTEND, tried=True, behind=True).reached for _ in range(2)]
    assert reached == [[], ["stranger"]], "an alarm"
    assert refusals.closed(ALICE, AWAY, FRONTEND, behind=True) == "stranger"
    assert refusals.closed(ALICE, HOME, FRONTEND, behind=True) is None
    assert refusals.closed(BOB, AWAY, FRONTEND, behind=True) is None
    assert refusals.closed(ALICE, AWAY, FRONTEND) is None, "an app password is not asked there"
    assert refusals.refused(ALICE, HOME, FRONTEND, tried=True, behind=True).later, "the answer of elsewhere"
    refusals.refused(ALICE, HOME, FRONTEND, tried=True, behind=True)
    assert refusals.closed(ALICE, HOME, FRONTEND, behind=True) == "behind"
    clock.now += 1801
    assert refusals.closed(ALICE, HOME, FRONTEND, behind=True) is None
    assert refusals.closed(ALICE, AWAY, FRONTEND, behind=True) is None


def test_the_right_password_is_forgotten_there_and_here(issuer: ModuleType, behind: ModuleType) -> None:
    refusals = _counted(issuer, Clock(), behind)
    for _ in range(5):
        refusals.forget(ALICE, HOME, behind=True)
        refusals.refused(ALICE, HOME, FRONTEND, tried=True, behind=True)
    assert refusals.closed(ALICE, HOME, FRONTEND, behind=True) is None
    refusals.refused(ALICE, HOME, FRONTEND, tried=True, behind=True)
    refusals.forget(ALICE, HOME)
    for _ in range(2):
        refusals.refused(ALICE, HOME, FRONTEND, tried=True, behind=True)
    assert refusals.closed(ALICE, HOME, FRONTEND, behind=True) == "behind", "an app password that was right forgives nothing there"


def test_issuers_count_it_together(issuer: ModuleType, behind: ModuleType) -> None:
    one, two = _pair(issuer, Clock(), behind=_settings(behind), refusals_per_user=1000, refusals_per_client=1000)
    one.forget(ALICE, HOME, behind=True)
    _bring(one, two)
    for each, other in ((one, two), (two, one), (one, two), (two, one)):
        assert each.closed(ALICE, HOME, FRONTEND, behind=True) is None
        each.refused(ALICE, HOME, FRONTEND, tried=True, behind=True)
        _bring(each, other)
    assert [each.closed(ALICE, HOME, FRONTEND, behind=True) for each in (one, two)] == ["behind", "behind"]


# --- and keeps nobody waiting


class Counting(Slow):
    """A directory behind that says how many questions of a name were under way at once."""

    def __init__(self, issuer: ModuleType) -> None:
        super().__init__(issuer)
        self.behind, self.now, self.most, self.lock = True, 0, 0, threading.Lock()

    def check(self, login: str, password: str) -> Any:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        found = super().check(login, password)
        with self.lock:
            self.now -= 1
        return found


def test_parallel_guesses_pass_no_limit(issuer: ModuleType, behind: ModuleType) -> None:
    chosen = issuer.Settings(issuer="https://x/", frontends=(FRONTEND,), directory_base_dn="dc=x", behind=_settings(behind))
    directory = Counting(issuer)
    tries = issuer.Tries(chosen, directory, issuer.Refusals(chosen))
    with ThreadPoolExecutor(20) as pool:
        said = list(pool.map(lambda n: tries.of(ALICE, f"guess {n}", f"198.51.100.{n}", FRONTEND, lambda: None), range(20)))
    assert len(directory.tried) == BEHIND["most"]["stranger"]
    assert directory.most == 1
    assert [limit for limit, _ in said].count("stranger") == 18


def test_the_same_wrong_password_of_many_clients_counts_once_there(issuer: ModuleType, behind: ModuleType) -> None:
    chosen = issuer.Settings(
        issuer="https://x/", frontends=(FRONTEND,), directory_base_dn="dc=x", behind=_settings(behind, most={"behind": 9, "stranger": 9})
    )
    directory = Counting(issuer)
    tries = issuer.Tries(chosen, directory, issuer.Refusals(chosen))
    assert tries._try(ALICE, "old", HOME, FRONTEND, 8) == (None, None), "eight who asked the same while it waited"
    levels = dict(tries._refusals._database.execute("SELECT key, level FROM counts").fetchall())
    assert len(directory.tried) == levels[f"behind {ALICE}"] == levels[f"stranger {ALICE}"] == 1
    assert levels[f"client {ALICE} {HOME}"] == pytest.approx(8, abs=0.1)


def test_an_outage_is_told_to_an_operator_and_not_for_each_login(
    issuer: ModuleType, behind: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    directory = issuer.LdapDirectory("ldap://127.0.0.1:1", "ldapi:///nowhere", "dc=x", 1, _settings(behind))

    class Away:
        def takes(self, login: str, password: str, *, known: bool) -> bool:
            raise issuer.DirectoryUnavailable("directory behind: no answer")

    directory._place = lambda _: None
    for _ in range(3):
        with pytest.raises(issuer.DirectoryUnavailable):
            directory._judged(Away(), ALICE, "right")
    assert [each.message for each in caplog.records] == ["<4>alarm=directory-behind reason=directory?behind:?no?answer"]


def test_who_waits_for_it_keeps_no_app_password_waiting(issuer: ModuleType, behind: ModuleType) -> None:
    chosen = issuer.Settings(
        issuer="https://x/", frontends=(FRONTEND,), directory_base_dn="dc=x", behind=_settings(behind), parallel_passwords=1
    )
    gone = threading.Event()

    class Hanging(Slow):
        def check(self, login: str, password: str) -> Any:
            if self.elsewhere(login, password):
                gone.wait(20)
                raise issuer.DirectoryUnavailable("away")
            return self._person(login, "store.site", "app1")

    directory = Hanging(issuer)
    directory.behind = True
    tries = issuer.Tries(chosen, directory, issuer.Refusals(chosen))
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(tries.of, f"user{n}@lemon.test", "right", HOME, FRONTEND, lambda: None) for n in range(30)]
        time.sleep(0.2)
        began = time.monotonic()
        assert tries.of(ALICE, "app", HOME, FRONTEND, lambda: None)[1].device == "app1"
        assert time.monotonic() - began < 2
        gone.set()
        assert all(isinstance(each.exception(), issuer.DirectoryUnavailable) for each in waiting)
        assert tries._refusals.closed("user1@lemon.test", HOME, FRONTEND, behind=True) is None, "silence counts for nothing"
