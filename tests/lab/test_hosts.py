"""Hosts under the services: settings that a boot brings back, settings of SSH that nobody could come in by."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

from lemonstand.paths import lab_dir

from .conftest import NAME, Command

TOOL = "/usr/local/lib/lemonstand/sshd-settings"
OURS = "/etc/ssh/sshd_config.d/00-lemonstand.conf"
ROLLBACK_SECONDS = 8


def _new_shell(host: str) -> bool:
    """Whether a connection of its own is let in."""
    command = ["ssh", "-F", str(lab_dir(NAME) / "ssh" / "config"), "-o", "ControlPath=none", host, "true"]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def test_a_boot_and_a_new_interface_have_the_role_s_settings(
    deployed: str, lemonstand: Command, on: Callable[..., str], last_run: Callable[[], dict[str, Any]]
) -> None:
    """What systemd-sysctl does at boot and udev for each interface: patterns of the file reach all there is; `default` what comes."""
    names = ["net.ipv4.conf.dmz0.accept_redirects", "net.ipv6.conf.dmz0.accept_ra", "net.ipv4.conf.default.send_redirects"]
    on("relay", "sysctl", "-q", "-w", *(f"{name}=1" for name in names))
    planned = lemonstand("plan", "--lab", deployed, "--limit", "relay").stdout
    assert all(name in planned for name in names)
    on("relay", "systemctl", "restart", "systemd-sysctl.service")
    assert on("relay", "sysctl", "-n", *names).split() == ["0", "0", "0"]
    try:
        on("relay", "ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
        late = [f"net.ipv{version}.conf.late0.accept_redirects" for version in (4, 6)]
        assert on("relay", "sysctl", "-n", *late, "net.ipv6.conf.late0.accept_ra").split() == ["0", "0", "0"]
    finally:
        on("relay", "ip", "link", "del", "late0")
    lemonstand("apply", "--lab", deployed, "--limit", "relay", "--stage", "activate")
    assert last_run()["changes"] == []


def test_settings_that_nobody_could_come_in_by_are_refused(deployed: str, on: Callable[..., str]) -> None:
    """What sshd does not take, and what would shut out who is here now."""
    assert deployed
    before = on("relay", "cat", OURS)
    on("relay", f"sed 's/^ *AllowUsers .*/AllowUsers mallory/' {OURS} >/run/mutant && ! {TOOL} validate /run/mutant 2>/run/said")
    assert "root, as whom Ansible came, would be shut out" in on("relay", "cat", "/run/said")
    on("relay", f"sed 's/^MACs .*/MACs no-such-mac/' {OURS} >/run/mutant && ! {TOOL} validate /run/mutant 2>/run/said")
    assert "sshd does not take it" in on("relay", "cat", "/run/said")
    on("relay", "rm", "/run/mutant", "/run/said")
    assert on("relay", "cat", OURS) == before


def test_settings_that_the_controller_can_not_come_in_by_are_taken_back(
    deployed: str, lemonstand: Command, on: Callable[..., str], last_run: Callable[[], dict[str, Any]]
) -> None:
    """A cipher no client offers: sshd takes it, the account is listed, and still nobody comes in. The open session lives on."""
    before = on("relay", "cat", OURS)
    on("relay", f"sed -i '1a Ciphers aes128-cbc' {OURS} && {TOOL} arm --rollback {ROLLBACK_SECONDS} && systemctl reload ssh")
    assert not _new_shell("relay"), "new connections are refused"
    assert on("relay", "hostname").strip() == "relay", "the one that is open lives on"
    time.sleep(ROLLBACK_SECONDS + 3)
    assert on("relay", "cat", OURS) == before
    assert _new_shell("relay")
    on("relay", TOOL, "confirm", code=1)
    lemonstand("apply", "--lab", deployed, "--limit", "relay")
    on("relay", TOOL, "confirm")
    lemonstand("apply", "--lab", deployed, "--limit", "relay")
    assert last_run()["changes"] == []
