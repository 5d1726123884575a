"""A run ends with its command, however that ends: a closed terminal, a kill that nobody can catch, a pipe without a reader."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lemonstand.deploy import keeper, run_playbook
from lemonstand.errors import LemonstandError

PROGRAM = (
    "import sys; from pathlib import Path; from lemonstand.deploy import run_playbook; from lemonstand.cli.progress import observer\n"
    "from rich.console import Console\n"
    "p = Path(sys.argv[1])\n"
    "r = run_playbook(p / 'hosts.yml', [p / 'sleeps.yml'], runs=p / 'runs', observer=observer(Console()))\n"
    "(p / 'ended').write_text(str(r.exit_code)); sys.exit(r.exit_code)\n"
)
SECONDS = 30


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A playbook whose task sleeps for longer than any test."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    task = {"name": "Sleep", "ansible.builtin.command": {"argv": ["sh", "-c", f"echo $$ >>{tmp_path}/asleep; exec sleep 300"]}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"one": local, "two": local}}}), encoding="ascii")
    (tmp_path / "sleeps.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]), encoding="ascii")
    return tmp_path


def _asleep(project: Path) -> list[int]:
    """The processes that the run's tasks became, once both are there."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        words = (project / "asleep").read_text(encoding="ascii").split() if (project / "asleep").exists() else []
        if len(words) == 2:
            return [int(word) for word in words]
        time.sleep(0.1)
    raise AssertionError("the run never came to its task")


def _alive(processes: list[int]) -> list[int]:
    found = []
    for process in processes:
        try:
            if "Z" not in Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]:
                found.append(process)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _until(processes: list[int]) -> list[int]:
    deadline = time.monotonic() + SECONDS
    while _alive(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    return _alive(processes)


def _keepers(project: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(keeper.__file__).encode() in words and str(project / "runs" / "lock.ansible").encode() in words:
            found.append(int(path.parent.name))
    return found


def _free(project: Path) -> bool:
    with (project / "runs" / "lock.ansible").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.fixture(autouse=True)
def hung_up_on() -> Iterator[None]:
    """Whoever runs the tests may have told his own processes to outlive the terminal (nohup); those tried here are to hear of its end."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def started(project: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A run that sleeps."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(project)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield project, process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGABRT], ids=lambda each: each.name
)
def test_no_ansible_outlives_its_command(started: tuple[Path, subprocess.Popen[bytes]], number: signal.Signals) -> None:
    project, process = started
    tasks = _asleep(project)
    process.send_signal(number)
    process.wait(SECONDS)
    if not _free(project):  # between the command's end and Ansible's
        with pytest.raises(LemonstandError, match="another run on this site is going on"):
            run_playbook(project / "hosts.yml", [project / "sleeps.yml"], runs=project / "runs")
    assert _until(tasks) == []
    assert _until(_keepers(project)) == []
    assert _free(project)


@pytest.mark.parametrize("victim", ["keeper", "command and keeper"])
def test_a_killed_keeper_takes_ansible_along(started: tuple[Path, subprocess.Popen[bytes]], victim: str) -> None:
    project, process = started
    tasks = _asleep(project)
    if victim != "keeper":
        process.kill()
    for each in _keepers(project):
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert _until(tasks) == []
    process.wait(SECONDS)


def test_a_closed_terminal_ends_the_run(project: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, str(project)])  # noqa: S606 - into a terminal of its own
    tasks = _asleep(project)
    os.close(terminal)
    assert _until(tasks) == []
    os.waitpid(child, 0)
    assert (project / "ended").read_text(encoding="ascii") == "130", "the record is written, whoever still listens"


def test_nohup_means_what_it_says(project: Path) -> None:
    (project / "sleeps.yml").write_text(
        (project / "sleeps.yml").read_text(encoding="ascii").replace("sleep 300", "sleep 3"), encoding="ascii"
    )
    process = subprocess.Popen(["nohup", sys.executable, "-c", PROGRAM, str(project)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _asleep(project)
    process.send_signal(signal.SIGHUP)
    assert process.wait(SECONDS) == 0


def test_nobody_reads_the_display(project: Path) -> None:
    (project / "sleeps.yml").write_text(
        (project / "sleeps.yml").read_text(encoding="ascii").replace("sleep 300", "sleep 0"), encoding="ascii"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(project)], stdout=writing, stderr=subprocess.DEVNULL)
    os.close(writing)
    os.close(reading)
    process.wait(SECONDS)
    assert (project / "ended").read_text(encoding="ascii") == "0"
    (folder,) = [path for path in (project / "runs").iterdir() if path.is_dir()]
    assert '"tasks": 1' in (folder / "run.json").read_text(encoding="utf-8")


def test_the_lock_is_ansible_s_own(project: Path) -> None:
    """Another keeper finds it held; a keeper whose command is gone starts nothing."""
    lock = project / "lock"
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        words = [sys.executable, "-I", keeper.__file__, str(lock)]
        assert subprocess.run([*words, str(os.getpid()), "true"], check=False).returncode == keeper.BUSY
    assert subprocess.run([*words, "1", "true"], check=False).returncode == keeper.BUSY
    assert subprocess.run([*words, str(os.getpid()), "sh", "-c", "exit 7"], check=False).returncode == 7
    assert subprocess.run([*words, str(os.getpid()), "/nowhere"], check=False, capture_output=True).returncode == 127
