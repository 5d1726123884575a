"""Kernel settings on a host: applied and read back, named as sysctl.d(5) has it, on every interface, and none where there is nothing."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = Path(__file__).resolve().parents[2] / "roles/sysctl/files/apply_sysctls.py"


def _put(root: Path, values: dict[str, object]) -> None:
    for name, value in values.items():
        path = root / "proc/sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n", encoding="ascii")


def _has(root: Path, name: str) -> str:
    return (root / "proc/sys" / name).read_text(encoding="ascii").strip()


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A kernel's settings in a directory: IPv4 only."""
    _put(tmp_path, {"net/ipv4/ip_forward": 0, "net/ipv4/tcp_syncookies": 0})
    return tmp_path


def _program(root: Path) -> Any:
    program = SimpleNamespace()
    exec(compile(PROGRAM.read_text(encoding="utf-8"), str(PROGRAM), "exec"), program.__dict__)  # noqa: S102 - as the host does it
    program.ROOT, program.REPORT = root / "proc/sys", root / "run/lemonstand/sysctl-skipped.json"
    return program


def _apply(root: Path, settings: dict[str, Any], *, check: bool = False, not_ours: tuple[str, ...] = ()) -> int:
    order = {"check": check, "settings": settings, "not_ours": not_ours}
    code: int = _program(root).main_encoded(base64.b64encode(json.dumps(order).encode()).decode())
    return code


@pytest.mark.parametrize("name", ["net.ipv6.conf.all.accept_redirects", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.*.accept_ra"])
def test_a_kernel_without_ipv6_needs_no_setting_of_it(name: str, proc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _apply(proc, {name: 0, "net.ipv4.ip_forward": 1}) == 0
    assert _has(proc, "net/ipv4/ip_forward") == "1"
    assert name not in capsys.readouterr().out
    assert json.loads((proc / "run/lemonstand/sysctl-skipped.json").read_text(encoding="ascii")) == [name]


def test_a_kernel_with_ipv6_gets_it(proc: Path) -> None:
    _put(proc, {"net/ipv6/conf/all/forwarding": 0})
    assert _apply(proc, {"net.ipv6.conf.all.forwarding": 1}) == 0
    assert _has(proc, "net/ipv6/conf/all/forwarding") == "1"


@pytest.mark.parametrize("name", ["net.ipv4.no_such", "net.netfilter.nf_conntrack_max", "net.ipv4.conf.*.no_such"])
def test_what_else_is_missing_is_a_fault(name: str, proc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _apply(proc, {name: 1}) == 1
    assert name in capsys.readouterr().err


def test_what_a_kernel_may_not_have_is_left_out(proc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _apply(proc, {"-kernel.yama.ptrace_scope": 2, "-net.ipv4.tcp_syncookies": 1}) == 0
    assert capsys.readouterr().out == "changed: net.ipv4.tcp_syncookies from 0 to 1\n"
    assert json.loads((proc / "run/lemonstand/sysctl-skipped.json").read_text(encoding="ascii")) == ["kernel.yama.ptrace_scope"]


def test_what_is_not_ours_is_left_alone(proc: Path) -> None:
    assert _apply(proc, {"-net.ipv4.tcp_syncookies": 1}, not_ours=("net.ipv4.tcp_syncookies",)) == 0
    assert _has(proc, "net/ipv4/tcp_syncookies") == "0"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("net.ipv4.conf.eth0.forwarding", ["net", "ipv4", "conf", "eth0", "forwarding"]),
        ("net/ipv4/conf/eth0.7/forwarding", ["net", "ipv4", "conf", "eth0.7", "forwarding"]),
        ("net.ipv4.conf.eth0/7.forwarding", ["net", "ipv4", "conf", "eth0.7", "forwarding"]),
    ],
)
def test_names_are_read_as_at_boot(name: str, parts: list[str], proc: Path) -> None:
    assert _program(proc).parts(name) == parts


DEVICES = st.lists(st.from_regex(r"\A[a-z]{2,5}[0-9](\.[0-9]{1,3})?\Z"), unique=True, max_size=5)


@given(devices=DEVICES, start=st.lists(st.integers(0, 1), min_size=7, max_size=7), wanted=st.integers(0, 1), data=st.data())
def test_a_pattern_is_every_interface_and_those_to_come(devices: list[str], start: list[int], wanted: int, data: st.DataObject) -> None:
    """Check mode says what a run then does, a second run does nothing, and a name of its own goes before the pattern."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        there = ["all", "default", *devices]
        _put(root, {f"net/ipv6/conf/{device}/accept_ra": value for device, value in zip(there, start, strict=False)})
        settings = {"net.ipv6.conf.*.accept_ra": wanted}
        own = data.draw(st.sampled_from(devices)) if devices else ""
        if own:
            settings[f"net/ipv6/conf/{own}/accept_ra"] = 2
        said = []
        for check in (True, False, False):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert _apply(root, settings, check=check) == 0
            said.append(out.getvalue())
        assert said[0].replace("would set ", "") == said[1]
        assert said[2] == ""
        assert {device: _has(root, f"net/ipv6/conf/{device}/accept_ra") for device in there} == {
            device: "2" if device == own else str(wanted) for device in there
        }


@pytest.mark.parametrize(("forwarding", "said"), [(1, True), (0, False)])
def test_check_mode_knows_what_forwarding_does_to_redirects(
    forwarding: int, said: bool, proc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _put(proc, {"net/ipv4/conf/all/forwarding": forwarding, "net/ipv4/conf/all/accept_redirects": 0})
    _apply(proc, {"net.ipv4.conf.*.forwarding": 0, "net.ipv4.conf.*.accept_redirects": 0}, check=True)
    assert ("would set net.ipv4.conf.all.accept_redirects from 1 to 0" in capsys.readouterr().out) is said


def test_forwarding_comes_first_and_default_after_the_interfaces(proc: Path) -> None:
    """The kernel resets redirects when IPv4's forwarding changes, and hands `default` on to interfaces nobody has set."""
    _put(
        proc,
        {f"net/ipv4/conf/{device}/{name}": 1 for device in ("all", "default", "dmz0") for name in ("forwarding", "accept_redirects")},
    )
    program = _program(proc)
    wanted = program.expanded({"net.ipv4.conf.*.accept_redirects": 0, "net.ipv4.conf.*.forwarding": 0})
    order = ["/".join(path[-2:]) for path in sorted(wanted, key=program.turn)]
    assert order == [f"{device}/{name}" for name in ("forwarding", "accept_redirects") for device in ("dmz0", "default", "all")]
