"""Shows how a run goes: one line a host that changes in place on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lemonstand.deploy import HostTally, Observer, Outcome

STYLES = {"ok": "green", "changed": "yellow", "failed": "bold red", "unreachable": "bold red", "ignored": "magenta", "skipped": "dim"}


def observer(console: Console, *, show_differences: bool = False, looks_only: bool = False) -> Observer:
    """What shows a run on this console: in place if it is a terminal, else line by line, or only its differences if it looks only."""
    if looks_only and not console.is_terminal:
        return Differences(console)
    return LiveProgress(console, show_differences) if console.is_terminal else PlainProgress(console, show_differences)


@dataclass
class PlainProgress:
    """One line a finished task: seconds since the start, stage, host, status, task."""

    console: Console
    show_differences: bool = False
    _start: float = field(default_factory=time.monotonic)

    def started(self, stage: str, host: str, task: str) -> None:
        """Says nothing: a log wants ends, not beginnings."""

    def ended(self, outcome: Outcome) -> None:
        """Prints the line; skipped tasks are left out."""
        if outcome.status == "skipped":
            return
        elapsed = time.monotonic() - self._start
        line = f"{elapsed:7.1f}s  {outcome.stage:<20}  {outcome.host:<12}  {outcome.status:<11}  {outcome.task}"
        self.console.print(line, style=None, markup=False, highlight=False, soft_wrap=True)

    def difference(self, host: str, task: str, text: str) -> None:
        """Prints what a file becomes."""
        if self.show_differences:
            self.console.print(f"--- {host}: {task}\n{text}", markup=False, highlight=False, soft_wrap=True)

    def finished(self) -> None:
        """Nothing to tidy."""


@dataclass
class Differences:
    """Nothing but what files would become: for runs that look, and say in the end what they found."""

    console: Console

    def started(self, stage: str, host: str, task: str) -> None:
        """Says nothing."""

    def ended(self, outcome: Outcome) -> None:
        """Says nothing."""

    def difference(self, host: str, task: str, text: str) -> None:
        """Prints what a file becomes."""
        self.console.print(f"--- {host}: {task}\n{text}", markup=False, highlight=False, soft_wrap=True)

    def finished(self) -> None:
        """Nothing to tidy."""


@dataclass
class _Line:
    stage: str = ""
    task: str = ""
    tally: HostTally = field(default_factory=HostTally)
    last: str = "ok"


class LiveProgress:
    """A table that is drawn again a few times a second; differences scroll by above it."""

    def __init__(self, console: Console, show_differences: bool = False) -> None:
        self._console = console
        self._show_differences = show_differences
        self._start = time.monotonic()
        self._lines: dict[str, _Line] = {}
        self._spinner = Spinner("dots")
        self._live = Live(console=console, refresh_per_second=6, get_renderable=self._draw, transient=True)
        self._live.start()

    def started(self, stage: str, host: str, task: str) -> None:
        """Names the task on the host's line."""
        line = self._lines.setdefault(host, _Line())
        line.stage, line.task = stage, task

    def ended(self, outcome: Outcome) -> None:
        """Counts; what stopped a host stays to be read above the table."""
        line = self._lines.setdefault(outcome.host, _Line())
        line.last = outcome.status
        if outcome.status == "changed":
            line.tally.changed += 1
        elif outcome.status in {"failed", "unreachable"}:
            line.tally.failures += 1
        elif outcome.status != "skipped":
            line.tally.ok += 1

    def difference(self, host: str, task: str, text: str) -> None:
        """Prints what a file becomes above the table."""
        if not self._show_differences:
            return
        self._console.print(f"[bold]{escape(host)}: {escape(task)}[/bold]")
        for row in text.splitlines():
            style = "green" if row.startswith("+") else "red" if row.startswith("-") else "dim"
            self._console.print(Text(row, style=style), soft_wrap=True)

    def finished(self) -> None:
        """Takes the table away; the summary follows."""
        self._live.stop()

    def _draw(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for host, line in list(self._lines.items()):
            count = f"{line.tally.ok + line.tally.changed:>3} done"
            changed = f"[yellow]{line.tally.changed} changed[/yellow]" if line.tally.changed else ""
            failed = f"[bold red]{line.tally.failures} failed[/bold red]" if line.tally.failures else ""
            table.add_row(
                f"[{STYLES[line.last]}]{escape(host)}[/]",
                count,
                changed,
                failed,
                f"[dim]{escape(line.stage)}[/dim]",
                Text(line.task, overflow="ellipsis", no_wrap=True),
            )
        self._spinner.update(text=f"{time.monotonic() - self._start:.0f} s")
        return Group(table, self._spinner)
