"""The policy for what comes after a crash: every service gets it, none is touched for it, and a run that died in between is made good."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "roles" / "base" / "files" / "converge_service.py"


class Manager:
    """systemd, as far as `systemctl` tells of it."""

    def __init__(self, units: Path) -> None:
        self.units = units
        self.kinds = {
            "dovecot.service": "notify",
            "ssh.service": "notify",
            "lemonstand-acme.service": "oneshot",
            "lemonstand-acme.timer": "",
        }
        self.read: dict[str, str] = {}
        self.orders: list[str] = []
        self.active = True
        self.restarts = 0
        self.main = 0
        self.enabled = "enabled"

    def drop_in(self, unit: str) -> Path:
        return self.units / f"{unit}.d" / "lemonstand-restart.conf"

    def __call__(self, *words: str, check: bool = True) -> str:
        verb, unit = words[0], words[-1]
        if verb == "is-enabled":
            return self.enabled
        if verb == "show":
            text = self.drop_in(unit).read_text() if self.drop_in(unit).exists() else ""
            return "\n".join([
                f"LoadState={'loaded' if unit in self.kinds else 'not-found'}",
                f"Type={self.kinds.get(unit, '')}",
                f"DropInPaths={self.drop_in(unit) if self.read.get(unit) else ''}",
                f"NeedDaemonReload={'no' if self.read.get(unit, '') == text else 'yes'}",
                f"ActiveState={'active' if self.active else 'inactive'}",
                "InvocationID=1",
                f"NRestarts={self.restarts}",
                f"MainPID={self.main}",
            ])  # fmt: skip
        self.orders.append(" ".join(words))
        if verb == "daemon-reload":
            self.read = {name: self.drop_in(name).read_text() for name in self.kinds if self.drop_in(name).exists()}
        if verb in ("start", "restart"):
            self.active = True
        return ""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("converge_service", str(PATH))
    spec = importlib.util.spec_from_loader("converge_service", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "MEMORY", tmp_path / "memory")
    monkeypatch.setattr(module, "UNITS", tmp_path / "units")
    (tmp_path / "units").mkdir()
    monkeypatch.setattr(module, "systemctl", Manager(tmp_path / "units"))
    return module


def _run(program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["converge-service", *words])
    assert program.main() == 0
    return capsys.readouterr().out


def test_a_running_service_gets_the_policy_and_is_not_touched(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A site that was deployed before there was a policy: no restart, no reload, so no session ends."""
    unit = tmp_path / "unit"
    unit.write_text("[Service]\n")
    manager: Manager = program.systemctl
    program.bring_policy("dovecot.service", check=False)  # one that is known to run with its files
    _run(program, monkeypatch, capsys, "dovecot.service", "--restart", str(unit), "--enable")
    manager.orders.clear()
    manager.drop_in("dovecot.service").unlink()
    manager.read.clear()

    said = _run(program, monkeypatch, capsys, "dovecot.service", "--restart", str(unit), "--enable", "--check")
    assert said.startswith("changed: would write "), said
    assert not manager.orders and not manager.drop_in("dovecot.service").exists(), "check mode does nothing"

    said = _run(program, monkeypatch, capsys, "dovecot.service", "--restart", str(unit), "--enable")
    assert manager.orders == ["daemon-reload"], "systemd reads it, the service is not touched"
    assert said.startswith("changed: write ")
    assert manager.drop_in("dovecot.service").read_text() == program.POLICY
    assert manager.drop_in("dovecot.service").stat().st_mode & 0o777 == 0o644

    manager.orders.clear()
    assert _run(program, monkeypatch, capsys, "dovecot.service", "--restart", str(unit), "--enable") == "", "a second run changes nothing"
    assert not manager.orders


def test_a_service_that_stands_still_is_restarted(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """systemd calls it active: a signal stopped its main process (SIGSTOP), and it does nothing."""
    manager: Manager = program.systemctl
    _run(program, monkeypatch, capsys, "dovecot.service")
    with subprocess.Popen(["sleep", "60"]) as process:
        manager.main = process.pid
        try:
            assert _run(program, monkeypatch, capsys, "dovecot.service") == ""
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            manager.orders.clear()
            said = _run(program, monkeypatch, capsys, "dovecot.service", "--check")
            assert said == "changed: would restart dovecot.service (its main process was stopped by a signal)\n" and not manager.orders
            _run(program, monkeypatch, capsys, "dovecot.service")
            assert "restart dovecot.service" in manager.orders
        finally:
            process.kill()


@pytest.mark.parametrize("spoilt", ["", "[Service]\nRestart=no\n", "[Service]\nRestart=always\nStartLimitBurst=1\n"])
def test_what_somebody_changed_is_put_right(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spoilt: str
) -> None:
    manager: Manager = program.systemctl
    _run(program, monkeypatch, capsys, "dovecot.service")
    manager.drop_in("dovecot.service").write_text(spoilt)
    manager.orders.clear()
    assert _run(program, monkeypatch, capsys, "dovecot.service").startswith("changed: write ")
    assert manager.read["dovecot.service"] == program.POLICY


def test_a_run_that_died_before_systemd_read_it_is_made_good(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manager: Manager = program.systemctl
    _run(program, monkeypatch, capsys, "dovecot.service")
    manager.read.clear()
    manager.orders.clear()
    _run(program, monkeypatch, capsys, "dovecot.service")
    assert manager.orders == ["daemon-reload"]


def test_crashes_of_long_ago_make_no_later_wait_longer(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manager: Manager = program.systemctl
    _run(program, monkeypatch, capsys, "dovecot.service")
    manager.restarts = 7
    manager.orders.clear()
    assert _run(program, monkeypatch, capsys, "dovecot.service", "--check") == "" and not manager.orders
    assert _run(program, monkeypatch, capsys, "dovecot.service") == ""
    assert manager.orders == ["reset-failed dovecot.service"]


def test_a_service_named_beside_gets_the_policy_alone(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manager: Manager = program.systemctl
    said = _run(program, monkeypatch, capsys, "dovecot.service", "--also", "ssh.service", "sshd-that-is-not-here.service")
    assert said.count("changed: write ") == 2
    assert "ssh.service" in manager.read
    assert not [order for order in manager.orders if "ssh" in order]


@pytest.mark.parametrize("unit", ["lemonstand-acme.service", "lemonstand-acme.timer", "not-here.service"])
def test_what_has_nothing_to_restart_gets_none(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unit: str
) -> None:
    _run(program, monkeypatch, capsys, unit)
    assert not program.systemctl.drop_in(unit).exists()


def test_the_policy_never_gives_up_and_is_bounded_in_rate(program: Any) -> None:
    lines = [line for line in program.POLICY.splitlines() if "=" in line and not line.startswith("#")]
    settings = dict(line.split("=") for line in lines)
    assert settings["Restart"] == "always"
    assert settings["StartLimitIntervalSec"] == "0"
    assert (settings["RestartSec"], settings["RestartMaxDelaySec"]) == ("1s", "15s")
    assert int(settings["RestartSteps"]) > 0, "without steps the longest wait counts for nothing"


def test_no_unit_of_ours_stays_down() -> None:
    """What follows a crash is converge-service's to say; a unit that says something for itself says the same, or ends by itself."""
    units = list(PATH.parents[3].glob("roles/*/templates/etc/systemd/system/**/*.j2"))
    assert len(units) >= 5
    for path in units:
        lines = path.read_text(encoding="utf-8").splitlines()
        said = [line for line in lines if line.startswith("Restart=")]
        again = ["Restart=on-failure"] if "Type=oneshot" in lines else ["Restart=always"]
        assert said in ([], again), f"{path}: {said}"


def test_who_renews_some_files_says_which_want_a_restart(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A renewed file restarts or reloads what reads it, once; other files that changed meanwhile are left to an apply."""
    manager: Manager = program.systemctl
    manager.kinds |= {"slapd.service": "notify"}
    files = {name: tmp_path / name for name in ("own.conf", "cert", "ca")}
    for path in files.values():
        path.write_text("first")
    words = [str(files[name]) for name in ("own.conf", "cert", "ca")]
    _run(program, monkeypatch, capsys, "slapd.service", "--restart", *words[:2], "--reload", words[2])
    part = ("slapd.service", "--renewed", words[2], "--renewed-restart", words[1])
    assert _run(program, monkeypatch, capsys, *part) == ""
    files["own.conf"].write_text("by hand")
    assert _run(program, monkeypatch, capsys, *part) == "", "that is none of theirs"
    files["ca"].write_text("second")
    assert "reload slapd.service" in _run(program, monkeypatch, capsys, *part)
    files["cert"].write_text("second")
    assert "would restart slapd.service" in _run(program, monkeypatch, capsys, *part, "--check")
    assert "restart slapd.service" in _run(program, monkeypatch, capsys, *part)
    assert _run(program, monkeypatch, capsys, *part) == ""
    assert str(files["own.conf"]) in _run(program, monkeypatch, capsys, "slapd.service", "--restart", *words[:2], "--reload", words[2])


def test_a_sites_own_drop_in_restarts_its_unit_as_it_comes_and_goes(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Who has none sees no change; one that comes, changes or goes restarts that unit once; who renews certificates leaves it alone."""
    path = tmp_path / "units" / "dovecot.service.d" / program.SITE
    _run(program, monkeypatch, capsys, "dovecot.service")
    assert _run(program, monkeypatch, capsys, "dovecot.service") == ""
    path.write_text("[Service]\nCPUWeight=50\n")
    assert _run(program, monkeypatch, capsys, "dovecot.service", "--renewed", str(tmp_path / "cert")) == (
        f"changed: reload dovecot.service ({tmp_path / 'cert'})\n"
    )
    for change in (None, "[Service]\nCPUWeight=60\n", ""):
        if change:
            path.write_text(change)
        elif change == "":
            path.unlink()
        assert _run(program, monkeypatch, capsys, "dovecot.service", "--check") == f"changed: would restart dovecot.service ({path})\n"
        assert _run(program, monkeypatch, capsys, "dovecot.service") == f"changed: restart dovecot.service ({path})\n"
        assert _run(program, monkeypatch, capsys, "dovecot.service") == ""


def test_what_a_host_has_no_use_for_is_turned_off(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped, disabled and forgotten, whether its file is still there or not; check mode says so; a second run finds nothing."""
    manager: Manager = program.systemctl
    _run(program, monkeypatch, capsys, "dovecot.service")
    manager.orders.clear()
    said = _run(program, monkeypatch, capsys, "dovecot.service", "--off", "--check")
    assert said == "changed: would stop dovecot.service\nchanged: would disable dovecot.service\n" and not manager.orders

    said = _run(program, monkeypatch, capsys, "dovecot.service", "--off")
    assert said == "changed: stop dovecot.service\nchanged: disable dovecot.service\n"
    assert manager.orders == ["stop dovecot.service", "disable --quiet dovecot.service"]
    assert not (program.MEMORY / "dovecot.service.json").exists(), "what starts again begins anew"

    manager.active, manager.enabled = False, "not-found"
    assert _run(program, monkeypatch, capsys, "dovecot.service", "--off") == ""
