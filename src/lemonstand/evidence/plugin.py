"""The pytest plugin that turns checks into evidence: it holds every check to its marks, and keeps what each one saw.

Loaded with `-p lemonstand.evidence.plugin`. Without `--evidence` it only checks marks and shows progress.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.markup import escape

from lemonstand import __version__
from lemonstand.evidence.model import CLASSES, OUTCOMES, SCHEMA_VERSION, Measurement, Outcome, Result, Standing, judge
from lemonstand.evidence.signals import Invalid, NotMeasurable, Unmet
from lemonstand.evidence.write import write_evidence, write_junit
from lemonstand.policy.controls import Controls, load_controls

MARKS = {
    "control(*ids)": "the controls this check answers",
    "supports(*ids)": "controls this check can break and does not answer",
    "answer(kind)": "the class of its answer: live, scaled or configuration",
    "disruptive": "disturbs the site while it runs: only if asked for",
    "soak": "holds connections for two hours and ten minutes: only if asked for",
    "absent(reason)": "set by lemonstand: the site has no such host",
}
HOST_FIXTURES = ("edge", "frontend", "auth", "store", "relay", "node")
WORDS: dict[Outcome, str] = {"pass": "[green]·[/]", "fail": "[bold red]F[/]", "invalid": "[magenta]![/]", "not-measurable": "[dim]-[/]"}
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
    group.addoption("--disruptive", action="store_true", help="run checks that disturb the site as well")
    group.addoption("--soak", action="store_true", help="run checks that hold connections for more than two hours as well")
    group.addoption("--soak-seconds", type=int, default=SOAK_SECONDS, help="hold them for this long: below the default, answers are scaled")
    group.addoption("--select-control", action="append", default=[], help="only checks of this control, pattern (LEM-7-*) or topic")


def pytest_configure(config: pytest.Config) -> None:
    """Registers marks and the recorder."""
    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")
    recorder = Recorder(config, load_controls())
    config.pluginmanager.register(recorder, RECORDER)


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`measure(name, value, unit="")`: keeps something the check saw in its evidence."""
    recorder: Any = request.config.pluginmanager.get_plugin(RECORDER)

    def keep(name: str, value: object, unit: str = "") -> None:
        plain = value if value is None or isinstance(value, bool | int | float | str) else str(value)
        recorder.result(request.node).measured.append(Measurement(name, plain, unit))

    return keep


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
        self._selection: list[str] = config.getoption("--select-control")
        self._console = Console(highlight=False)
        self._started = dt.datetime.now(dt.UTC)
        self._results: dict[str, Result] = {}
        self._worst: dict[str, tuple[Outcome, str]] = {}
        self._site = ""
        self._groups: dict[str, list[str]] = {}
        self._hosts: dict[str, dict[str, Any]] = {}
        self._topic = ""
        self._unread = False
        self._disruptive: bool = config.getoption("--disruptive")
        self._soak: bool = config.getoption("--soak")
        self._waiting: dict[str, set[str]] = {"disruptive": set(), "soak": set()}

    def saw_site(self, name: str, groups: dict[str, list[str]]) -> None:
        """Notes which site this is, and the groups of its hosts."""
        self._site, self._groups = name, groups

    def saw_host(self, name: str, description: dict[str, Any]) -> None:
        """Notes a host's system and versions."""
        self._hosts[name] = description

    def result(self, item: pytest.Item) -> Result:
        """The result of a check, which is invalid until all its phases are over."""
        if item.nodeid not in self._results:
            self._results[item.nodeid] = Result(
                check=item.nodeid.rsplit("/", 1)[-1],
                answer=_answer(item),
                outcome="invalid",
                controls=_ids(item, "control"),
                supports=_ids(item, "supports"),
                host=_host(item),
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
        for mark, asked in (("disruptive", self._disruptive), ("soak", self._soak)):
            if not asked:
                calm = [item for item in items if item.get_closest_marker(mark) is None]
                self._waiting[mark] = {name for item in items if item not in calm for name in _ids(item, "control")}
                config.hook.pytest_deselected(items=[item for item in items if item not in calm])
                items[:] = calm
        if self._selection:
            kept = [item for item in items if _selected(item, self._selection)]
            config.hook.pytest_deselected(items=[item for item in items if item not in kept])
            items[:] = kept

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Ends checks of hosts the site does not have."""
        absent = item.get_closest_marker("absent")
        if absent is not None:
            raise NotMeasurable(absent.args[0])

    @pytest.hookimpl
    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Begins a line for each topic."""
        topic = nodeid.split("::", maxsplit=1)[0].rsplit("/", 1)[-1].removeprefix("test_").removesuffix(".py")
        if topic != self._topic:
            self._console.print(("\n" if self._topic else "") + f"{escape(topic):<16}", end=" ")
            self._topic = topic

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Takes each phase's outcome into the result; the worst one counts."""
        report = yield
        result = self.result(item)
        outcome, problem = _outcome(call, report)
        result.seconds += call.duration
        if outcome == "not-measurable":
            # pytest's own count must not take it for a failure.
            report.outcome, report.longrepr = "skipped", (str(item.path), 0, str(problem))
        worst, _ = self._worst.get(item.nodeid, ("pass", ""))
        if OUTCOMES.index(outcome) < OUTCOMES.index(worst):
            self._worst[item.nodeid] = (outcome, _message(problem, report)[:LONGEST_MESSAGE])
            if isinstance(problem, Unmet):
                result.seen, result.expected, result.remedy = problem.seen, problem.expected, problem.remedy
        if report.when == "teardown":
            result.outcome, result.message = self._worst.get(item.nodeid, ("pass", ""))
        if report.when == "teardown":
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
        folder = Path(self._folder)
        evidence = self.evidence(complete=exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED})
        write_evidence(folder / "evidence.json", evidence)
        write_evidence(folder / "history" / f"{self._started:%Y%m%dT%H%M%S.%fZ}.json", evidence)
        write_junit(folder / "junit.xml", self._site or "lemonstand", results)

    def evidence(self, *, complete: bool) -> dict[str, Any]:
        """All of it, as it is written.

        Args:
            complete: whether the session came to its end.
        """
        results = list(self._results.values())
        standings = judge(self._catalogue, results)
        ended = dt.datetime.now(dt.UTC)
        hosts = {name: {"groups": groups, **self._hosts.get(name, {})} for name, groups in self._groups.items()}
        return {
            "schema": SCHEMA_VERSION,
            "site": self._site,
            "lemonstand": __version__,
            "started": self._started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "ended": ended.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "complete": complete,
            "disruptive": self._disruptive,
            "soak": self._config.getoption("--soak-seconds") if self._soak else 0,
            "selection": {"controls": self._selection, "keyword": str(self._config.getoption("keyword", "") or "")},
            "hosts": hosts,
            "results": [result.plain() for result in results],
            "controls": [standing.plain() for standing in standings],
            "awaiting": self._awaiting(standings, "disruptive"),
            "awaiting_soak": self._awaiting(standings, "soak"),
        }

    def _awaiting(self, standings: list[Standing], mark: str) -> list[str]:
        """The controls that a run of another kind answers."""
        return [each.control.id for each in standings if each.status == "unanswered" and each.control.id in self._waiting[mark]]


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


def _selected(item: pytest.Item, selection: list[str]) -> bool:
    topic = item.path.name.removeprefix("test_").removesuffix(".py")
    named = (*_ids(item, "control"), *_ids(item, "supports"))
    return any(topic == word or any(fnmatch.fnmatchcase(name, word) for name in named) for word in selection)


def _outcome(call: pytest.CallInfo[None], report: pytest.TestReport) -> tuple[Outcome, BaseException | None]:
    """What a phase means. Only an assertion in the check itself is a failure of the site: all other mishaps are ours to explain."""
    problem = call.excinfo.value if call.excinfo is not None else None
    if isinstance(problem, NotMeasurable):
        return "not-measurable", problem
    if isinstance(problem, Invalid) or hasattr(report, "wasxfail") or report.skipped:
        return "invalid", problem
    if report.passed:
        return "pass", None
    # A fixture that breaks is no failure of the site, unless it says so in as many words.
    if isinstance(problem, Unmet) or (report.when == "call" and isinstance(problem, AssertionError | pytest.fail.Exception)):
        return "fail", problem
    return "invalid", problem


def _message(problem: BaseException | None, report: pytest.TestReport) -> str:
    if isinstance(problem, Invalid | NotMeasurable | Unmet):
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
