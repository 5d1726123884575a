"""What a machine must offer for a lab: each lack has a name and a remedy, and nothing is changed before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lemonstand.errors import LemonstandError
from lemonstand.lab import machine
from lemonstand.lab.topology import Topology

TOPOLOGY = Topology("unit", "10.99")


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that lacks nothing, whatever this one is like."""
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(machine, "cgroup_v1", lambda: False)
    _routes(monkeypatch, [])
    return monkeypatch


def _routes(monkeypatch: pytest.MonkeyPatch, routes: list[dict[str, Any]]) -> None:
    class Done:
        stdout = json.dumps(routes)

    monkeypatch.setattr(machine, "run", lambda *words, **options: Done())


def _refusal(others: dict[str, str] | None = None) -> LemonstandError:
    with pytest.raises(LemonstandError) as caught:
        machine.check(TOPOLOGY, other_prefixes=others or {})
    return caught.value


def test_a_fit_machine_passes(fit: pytest.MonkeyPatch) -> None:
    machine.check(TOPOLOGY, other_prefixes={"other": "10.98"})


def test_no_root(fit: pytest.MonkeyPatch) -> None:
    fit.setattr(machine.os, "geteuid", lambda: 1000)
    assert "sudo" in _refusal().remedy


def test_no_podman(fit: pytest.MonkeyPatch) -> None:
    fit.setattr(machine.shutil, "which", lambda tool: None if tool in {"podman", "nc"} else tool)
    refusal = _refusal()
    assert "podman" in refusal.what and "nc" in refusal.what
    assert "apt-get install netcat-openbsd podman" in refusal.remedy


def test_control_groups_without_systemd_hierarchy(fit: pytest.MonkeyPatch) -> None:
    fit.setattr(machine, "cgroup_v1", lambda: True)
    fit.setattr(machine.Path, "is_dir", lambda self: False)
    assert "mount -t cgroup" in _refusal().remedy


def test_control_groups_of_version_1_need_runc(fit: pytest.MonkeyPatch) -> None:
    fit.setattr(machine, "cgroup_v1", lambda: True)
    fit.setattr(machine.Path, "is_dir", lambda self: True)
    fit.setattr(machine.shutil, "which", lambda tool: None if tool == "runc" else tool)
    assert "apt-get install runc" in _refusal().remedy


def test_another_lab_has_the_network(fit: pytest.MonkeyPatch) -> None:
    refusal = _refusal({"other": "10.99"})
    assert "'other'" in refusal.what and "--prefix 10.100" in refusal.remedy


@pytest.mark.parametrize(
    ("route", "named"),
    [({"dst": "10.99.4.0/24", "dev": "eth7"}, "10.99.4.0/24 dev eth7"), ({"dst": "10.0.0.0/8", "dev": "tun0"}, "10.0.0.0/8 dev tun0")],
)
def test_a_route_of_the_machine_is_in_the_way(fit: pytest.MonkeyPatch, route: dict[str, str], named: str) -> None:
    _routes(fit, [{"dst": "default", "dev": "eth0"}, route])
    refusal = _refusal()
    assert named in refusal.what and "--prefix 10.100" in refusal.remedy


def test_a_resolver_of_the_machine_is_in_the_way(fit: pytest.MonkeyPatch, tmp_path: Path) -> None:
    resolvers = tmp_path / "resolv.conf"
    resolvers.write_text("nameserver 10.99.0.2\n", encoding="ascii")
    fit.setattr(machine, "Path", lambda *parts: resolvers if parts == ("/etc/resolv.conf",) else Path(*parts))
    assert "10.99.0.2" in _refusal().what


def test_memory_and_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable: 1024000 kB\n", encoding="ascii")
    monkeypatch.setattr(machine, "Path", lambda *parts: meminfo)
    with pytest.raises(LemonstandError, match="memory"):
        machine.check_space(7)
    meminfo.write_text("MemAvailable: 90240000 kB\n", encoding="ascii")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10 * 2**20})())
    with pytest.raises(LemonstandError, match="10 MiB free"):
        machine.check_space(7)


def test_kernel_settings_are_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "KERNEL_SETTINGS", {"fs/low": 100, "fs/high": 100})
    (tmp_path / "fs").mkdir()
    (tmp_path / "fs/low").write_text("7", encoding="ascii")
    (tmp_path / "fs/high").write_text("1000", encoding="ascii")
    monkeypatch.setattr(machine, "Path", lambda *parts: tmp_path / Path(*parts).relative_to("/proc/sys"))
    machine.raise_settings()
    machine.raise_settings()
    assert (tmp_path / "fs/low").read_text(encoding="ascii") == "100"
    assert (tmp_path / "fs/high").read_text(encoding="ascii") == "1000"
    machine.restore_settings()
    assert (tmp_path / "fs/low").read_text(encoding="ascii") == "7"
