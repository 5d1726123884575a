"""Real runs of Ansible on this machine (local connection): log, record, exit codes, secrets, interruption."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from lemonstand.deploy import Outcome, RunResult, run_playbook
from lemonstand.errors import LemonstandError

SECRET = "swordfish-4711"


@dataclass
class Listener:
    """Keeps what an observer is told."""

    outcomes: list[Outcome] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    ends: int = 0

    def started(self, stage: str, host: str, task: str) -> None:
        """Not looked at."""

    def ended(self, outcome: Outcome) -> None:
        """Kept."""
        self.outcomes.append(outcome)

    def difference(self, host: str, task: str, text: str) -> None:
        """Kept."""
        self.differences.append(text)

    def finished(self) -> None:
        """Counted."""
        self.ends += 1


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An inventory of two local hosts and some playbooks."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "out": str(tmp_path)}
    inventory = {"all": {"hosts": {"one": {}, "two": {}}, "vars": local}}
    write = {
        "ansible.builtin.copy": {"content": "{{ inventory_hostname }}\n", "dest": "{{ out }}/{{ inventory_hostname }}.txt", "mode": "0600"}
    }
    secret = {
        "ansible.builtin.copy": {"content": SECRET, "dest": "{{ out }}/{{ inventory_hostname }}.secret", "mode": "0600"},
        "no_log": True,
    }
    leak = {"ansible.builtin.command": {"argv": ["false", SECRET]}, "no_log": True}
    plays = {
        "first": [{"name": "Write a file", **write}, {"name": "Write a secret", **secret}],
        "second": [
            {
                "name": "Try",
                "block": [{"name": "Rescued", "ansible.builtin.command": "false"}],
                "rescue": [{"name": "Save", "ansible.builtin.debug": {"msg": "saved"}}],
            },
            {"name": "Skip", "ansible.builtin.debug": {"msg": "never"}, "when": False},
        ],
        "fails": [
            {
                "name": "Complain",
                "ansible.builtin.command": {"argv": ["sh", "-c", "echo 'no room' >&2; exit 3"]},
                "when": "inventory_hostname == 'two'",
            }
        ],
        "leaks": [{"name": "Hide", **leak}],
        "sleeps": [
            {
                "name": "Sleep",
                "ansible.builtin.command": {"argv": ["sh", "-c", "touch {{ out }}/asleep; echo $$ >> {{ out }}/pids; exec sleep 30"]},
            }
        ],
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
    for name, tasks in plays.items():
        play = {"name": f"Stage {name}", "hosts": "all", "gather_facts": False, "tasks": tasks}
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
    (tmp_path / "broken.yml").write_text("- hosts: all\n  taskz: []\n", encoding="utf-8")
    return tmp_path


def start(project: Path, *names: str, **options: object) -> tuple[RunResult, Listener]:
    """Runs the project's playbooks of these names."""
    listener = Listener()
    books = [project / f"{name}.yml" for name in names]
    result = run_playbook(project / "hosts.yml", books, runs=project / "runs", observer=listener, **options)  # type: ignore[arg-type]
    return result, listener


def everything_written(result: RunResult) -> str:
    """All text a run left behind."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in result.directory.rglob("*") if path.is_file())


def test_two_playbooks_in_one_run(project: Path) -> None:
    result, listener = start(project, "first", "second", diff=True)
    assert result.exit_code == 0
    assert result.record.failures == [], "a rescued failure is none"
    tally = result.record.hosts["one"]
    assert (tally.ok, tally.changed, tally.failures, tally.skipped) == (1, 2, 0, 1)
    assert list(result.record.stage_seconds) == ["Stage first", "Stage second"]
    assert {outcome.task for outcome in result.record.changes} == {"Write a file", "Write a secret"}, "hidden changes count as well"
    assert any("+one" in text for text in listener.differences)
    assert listener.ends == 1
    assert (project / "two.txt").read_text(encoding="ascii") == "two\n"

    again, _ = start(project, "first", "second")
    assert again.record.changes == []


def test_run_is_written_down_for_us_alone(project: Path) -> None:
    result, _ = start(project, "first")
    data = json.loads((result.directory / "run.json").read_text(encoding="utf-8"))
    assert data["exit_code"] == 0
    assert data["hosts"]["two"]["tasks"] == 2
    assert {task["task"] for task in data["tasks"]} == {"Write a file", "Write a secret"}
    assert all(task["seconds"] > 0 for task in data["tasks"])
    assert "TASK [Write a file]" in result.log.read_text(encoding="utf-8")
    assert result.directory.stat().st_mode & 0o077 == 0


def test_check_mode_changes_nothing(project: Path) -> None:
    result, _ = start(project, "first", check=True)
    assert result.exit_code == 0
    assert len(result.record.changes) == 4
    assert not (project / "one.txt").exists()


def test_limit_and_tags_reach_ansible(project: Path) -> None:
    result, _ = start(project, "first", limit="two")
    assert list(result.record.hosts) == ["two"]
    result, _ = start(project, "first", tags="nothing-has-this-tag")
    assert result.record.outcomes == []


def test_failure_says_what_and_where(project: Path) -> None:
    result, _ = start(project, "first", "fails")
    assert result.exit_code == 1
    (failure,) = result.record.failures
    assert (failure.host, failure.task, failure.stage) == ("two", "Complain", "Stage fails")
    assert "no room" in failure.message
    assert failure.path.startswith(f"{project}/fails.yml:")
    assert result.message == "", "a task's failure needs no second message"
    # The command to repeat is a real one.
    again = subprocess.run(shlex.split(result.command), check=False, capture_output=True, text=True)
    assert again.returncode == 2
    assert "no room" in again.stdout


def test_no_secret_is_left_behind(project: Path) -> None:
    os.environ["SOME_TOKEN"] = SECRET
    try:
        done, listener = start(project, "first", diff=True)
        failed, _ = start(project, "leaks")
    finally:
        del os.environ["SOME_TOKEN"]
    assert (project / "one.secret").read_text(encoding="ascii") == SECRET
    assert failed.exit_code == 1
    assert "handles secrets" in failed.record.failures[0].message
    for result in (done, failed):
        assert SECRET not in everything_written(result)
        assert SECRET not in repr(result)
    assert not any(SECRET in text for text in listener.differences)


def test_syntax_error_is_shown(project: Path) -> None:
    result, _ = start(project, "broken")
    assert result.exit_code == 1
    assert "taskz" in result.message


def test_ansible_gets_our_configuration_not_the_users(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "ansible.cfg").write_text("[defaults]\nroles_path = /nowhere\n", encoding="ascii")
    monkeypatch.chdir(project)
    monkeypatch.setenv("ANSIBLE_CONFIG", str(project / "ansible.cfg"))
    say = {
        "name": "Say",
        "ansible.builtin.debug": {"msg": "cfg={{ ansible_config_file }} check={{ lookup('config', 'HOST_KEY_CHECKING') }}"},
    }
    (project / "say.yml").write_text(yaml.safe_dump([{"hosts": "one", "gather_facts": False, "tasks": [say]}]), encoding="utf-8")
    result, _ = start(project, "say")
    log = result.log.read_text(encoding="utf-8")
    assert f"cfg={Path(__file__).resolve().parents[2] / 'ansible.cfg'}" in log
    assert "check=True" in log


def test_second_run_at_the_same_time_is_refused(project: Path) -> None:
    thread = threading.Thread(target=start, args=(project, "sleeps"), kwargs={"limit": "one"}, daemon=True)
    sleepy = yaml.safe_load((project / "sleeps.yml").read_text(encoding="utf-8"))
    sleepy[0]["tasks"][0]["ansible.builtin.command"] = "sleep 3"
    (project / "sleeps.yml").write_text(yaml.safe_dump(sleepy), encoding="utf-8")
    thread.start()
    time.sleep(1)
    with pytest.raises(LemonstandError, match="another run"):
        start(project, "first")
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_interruption_ends_the_run_with_130(project: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lemonstand.deploy import run_playbook\n"
        "p = Path(sys.argv[1]); print('go', flush=True)\n"
        "r = run_playbook(p / 'hosts.yml', [p / 'sleeps.yml'], runs=p / 'runs')\n"
        "print(r.directory); sys.exit(r.exit_code)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(project)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (project / "asleep").exists():
        time.sleep(0.1)
    assert (project / "asleep").exists(), "the run never came to its task"
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - asked < 10
    assert json.loads(Path(output.strip(), "run.json").read_text(encoding="utf-8"))["exit_code"] == 130
    left = (project / "pids").read_text(encoding="ascii").split()
    deadline = time.monotonic() + 10  # seconds until the dead are taken away, on a machine that is busy; the tasks would sleep for longer
    while left and time.monotonic() < deadline:
        left = [number for number in left if Path("/proc", number, "cmdline").exists()]
        time.sleep(0.1)
    assert left == [], "the tasks of the interrupted run go on"


def test_old_runs_are_removed(project: Path) -> None:
    for number in range(25):
        (project / "runs" / f"20200101T0000{number:02}.000000Z").mkdir(parents=True)
    start(project, "second")
    left = sorted(path.name for path in (project / "runs").iterdir() if path.is_dir())
    assert len(left) == 20
    assert left[0].startswith("20200101T000006")
