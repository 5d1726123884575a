#!/usr/bin/python3
"""Brings a systemd unit to the configuration on disk, whoever changed it and whenever.

    converge-service UNIT [--restart FILE...] [--reload FILE...] [--enable] [--also UNIT...] [--check]
    converge-service UNIT [--renewed FILE...] [--renewed-restart FILE...] [--check]
    converge-service UNIT --off [--check]

What the unit was last started or reloaded with is remembered (/var/lib/lemonstand/converge): of each file a digest and when it was
written, and which start of the unit it was. A file that differs restarts or reloads the unit, a unit that isn't active is started, one
whose main process was stopped by a signal is restarted, otherwise nothing happens. So a change is never lost, even if the run that made
it died before it got here. A file that was written anew and holds the same may have held something else in between, and the unit may run
with that: it is reloaded, and restarted if it was started since.
Every service gets the same policy for what comes after a crash (POLICY below), as a drop-in that systemd reads without touching the
service; so do those named by --also, of which nothing else is touched.
A site's own drop-in of the unit (SITE below) counts as one of its files for a restart, and so does that it is gone.
The second form is for who renews some of the unit's files between two runs: a running unit is reloaded (or restarted) if one of them
differs, and what is remembered of its other files stays. The third is for what a host has no use for: the unit is stopped, and starts at
no boot, whether its file is still there or not. Every action is a line `changed: ...`; with --check nothing is done and the
lines say `changed: would ...`. Exit status 1: the unit is not active afterwards; the end of its journal is printed.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import time

MEMORY = pathlib.Path("/var/lib/lemonstand/converge")
UNITS = pathlib.Path("/etc/systemd/system")
SITE = "lemonstand-site.conf"
PROPERTIES = "LoadState,Type,DropInPaths,NeedDaemonReload,ActiveState,InvocationID,NRestarts,MainPID"
ENABLED = {"enabled", "alias", "static", "indirect", "generated"}
"""What `systemctl is-enabled` says of a unit for which nothing is to be done."""
Stamp = list[str | int | None]
"""A file's digest, and when it was written (nanoseconds; null where nobody wrote that down)."""
POLICY = """\
# Written by converge-service: what follows a crash, the same for every service (docs/decisions/0023-services-get-up-again.md).
[Unit]
# Never given up; the growing delay bounds the rate.
StartLimitIntervalSec=0

[Service]
# Not on-failure: a stray SIGTERM counts as a clean end.
Restart=always
RestartSec=1s
RestartSteps=6
RestartMaxDelaySec=15s
# The kernel ends one process for want of memory: its parent replaces it, the others go on.
OOMPolicy=continue
# What a dead main process leaves behind holds its successor up no longer than this.
TimeoutStopSec=20s
"""


def digest(name: str) -> str:
    """A digest of a file, or of a directory with all that is in it; "absent" if there is nothing."""
    path = pathlib.Path(name)
    total = hashlib.sha256()
    if path.is_dir():
        for item in sorted(path.rglob("*")):
            if item.is_file():
                total.update(str(item.relative_to(path)).encode() + b"\0" + hashlib.sha256(item.read_bytes()).digest())
    elif path.exists():
        total.update(path.read_bytes())
    else:
        return "absent"
    return total.hexdigest()


def written(name: str) -> int:
    """When a file, or the newest file of a directory, was written; nanoseconds, 0 if there is none."""
    path = pathlib.Path(name)
    files = [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path] if path.exists() else []
    return max((item.stat().st_mtime_ns for item in files), default=0)


def remembered(memory: pathlib.Path) -> tuple[dict[str, Stamp], str | None]:
    """What the unit was last brought to, and which start of it that was; None where nothing is known."""
    known = json.loads(memory.read_text()) if memory.exists() else {}
    return (known["files"], known["start"]) if "files" in known else ({path: [found, None] for path, found in known.items()}, None)


def drop_in(unit: str, known: dict[str, Stamp]) -> list[str]:
    """The site's own drop-in of a unit, where there is one or was one."""
    path = UNITS / (unit + ".d") / SITE
    return [str(path)] if path.exists() or str(path) in known else []


def systemctl(*words: str, check: bool = True) -> str:
    """What systemctl printed; RuntimeError if it failed and that matters."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError("systemctl {}: {}".format(" ".join(words), done.stderr.strip()))
    return done.stdout.strip()


def show(unit: str) -> dict[str, str]:
    """What systemd says of a unit, in one question."""
    return dict(line.partition("=")[::2] for line in systemctl("show", "-p", PROPERTIES, unit).splitlines())


def is_active(unit: str, patience: float = 0) -> bool:
    """Whether a unit works; one that is still reading its files anew gets its time.

    Dovecot says so after `systemctl reload` has returned.
    """
    until = time.monotonic() + patience
    while True:
        state = show(unit).get("ActiveState", "")
        if state != "reloading" or time.monotonic() > until:
            return state in ("active", "reloading")
        time.sleep(0.1)


def is_stopped(pid: str) -> bool:
    """Whether a process was stopped by a signal (proc_pid_stat(5): state T): systemd calls its unit active, and it does nothing."""
    try:
        return pathlib.Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def bring_policy(unit: str, check: bool, shown: dict[str, str] | None = None) -> None:
    """Give a service the policy for what comes after a crash. A service that runs is not touched."""
    shown = show(unit) if shown is None else shown
    # What runs once and ends has nothing to restart; another kind of unit has no such settings.
    if not unit.endswith(".service") or shown["LoadState"] != "loaded" or shown["Type"] == "oneshot":
        return
    path = UNITS / (unit + ".d") / "lemonstand-restart.conf"
    if not path.is_file() or path.read_text() != POLICY:
        print("changed: {}write {}".format("would " if check else "", path))
        if check:
            return
        path.parent.mkdir(mode=0o755, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(POLICY)
        new.chmod(0o644)
        new.replace(path)
    elif check or (str(path) in shown["DropInPaths"].split() and shown["NeedDaemonReload"] == "no"):
        return
    systemctl("daemon-reload")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("unit")
    parser.add_argument("--restart", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--reload", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--renewed", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--renewed-restart", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--also", nargs="*", default=[], metavar="UNIT")
    parser.add_argument("--enable", action="store_true")
    parser.add_argument("--off", action="store_true")
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


def choose(
    given: argparse.Namespace, known: dict[str, Stamp], wanted: dict[str, Stamp], *, active: bool, stopped: bool, restarted: bool
) -> tuple[str | None, str]:
    """What has to happen, and why.

    Args:
        given: the arguments.
        known: what the unit was last brought to.
        wanted: what is on disk.
        active: whether the unit works, as systemd has it.
        stopped: whether its main process was stopped by a signal all the same.
        restarted: whether it was started since, by somebody else.
    """

    def differs(paths: list[str]) -> list[str]:
        return [path for path in paths if known.get(path, [None])[0] != wanted[path][0]]

    def anew(paths: list[str]) -> list[str]:
        return [path for path in paths if path in known and known[path][1] not in (None, wanted[path][1])]

    restarts = [*differs([*given.restart, *given.renewed_restart]), *(anew(given.restart) if restarted else [])]
    reloads = [*differs([*given.reload, *given.renewed]), *anew([*given.reload, *given.renewed])]
    action, why = None, ""
    if not active:
        action, why = "start", "it was not active"
    elif stopped:
        action, why = "restart", "its main process was stopped by a signal"
    elif restarts:
        action, why = "restart", ", ".join(dict.fromkeys(restarts))
    elif reloads:
        action, why = "reload", ", ".join(dict.fromkeys(reloads))
    return action, why


def act(unit: str, action: str) -> None:
    """Do it; RuntimeError if the unit is not active afterwards."""
    systemctl("daemon-reload")
    systemctl("reset-failed", unit, check=False)
    systemctl(action, unit)
    if not is_active(unit, patience=10):
        raise RuntimeError(f"{unit} is not active after {action}")


def enable(unit: str, check: bool) -> None:
    """Have the unit start at boot."""
    if systemctl("is-enabled", unit, check=False) in ENABLED:
        return
    print("changed: {}enable {}".format("would " if check else "", unit))
    if not check:
        systemctl("daemon-reload")
        systemctl("enable", "--quiet", unit)


def turn_off(unit: str, memory: pathlib.Path, check: bool) -> None:
    """Stop a unit that this host has no use for, and have it start at no boot."""
    would = "would " if check else ""
    if show(unit).get("ActiveState") not in ("inactive", "failed"):
        print(f"changed: {would}stop {unit}")
        if not check:
            systemctl("stop", unit)
    if systemctl("is-enabled", unit, check=False) == "enabled":
        print(f"changed: {would}disable {unit}")
        if not check:
            systemctl("disable", "--quiet", unit)
    if not check:
        memory.unlink(missing_ok=True)


def main() -> int:
    """Brings one unit to its files; returns the exit status."""
    given = arguments()
    unit: str = given.unit
    memory = MEMORY / (unit + ".json")
    if given.off:
        turn_off(unit, memory, given.check)
        return 0
    known, started = remembered(memory)
    renewed = [*given.renewed, *given.renewed_restart]
    given.restart += [] if renewed else drop_in(unit, known)
    wanted: dict[str, Stamp] = {path: [digest(path), written(path)] for path in [*given.restart, *given.reload, *renewed]}
    shown = show(unit)
    if renewed:
        wanted = {**known, **wanted}
    else:
        bring_policy(unit, given.check, shown)
        for each in given.also:
            bring_policy(each, given.check)
    active = shown.get("ActiveState") in ("active", "reloading")
    if not active and renewed:
        return 0  # it will read them when it starts
    stopped = active and is_stopped(shown.get("MainPID", "0"))
    action, why = choose(given, known, wanted, active=active, stopped=stopped, restarted=started not in (None, shown.get("InvocationID")))
    if given.enable:
        enable(unit, given.check)

    def remember() -> None:
        memory.parent.mkdir(parents=True, exist_ok=True)
        # Who renews files has not looked at the others: the start they belong to stays.
        memory.write_text(json.dumps({"start": started if renewed else show(unit).get("InvocationID"), "files": wanted}))

    if action is None:
        if not given.check and not renewed:
            if (known, started) != (wanted, shown.get("InvocationID")):
                remember()  # it may be another start, with the same files
            # It works: crashes of long ago must not make the wait after the next one longer.
            if shown.get("NRestarts", "") not in ("", "0"):
                systemctl("reset-failed", unit, check=False)
        return 0
    print("changed: {}{} {} ({})".format("would " if given.check else "", action, unit, why))
    if given.check:
        return 0
    try:
        act(unit, action)
    except RuntimeError as fault:
        memory.unlink(missing_ok=True)
        words = ["journalctl", "--no-pager", "-o", "cat", "-n", "20", "-u", unit]
        journal = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        print(f"{fault}\n{journal}", file=sys.stderr)
        return 1
    remember()
    return 0


if __name__ == "__main__":
    sys.exit(main())
