"""Who waits for whom at the issuer: turns by frontend, place and user, questions asked once, limits that hold under a wave."""

from __future__ import annotations

import importlib.util
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "roles" / "ticket_issuer" / "files"
FRONTEND, HOME = "frontend.site", "192.0.2.1"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def turns() -> Iterator[ModuleType]:
    sys.path.append(str(FOLDER))
    yield _load("ticket_turns")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def issuer(turns: ModuleType) -> ModuleType:
    return _load("ticket_issuer")


def _nothing() -> None:
    pass


class Gate:
    """Work that waits until it is let through, and notes in which order it began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.askers: dict[str, int] = {}
        self._free = threading.Semaphore(0)

    def work(self, name: str) -> Callable[[int], str]:
        def run(askers: int) -> str:
            self.began.append(name)
            self.askers[name] = askers
            assert self._free.acquire(timeout=20)
            return name

        return run

    def let(self, number: int) -> None:
        for _ in range(number):
            self._free.release()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def _asked(pool: ThreadPoolExecutor, queue: Any, path: tuple[str, ...], key: object, work: Callable[[int], Any]) -> Future[Any]:
    """Asks from a thread of its own, and returns when the question stands in the queue."""
    before = sum(queue._on.values())
    future = pool.submit(queue.ask, path, key, work, _nothing)
    _until(lambda: sum(queue._on.values()) > before or future.done())
    return future


def test_no_more_are_under_way_than_there_are_slots(turns: ModuleType) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    queue = turns.Turns(3, 20, 100)
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda number: queue.ask(("f", "known", f"user{number}"), number, work, _nothing), range(40)))
    assert most == 3


def test_a_storm_of_one_user_costs_another_one_turn(turns: ModuleType) -> None:
    queue, gate = turns.Turns(1, 20, 100), Gate()
    with ThreadPoolExecutor(64) as pool:
        for number in range(20):
            _asked(pool, queue, ("f", "known", "storm"), ("storm", number), gate.work("storm"))
        for name in ("bob", "carol"):
            _asked(pool, queue, ("f", "known", name), name, gate.work(name))
        gate.let(22)
    assert {"bob", "carol"} <= set(gate.began[:4]), gate.began


def test_made_up_names_take_half_of_the_turns_at_most(turns: ModuleType) -> None:
    queue, gate = turns.Turns(1, 20, 100), Gate()
    with ThreadPoolExecutor(64) as pool:
        for number in range(30):
            _asked(pool, queue, ("f", "new", f"nobody{number}"), number, gate.work("nobody"))
        for number in range(5):
            _asked(pool, queue, ("f", "known", f"user{number}"), f"user{number}", gate.work("user"))
        gate.let(35)
    assert Counter(gate.began[:11])["user"] == 5, gate.began


def test_frontends_have_their_turns(turns: ModuleType) -> None:
    queue, gate = turns.Turns(1, 20, 100), Gate()
    with ThreadPoolExecutor(64) as pool:
        for number in range(20):
            _asked(pool, queue, ("one", "known", f"user{number}"), number, gate.work("one"))
        _asked(pool, queue, ("two", "known", "user0"), "two", gate.work("two"))
        gate.let(21)
    assert "two" in gate.began[:3], gate.began


@pytest.mark.parametrize("seed", range(5))
def test_any_crowd_is_served_in_turn_and_whole(turns: ModuleType, seed: int) -> None:
    """Whatever was pushed comes out once, in order on each path; in a full tree nobody has a second turn before all had their first."""
    dice = random.Random(seed)  # noqa: S311 - a crowd, not a secret
    rotation, pushed = turns.Rotation(), []
    for number in range(300):
        item = (dice.choice("ab"), dice.choice(["known", "new"]), f"user{dice.randrange(8)}", number)
        pushed.append(item)
        rotation.push(item[:3], item)
    popped = []
    while rotation:
        popped.append(rotation.pop())
    assert sorted(popped) == sorted(pushed)
    for path in {item[:3] for item in pushed}:
        own = [item[3] for item in popped if item[:3] == path]
        assert own == sorted(own), "first come, first served on one path"
    first = popped[: popped.index(next(item for item in popped if item[:3] == popped[0][:3] and item is not popped[0]))]
    assert len({item[:3] for item in first}) == len(first), "nobody had two turns before the first one's second"


def test_what_waits_is_asked_once_and_what_has_begun_is_not_joined(turns: ModuleType) -> None:
    queue, gate = turns.Turns(1, 20, 100), Gate()
    with ThreadPoolExecutor(64) as pool:
        first = _asked(pool, queue, ("f", "known", "alice"), "same", gate.work("begun"))
        _until(lambda: gate.began == ["begun"])
        later = [_asked(pool, queue, ("f", "known", "alice"), "same", gate.work("second")) for _ in range(9)]
        other = _asked(pool, queue, ("f", "known", "alice"), "another password", gate.work("third"))
        gate.let(3)
        assert first.result(20) == "begun", "its answer is of before the others asked"
        assert {each.result(20) for each in later} == {"second"}
        assert other.result(20) == "third"
    assert gate.began == ["begun", "second", "third"]
    assert gate.askers == {"begun": 1, "second": 9, "third": 1}


def test_a_turn_that_does_not_come_is_given_up_and_passed_over(turns: ModuleType) -> None:
    queue, gate = turns.Turns(1, 0.3, 100), Gate()
    with ThreadPoolExecutor(8) as pool:
        first = _asked(pool, queue, ("f", "known", "alice"), 1, gate.work("alice"))
        _until(lambda: gate.began == ["alice"])
        late = _asked(pool, queue, ("f", "known", "bob"), 2, gate.work("bob"))
        with pytest.raises(turns.Busy, match="in time"):
            late.result(20)
        carol = _asked(pool, queue, ("f", "known", "carol"), 3, gate.work("carol"))
        gate.let(2)
        assert first.result(20) == "alice", "what has begun is waited for"
        assert carol.result(20) == "carol"
    assert "bob" not in gate.began, "no password is tried for nobody"


def test_who_hangs_up_leaves_the_queue_and_those_who_asked_the_same_stay(turns: ModuleType) -> None:
    queue, gate = turns.Turns(1, 20, 100, beat=0.02), Gate()

    def gone() -> None:
        raise BrokenPipeError

    with ThreadPoolExecutor(8) as pool:
        first = _asked(pool, queue, ("f", "known", "alice"), 1, gate.work("alice"))
        _until(lambda: gate.began == ["alice"])
        stays = _asked(pool, queue, ("f", "known", "bob"), 2, gate.work("bob"))
        with pytest.raises(turns.Busy, match="gone"):
            queue.ask(("f", "known", "bob"), 2, gate.work("bob"), gone)
        with pytest.raises(turns.Busy, match="gone"):
            queue.ask(("f", "known", "carol"), 3, gate.work("carol"), gone)
        gate.let(2)
        assert (first.result(20), stays.result(20)) == ("alice", "bob")
    assert gate.began == ["alice", "bob"]
    assert gate.askers["bob"] == 1


def test_one_user_can_not_fill_the_queue_and_no_stranger_fills_his(turns: ModuleType) -> None:
    queue, gate = turns.Turns(1, 20, 4), Gate()
    with ThreadPoolExecutor(16) as pool:
        for number in range(4):
            _asked(pool, queue, ("f", "new", "alice"), number, gate.work("stranger"))
        with pytest.raises(turns.Busy, match="too many"):
            queue.ask(("f", "new", "alice"), "more", gate.work("stranger"), _nothing)
        mine = _asked(pool, queue, ("f", "known", "alice"), "mine", gate.work("alice"))
        gate.let(5)
        assert mine.result(20) == "alice"
    assert not queue._on and not queue._open, "nothing is left behind"


def test_a_fault_is_told_to_all_who_asked_and_ends_nothing(turns: ModuleType) -> None:
    queue = turns.Turns(1, 20, 100)

    def fails(_: int) -> None:
        raise OSError("no directory")

    with pytest.raises(OSError, match="no directory"):
        queue.ask(("f", "known", "alice"), 1, fails, _nothing)
    assert queue.ask(("f", "known", "alice"), 1, lambda askers: askers, _nothing) == 1


class Slow:
    """A directory where everybody's password is the same, and a try takes a moment."""

    def __init__(self, issuer: ModuleType) -> None:
        self.tried: deque[tuple[str, str]] = deque()
        self._person = issuer.Person
        self.behind = False

    def check(self, login: str, password: str) -> Any:
        self.tried.append((login, password))
        time.sleep(0.02)
        return self._person(login, "store.site") if password == "right" else None

    def has(self, login: str) -> bool:
        return login.startswith("alice")

    def elsewhere(self, login: str, password: str) -> bool:
        return self.behind and not password.startswith("app")


def _tries(issuer: ModuleType, slots: int = 2, **more: int) -> tuple[Any, Any, Slow]:
    settings = issuer.Settings(
        issuer="https://x/", frontends=(FRONTEND,), directory_base_dn="dc=x", parallel_passwords=slots, refusals_per_client=3, **more
    )
    refusals, directory = issuer.Refusals(settings), Slow(issuer)
    return issuer.Tries(settings, directory, refusals), refusals, directory


def test_a_wave_of_guesses_gets_no_more_than_the_limit_and_what_is_under_way(issuer: ModuleType) -> None:
    tries, _, directory = _tries(issuer)
    with ThreadPoolExecutor(30) as pool:
        said = list(pool.map(lambda n: tries.of("alice@lemon.test", f"guess {n}", HOME, FRONTEND, _nothing), range(30)))
    assert len(directory.tried) <= 3 + 2 - 1, "the limit is 3, and two are tried at a time"
    assert Counter(limit for limit, _ in said)["client"] == 30 - len(directory.tried)


def test_who_asks_the_same_is_counted_each_time(issuer: ModuleType) -> None:
    tries, refusals, directory = _tries(issuer, slots=1)
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda _: tries.of("alice@lemon.test", "wrong", HOME, FRONTEND, _nothing), range(12)))
    assert len(directory.tried) <= 3
    assert refusals.closed("alice@lemon.test", HOME, FRONTEND) == "client"


def test_a_returning_user_costs_few_tries_and_keeps_nobody_out(issuer: ModuleType) -> None:
    """Twenty clients of one user, and nineteen others."""
    tries, _, directory = _tries(issuer)
    names = ["alice@lemon.test"] * 20 + [f"user{number}@lemon.test" for number in range(19)]
    with ThreadPoolExecutor(40) as pool:
        said = list(pool.map(lambda name: tries.of(name, "right", HOME, FRONTEND, _nothing), names))
    assert [person.login for _, person in said] == names
    assert Counter(login for login, _ in directory.tried)["alice@lemon.test"] <= 10


def test_a_wave_of_names_from_one_network_is_one_turn(issuer: ModuleType) -> None:
    """A user on a network where he never was waits for one of sixty guesses, not for all."""
    tries, _, directory = _tries(issuer, slots=1)
    with ThreadPoolExecutor(70) as pool:
        wave = [pool.submit(tries.of, f"nobody{n}@lemon.test", "guess", HOME, FRONTEND, _nothing) for n in range(60)]
        while not directory.tried:
            time.sleep(0.001)
        assert pool.submit(tries.of, "alice@lemon.test", "right", "192.0.2.2", FRONTEND, _nothing).result()[1].login == "alice@lemon.test"
        before = len(directory.tried)
        for each in wave:
            each.result()
    assert before < 30


def test_what_is_not_tried_takes_as_long_as_what_was(issuer: ModuleType) -> None:
    tries, _, _ = _tries(issuer)
    assert tries.lately() == 0.0
    tries.of("alice@lemon.test", "wrong", HOME, FRONTEND, _nothing)
    assert 0.02 <= tries.lately() <= issuer.LONGEST_HOLD


def test_another_place_is_another_question(issuer: ModuleType) -> None:
    """Its refusals count elsewhere, so that a limit reached here closes nothing there."""
    tries, _, directory = _tries(issuer, slots=1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: tries.of("alice@lemon.test", "right", f"192.0.2.{n}", FRONTEND, _nothing), range(6)))
    assert len(directory.tried) == 6


def test_only_who_asked_for_it_is_told_to_wait(issuer: ModuleType) -> None:
    class Connection:
        def __init__(self) -> None:
            self.sent = b""

        def sendall(self, data: bytes) -> None:
            self.sent += data

    connection = Connection()
    issuer.say_wait({"gunicorn.socket": connection})
    assert connection.sent == b""
    issuer.say_wait({"gunicorn.socket": connection, "HTTP_PREFER": "wait=50"})
    assert connection.sent == b"HTTP/1.1 102 Processing\r\n\r\n"
