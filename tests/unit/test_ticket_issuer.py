"""The issuer's own rules, without Flask and the directory."""

from __future__ import annotations

import importlib.util
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

PATH = Path(__file__).parents[2] / "roles" / "ticket_issuer" / "files" / "ticket_issuer.py"


@pytest.fixture(scope="module")
def issuer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ticket_issuer", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ticket_issuer"] = module
    if str(PATH.parent) not in sys.path:
        sys.path.append(str(PATH.parent))  # as on its host, beside what it imports
    spec.loader.exec_module(module)
    return module


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


ALICE, BOB, FRONTEND = "alice@lemon.test", "bob@lemon.test", "frontend.site"
HOME = "192.0.2.1"


BEHIND = {
    "name": "ldap.example", "addresses": ["10.0.0.1"], "ca": "ca", "certificate": "crt", "key": "key", "bind_name": "uid={local},dc=x",
    "most": {"behind": 4, "stranger": 2}, "quiet_seconds": 1800,
}  # fmt: skip
"""A directory behind, as the settings file has it."""


def _refusals(issuer: ModuleType, clock: Clock, path: str = ":memory:", **limits: Any) -> Any:
    wanted = {"refusals_per_client": 3, "refusals_per_user": 5, "refusals_per_network": 8, "refusals_per_frontend": 50, **limits}
    chosen = issuer.Settings(issuer="https://x/", frontends=(FRONTEND,), directory_base_dn="dc=x", refusals_file=path, **wanted)
    return issuer.Refusals(chosen, clock)


def _guess(refusals: Any, login: str | None, address: str, times: int = 1) -> list[str]:
    """Counts refusals of passwords that were tried; the counts that reached their limit."""
    return [kind for _ in range(times) for kind in refusals.refused(login, address, FRONTEND, tried=True).reached]


def _ask(refusals: Any, login: str | None, address: str, times: int = 1) -> list[str]:
    """Asks with a wrong password as the issuer does: what each question is answered, `wrong` or `later`."""
    answers = []
    for _ in range(times):
        tried = refusals.closed(login, address, FRONTEND) is None
        answers.append("later" if refusals.refused(login, address, FRONTEND, tried=tried).later else "wrong")
    return answers


def test_a_name_is_not_tried_after_its_limit_from_one_address(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    for _ in range(3):
        assert refusals.closed(ALICE, HOME, FRONTEND) is None
        _guess(refusals, ALICE, HOME)
    assert refusals.closed(ALICE, HOME, FRONTEND) == "client"
    assert refusals.closed(ALICE, "192.0.2.2", FRONTEND) is None, "another address may still ask"
    assert refusals.closed(BOB, HOME, FRONTEND) is None, "another user behind the same address may still ask"


def test_a_name_has_a_limit_over_all_addresses_but_where_the_user_got_in(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    refusals.forget(ALICE, HOME)
    for number in range(5):
        _guess(refusals, ALICE, f"198.51.100.{number}")
    assert refusals.closed(ALICE, "198.51.100.99", FRONTEND) == "user"
    assert refusals.closed(ALICE, HOME, FRONTEND) is None, "nobody elsewhere keeps a user out of a place he uses"
    _guess(refusals, ALICE, HOME, 3)
    assert refusals.closed(ALICE, HOME, FRONTEND) == "client", "a known place can't guess either"


def test_a_frontend_that_guesses_is_told_of_and_closes_for_nobody(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    reached = [kind for number in range(60) for kind in _guess(refusals, f"user{number}@lemon.test", f"198.51.100.{number}")]
    assert reached == ["frontend"], "one alarm"
    assert refusals.closed(BOB, "192.0.2.7", FRONTEND) is None


def test_whoever_invents_names_closes_his_own_network_alone(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    refusals.forget(ALICE, HOME)
    answers = [_ask(refusals, f"user{number}@lemon.test", HOME)[0] for number in range(1000)]
    assert answers.count("wrong") == 8
    assert refusals.closed(BOB, HOME, FRONTEND) == "network"
    assert refusals.closed(BOB, "192.0.2.7", FRONTEND) is None, "a user on another network, where he never was"
    assert refusals.closed(ALICE, HOME, FRONTEND) is None, "a user who got in from there before"


def test_what_is_no_name_is_counted(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    assert _ask(refusals, None, HOME, 10) == ["wrong"] * 8 + ["later"] * 2
    assert refusals.closed(BOB, HOME, FRONTEND) == "network"
    assert refusals.closed(None, "192.0.2.7", FRONTEND) is None


def test_a_network_is_charged_once_for_a_handset_with_an_old_password(issuer: ModuleType) -> None:
    """Thousands stand behind a carrier's address, and some of them always have an old password (LEM-6-05)."""
    clock = Clock()
    refusals = _refusals(issuer, clock, refusals_per_user=100_000)
    for _ in range(24 * 6):
        clock.now += 600
        for number in range(7):
            _ask(refusals, f"user{number}@lemon.test", HOME)
        assert refusals.closed(BOB, HOME, FRONTEND) is None


def test_a_customers_whole_ipv6_network_is_one_guesser(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    for number in range(8):
        _ask(refusals, f"user{number}@lemon.test", f"2001:db8:0:{number:x}::1")
    assert refusals.closed(BOB, "2001:db8:0:ff::1", FRONTEND) == "network"
    assert refusals.closed(BOB, "2001:db8:0:100::1", FRONTEND) is None
    assert issuer.surroundings("2001:db8:0:1ff::1") == "2001:db8:0:100::/56"
    assert issuer.surroundings("::ffff:192.0.2.1") == issuer.surroundings(HOME) == HOME


def test_guesses_beside_a_user_who_logs_in_all_the_time_have_an_end(issuer: ModuleType) -> None:
    """The right password forgives what came before it from its own network (SP 800-63B 5.2.2), and a guesser there as well."""
    clock = Clock()
    refusals = _refusals(issuer, clock, refusals_per_place=12, refusals_per_user=1000)
    tried = 0
    for _ in range(24 * 60):
        clock.now += 60
        for _ in range(5):
            if refusals.closed(ALICE, HOME, FRONTEND) is None:
                refusals.refused(ALICE, HOME, FRONTEND, tried=True)
                tried += 1
        if refusals.closed(ALICE, HOME, FRONTEND) is None:
            refusals.forget(ALICE, HOME)
    assert tried <= 24 * 12 + 28, f"{tried} guesses in a day"


QUESTIONS = st.lists(
    st.tuples(
        st.sampled_from(("asked", "elsewhere", "invented", "pause", "longer")), st.integers(min_value=1, max_value=12)
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=150)
@given(QUESTIONS)
@example([("elsewhere", 3), ("elsewhere", 2), ("asked", 2), ("pause", 4), ("elsewhere", 1), ("pause", 7), ("asked", 1)])
@example([("elsewhere", 3), ("elsewhere", 2), ("pause", 2), ("asked", 5), ("pause", 2), ("asked", 1)])
def test_answers_tell_nobody_where_a_user_got_in(issuer: ModuleType, questions: list[tuple[str, int]]) -> None:
    """Two networks with the same history but that the user got in from one: whoever has no password sees no difference."""
    clock = Clock()
    known, other = (_refusals(issuer, clock, refusals_per_network=100) for _ in range(2))
    known.forget(ALICE, HOME)
    for number, (what, times) in enumerate(questions):
        if what == "pause":
            clock.now += 10 * times
        elif what == "longer":
            clock.now += 300 * times
        elif what == "elsewhere":
            said = [_ask(each, ALICE, f"198.51.100.{number}", times) for each in (known, other)]
        elif what == "invented":
            said = [_ask(each, f"user{number}@lemon.test", "203.0.113.5", times) for each in (known, other)]
        else:
            said = [_ask(each, ALICE, HOME, times) for each in (known, other)]
            assert said[0] == said[1], (number, said)


def test_a_name_that_is_no_users_is_not_logged(issuer: ModuleType, tmp_path: Path) -> None:
    path = str(tmp_path / "refusals.sqlite")
    refusals = _refusals(issuer, Clock(), path)
    shown = refusals.shown("summer@2024.fun", lambda login: False)
    assert "summer" not in shown
    assert shown == _refusals(issuer, Clock(), path).shown("summer@2024.fun", lambda login: False), "known again after a restart"
    assert shown != refusals.shown("winter@2024.fun", lambda login: False)
    assert shown != _refusals(issuer, Clock()).shown("summer@2024.fun", lambda login: False), "keyed"
    assert refusals.shown(ALICE, lambda login: True) == ALICE
    refusals.forget(ALICE, HOME)
    assert refusals.shown(ALICE, lambda login: False) == ALICE, "who got in is known without asking"
    assert "alice" not in refusals.shown("alice@lemon.tes", lambda login: False)


def test_an_operator_can_ask_how_a_name_is_shown(issuer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, path = tmp_path / "issuer.json", str(tmp_path / "refusals.sqlite")
    file.write_text(json.dumps({"issuer": "https://x/", "frontends": [], "directory_base_dn": "dc=x", "refusals_file": path}))
    issuer.show_names(file, ["Summer@2024.fun\n", "hunter2\n"])
    said = capsys.readouterr().out.splitlines()
    assert said == [_refusals(issuer, Clock(), path).shown("summer@2024.fun", lambda login: False), "-not-a-name-"]


def test_a_client_has_one_count_for_its_whole_ipv6_network(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock())
    for number in range(3):
        _guess(refusals, ALICE, f"2001:db8::{number + 1:x}")
    assert refusals.closed(ALICE, "2001:db8::ffff", FRONTEND) == "client"
    assert refusals.closed(ALICE, "2001:db8:0:1::1", FRONTEND) is None
    assert issuer.network("::ffff:192.0.2.1") == HOME
    assert issuer.network("no address") == ""


def test_waits_double_and_have_an_end(issuer: ModuleType) -> None:
    clock = Clock()
    refusals = _refusals(issuer, clock, refusals_window_seconds=1_000_000)
    _guess(refusals, ALICE, HOME, 3)
    waits = []
    for _ in range(8):
        began = clock.now
        while refusals.closed(ALICE, HOME, FRONTEND):
            clock.now += 1
        waits.append(clock.now - began)
        _guess(refusals, ALICE, HOME)
    assert waits[0] == 30
    assert waits == sorted(waits)
    assert waits[-1] == 900, "the longest wait"


def test_whoever_goes_on_guessing_while_it_is_closed_makes_no_wait_longer(issuer: ModuleType) -> None:
    clock = Clock()
    refusals = _refusals(issuer, clock)
    _guess(refusals, ALICE, HOME, 100)
    clock.now += 31
    assert refusals.closed(ALICE, HOME, FRONTEND) is None


def test_what_is_not_tried_because_of_itself_counts_nothing(issuer: ModuleType) -> None:
    clock = Clock()
    refusals = _refusals(issuer, clock)
    assert _ask(refusals, ALICE, HOME, 100).count("wrong") == 3
    assert refusals.closed(ALICE, "192.0.2.2", FRONTEND) is None, "three of five"
    clock.now += 31
    assert _ask(refusals, ALICE, HOME) == ["wrong"]
    clock.now += 61
    assert refusals.closed(ALICE, HOME, FRONTEND) is None, "the second wait"


def test_guesses_in_the_long_run_are_few(issuer: ModuleType) -> None:
    clock = Clock()
    refusals = _refusals(issuer, clock)
    tried = 0
    for _ in range(24 * 360):
        clock.now += 10
        if refusals.closed(ALICE, HOME, FRONTEND) is None:
            _guess(refusals, ALICE, HOME)
            tried += 1
    assert tried <= 24 * 4 + 10, "one for each longest wait, and a few at the start"


def test_refusals_drain(issuer: ModuleType) -> None:
    clock = Clock()
    refusals = _refusals(issuer, clock)
    _guess(refusals, ALICE, HOME, 2)
    clock.now += 3600
    _guess(refusals, ALICE, HOME, 2)
    assert refusals.closed(ALICE, HOME, FRONTEND) is None


def test_the_right_password_clears_its_own_address_only(issuer: ModuleType) -> None:
    refusals = _refusals(issuer, Clock(), refusals_per_user=100)
    for address in (HOME, "192.0.2.2"):
        _guess(refusals, ALICE, address, 2)
    refusals.forget(ALICE, HOME)
    _guess(refusals, ALICE, HOME)
    _guess(refusals, ALICE, "192.0.2.2")
    assert refusals.closed(ALICE, HOME, FRONTEND) is None
    assert refusals.closed(ALICE, "192.0.2.2", FRONTEND) == "client"


def test_counts_outlive_the_process_and_are_shared_by_several(issuer: ModuleType, tmp_path: Path) -> None:
    path, clock = str(tmp_path / "refusals.sqlite"), Clock()
    one, two = _refusals(issuer, clock, path), _refusals(issuer, clock, path)
    _guess(one, ALICE, HOME, 2)
    _guess(two, ALICE, HOME)
    assert one.closed(ALICE, HOME, FRONTEND) == "client"
    assert _refusals(issuer, clock, path).closed(ALICE, HOME, FRONTEND) == "client"


def test_threads_count_every_refusal(issuer: ModuleType, tmp_path: Path) -> None:
    path = str(tmp_path / "refusals.sqlite")
    workers = [_refusals(issuer, Clock(), path, refusals_per_client=400, refusals_per_place=4000) for _ in range(4)]
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda number: _guess(workers[number % 4], ALICE, HOME), range(399)))
    assert workers[0].closed(ALICE, HOME, FRONTEND) == "user"
    workers[0].forget(ALICE, HOME)
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda number: _guess(workers[number % 4], ALICE, HOME), range(399)))
    assert workers[0].closed(ALICE, HOME, FRONTEND) is None
    _guess(workers[3], ALICE, HOME)
    assert workers[0].closed(ALICE, HOME, FRONTEND) == "client"


def test_a_broken_file_stops_neither_logins_nor_limits(issuer: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "refusals.sqlite"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    refusals = _refusals(issuer, Clock(), str(path))
    _guess(refusals, ALICE, HOME, 3)
    assert refusals.closed(ALICE, HOME, FRONTEND) == "client"
    refusals._database.execute("DROP TABLE counts")
    assert refusals.closed(ALICE, HOME, FRONTEND) is None, "the counts are gone"
    _guess(refusals, ALICE, HOME, 3)
    assert refusals.closed(ALICE, HOME, FRONTEND) == "client", "and kept in memory"
    assert "<4>alarm=limits-file" in caplog.text


def test_a_disk_without_room_at_the_start_costs_no_count(issuer: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file that could not be opened stays what it was; limits are kept in memory."""
    refusals = _refusals(issuer, Clock(), str(tmp_path / "missing" / "refusals.sqlite"))
    _guess(refusals, ALICE, HOME, 3)
    assert refusals.closed(ALICE, HOME, FRONTEND) == "client"
    assert "<4>alarm=limits-file" in caplog.text


def test_a_clock_that_was_wrong_locks_nobody_out(issuer: ModuleType) -> None:
    clock = Clock()
    refusals = _refusals(issuer, clock)
    clock.now += 10 * 365 * 86400
    _guess(refusals, ALICE, HOME, 3)
    clock.now -= 10 * 365 * 86400
    assert refusals.closed(ALICE, HOME, FRONTEND) is None


def test_the_file_has_an_end(issuer: ModuleType, tmp_path: Path) -> None:
    refusals = _refusals(issuer, Clock(), str(tmp_path / "refusals.sqlite"))
    refusals.MOST_ROWS = 10
    for number in range(100):
        _guess(refusals, f"user{number}@lemon.test", HOME)
        refusals.forget(f"user{number}@lemon.test", HOME)
    for table in ("counts", "places"):
        assert refusals._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] <= 10  # noqa: S608


def test_a_ticket_is_for_one_user_at_one_store_for_a_minute(issuer: ModuleType) -> None:
    chosen = issuer.Settings(issuer="https://auth.site/", frontends=(FRONTEND,), directory_base_dn="dc=x")
    claims = issuer.ticket_claims(issuer.Person(ALICE, "store1.site"), chosen, 1000.7)
    ident = claims.pop("jti")
    assert len(ident) == 32
    assert claims == {
        "iss": "https://auth.site/", "sub": ALICE, "aud": "store1.site", "scope": "mail", "iat": 995, "nbf": 995, "exp": 1060,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Alice@Lemon.Test ", "alice@lemon.test"),
        ("O'Brien@lemon.test", "o'brien@lemon.test"),
        ("r&d@lemon.test", "r&d@lemon.test"),
        ("a+b@lemon.test", None),
        ("\u212aarl@lemon.test", None),
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


# ----- several issuers


def _pair(issuer: ModuleType, clock: Clock, **limits: Any) -> tuple[Any, Any]:
    """Two issuers that know of one another."""
    wanted = {"refusals_per_client": 3, "refusals_per_user": 5, "refusals_per_network": 8, "refusals_per_frontend": 50, **limits}
    chosen = issuer.Settings(issuer="https://x/", frontends=(FRONTEND,), directory_base_dn="dc=x", peers=("other.site",), **wanted)
    return issuer.Refusals(chosen, clock), issuer.Refusals(chosen, clock)


def _bring(source: Any, target: Any) -> None:
    """What one counted is brought to the other, as `ticket_peers` does."""
    after = target.heard(source.origin())
    if after is None:
        target.take(source.origin(), source.everything())
        return
    _, events = source.events(after, 10_000)
    target.hear(source.origin(), events)


def test_what_one_issuer_refused_counts_at_the_other(issuer: ModuleType) -> None:
    one, two = _pair(issuer, Clock())
    _bring(one, two)
    _guess(one, ALICE, HOME, 2)
    _bring(one, two)
    assert two.closed(ALICE, HOME, FRONTEND) is None
    _guess(two, ALICE, HOME)
    assert two.closed(ALICE, HOME, FRONTEND) == "client"
    _bring(two, one)
    assert one.closed(ALICE, HOME, FRONTEND) == "client"


def test_an_event_counts_once_however_often_it_is_brought(issuer: ModuleType) -> None:
    one, two = _pair(issuer, Clock())
    _bring(one, two)
    _guess(one, ALICE, HOME)
    _, events = one.events(0, 100)
    for _ in range(5):
        two.hear(one.origin(), events)
    assert two.closed(ALICE, HOME, FRONTEND) is None
    assert _counts(one) == _counts(two)


def test_what_was_brought_is_not_handed_back(issuer: ModuleType) -> None:
    one, two = _pair(issuer, Clock())
    _bring(one, two)
    _guess(one, ALICE, HOME)
    _bring(one, two)
    assert two.events(0, 100) == (0, [])


def test_a_login_that_works_opens_the_name_at_both(issuer: ModuleType) -> None:
    clock = Clock()
    one, two = _pair(issuer, clock)
    _bring(one, two)
    _guess(one, ALICE, HOME, 3)
    _bring(one, two)
    clock.now += 1000
    two.forget(ALICE, HOME)
    _bring(two, one)
    assert one.known(ALICE, HOME)
    assert one.closed(ALICE, HOME, FRONTEND) is None


def test_a_new_issuer_takes_all_there_is(issuer: ModuleType) -> None:
    one, two = _pair(issuer, Clock())
    _guess(one, ALICE, HOME, 3)
    one.forget(BOB, HOME)
    _bring(one, two)
    assert two.closed(ALICE, HOME, FRONTEND) == "client"
    assert two.known(BOB, HOME)
    _guess(one, BOB, "198.51.100.7")
    _bring(one, two)
    assert _counts(one) == _counts(two)


def test_an_issuer_alone_keeps_no_events(issuer: ModuleType, tmp_path: Path) -> None:
    alone = _refusals(issuer, Clock(), str(tmp_path / "refusals.sqlite"))
    _guess(alone, ALICE, HOME, 3)
    tables = alone._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert ("events",) not in tables


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["guess", "bring", "later"]), st.sampled_from([ALICE, BOB])), max_size=40))
@settings(deadline=None)
def test_issuers_come_to_the_same_counts(issuer: ModuleType, steps: list[tuple[bool, str, str]]) -> None:
    """Whatever is asked where, and whenever events are brought: in the end both refuse the same."""
    clock = Clock()
    pair = _pair(issuer, clock, refusals_window_seconds=10**9)
    for first, second in (pair, pair[::-1]):
        _bring(first, second)
    for at_first, what, name in steps:
        here, there = pair if at_first else pair[::-1]
        clock.now += 1
        if what == "guess":
            _guess(here, name, HOME)
        elif what == "bring":
            _bring(here, there)
        elif what == "later":
            clock.now += 2000
    for first, second in (pair, pair[::-1]):
        _bring(first, second)
    # What drains while an event is on its way is next to nothing here.
    assert _counts(pair[0]) == pytest.approx(_counts(pair[1]), abs=0.01)


def _counts(refusals: Any) -> dict[str, float]:
    return dict(refusals._database.execute("SELECT key, level FROM counts").fetchall())
