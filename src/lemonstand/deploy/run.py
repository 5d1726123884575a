"""Starts ansible-playbook through ansible-runner with an environment of our own, in a private directory."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import re
import secrets
import shlex
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import lemonstand
from lemonstand import surroundings
from lemonstand.deploy import keeper
from lemonstand.deploy.record import Observer, Outcome, RunRecord
from lemonstand.errors import InputError, LemonstandError
from lemonstand.paths import data_dir

KEPT_RUNS = 20
"""Older run directories are removed."""
CANCEL_SECONDS = 1
"""How long ansible-runner may take to notice Ctrl-C."""
GRACE_SECONDS = keeper.GRACE_SECONDS + 3
"""How long Ansible may take to end by itself then, and what it leaves behind to be ended."""
FREE_OCTETS = 32 * 2**20
"""Room a run wants on the controller for its log and its events: a display that can't write stops Ansible half way."""
RUN, COMMAND = "LEMONSTAND_RUN", "LEMONSTAND_COMMAND"
"""What a run says of itself to the site (playbooks/filter_plugins/operation.py)."""
EXTRA_VARS = "LEMONSTAND_EXTRA_VARS"
MEMORY = Path("/dev/shm")  # noqa: S108 - what is put there is for this user alone
NAMED = "lemonstand-held-"
HELD = re.compile(r"/proc/[0-9]+/fd/[0-9]+")
"""Names the file with the variables of `-e`, for every program of ours that reads the inventory."""
SECRET_NAME = re.compile(r"pass|secret|token|key|vault|credential", re.IGNORECASE)
OWN_OF_RUNNER = frozenset(
    {
        "ANSIBLE_UNSAFE_WRITES", "AWX_ISOLATED_DATA_DIR", "ANSIBLE_CACHE_PLUGIN", "ANSIBLE_CACHE_PLUGIN_CONNECTION",
        "ANSIBLE_STDOUT_CALLBACK", "ANSIBLE_RETRY_FILES_ENABLED",
    }
)  # fmt: skip
"""What ansible-runner adds to an environment so that it hears of what happens."""
INTERRUPTED = 130
"""Exit code after Ctrl-C (128 + SIGINT)."""


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Args:
        exit_code: 0 all well, 1 failed, 130 interrupted.
        run: its id, by which the site knows it (docs/decisions/0038).
        command: the plain Ansible command that does the same, ready for a shell.
        directory: holds `run.json` and `ansible.log`.
        message: the end of Ansible's output if it failed without any task failing (a syntax error, say).
    """

    exit_code: int
    run: str
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
    command: str = "",
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
        env: variables for Ansible beside the allowed ones (`surroundings`). Those of a lab are shown in the command to repeat.
        extra: variables of this run alone (`-e`). No secrets: they are arguments of a process.
        observer: is told what happens while it happens.
        command: what the site's history says was done; no secrets. Empty: the playbook's name.

    Raises:
        LemonstandError: another run is going on, or ansible-playbook isn't installed.
        InputError: there is no room for the run's record.
    """
    with _only_one(runs):
        folder = _new_directory(runs)
        run = secrets.token_hex(8)
        settings = {**environment(env or {}, inventory), RUN: run, COMMAND: command}
        words = _arguments(inventory, check=check, diff=diff, limit=limit, tags=tags, extra=extra)
        shown = repeat_command(inventory, playbooks, check=check, diff=diff, limit=limit, tags=tags, env=env, extra=extra)
        record = RunRecord()
        started, clock = datetime.now(UTC), time.monotonic()
        with _named_files(settings) as settings:
            words += ["-e", f"@{settings[EXTRA_VARS]}"] if settings.get(EXTRA_VARS) else []
            interrupted, tail = _execute(folder, words + [str(path) for path in playbooks], settings, record, observer)
        seconds = time.monotonic() - clock
        status = (folder / "artifacts" / "ansible" / "rc").read_text(encoding="ascii").strip()
        code = INTERRUPTED if interrupted else int(status != "0")
        message = "\n".join(tail) if code == 1 and not record.failures else ""
        summary = {
            "lemonstand": lemonstand.__version__,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "inventory": str(inventory),
            "playbooks": [path.name for path in playbooks],
            "check": check,
            "limit": limit,
            "tags": tags,
            "exit_code": code,
            "run": run,
            "command": shown,
            **record.as_dict(),
        }
        (folder / "run.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        return RunResult(code, run, record, shown, folder, seconds, message)


def environment(extra: Mapping[str, str], inventory: Path | None = None) -> dict[str, str]:
    """All variables Ansible is started with: nothing depends on the user's shell, ansible.cfg or directory."""
    return {
        **surroundings.environment(inventory=inventory),
        "ANSIBLE_CONFIG": str(data_dir("ansible.cfg")),
        "ANSIBLE_ROLES_PATH": str(data_dir("roles")),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(_sockets()),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible-runner turns it off unless it is named
        **extra,
    }


@contextmanager
def _named_files(settings: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The same settings, with texts that this process holds in memory as files that have names for as long as a run lasts.

    Ansible takes the real path of files of variables and passwords, and what is held in memory has none. The files are in memory too, where
    the system has such a place, and for this user alone; those whose process is gone are removed by the next run.

    Args:
        settings: variables of Ansible's environment; what is held stands in them as `/proc/PID/fd/N`.
    """
    held = sorted({path for value in settings.values() for path in HELD.findall(value)})
    if not held:
        yield dict(settings)
        return
    place = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for left in place.glob(f"{NAMED}*"):
        process = left.name.removeprefix(NAMED).partition("-")[0]
        with suppress(OSError):
            if left.stat().st_uid == os.getuid() and not Path("/proc", process).exists():
                shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=f"{NAMED}{os.getpid()}-", dir=place))
    try:
        names = {}
        for number, path in enumerate(held):
            file = folder / str(number)
            file.touch(mode=0o600)
            file.write_bytes(Path(path).read_bytes())
            names[path] = str(file)
        yield {name: HELD.sub(lambda found: names[found.group()], value) for name, value in settings.items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sockets() -> Path:
    """Where Ansible keeps SSH's shared connections: a short path of ours alone, whether or not the home directory can be written."""
    for folder in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()):
        place = Path(folder, f"lemonstand-ssh-{os.getuid()}")
        if not folder.startswith("/"):
            continue
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            found = place.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return place
    return Path(tempfile.mkdtemp(prefix="lemonstand-ssh-"))


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
    # Passwords that were typed are asked for again, by Ansible; files of this process would be gone.
    passing = {name for name, value in (env or {}).items() if value.startswith("/proc/") or name in {JUDGED, *_ASKED}}
    names = ["ANSIBLE_CONFIG", "ANSIBLE_ROLES_PATH", *(name for name in env or {} if name not in passing)]
    words = ["env", *(f"{name}={shown[name]}" for name in names), str(Path(sys.executable).parent / "ansible-playbook")]
    words += _arguments(inventory, check=check, diff=diff, limit=limit, tags=tags, extra=extra)
    words += [_ASKED[name] for name in _ASKED if name in passing]
    return shlex.join([*words, *(str(path) for path in playbooks)])


JUDGED = "LEMONSTAND_JUDGED"
"""Says which files of the inventory were judged just now (playbooks/filter_plugins/judged.py). Who repeats a run has them judged again."""
_ASKED = {
    "ANSIBLE_BECOME_PASSWORD_FILE": "--ask-become-pass",
    "ANSIBLE_VAULT_PASSWORD_FILE": "--ask-vault-pass",
    "ANSIBLE_VAULT_IDENTITY_LIST": "--ask-vault-pass",
    EXTRA_VARS: "--extra-vars=@FILE-WITH-YOUR-VARIABLES",
}
"""The options of Ansible that stand for a variable whose value is no part of a command to be shown."""


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
    import ansible_runner  # noqa: PLC0415 - most commands run no playbook
    from ansible_runner.interface import init_runner  # noqa: PLC0415

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
            runner = init_runner(
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
            # It would hand on all of this process's variables, and start Ansible so that it outlives us.
            added = {name: runner.config.env[name] for name in OWN_OF_RUNNER & set(runner.config.env)}
            # Its own callback, by which it hears; it would add the caller's.
            callbacks = Path(ansible_runner.__file__).parent / "display_callback" / "callback"
            runner.config.env = {**settings, **added, "ANSIBLE_CALLBACK_PLUGINS": str(callbacks)}
            kept = [sys.executable, "-I", str(Path(keeper.__file__)), str(folder.parent / ANSIBLES_LOCK), str(os.getpid())]
            runner.config.command = [*kept, *runner.config.command]
            runner.run()
    finally:
        events.put(None)
        consumer.join()
        # ansible-runner writes the whole environment of this process there, and every event a second time.
        (folder / "artifacts" / "ansible" / "command").unlink(missing_ok=True)
        shutil.rmtree(folder / "artifacts" / "ansible" / "job_events", ignore_errors=True)
    if faults:
        raise faults[0]
    return stop.asked, tail


class _Deaf:
    """Stands between the run and who watches it: a display that fails (a closed terminal, `| head`) stops nothing."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer

    def _tell(self, what: str, *told: Any) -> None:
        if self._observer is None:
            return
        try:
            getattr(self._observer, what)(*told)
        except (OSError, ValueError, SystemExit):  # rich leaves the process where a pipe is closed; ValueError: a closed file
            self._observer = None

    def started(self, stage: str, host: str, task: str) -> None:
        """Passed on."""
        self._tell("started", stage, host, task)

    def ended(self, outcome: Outcome) -> None:
        """Passed on."""
        self._tell("ended", outcome)

    def difference(self, host: str, task: str, text: str) -> None:
        """Passed on."""
        self._tell("difference", host, task, text)

    def finished(self) -> None:
        """Passed on."""
        self._tell("finished")


def _consume(
    events: queue.SimpleQueue[dict[str, Any] | None], log: Path, record: RunRecord, observer: Observer | None, tail: list[str]
) -> None:
    """Writes the log and feeds the record until a None comes."""
    told = _Deaf(observer)
    with log.open("w", encoding="utf-8") as stream:
        while (event := events.get()) is not None:
            text = str(event.get("stdout") or "").replace("\r\n", "\n")
            if text:
                stream.write(text + "\n")
                stream.flush()
                tail.extend(line for line in text.splitlines() if line.strip())
                del tail[:-8]
            record.take(event, told)
    told.finished()


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
    """Takes Ctrl-C, SIGTERM and a closed terminal as a wish to stop Ansible, instead of ending this process in the middle of things."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    wishes = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        wishes.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop.note) for number in wishes}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


ANSIBLES_LOCK = "lock.ansible"
"""Held by Ansible's keeper and by Ansible, so also while a run goes on whose command was killed."""


@contextmanager
def _only_one(runs: Path) -> Iterator[None]:
    runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        for name in ("lock", ANSIBLES_LOCK):
            stream = stack.enter_context((runs / name).open("a+", encoding="ascii"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                killed = " (its command was killed, and Ansible is about to end)" if name == ANSIBLES_LOCK else ""
                raise LemonstandError(
                    f"another run on this site is going on{killed}", str(runs), "wait until it ends, or stop it"
                ) from None
        fcntl.flock(stream, fcntl.LOCK_UN)  # the keeper takes it; nobody else can, who has not the first one
        yield


def _new_directory(runs: Path) -> Path:
    old = sorted(path for path in runs.iterdir() if path.is_dir())
    for path in old[: max(0, len(old) - KEPT_RUNS + 1)]:
        shutil.rmtree(path, ignore_errors=True)
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    folder = runs / stem
    free = shutil.disk_usage(runs).free
    if free < FREE_OCTETS:
        raise InputError(
            f"{free // 2**20} MiB free, the record of a run needs {FREE_OCTETS // 2**20} MiB", str(runs), "make room; nothing was touched"
        )
    folder.mkdir(mode=0o700)
    return folder
