"""Turns ansible-runner's events into what happened: per host, per task, per stage. No input or output of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol

MESSAGE_LINES = 12
CENSORED = "censored"
"""The only key ansible-runner leaves in the result of a task with `no_log`."""
STATUS = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
    "runner_on_async_failed": "failed",
}
"""ansible-runner's event names that end a task on a host, and what we call the end."""


@dataclass(frozen=True)
class Outcome:
    """How one task ended on one host.

    Args:
        status: ok, changed, failed, ignored, unreachable or skipped.
        seconds: time the task took on that host.
        path: `file:line` of the task.
        message: why it failed; empty otherwise, and "(hidden: the task handles secrets)" where `no_log` is set.
        details: what a program of ours changed, or would: its lines that begin with `changed: `.
        notices: what it wants to be told to whoever started the run: its lines that begin with `notice: `.
    """

    stage: str
    host: str
    task: str
    status: str
    seconds: float
    path: str = ""
    message: str = ""
    details: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A task that stopped a host."""

    stage: str
    host: str
    task: str
    path: str
    message: str
    unreachable: bool = False


@dataclass
class HostTally:
    """What happened on one host, in numbers of tasks."""

    ok: int = 0
    changed: int = 0
    failures: int = 0
    skipped: int = 0

    @property
    def tasks(self) -> int:
        """Tasks that ran (skipped ones are not counted)."""
        return self.ok + self.changed + self.failures


class Observer(Protocol):
    """Is told how the run goes, from one thread."""

    def started(self, stage: str, host: str, task: str) -> None:
        """A task starts on a host."""

    def ended(self, outcome: Outcome) -> None:
        """A task ended on a host."""

    def difference(self, host: str, task: str, text: str) -> None:
        """A task changed a file, or would: the difference as text."""

    def finished(self) -> None:
        """Nothing more will come."""


@dataclass
class RunRecord:
    """Everything one run of Ansible told, in order. Feed it events with `take`."""

    hosts: dict[str, HostTally] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    ended: bool = False
    """True once Ansible printed its recap: it came to its own end."""
    _stage: str = ""
    _stage_started: datetime | None = None
    _fatal: list[Failure] = field(default_factory=list)
    _stopped: frozenset[str] | None = None
    _hidden_changes: set[tuple[str, str]] = field(default_factory=set)

    def take(self, event: Mapping[str, Any], observer: Observer | None = None) -> None:
        """Adds one event of ansible-runner and tells the observer."""
        kind = str(event.get("event", ""))
        data: Mapping[str, Any] = event.get("event_data") or {}
        when = _time(event)
        if kind == "playbook_on_play_start":
            self._close(when)
            self._stage, self._stage_started = str(data.get("play") or data.get("name") or "play"), when
        elif kind == "runner_on_start" and observer is not None:
            observer.started(self._stage, str(data.get("host", "")), _task_name(data))
        elif kind == "runner_on_file_diff" and observer is not None:
            text = str(event.get("stdout", "")).strip("\r\n")
            if text:
                observer.difference(str(data.get("host", "")), _task_name(data), text.replace("\r\n", "\n"))
        elif kind == "runner_item_on_ok" and _says_changed(event):
            self._hidden_changes.add((str(data.get("host", "")), str(data.get("task_uuid", ""))))
        elif kind in STATUS:
            self._end(kind, data, observer, says_changed=_says_changed(event))
        elif kind == "playbook_on_stats":
            self._close(when)
            self.ended = True
            self._count(data)

    @property
    def failures(self) -> list[Failure]:
        """Failures that stopped a host; those a block rescued are left out once Ansible has counted."""
        return [failure for failure in self._fatal if self._stopped is None or failure.host in self._stopped]

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """Every task that ran: stage, task, path, number of hosts, and the seconds the slowest host took."""
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for item in self.outcomes:
            if item.status == "skipped":
                continue
            empty = {"stage": item.stage, "task": item.task, "path": item.path, "hosts": 0, "seconds": 0.0}
            task = found.setdefault((item.stage, item.task, item.path), empty)
            task["hosts"] += 1
            task["seconds"] = max(task["seconds"], round(item.seconds, 3))
        return list(found.values())

    @property
    def changes(self) -> list[Outcome]:
        """The tasks that changed something, or would under check mode."""
        return [outcome for outcome in self.outcomes if outcome.status == "changed"]

    @property
    def notices(self) -> dict[str, list[str]]:
        """What hosts want to be told: {notice: hosts}."""
        found: dict[str, list[str]] = {}
        for outcome in self.outcomes:
            for notice in outcome.notices:
                found.setdefault(notice, []).append(outcome.host)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The record as plain data, for `run.json`."""
        return {
            "hosts": {host: {**asdict(tally), "tasks": tally.tasks} for host, tally in sorted(self.hosts.items())},
            "stages": {stage: round(seconds, 3) for stage, seconds in self.stage_seconds.items()},
            "tasks": self.tasks,
            "changes": [{"stage": item.stage, "host": item.host, "task": item.task, "path": item.path} for item in self.changes],
            "notices": self.notices,
            "failures": [asdict(failure) for failure in self.failures],
        }

    def _end(self, kind: str, data: Mapping[str, Any], observer: Observer | None, *, says_changed: bool) -> None:
        result: Mapping[str, Any] = data.get("res") or {}
        status = STATUS[kind]
        if status == "failed" and data.get("ignore_errors"):
            status = "ignored"
        elif status == "ok" and (result.get("changed") or (CENSORED in result and self._changed_hidden(data, says_changed))):
            status = "changed"
        host = str(data.get("host", ""))
        message = explain(result) if status in {"failed", "unreachable"} else ""
        outcome = Outcome(
            self._stage,
            host,
            _task_name(data),
            status,
            float(data.get("duration") or 0),
            str(data.get("task_path", "")),
            message,
            _told(result, "changed: ") if status == "changed" else (),
            _told(result, "notice: "),
        )
        tally = self.hosts.setdefault(host, HostTally())
        if status == "skipped":
            tally.skipped += 1
        elif status == "changed":
            tally.changed += 1
        elif status in {"failed", "unreachable"}:
            tally.failures += 1
            self._fatal.append(Failure(outcome.stage, host, outcome.task, outcome.path, message, status == "unreachable"))
        else:
            tally.ok += 1
        self.outcomes.append(outcome)
        if observer is not None:
            observer.ended(outcome)

    def _changed_hidden(self, data: Mapping[str, Any], says_changed: bool) -> bool:
        """Whether a task that hides its result changed something: only the line Ansible prints still tells."""
        return says_changed or (str(data.get("host", "")), str(data.get("task_uuid", ""))) in self._hidden_changes

    def _count(self, stats: Mapping[str, Any]) -> None:
        """Takes over Ansible's own numbers, which know what was rescued."""
        failures: Mapping[str, int] = stats.get("failures") or {}
        dark: Mapping[str, int] = stats.get("dark") or {}
        self._stopped = frozenset({*failures, *dark})
        for host, tally in self.hosts.items():
            tally.changed = int((stats.get("changed") or {}).get(host, 0))
            tally.ok = int((stats.get("ok") or {}).get(host, 0)) - tally.changed
            tally.failures = int(failures.get(host, 0)) + int(dark.get(host, 0))

    def _close(self, when: datetime) -> None:
        if self._stage_started is not None:
            seconds = (when - self._stage_started).total_seconds()
            self.stage_seconds[self._stage] = self.stage_seconds.get(self._stage, 0.0) + seconds
        self._stage_started = None


def explain(result: Mapping[str, Any]) -> str:
    """Why a task failed, in the words of its module: the message, failed items, the last lines of what a command said."""
    if CENSORED in result:
        return "(hidden: the task handles secrets)"
    parts = [_text(result.get("msg"))]
    for item in result.get("results") or []:
        if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable")):
            label = _text(item.get("item"))
            parts.append(f"{label}: {explain(item)}" if label else explain(item))
    for key in ("stderr", "module_stderr", "stdout", "module_stdout"):
        text = _text(result.get(key))
        if text and text not in parts[0]:
            parts.append(text)
            break
    lines = [line for part in parts for line in part.splitlines() if line.strip()]
    return "\n".join(lines[:1] + lines[1:][-MESSAGE_LINES:]) or "the module gave no reason; see the log"


def _told(result: Mapping[str, Any], prefix: str) -> tuple[str, ...]:
    """The lines of a command's output that begin so, without that beginning."""
    lines = str(result.get("stdout") or "").splitlines()
    return tuple(line.removeprefix(prefix) for line in lines if line.startswith(prefix))


def _says_changed(event: Mapping[str, Any]) -> bool:
    # The task's banner may come first: Ansible keeps it back until there is something to print below it.
    return re.search(r"^changed: \[", str(event.get("stdout", "")), re.MULTILINE) is not None


def _text(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(str(item) for item in value)
    return "" if value is None else str(value).strip()


def _task_name(data: Mapping[str, Any]) -> str:
    role, task, path = data.get("role"), str(data.get("task") or data.get("name") or ""), str(data.get("task_path") or "")
    # ansible-runner goes on naming the last role for a task that has none.
    if path and f"/{str(role).rpartition('.')[2]}/tasks/" not in path:
        return task
    return f"{role} : {task}" if role and not task.startswith(f"{role} : ") else task


def _time(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(event["created"]))
