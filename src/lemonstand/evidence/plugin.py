"""The pytest plugin that turns checks into evidence: it holds every check to its marks, and keeps what each one saw.

Loaded with `-p lemonstand.evidence.plugin`. Without `--evidence` it only checks marks and shows progress.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from rich.markup import escape

from lemonstand import observations
from lemonstand.errors import InputError
from lemonstand.evidence.document import Session, document, stamp
from lemonstand.evidence.merge import earlier
from lemonstand.evidence.model import CLASSES, OUTCOMES, Awaited, Kind, Measurement, Outcome, Result, topic
from lemonstand.evidence.secrets import Gate
from lemonstand.evidence.write import read_evidence, write_evidence, write_junit, write_text
from lemonstand.outcomes import Invalid, NotApplicable, NotMeasurable, NotMeasured, Unanswered, Unmet
from lemonstand.policy.controls import Controls, load_controls

if TYPE_CHECKING:
    from lemonstand.site import Site

MARKS = {
    "control(*ids)": "the controls this check answers",
    "supports(*ids)": "controls this check can break and does not answer",
    "answer(kind)": "the class of its answer: live, scaled or configuration",
    "disruptive": "disturbs the site while it runs: only if asked for",
    "soak": "holds connections for two hours and ten minutes: only if asked for",
    "absent(reason)": "set by lemonstand: the site has no such host",
}
HOST_FIXTURES = ("edge", "frontend", "auth", "store", "relay", "node")
GATES: tuple[Awaited, ...] = ("disruptive", "soak")
"""Marks of checks that only run when they are asked for, by an option of the same name."""
WORDS: dict[Outcome, str] = {
    "pass": "[green]·[/]", "fail": "[bold red]F[/]", "invalid": "[magenta]![/]", "not-measurable": "[dim]-[/]", "not-measured": "[dim]?[/]",
    "not-applicable": "[dim]/[/]",
}  # fmt: skip
FORGIVEN = {"not-measurable", "not-measured", "not-applicable"}
"""Outcomes that pytest's own count must not take for failures."""
RECORDER = "lemonstand-recorder"
SOAK_SECONDS = 7800
"""How long a soak holds its connections: more than the 2 h 4 min state must be kept for."""
LONGEST_MESSAGE = 4000
UNFINISHED = "it did not come to its end"


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a verification is told."""
    group = parser.getgroup("lemonstand")
    group.addoption("--inventory", default=None, help="the site's inventory")
    group.addoption("--evidence", default=None, help="directory for evidence.json and junit.xml")
    group.addoption("--merge", action="store_true", help="keep results of earlier runs that are about the same state")
    group.addoption("--disruptive", action="store_true", help="run checks that disturb the site as well")
    group.addoption("--soak", action="store_true", help="run checks that hold connections for more than two hours as well")
    group.addoption("--soak-seconds", type=int, default=SOAK_SECONDS, help="hold them for this long: below the default, answers are scaled")
    group.addoption("--select-control", action="append", default=[], help="only checks of this control, pattern (LEM-7-*) or topic")
    group.addoption("--select-section", action="append", default=[], help="only checks of this section's controls")
    group.addoption("--select-host", action="append", default=[], help="only checks that look at this host")


def pytest_configure(config: pytest.Config) -> None:
    """Registers marks and the recorder."""
    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")
    recorder = Recorder(config, load_controls())
    config.pluginmanager.register(recorder, RECORDER)


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`measure(name, value, unit="", volatile=None)`: keeps something the check saw in its evidence.

    A value is volatile if it differs between two verifications of an unchanged site. By default that is a number with a fraction, and all
    that was seen over the wire but yes and no: say `volatile=False` where the wire always shows the same (versions, extensions, sizes).
    """
    result = _result(request)

    def keep(name: str, value: object, unit: str = "", *, volatile: bool | None = None) -> None:
        plain = value if value is None or isinstance(value, bool | int | float | str) else str(value)
        if volatile is None:
            volatile = isinstance(plain, float) or (result.answer != "configuration" and not isinstance(plain, bool))
        result.measured.append(Measurement(name, plain, unit, volatile))

    return keep


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Callable[[str, Iterable[str], Iterable[Iterable[Any]]], None]:
    """`table(name, columns, rows)`: keeps rows of plain values, such as the cells of a matrix."""
    result = _result(request)

    def keep(name: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
        result.tables.append({"name": name, "columns": list(columns), "rows": [list(row) for row in rows]})

    return keep


@pytest.fixture
def series(request: pytest.FixtureRequest) -> Callable[[str, Iterable[tuple[float, float]], str], None]:
    """`series(name, points, unit)`: keeps points over time: seconds from the check's start, and a value."""
    result = _result(request)

    def keep(name: str, points: Iterable[tuple[float, float]], unit: str) -> None:
        result.series.append({"name": name, "unit": unit, "points": [[round(float(x), 3), y] for x, y in points]})

    return keep


def _result(request: pytest.FixtureRequest) -> Result:
    recorder: Any = request.config.pluginmanager.get_plugin(RECORDER)
    found: Result = recorder.result(request.node)
    return found


class Recorder:
    """Keeps the results of a session.

    Args:
        config: pytest's.
        catalogue: the controls a check may name.
    """

    def __init__(self, config: pytest.Config, catalogue: Controls) -> None:
        self._config = config
        self._catalogue = catalogue
        self._folder: str | None = config.getoption("--evidence")
        self._console = Console(highlight=False)
        self._results: dict[str, Result] = {}
        self._worst: dict[str, tuple[Outcome, str]] = {}
        self._topic = ""
        self._unread = False
        kind: Kind = "soak" if config.getoption("--soak") else "disruptive" if config.getoption("--disruptive") else "plain"
        self._selection: dict[str, Any] = {
            "controls": config.getoption("--select-control"),
            "sections": config.getoption("--select-section"),
            "hosts": config.getoption("--select-host"),
            "keyword": str(config.getoption("keyword", "") or ""),
        }
        self._session = Session(kind=kind, selection=self._selection, inventory=config.getoption("--inventory"))
        self._held_back: dict[str, tuple[frozenset[str], Awaited]] = {}
        self._fixture_notes: dict[Any, observations.Notes] = {}
        self._item_notes: dict[str, observations.Notes] = {}
        self.secrets: Gate = Gate()

    @property
    def wants_states(self) -> bool:
        """Whether every host's state is needed: to know if earlier results still stand."""
        return bool(self._config.getoption("--merge"))

    def saw_site(self, site: Site) -> None:
        """Notes which site this is, and what must stay out of its evidence."""
        self._session.site = site
        logins = {
            (name, secret.get_secret_value()) for host in site.hosts.values() for name, secret in host.settings.user_passwords.items()
        }
        self.secrets = Gate([user.password_hash for user in site.settings.users if user.password_hash], logins)

    def saw_host(self, name: str, description: dict[str, Any]) -> None:
        """Notes a host's system, versions and state."""
        self._session.hosts[name] = description

    def saw_mutants(self, mutants: Sequence[Mapping[str, Any]]) -> None:
        """Notes the deliberate breaks there are and what came of each, in the schema's form."""
        self._session.mutants = mutants

    def result(self, item: pytest.Item) -> Result:
        """The result of a check, which is invalid until all its phases are over."""
        if item.nodeid not in self._results:
            self._results[item.nodeid] = Result(
                check=_check(item),
                answer=_answer(item),
                outcome="invalid",
                controls=_ids(item, "control"),
                supports=_ids(item, "supports"),
                host=_host(item),
                run=self._session.kind,
                time=stamp(dt.datetime.now(dt.UTC)),
                message=UNFINISHED,
            )
        return self._results[item.nodeid]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Refuses checks without their marks, then keeps the selected ones."""
        known = self._catalogue.by_id()
        faults = [fault for item in items for fault in _faults(item, known)]
        if faults:
            raise pytest.UsageError("\n".join(dict.fromkeys(faults)))
        kept = [item for item in items if not self._held(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def _held(self, item: pytest.Item) -> bool:
        """Whether a check does not run, and what it waits for."""
        awaited = next((gate for gate in GATES if item.get_closest_marker(gate) and not self._config.getoption(f"--{gate}")), None)
        if awaited is None and not _selected(item, self._selection, self._catalogue):
            awaited = "selection"
        if awaited is not None:
            self._held_back[_check(item)] = (frozenset(_ids(item, "control")), awaited)
        return awaited is not None

    @pytest.hookimpl
    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Notes what `-k` leaves out."""
        for item in items:
            self._held_back.setdefault(_check(item), (frozenset(_ids(item, "control")), "selection"))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        """Keeps what a fixture asks: it belongs to every check that uses it."""
        with observations.listening() as asked:
            self._fixture_notes[fixturedef] = asked
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Keeps what a check asks."""
        with observations.listening(self._item_notes.setdefault(item.nodeid, {})):
            return (yield)

    def _asked(self, item: pytest.Item) -> observations.Notes:
        closure = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
        every: observations.Notes = {}
        for definitions in closure.values():
            for definition in definitions:
                every.update(self._fixture_notes.get(definition, {}))
        return {**every, **self._item_notes.pop(item.nodeid, {})}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Ends checks of hosts the site does not have."""
        absent = item.get_closest_marker("absent")
        if absent is not None:
            raise NotApplicable(absent.args[0])

    @pytest.hookimpl
    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Begins a line for each topic."""
        name = topic(nodeid)
        if name != self._topic:
            self._console.print(("\n" if self._topic else "") + f"{escape(name):<16}", end=" ")
            self._topic = name

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Takes each phase's outcome into the result; the worst one counts."""
        report = yield
        result = self.result(item)
        outcome, problem = _outcome(call, report)
        result.seconds += call.duration
        if outcome in FORGIVEN:
            report.outcome, report.longrepr = "skipped", (str(item.path), 0, str(problem))
        worst, _ = self._worst.get(item.nodeid, ("pass", ""))
        if OUTCOMES.index(outcome) < OUTCOMES.index(worst):
            self._worst[item.nodeid] = (outcome, _message(problem, report)[:LONGEST_MESSAGE])
            if isinstance(problem, Unmet):
                result.seen, result.expected, result.remedy = problem.seen, problem.expected, problem.remedy
        if report.when == "teardown":
            result.outcome, result.message = self._worst.get(item.nodeid, ("pass", ""))
            result.asked = observations.kept(self._asked(item))
            self._console.print(WORDS[result.outcome], end="")
        return report

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Shows modules that can't even be read."""
        if report.failed:
            self._unread = True
            self._console.print(f"[bold red]can't be read:[/] {escape(report.nodeid)}\n{escape(str(report.longrepr))}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Writes the evidence; the exit status is pytest's, made worse by what pytest takes for a skip or a failure."""
        if self._topic:
            self._console.print()
        if self._unread:  # evidence that lacks whole modules would pass for complete
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
            return
        results = list(self._results.values())
        if any(result.outcome in {"fail", "invalid"} for result in results) and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._folder is None or not results or exitstatus in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR}:
            return
        self._session.complete = exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
        self._session.ended = dt.datetime.now(dt.UTC)
        try:
            self._write(Path(self._folder), results)
        except InputError as fault:  # a full disk, say: whoever asked has no evidence, and hears why
            print(fault, file=sys.stderr)
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def _write(self, folder: Path, results: list[Result]) -> None:
        """Writes the run as it was into the history, and all that stands together as the evidence."""
        alone = self.secrets(document(self._catalogue, self._session, results, self._awaited(results)))
        stamp = alone["started"].replace("-", "").replace(":", "").replace(".", "-")
        text = write_evidence(folder / "history" / f"{stamp}.json", alone)
        together = alone
        if self.wants_states:
            previous = read_evidence(folder / "evidence.json")
            kept, dropped = earlier(previous, alone, results)
            if kept or dropped:
                every = [*results, *kept]
                merged = document(self._catalogue, self._session, every, self._awaited(every), previous=previous, dropped=dropped)
                together = self.secrets(merged)
        if together is alone:
            write_text(folder / "evidence.json", text)
        else:
            write_evidence(folder / "evidence.json", together)
        write_junit(folder / "junit.xml", together)

    def _awaited(self, results: list[Result]) -> dict[str, set[Awaited]]:
        """Control to what its checks wait for that have no result."""
        there = {result.check for result in results}
        awaited: dict[str, set[Awaited]] = {}
        for check, (controls, what) in self._held_back.items():
            if check not in there:
                for control in controls:
                    awaited.setdefault(control, set()).add(what)
        return awaited


def _check(item: pytest.Item) -> str:
    return item.nodeid.rsplit("/", 1)[-1]


def _ids(item: pytest.Item, mark: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(name) for found in item.iter_markers(mark) for name in found.args))


def _answer(item: pytest.Item) -> Any:
    mark = item.get_closest_marker("answer")
    kind = mark.args[0] if mark is not None and mark.args else None
    if kind == "live" and item.get_closest_marker("soak") is not None and item.config.getoption("--soak-seconds") < SOAK_SECONDS:
        return "scaled"
    return kind


def _host(item: pytest.Item) -> str | None:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return next((str(parameters[name]) for name in HOST_FIXTURES if parameters.get(name)), None)


def _faults(item: pytest.Item, known: dict[str, Any]) -> list[str]:
    where = item.nodeid.split("[")[0]
    faults = []
    if _answer(item) not in CLASSES:
        faults.append(f"{where}: mark it with answer(), one of {', '.join(CLASSES)}")
    named = (*_ids(item, "control"), *_ids(item, "supports"))
    if not named:
        faults.append(f"{where}: mark it with control() or supports(): a check is about a control")
    faults += [f"{where}: there is no control '{name}'" for name in named if name not in known]
    return faults


def _selected(item: pytest.Item, selection: dict[str, Any], catalogue: Controls) -> bool:
    name = topic(_check(item))
    named = (*_ids(item, "control"), *_ids(item, "supports"))
    known = catalogue.by_id()
    wholes = {control.id for control in catalogue.controls if set(control.made_of) & set(named)}
    return (
        (not selection["controls"] or any(name == word or fnmatch.filter([*named, *wholes], word) for word in selection["controls"]))
        and (not selection["sections"] or bool({known[each].section for each in named} & set(selection["sections"])))
        and (not selection["hosts"] or _host(item) in selection["hosts"])
    )


def _outcome(call: pytest.CallInfo[None], report: pytest.TestReport) -> tuple[Outcome, BaseException | None]:
    """What a phase means. Only an assertion in the check itself is a failure of the site: all other mishaps are ours to explain."""
    problem = call.excinfo.value if call.excinfo is not None else None
    if isinstance(problem, NotMeasurable):
        return "not-measured" if isinstance(problem, NotMeasured) else "not-measurable", problem
    if isinstance(problem, NotApplicable):
        return "not-applicable", problem
    if isinstance(problem, Invalid) or hasattr(report, "wasxfail") or report.skipped:
        return "invalid", problem
    if report.passed:
        return "pass", None
    # A fixture that breaks is no failure of the site, unless it says so in as many words.
    if isinstance(problem, Unmet) or (report.when == "call" and isinstance(problem, AssertionError | pytest.fail.Exception)):
        return "fail", problem
    return "invalid", problem


def _message(problem: BaseException | None, report: pytest.TestReport) -> str:
    if isinstance(problem, Unanswered | Unmet):
        return str(problem)
    if report.skipped or hasattr(report, "wasxfail"):
        return f"a check must not skip: {problem or getattr(report, 'wasxfail', '')}"
    if isinstance(problem, AssertionError | pytest.fail.Exception):
        return str(problem) or "assertion failed"
    if problem is None:
        return "no reason given"
    place = f" ({problem.__traceback__ and _last(problem)})"
    return f"{type(problem).__name__}: {problem}{place}"


def _last(problem: BaseException) -> str:
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""
