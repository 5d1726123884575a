"""Updates: what apt's words mean, how an installed package becomes one again, and in which order hosts are renewed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lemonstand.paths import data_dir
from lemonstand.policy.releases import load_releases


def _program(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"of_a_host_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


UPDATES = _program(data_dir("roles") / "updates" / "files" / "host_updates.py")


@pytest.mark.parametrize(
    ("line", "name", "old", "new"),
    [
        ("Inst dovecot-core [1:2.4.1-6] (1:2.4.1-6+lemon1 lemonstand:lab [amd64]) []", "dovecot-core", "1:2.4.1-6", "1:2.4.1-6+lemon1"),
        ("Inst libnew1 (1.0-1 Debian:13/stable [amd64])", "libnew1", None, "1.0-1"),
        ("Inst tzdata [2025a-1] (2025b-1 Debian:13/stable, Debian-Security:13/stable-security [all])", "tzdata", "2025a-1", "2025b-1"),
    ],
)
def test_what_apt_would_install_is_understood(line: str, name: str, old: str | None, new: str) -> None:
    hit = UPDATES.INSTALL.match(line)
    assert hit
    assert (hit["name"], hit["old"], hit["new"]) == (name, old, new)


def test_other_lines_of_apt_are_none() -> None:
    for line in ("Conf dovecot-core (1:2.4.1-6+lemon1 lemonstand:lab [amd64])", "Remv old [1.0]", "0 upgraded, 0 newly installed"):
        assert UPDATES.INSTALL.match(line) is None


def test_a_newer_kernel_is_told_by_its_numbers() -> None:
    assert UPDATES.numbers("6.12.10-amd64") > UPDATES.numbers("6.12.9-amd64")


def test_a_running_program_that_is_replaced_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sleep"
    shutil.copy2("/bin/sleep", program)
    monkeypatch.setattr(UPDATES, "PROGRAMS", (f"{tmp_path}/",))
    with subprocess.Popen([program, "60"]) as running:
        try:
            os.sched_yield()
            process = Path("/proc", str(running.pid))
            before = {path for path, gone in UPDATES.looked_into(process)[1].items() if gone}
            other = tmp_path / "sleep.new"
            shutil.copy2("/bin/sleep", other)
            other.rename(program)
            after = {path for path, gone in UPDATES.looked_into(process)[1].items() if gone}
        finally:
            running.kill()
    assert (before, after) == (set(), {str(program)})


@pytest.mark.skipif(os.geteuid() != 0, reason="files keep their owners")
def test_an_installed_package_becomes_a_package_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UPDATES, "STATE", tmp_path)
    version = UPDATES.installed(["base-files"])["base-files"]
    UPDATES.pack("base-files", version)
    listed = subprocess.run(["dpkg-deb", "--contents", tmp_path / "old" / "base-files.deb"], capture_output=True, text=True, check=True)
    assert "./etc/debian_version" in listed.stdout
    control = subprocess.run(
        ["dpkg-deb", "--info", tmp_path / "old" / "base-files.deb", "conffiles"], capture_output=True, text=True, check=True
    )
    assert "/etc/debian_version" in control.stdout
    assert not (tmp_path / "packing").exists()


def test_what_was_cut_off_while_it_was_written_counts_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mark.json"
    assert UPDATES.read(path) == {}
    path.write_text('{"phase": "ins', encoding="ascii")
    assert UPDATES.read(path) == {}
    UPDATES.write(path, {"phase": "install"})
    assert UPDATES.read(path) == {"phase": "install"}


def test_an_order_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert UPDATES.main(["upgrade-everything"]) == 2
    assert "host-updates status" in capsys.readouterr().err


def test_hosts_and_checks_mean_the_same_releases() -> None:
    sys.path.insert(0, str(data_dir("playbooks") / "files"))
    try:
        state = _program(data_dir("playbooks") / "files" / "host_state.py")
    finally:
        sys.path.pop(0)
    assert {str(each.version) for each in load_releases().values()} == {state.RELEASE}
