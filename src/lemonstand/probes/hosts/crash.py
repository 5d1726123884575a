"""A service whose main process is killed: whether it gets up again, and how soon. Runs on the host, as root."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

from lemonstand.probes.events import Refused

LOOK_SECONDS = 0.2


def killed(units: list[str], within: float) -> dict[str, dict[str, Any]]:
    """Kills the main process of each unit, all at once, and watches them come back.

    Args:
        units: names of services that run.
        within: seconds to watch.

    Returns:
        For each unit: `seconds` until it was active with another main process and all listened again that had listened (null if it did not
        come to that), `state` at the end, and `missing`, the sockets nobody listens on.

    Raises:
        Refused: one of them has no main process to kill.
    """
    before = {unit: show(unit) for unit in units}
    absent = [unit for unit, state in before.items() if state["ActiveState"] != "active" or int(state["MainPID"]) <= 1]
    if absent:
        raise Refused(f"no main process: {', '.join(absent)}")
    wanted = listening()
    began = time.monotonic()
    for state in before.values():
        os.kill(int(state["MainPID"]), signal.SIGKILL)
    seconds: dict[str, float | None] = dict.fromkeys(units)
    missing = wanted
    while time.monotonic() - began < within and not all(seconds.values()):
        time.sleep(LOOK_SECONDS)
        missing = wanted - listening()
        for unit in [unit for unit, took in seconds.items() if took is None]:
            state = show(unit)
            if state["ActiveState"] == "active" and state["MainPID"] not in ("0", before[unit]["MainPID"]) and not missing:
                seconds[unit] = round(time.monotonic() - began, 1)
    return {
        unit: {
            "seconds": seconds[unit],
            "state": " ".join(show(unit)[name] for name in ("ActiveState", "SubState", "Result")),
            "missing": sorted(missing),
        }
        for unit in units
    }


def show(unit: str) -> dict[str, str]:
    """What systemd says of a unit."""
    done = subprocess.run(
        ["systemctl", "show", unit, "-p", "ActiveState,SubState,MainPID,Result"], capture_output=True, text=True, check=True
    )
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines() if "=" in line)


def listening() -> set[str]:
    """TCP sockets that listen: address and port."""
    done = subprocess.run(["ss", "-Htln"], capture_output=True, text=True, check=True)
    return {line.split()[3] for line in done.stdout.splitlines() if line.strip()}
