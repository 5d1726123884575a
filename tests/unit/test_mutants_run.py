"""The runner of mutants: what counts as noticed, the order, what is asked when, and what is written down. Hosts and checks are made up."""

from __future__ import annotations

import datetime as dt
import json
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest

import shipped_lab
from lemonstand.breaking import Mutant, Run, Verdict, load_mutants, sample, shares
from lemonstand.breaking.record import record
from lemonstand.breaking.runner import judged, named
from lemonstand.breaking.shipped_checks import Answer, Check, shipped
from lemonstand.breaking.table import check_form, read_table
from lemonstand.breaking.tampering import at_home
from lemonstand.errors import InputError, LemonstandError

SYNACK, RETRIES, LOSS = "test_handshakes_and_closes_are_patient", "test_data_is_sent_again_long_enough", "test_chunks_arrive"


def mutant(name: str, *noticed_by: str, host: str = "store", **more: object) -> Mutant:
    return Mutant.model_validate(
        {"name": name, "controls": ["LEM-4-04a"], "host": host, "change": "true", "noticed_by": noticed_by or (RETRIES,), **more}
    )


def answer(function: str, outcome: str = "fail", case: str = "", host: str | None = None) -> Answer:
    topic = next(check.topic for check in shipped() if check.function == function)
    return Answer(topic, function, case, outcome, host, "" if outcome == "pass" else "seen")


def place(function: str) -> str:
    return next(f"{check.topic}/{check.function}" for check in shipped() if check.function == function)


class House:
    """A lab that is made up: which checks fail while which mutant is there, and for good after it."""

    def __init__(self, fails: dict[str, set[str]], stays: Iterable[str] = (), always: Iterable[str] = ()) -> None:
        self.fails, self.stays, self.always = fails, set(stays), set(always)
        self.there: list[str] = []
        self.broken: set[str] = set()
        self.log: list[str] = []

    def spoil(self, mutant: Mutant) -> None:
        self.log.append(f"spoil {mutant.name}")
        self.there.append(mutant.name)

    def mend(self, mutant: Mutant) -> None:
        self.log.append(f"mend {mutant.name}")
        self.there.remove(mutant.name)
        if mutant.name in self.stays:
            self.broken |= self.fails[mutant.name]

    def rescue(self) -> None:
        self.log.append("rescue")
        self.broken.clear()

    def ask(self, checks: Iterable[Check]) -> list[Answer]:
        functions = sorted({check.function for check in checks})
        self.log.append(f"ask {len(functions)}" + (" with " + self.there[0] if self.there else ""))
        bad = self.broken | self.always | {name for each in self.there for name in self.fails[each]}
        return [answer(name, "fail" if name in bad else "pass") for name in functions]


def over(house: House, *mutants: Mutant) -> dict[str, Verdict]:
    return {verdict.mutant.name: verdict for verdict in Run(house, house).over(mutants)}


def test_a_mutant_is_noticed_between_two_passes() -> None:
    house = House({"one": {LOSS}})
    found = over(house, mutant("one", LOSS))
    assert found["one"].good
    assert found["one"].noticed == (LOSS,)
    assert house.log == ["ask 1", "spoil one", "ask 1 with one", "mend one", "ask 1"]


def test_mutants_of_different_checks_share_their_questions() -> None:
    chunks, report = "test_chunks_arrive", "test_a_report_of_success_comes"
    house = House({"one": {chunks}, "two": {report}, "three": {chunks}})
    found = over(house, mutant("one", chunks), mutant("three", chunks), mutant("two", report))
    assert all(verdict.good for verdict in found.values())
    assert [line for line in house.log if line.startswith("spoil")] == ["spoil one", "spoil two", "spoil three"]
    assert [line for line in house.log if line.startswith("ask") and "with" not in line] == ["ask 2", "ask 2", "ask 1"]


def test_configuration_checks_come_together() -> None:
    house = House({"one": {RETRIES, SYNACK}})
    found = over(house, mutant("one", RETRIES))
    assert found["one"].others == (f"network/{SYNACK}",)
    everything = len({check.function for check in shipped() if check.answer == "configuration" and check.topic == "network"})
    assert f"ask {everything} with one" in house.log


def test_a_check_that_sleeps_misses() -> None:
    found = over(House({"one": {LOSS}}), mutant("one", LOSS, "test_eight_bit_text_arrives"))
    assert found["one"].word == "missed"
    assert found["one"].missed == ("test_eight_bit_text_arrives",)
    assert not found["one"].good


def test_a_check_that_fails_anyway_is_not_asked() -> None:
    house = House({"one": {LOSS}}, always={LOSS})
    found = over(house, mutant("one", LOSS))
    assert found["one"].word == "not asked" or not found["one"].good
    assert "fails without any mutant" in found["one"].fault
    assert "spoil one" not in house.log


def test_a_slow_check_is_asked_without_the_mutant_only_after_it() -> None:
    slow = next(check.function for check in shipped() if check.disruptive)
    house = House({"one": {slow}})
    assert over(house, mutant("one", slow))["one"].good
    assert house.log == ["spoil one", "ask 1 with one", "mend one", "ask 1"]
    house = House({"one": set()}, always={slow})
    found = over(house, mutant("one", slow))
    assert not found["one"].good
    assert f"fails without any mutant: {place(slow)}" in found["one"].fault


def test_a_check_that_fails_once_more_is_asked_again_before_the_lab_is_brought_back() -> None:
    class Slow(House):
        def mend(self, mutant: Mutant) -> None:
            super().mend(mutant)
            self.broken |= self.fails[mutant.name]

        def ask(self, checks: Iterable[Check]) -> list[Answer]:
            said = super().ask(checks)
            if not self.there:
                self.broken.clear()
            return said

    house = Slow({"one": {LOSS}})
    assert over(house, mutant("one", LOSS))["one"].good
    assert "rescue" not in house.log


def test_what_is_not_mended_is_told_and_the_lab_brought_back() -> None:
    chunks, report = "test_chunks_arrive", "test_a_report_of_success_comes"
    house = House({"one": {chunks}, "two": {report}}, stays={"one"})
    found = over(house, mutant("one", chunks), mutant("two", report))
    assert found["one"].word == "not mended"
    assert "still fails after it was mended" in found["one"].fault
    assert found["two"].good
    assert house.log.count("rescue") == 1


def test_a_break_that_can_not_be_made_is_mended_all_the_same() -> None:
    class Clumsy(House):
        def spoil(self, mutant: Mutant) -> None:
            super().spoil(mutant)
            raise LemonstandError("the commands of a mutant failed", "store", "look")

    house = Clumsy({"one": {LOSS}})
    found = over(house, mutant("one", LOSS))
    assert not found["one"].good
    assert "commands of a mutant failed" in found["one"].fault
    assert house.log[-2:] == ["mend one", "ask 1"]


def test_an_interruption_mends() -> None:
    class Interrupted(House):
        def ask(self, checks: Iterable[Check]) -> list[Answer]:
            if self.there:
                raise KeyboardInterrupt
            return super().ask(checks)

    house = Interrupted({"one": {LOSS}})
    with pytest.raises(KeyboardInterrupt):
        over(house, mutant("one", LOSS))
    assert house.log[-1] == "mend one"


def test_a_placebo_is_good_when_nobody_notices() -> None:
    quiet = over(House({"one": set()}), mutant("one", LOSS, placebo=True))
    assert quiet["one"].good
    loud = over(House({"one": {LOSS}}), mutant("one", LOSS, placebo=True))
    assert loud["one"].word == "missed"
    assert LOSS in loud["one"].missed[0]


def test_the_broken_host_must_be_the_one_that_fails() -> None:
    one = mutant("one", RETRIES, host="relay")
    elsewhere = [answer(RETRIES, "fail", "store", "store"), answer(RETRIES, "pass", "relay", "relay")]
    assert judged(one, elsewhere).missed == (RETRIES,)
    assert judged(one, [answer(RETRIES, "fail", "relay", "relay")]).noticed == (RETRIES,)
    # A check of another kind of host, which can't look at the broken one itself.
    assert judged(mutant("two", RETRIES, host="edge"), [answer(RETRIES, "fail", "store", "store")]).noticed == (RETRIES,)


def test_a_case_is_noticed_by_itself() -> None:
    name = "test_an_extension_is_announced_and_works"
    one = mutant("one", f"{name}[CATENATE]", f"{name}[URL-PARTIAL]")
    answers = [answer(name, "fail", "IPv4-CATENATE"), answer(name, "fail", "URLAUTH-IPv6"), answer(name, "pass", "URL-PARTIAL-IPv4")]
    found = judged(one, answers)
    assert found.noticed == (f"{name}[CATENATE]",)
    assert found.missed == (f"{name}[URL-PARTIAL]",)


def test_an_invalid_check_has_not_noticed() -> None:
    assert judged(mutant("one", LOSS), [answer(LOSS, "invalid")]).missed == (LOSS,)


def test_names_of_checks() -> None:
    assert len(named("test_size_is_one_number")) == 2
    assert [check.topic for check in named("submission/test_size_is_one_number")] == ["submission"]
    with pytest.raises(LemonstandError, match="no check 'test_nothing'"):
        named("test_nothing")


def test_samples_come_round_to_every_mutant() -> None:
    catalogue = load_mutants()
    calm = {each.name for each in catalogue if not each.disruptive}
    assert sample(catalogue, 6, 739580) == sample(catalogue, 6, 739580)
    assert sample(catalogue, 6, 739580) != sample(catalogue, 6, 739581)
    rounds = -(-len(calm) // 6)
    seen = {each.name for seed in range(rounds * 5, rounds * 6) for each in sample(catalogue, 6, seed)}
    assert seen == calm
    assert len(sample(catalogue, 10**6, 3)) == len(calm)


def test_the_table_grows_and_forgets_what_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "mutants.json"
    first, second, *_ = load_mutants()
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    record(path, "lab", [Verdict(first, noticed=first.noticed_by, mended=True, seconds=2.0)], seed=None, started=now)
    data = record(path, "lab", [Verdict(second, missed=second.noticed_by[:1], mended=True)], seed=7, started=now)
    assert [entry["verdict"] for entry in data["mutants"]] == ["noticed", "missed"]
    assert data["complete"] is False
    assert first.name not in data["untried"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    standing = {entry["id"]: entry for entry in data["controls"]}
    assert first.name in standing[first.controls[0]]["noticed"]
    assert standing["LEM-7-12"]["reason"].startswith("the table of connections")
    assert standing["LEM-4-04"]["reason"].startswith("made of LEM-4-04a")

    changed = json.loads(path.read_text(encoding="utf-8"))
    changed["mutants"][0]["digest"] = "0" * 16
    path.write_text(json.dumps(changed), encoding="utf-8")
    data = record(path, "lab", [], seed=None, started=now)
    assert [entry["name"] for entry in data["mutants"]] == [second.name]
    data = record(path, "another", [Verdict(first, noticed=first.noticed_by, mended=True)], seed=None, started=now)
    assert [(entry["name"], entry["lab"]) for entry in data["mutants"]] == [(first.name, "another"), (second.name, "lab")]
    assert list(read_table(path)) == [first.name, second.name]
    path.write_text("{}", encoding="utf-8")
    assert read_table(path) == {}, "what is no table tells nothing"


def test_the_table_keeps_its_form(tmp_path: Path) -> None:
    first = load_mutants()[0]
    started = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    data = record(tmp_path / "m.json", "lab", [Verdict(first, noticed=first.noticed_by, mended=True)], seed=None, started=started)
    (entry,) = data["mutants"]
    for spoil in ({"verdict": "fine"}, {"mended": False}, {"missed": ["x"]}, {"more": 1}):
        with pytest.raises(LemonstandError, match="breaks its schema"):
            check_form({**data, "mutants": [{**entry, **spoil}]})


def test_shares_hold_every_mutant_once_and_take_equally_long() -> None:
    catalogue = load_mutants()
    split = shares(catalogue, 3)
    assert sorted(each.name for share in split for each in share) == sorted(each.name for each in catalogue)
    took = [sum(each.seconds for each in share) for share in split]
    assert max(took) - min(took) <= max(each.seconds for each in catalogue)
    assert sum(len(share) for share in shares(catalogue[:2], 5)) == 2


def test_a_mutant_is_the_same_whatever_it_takes() -> None:
    assert mutant("one", LOSS).digest == mutant("one", LOSS, seconds=300).digest
    assert mutant("one", LOSS).digest != mutant("one", SYNACK).digest


def test_a_mutant_goes_to_a_member_of_its_kind(tmp_path: Path) -> None:
    site = shipped_lab.site(tmp_path / "state")
    mutant = next(each for each in load_mutants() if each.host == "store")
    assert at_home(mutant, site) == mutant
    hosts = {
        ("store7" if name == "store" else name): host.model_copy(update={"name": "store7"} if name == "store" else {})
        for name, host in site.hosts.items()
    }
    assert at_home(mutant, site.model_copy(update={"hosts": hosts})).host == "store7"
    without = {name: host for name, host in site.hosts.items() if name != "store"}
    with pytest.raises(InputError, match="of kind 'store'"):
        at_home(mutant, site.model_copy(update={"hosts": without}))
