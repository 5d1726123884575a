"""What is done with a lab's containers one by one: asking, waiting for systemd, running something inside."""

from __future__ import annotations

import time
from pathlib import Path

from lemonstand.errors import LemonstandError
from lemonstand.lab.shell import run

BOOT_SECONDS = 90


def inspect(container: str, template: str) -> str:
    """One of a container's properties, empty if there is no such container."""
    return run(["podman", "container", "inspect", "--format", template, container], check=False).stdout.strip()


def inside(container: str, script: str, *, stdin: str | None = None, check: bool = True) -> str:
    """Runs a shell script in a container and returns what it printed.

    Raises:
        LemonstandError: it failed.
    """
    return run(["podman", "exec", *(["-i"] if stdin is not None else []), container, "sh", "-c", script], stdin=stdin, check=check).stdout


def await_boot(container: str, host: str, log: Path | None = None) -> None:
    """Waits until systemd has started all it should.

    Raises:
        LemonstandError: it did not, or a unit failed.
    """
    deadline = time.monotonic() + BOOT_SECONDS
    state = ""
    while time.monotonic() < deadline:
        state = run(["podman", "exec", container, "systemctl", "is-system-running"], check=False).stdout.strip()
        if state in {"running", "degraded"}:
            break
        time.sleep(0.5)
    if state != "running":
        failed = run(
            ["podman", "exec", container, "systemctl", "list-units", "--failed", "--plain", "--no-legend"], check=False, log=log
        ).stdout
        raise LemonstandError(
            f"systemd on {host} is '{state or 'silent'}' after {BOOT_SECONDS} s; failed units: {failed.strip() or 'none'}",
            f"podman exec {container} systemctl --failed",
            "look at the control groups of this machine, then run `lemonstand lab up` again",
        )
