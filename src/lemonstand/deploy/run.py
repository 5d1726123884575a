"""Starts ansible-playbook through ansible-runner with an environment of our own, in a private directory."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import ansible_runner

from lemonstand import __version__
from lemonstand.deploy.record import Observer, RunRecord
from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir, state_dir

KEPT_RUNS = 20
"""Older run directories are removed."""
CANCEL_SECONDS = 1
"""How long ansible-runner may take to notice Ctrl-C."""
GRACE_SECONDS = 5
"""How long Ansible may take to end by itself then."""
INTERRUPTED = 130
"""Exit code after Ctrl-C (128 + SIGINT)."""


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Args:
        exit_code: 0 all well, 1 failed, 130 interrupted.
        command: the plain Ansible command that does the same, ready for a shell.
        directory: holds `run.json` and `ansible.log`.
        message: the end of Ansible's output if it failed without any task failing (a syntax error, say).
    """

    exit_code: int
    record: RunRecord
    command: str
    directory: Path
    seconds: float
    message: str = ""

    @property
    def log(self) -> Path:
        """Ansible's full output."""
        return self.directory / "ansible.log"


def run_playbook(
    inventory: Path,
    playbooks: Sequence[Path],
    *,
    runs: Path,
    check: bool = False,
    diff: bool = False,
    limit: str | None = None,
    tags: str | None = None,
    env: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> RunResult:
    """Runs playbooks, one after the other, in one process of Ansible.

    Args:
        inventory: file or directory.
        playbooks: at least one; all in the same directory.
        runs: directory that gets a directory for this run; only one run at a time may use it.
        check: change nothing, say what would change.
        diff: show differences of files (tasks with secrets hide theirs).
        limit: Ansible host pattern.
        tags: Ansible tags, comma separated.
        env: variables for Ansible beside the process's own. No secrets: they are shown in the command to repeat.
        extra: variables of this run alone (`-e`). No secrets: they are arguments of a process.
        observer: is told what happens while it happens.

    Raises:
        LemonstandError: another run is going on, or ansible-playbook isn't installed.
    """
    with _only_one(runs):
        folder = _new_directory(runs)
        settings = environment(env or {})
        words = _arguments(inventory, check=check, diff=diff, limit=limit, tags=tags, extra=extra)
        shown = repeat_command(inventory, playbooks, check=check, diff=diff, limit=limit, tags=tags, env=env, extra=extra)
        record = RunRecord()
        started, clock = datetime.now(UTC), time.monotonic()
        interrupted, tail = _execute(folder, words + [str(path) for path in playbooks], settings, record, observer)
        seconds = time.monotonic() - clock
        status = (folder / "artifacts" / "ansible" / "rc").read_text(encoding="ascii").strip()
        code = INTERRUPTED if interrupted else int(status != "0")
        message = "\n".join(tail) if code == 1 and not record.failures else ""
        summary = {
            "lemonstand": __version__,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "inventory": str(inventory),
            "playbooks": [path.name for path in playbooks],
            "check": check,
            "limit": limit,
            "tags": tags,
            "exit_code": code,
            "command": shown,
            **record.as_dict(),
        }
        (folder / "run.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        return RunResult(code, record, shown, folder, seconds, message)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The variables Ansible is started with beside the process's own: nothing depends on the user's ansible.cfg or directory."""
    return {
        "ANSIBLE_CONFIG": str(data_dir("ansible.cfg")),
        "ANSIBLE_ROLES_PATH": str(data_dir("roles")),
        "ANSIBLE_HOME": str(state_dir() / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible-runner turns it off unless it is named
        # Ansible of our own environment, whether or not that was activated in this shell.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        **extra,
    }


def repeat_command(
    inventory: Path,
    playbooks: Sequence[Path],
    *,
    check: bool = False,
    diff: bool = False,
    limit: str | None = None,
    tags: str | None = None,
    env: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """The plain Ansible command for the same work, for a shell (see `run_playbook` for the arguments)."""
    shown = environment(env or {})
    names = ["ANSIBLE_CONFIG", "ANSIBLE_ROLES_PATH", *(env or {})]
    words = ["env", *(f"{name}={shown[name]}" for name in names), str(Path(sys.executable).parent / "ansible-playbook")]
    words += _arguments(inventory, check=check, diff=diff, limit=limit, tags=tags, extra=extra)
    return shlex.join([*words, *(str(path) for path in playbooks)])


def _arguments(
    inventory: Path, *, check: bool, diff: bool, limit: str | None, tags: str | None, extra: Mapping[str, Any] | None
) -> list[str]:
    words = ["-i", str(inventory)]
    words += ["--check"] if check else []
    words += ["--diff"] if diff else []
    words += ["--limit", limit] if limit else []
    words += ["--tags", tags] if tags else []
    words += ["-e", json.dumps(dict(extra))] if extra else []
    return words


def _execute(
    folder: Path, words: list[str], settings: dict[str, str], record: RunRecord, observer: Observer | None
) -> tuple[bool, list[str]]:
    """Runs Ansible; returns whether it was interrupted, and the last lines it printed."""
    (folder / "env").mkdir(mode=0o700)
    # A file, because ansible-runner 2.4 forgets the argument `settings` when it is told to write no files.
    runner_settings = {"pexpect_timeout": CANCEL_SECONDS, "suppress_output_file": True, "suppress_ansible_output": True}
    (folder / "env" / "settings").write_text(json.dumps(runner_settings), encoding="ascii")
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    tail: list[str] = []
    faults: list[Exception] = []

    def consume() -> None:
        try:
            _consume(events, folder / "ansible.log", record, observer, tail)
        except Exception as fault:  # told after the run: a fault in the display must not stop Ansible half way
            faults.append(fault)

    consumer = threading.Thread(target=consume, name="events")
    consumer.start()

    def handle(event: dict[str, Any]) -> bool:
        events.put(event)  # only queued: a slow handler makes ansible-runner lose its output
        return True  # it needs its event files itself

    try:
        with _interruptible() as stop:
            ansible_runner.run(
                private_data_dir=str(folder),
                ident="ansible",
                # ansible-playbook wants its playbooks in a row: the last one is what ansible-runner appends.
                cmdline=shlex.join(words[:-1]),
                playbook=words[-1],
                envvars=settings,
                suppress_env_files=True,
                event_handler=handle,
                cancel_callback=stop.overdue,
                quiet=True,
            )
    finally:
        events.put(None)
        consumer.join()
        # ansible-runner writes the whole environment of this process there, and every event a second time.
        (folder / "artifacts" / "ansible" / "command").unlink(missing_ok=True)
        shutil.rmtree(folder / "artifacts" / "ansible" / "job_events", ignore_errors=True)
    if faults:
        raise faults[0]
    return stop.asked, tail


def _consume(
    events: queue.SimpleQueue[dict[str, Any] | None], log: Path, record: RunRecord, observer: Observer | None, tail: list[str]
) -> None:
    """Writes the log and feeds the record until a None comes."""
    with log.open("w", encoding="utf-8") as stream:
        while (event := events.get()) is not None:
            text = str(event.get("stdout") or "").replace("\r\n", "\n")
            if text:
                stream.write(text + "\n")
                stream.flush()
                tail.extend(line for line in text.splitlines() if line.strip())
                del tail[:-8]
            record.take(event, observer)
    if observer is not None:
        observer.finished()


@dataclass
class _Stop:
    """Ends a run in two steps: Ansible is asked first, so that it ends its own workers; if it doesn't, ansible-runner kills it."""

    since: float | None = None

    @property
    def asked(self) -> bool:
        """Whether the user wants it to end."""
        return self.since is not None

    def overdue(self) -> bool:
        """Whether Ansible had its time to end by itself."""
        return self.since is not None and time.monotonic() - self.since > GRACE_SECONDS

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Handles the signal: passes it on, the first time only."""
        if self.since is None:
            self.since = time.monotonic()
            for child in _children():
                os.kill(child, signal.SIGINT)


def _children() -> list[int]:
    """The processes this thread started; ansible-runner keeps Ansible's to itself."""
    listing = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return [int(number) for number in listing.read_text(encoding="ascii").split()] if listing.exists() else []


@contextmanager
def _interruptible() -> Iterator[_Stop]:
    """Takes Ctrl-C and SIGTERM as a wish to stop Ansible, instead of ending this process in the middle of things."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _only_one(runs: Path) -> Iterator[None]:
    runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (runs / "lock").open("w", encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LemonstandError("another run on this site is going on", str(runs), "wait until it ends, or stop it") from None
        yield


def _new_directory(runs: Path) -> Path:
    old = sorted(path for path in runs.iterdir() if path.is_dir())
    for path in old[: max(0, len(old) - KEPT_RUNS + 1)]:
        shutil.rmtree(path, ignore_errors=True)
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    folder = runs / stem
    folder.mkdir(mode=0o700)
    return folder
