"""Kernel settings on a host: applied and read back, and those of IPv6 left out where the kernel has no IPv6."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/sysctl/files/apply_sysctls.py"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A kernel's settings in a directory: IPv4 only."""
    for name in ("net/ipv4/ip_forward", "net/ipv4/tcp_syncookies"):
        path = tmp_path / "proc/sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0\n", encoding="ascii")
    return tmp_path


def _apply(root: Path, settings: dict[str, Any]) -> int:
    program = SimpleNamespace()
    exec(compile(PROGRAM.read_text(encoding="utf-8"), str(PROGRAM), "exec"), program.__dict__)  # noqa: S102 - as the host does it
    program.IPV6 = root / "proc/sys/net/ipv6/conf"
    program.pathlib = SimpleNamespace(Path=lambda *parts: root.joinpath(*(part.lstrip("/") for part in parts)))
    order = {"check": False, "settings": settings, "not_ours": []}
    code: int = program.main_encoded(base64.b64encode(json.dumps(order).encode()).decode())
    return code


@pytest.mark.parametrize("name", ["net.ipv6.conf.all.accept_redirects", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.default.accept_ra"])
def test_a_kernel_without_ipv6_needs_no_setting_of_it(name: str, proc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _apply(proc, {name: 0, "net.ipv4.ip_forward": 1}) == 0
    assert (proc / "proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip() == "1"
    assert name not in capsys.readouterr().out
    assert json.loads((proc / "run/lemonstand/sysctl-skipped.json").read_text(encoding="ascii")) == [name]


def test_a_kernel_with_ipv6_gets_it(proc: Path) -> None:
    path = proc / "proc/sys/net/ipv6/conf/all/forwarding"
    path.parent.mkdir(parents=True)
    path.write_text("0\n", encoding="ascii")
    assert _apply(proc, {"net.ipv6.conf.all.forwarding": 1}) == 0
    assert path.read_text(encoding="ascii") == "1"


@pytest.mark.parametrize("name", ["net.ipv4.no_such", "net.netfilter.nf_conntrack_max"])
def test_what_else_is_missing_is_a_fault(name: str, proc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert proc.is_dir()
    assert _apply(proc, {name: 1}) == 1
    assert name in capsys.readouterr().err
