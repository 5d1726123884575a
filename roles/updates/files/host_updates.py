#!/usr/bin/python3 -IB
"""Updates of this host: what is pending, what runs replaced files, what may arrive by itself, how it is renewed and brought back.

    host-updates status       what is pending, what runs replaced files, how far an upgrade is; asks nobody else
    host-updates refresh      the same, after a look at the mirror
    host-updates arrive       refresh, then renew what nothing at work has loaded (lemonstand-updates.timer)
    host-updates install      renew all that is pending; services are left alone
    host-updates restart      restart what runs replaced files; `restart --keep-sessions`: Dovecot's old processes keep their connections
    host-updates keep         the new versions are good
    host-updates rollback     bring back the versions that were there before

Each prints a line of JSON; what can't be done is `{"error", "remedy"}` and exit status 1. What changes a host runs as a unit of its own, so
that it ends whoever asked for it (`docs/decisions/0048`). Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path("/usr/local/lib/lemonstand/host-updates")
STATE = Path("/var/lib/lemonstand/updates")
"""Root's alone: `seen.json` (what is pending since when), `mark.json` (an upgrade under way), `old` (packages to go back to)."""
SOURCES = Path("/etc/lemonstand/apt/sources.d/mirror.sources")
DPKG = Path("/var/lib/dpkg/info")
CONVERGED = Path("/var/lib/lemonstand/converge")
"""One file a unit that a role has brought to its configuration."""
APT_SECONDS, BUILD_SECONDS, INSTALL_SECONDS, RESTART_SECONDS = 300, 300, 1800, 150
UNIT = "lemonstand-upgrade.service"
KERNEL = re.compile(r"linux-(image|headers|modules|base)")
INSTALL = re.compile(r"^Inst (?P<name>\S+)(?: \[(?P<old>[^\]]+)\])? \((?P<new>\S+) (?P<origin>.*?)\[")
PROGRAMS = ("/usr/", "/lib", "/bin/", "/sbin/", "/opt/")
INTERPRETED = re.compile(r"/python3(\.\d+)?$")
PYTHON = "/usr/lib/python3"
QUIET = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
UNTOUCHED = {**QUIET, "SYSTEMD_OFFLINE": "1"}
"""For maintainer scripts: systemctl starts and stops nothing, as in a chroot (systemd's ENVIRONMENT.md). Restarts come once, later."""
DEAF = re.compile(r"session-.*\.scope|user@.*\.service|.*\.slice")
"""Not services: they end with whoever logged in."""
BOOT = "a boot"
OTHERWISE = {"init.scope": "systemctl daemon-reexec", "dbus.service": BOOT}
"""What restarts a unit that `systemctl restart` must not."""

Found = dict[str, Any]


class Fault(Exception):
    """Something can't be done: what, and what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


def run(*words: str, seconds: int, env: dict[str, str] | None = None, codes: Iterable[int] = (0,), remedy: str = "") -> str:
    """What a program printed.

    Raises:
        Fault: it failed, or took longer than `seconds`.
    """
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env=env or QUIET,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Fault(f"{words[0]}: {problem}", remedy or "see the journal") from None
    if done.returncode not in codes:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith(("E:", "dpkg:"))] or done.stderr.splitlines()
        raise Fault(f"{' '.join(words[:2])}: {'; '.join(said[-3:])[:400] or f'exit status {done.returncode}'}", remedy or "see the journal")
    return done.stdout


def read(path: Path) -> Found:
    """A file of ours; nothing if there is none or it was cut off."""
    try:
        found: Found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def write(path: Path, value: Found) -> None:
    """Replaces a file of ours as a whole."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(path)


# --- what is there ---


def processes() -> Iterator[tuple[int, str, dict[str, bool]]]:
    """Each process: its number, unit, and the files it has mapped, with whether they were replaced or removed since.

    Raises:
        Fault: one may not be looked into.
    """
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (seen := looked_into(folder)) is not None:
            yield int(folder.name), *seen


def looked_into(folder: Path) -> tuple[str, dict[str, bool]] | None:
    """The unit and files of one process, by its directory; None: it is gone.

    Raises:
        Fault: it may not be looked into.
    """
    try:
        unit = next((part for part in reversed((folder / "cgroup").read_text().strip().rpartition(":")[2].split("/")) if part), "")
        lines = (folder / "maps").read_text(errors="replace").splitlines()
    except PermissionError:
        raise Fault(f"the process {folder.name} may not be looked into", "run it as root, with CAP_SYS_PTRACE") from None
    except OSError:
        return None
    files: dict[str, bool] = {}
    for line in lines:
        path = line.split(maxsplit=5)[5] if line.count(" ") > 4 and "/" in line else ""
        if path.startswith(PROGRAMS):
            files[path.removesuffix(" (deleted)")] = path.endswith(" (deleted)")
    return unit, files


def is_interpreter(files: Iterable[str]) -> bool:
    """Whether a process with these files runs Python."""
    return any(INTERPRETED.search(path) for path in files)


def began(pid: int) -> float:
    """When a process began, as Unix time; 0 if it is gone."""
    try:
        ticks = int(Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()[19])
        boot = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    except (OSError, IndexError, StopIteration):
        return 0.0
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def replaced() -> dict[str, list[str]]:
    """Units with processes that run files which were replaced since, and which files those are."""
    modules = python_changed()
    found: dict[str, set[str]] = {}
    for pid, unit, files in processes():
        if DEAF.fullmatch(unit):
            continue
        gone = {path for path, deleted in files.items() if deleted}
        # An interpreter reads its modules and closes them; systemd's clock of a start is as coarse as a second.
        if is_interpreter(files) and unit not in ("", UNIT, "lemonstand-updates.service") and began(pid) + 1 < modules:
            gone.add(f"modules below {PYTHON}")
        if gone:
            found.setdefault(unit, set()).update(gone)
    return {unit: sorted(files)[:5] for unit, files in sorted(found.items())}


def python_changed() -> float:
    """When a package with modules of Python was installed last, as Unix time."""
    newest = 0.0
    for path in DPKG.glob("python3-*.list"):
        newest = max(newest, path.stat().st_mtime)
    return newest


def listed() -> dict[str, str]:
    """Installed packages, each with its source."""
    out = run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}|${binary:Package}|${source:Package}\n", seconds=60)
    rows = [line.split("|") for line in out.splitlines()]
    return {name.partition(":")[0]: source for status, name, source in rows if status.startswith("i")}


def at_work() -> set[str]:
    """Sources of packages that something at work has loaded, or that bring one of our units: what is not renewed by itself."""
    services = [files for _, unit, files in processes() if not DEAF.fullmatch(unit)]
    mapped = {path for files in services for path in files}
    python = any(is_interpreter(files) for files in services)
    units = {f"/usr/lib/systemd/system/{path.name.removesuffix('.json')}" for path in CONVERGED.glob("*.json")}
    wanted = {short(path) for path in mapped | units}
    sources = listed()
    found = set()
    for path in DPKG.glob("*.list"):
        name = path.name.removesuffix(".list").partition(":")[0]
        lines = path.read_text(errors="replace").splitlines()
        if any(short(line) in wanted or (python and line.startswith(PYTHON)) for line in lines):
            found.add(sources.get(name, name))
    return found


def short(path: str) -> str:
    """A path as packages of both layouts have it: /usr/lib and /lib are the same."""
    return path.removeprefix("/usr")


def offered(*names: str) -> dict[str, Found]:
    """What apt would install, by package: `old` (empty: it is new here), `new`; without names: for all that is installed."""
    words = ["install", "--only-upgrade", *names] if names else ["upgrade", "--with-new-pkgs"]
    out = run("apt-get", "-s", "-q", "--no-install-recommends", *words, seconds=APT_SECONDS)
    hits = [INSTALL.match(line) for line in out.splitlines()]
    return {hit["name"].partition(":")[0]: {"old": hit["old"] or "", "new": hit["new"]} for hit in hits if hit}


def status() -> Found:
    """How the host stands; nobody else is asked."""
    seen = read(STATE / "seen.json")
    mirror = SOURCES.exists()
    pending = offered() if mirror else {}
    held, sources = (at_work(), listed()) if pending else (set(), {})
    now, since = time.time(), seen.get("since", {})
    for name, each in pending.items():
        first = since.get(f"{name} {each['new']}", now)
        each |= {"since": first, "by_itself": sources.get(name, name) not in held and not KERNEL.match(name)}
    write(STATE / "seen.json", {**seen, "since": {f"{name} {each['new']}": each["since"] for name, each in pending.items()}})
    mark, stale = read(STATE / "mark.json"), replaced()
    return {
        "mirror": mirror, "pending": pending, "mark": mark, "now": now,
        "replaced": {unit: files for unit, files in stale.items() if OTHERWISE.get(unit, "x") != BOOT},
        "boot": [*(unit for unit in stale if OTHERWISE.get(unit) == BOOT), *([f"linux {kernel()}"] if kernel() else [])],
        "looked": seen.get("looked", 0), "fault": seen.get("fault", ""), "broken": seen.get("broken", {}),
    }  # fmt: skip


def kernel() -> str:
    """A kernel that is installed and newer than the one that runs; empty: none, or it is none of this host's."""
    if Path("/run/systemd/container").exists():
        return ""
    installed = sorted((path.name.removeprefix("vmlinuz-") for path in Path("/boot").glob("vmlinuz-*")), key=numbers)
    return installed[-1] if installed and numbers(installed[-1]) > numbers(os.uname().release) else ""


def numbers(release: str) -> list[int]:
    """A kernel's release as what can be compared."""
    return [int(each) for each in re.findall(r"\d+", release)]


def refresh() -> Found:
    """Looks at the mirror, and remembers what came of it."""
    if not SOURCES.exists():
        raise Fault("no mirror is named for this host", "lemonstand_services names one (mirror, mirror_dmz); `lemonstand apply`")
    fault = ""
    try:
        run("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "-o", "DPkg::Lock::Timeout=120", "update", seconds=APT_SECONDS)
    except Fault as problem:
        fault = str(problem)
    seen = read(STATE / "seen.json")
    write(STATE / "seen.json", {**seen, "fault": fault, **({} if fault else {"looked": time.time()})})
    found = status()
    if fault:
        raise Fault(
            f"the mirror gives no index that can be trusted: {fault}", "see whether it is up, who signs it, and how old its index is"
        )
    return found


# --- what changes a host ---


def mend() -> None:
    """Ends what dpkg was cut off in."""
    run("dpkg", "--configure", "-a", "--force-confold", "--force-confdef", seconds=INSTALL_SECONDS, env=UNTOUCHED)


def install(names: dict[str, str], *, fetch_only: bool = False) -> None:
    """Installs packages in the versions that were named."""
    words = [f"{name}={version}" for name, version in names.items()]
    run(
        "apt-get", "-q", "-y", "--no-install-recommends", "--no-remove", "-o", "DPkg::Lock::Timeout=120",
        "-o", "Dpkg::Options::=--force-confold", "-o", "Dpkg::Options::=--force-confdef", *(["--download-only"] if fetch_only else []),
        "install", *words,
        seconds=INSTALL_SECONDS, env=UNTOUCHED,
    )  # fmt: skip


def arrive() -> Found:
    """Renews what nothing at work has loaded; what would change anything else waits for `lemonstand upgrade`."""
    # A timer that still runs where the mirror is named no more has nothing to do; an upgrade under way comes first.
    if not SOURCES.exists() or read(STATE / "mark.json"):
        return {**status(), "arrived": []}
    found = refresh()
    free = [name for name, each in found["pending"].items() if each["by_itself"] and each["old"]]
    arrived = []
    for name in free:
        changes = offered(name)
        if changes and all(other in free for other in changes):
            install({each: changes[each]["new"] for each in changes})
            arrived += list(changes)
    run("apt-get", "-q", "clean", seconds=APT_SECONDS)
    return {**status(), "arrived": sorted(set(arrived))}


def renew() -> Found:
    """Installs all that is pending; the versions there were are packed before anything is changed."""
    mark = read(STATE / "mark.json")
    mend()
    if not mark:
        pending = refresh()["pending"]
        if not pending:
            return status()
        shutil.rmtree(STATE / "old", ignore_errors=True)
        install({name: each["new"] for name, each in pending.items()}, fetch_only=True)
        old = {name: each["old"] for name, each in pending.items() if each["old"]}
        for name, version in old.items():
            pack(name, version)
        mark = {"old": old, "new": {name: each["new"] for name, each in pending.items()}, "began": time.time(), "phase": "install"}
        write(STATE / "mark.json", mark)
    if mark["phase"] == "rollback":
        raise Fault("this host was being brought back", "`lemonstand upgrade` goes on with that")
    have = installed(mark["new"])
    if missing := {name: version for name, version in mark["new"].items() if have.get(name) != version}:
        install(missing)
    for path in Path("/etc").rglob("*.dpkg-dist"):
        # The role's file counts; how Debian's own changed is in the package.
        if path.lstat().st_mtime >= mark["began"] or path.lstat().st_ctime >= mark["began"]:
            path.unlink()
    run("apt-get", "-q", "clean", seconds=APT_SECONDS)
    write(STATE / "mark.json", {**mark, "phase": "restart"})
    return status()


def installed(names: Iterable[str]) -> dict[str, str]:
    """Versions of packages that are here."""
    out = run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}|${Package}|${Version}\n", *names, seconds=60, codes=(0, 1))
    rows = [line.split("|") for line in out.splitlines()]
    return {name: version for status, name, version in rows if status.startswith("ii")}


def pack(name: str, version: str) -> None:
    """Makes a package of the files that an installed one has, as they are.

    Debian's index has the newest version alone, and no host has a way to snapshot.debian.org.
    """
    root, target = STATE / "packing", STATE / "old" / f"{name}.deb"
    shutil.rmtree(root, ignore_errors=True)
    (root / "DEBIAN").mkdir(mode=0o755, parents=True)
    root.chmod(0o755)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    stanza, conffiles, field = [], [], ""
    for line in run("dpkg-query", "-s", name, seconds=60).splitlines():
        field = field if line.startswith(" ") else line.partition(":")[0]
        if field == "Conffiles" and line.startswith(" ") and "obsolete" not in line.split()[2:]:
            conffiles.append(line.split()[0])
        elif field not in ("Status", "Conffiles", "Config-Version"):
            stanza.append(line)
    (root / "DEBIAN" / "control").write_text("\n".join(stanza).rstrip() + "\n", encoding="utf-8")
    kept = []
    for line in run("dpkg-query", "-L", name, seconds=60).splitlines():
        if line.startswith("/") and line != "/.":
            kept += [line] if copied(Path(line), root) else []
    if conffiles := [each for each in conffiles if each in kept]:
        (root / "DEBIAN" / "conffiles").write_text("\n".join(conffiles) + "\n", encoding="utf-8")
    for part in ("preinst", "postinst", "prerm", "postrm", "config", "templates", "md5sums", "shlibs", "symbols", "triggers"):
        files = [path for path in DPKG.glob(f"{name}*.{part}") if path.name.removesuffix(f".{part}").partition(":")[0] == name]
        if files:
            shutil.copy2(files[0], root / "DEBIAN" / part)
    run("dpkg-deb", "--build", "-Zgzip", "-z1", "--nocheck", str(root), str(target), seconds=BUILD_SECONDS)
    shutil.rmtree(root)
    have = run("dpkg-deb", "--field", str(target), "Version", seconds=60).strip()
    if have != version:
        raise Fault(f"{name} {version} can't be packed to go back to: it became {have}", "see `dpkg --audit`")


def copied(path: Path, root: Path) -> bool:
    """Puts one file of a package into what is being packed; whether there was one (documentation may have been left out)."""
    target = root / str(path).lstrip("/")
    try:
        state = path.lstat()
    except OSError:
        return False
    if stat.S_ISDIR(state.st_mode):
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(stat.S_IMODE(state.st_mode))
    elif stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
    else:
        return False
    os.chown(target, state.st_uid, state.st_gid, follow_symlinks=False)
    if stat.S_ISREG(state.st_mode):
        target.chmod(stat.S_IMODE(state.st_mode))
    return True


def restart(*, keep_sessions: bool, also: Iterable[str] = ()) -> Found:
    """Restarts units that run replaced files, each once.

    Args:
        keep_sessions: Dovecot's old processes keep the connections they have.
        also: units that are restarted whatever they run.
    """
    run("systemctl", "daemon-reload", seconds=RESTART_SECONDS)
    failed = {}
    for unit in dict.fromkeys([*replaced(), *also]):
        words = OTHERWISE.get(unit, f"systemctl restart {unit}").split()
        if words[:1] != ["systemctl"] or not unit.endswith((".service", ".scope")):
            continue
        gentle = Path("/run/systemd/system", f"{unit}.d", "lemonstand-upgrade.conf")
        keeps = keep_sessions and unit == "dovecot.service"
        try:
            if keeps:
                gentle.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                gentle.write_text("[Service]\nKillMode=process\n", encoding="ascii")
                run("systemctl", "daemon-reload", seconds=RESTART_SECONDS)
            if not keeps and run("systemctl", "is-failed", unit, seconds=60, codes=(0, 1, 3, 4)).strip() == "failed":
                # What a unit that failed has left is not stopped with it.
                run("systemctl", "kill", "--kill-whom=all", unit, seconds=60, codes=(0, 1))
            run("systemctl", "reset-failed", unit, seconds=RESTART_SECONDS, codes=(0, 1, 5))
            run(*words, seconds=RESTART_SECONDS)
        except Fault as problem:
            failed[unit] = str(problem)
        finally:
            if keeps:
                gentle.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    gentle.parent.rmdir()
                run("systemctl", "daemon-reload", seconds=RESTART_SECONDS)
    if failed:
        raise Fault("; ".join(f"{unit} does not start: {why}" for unit, why in failed.items()), "journalctl -u " + " -u ".join(failed))
    return status()


def keep() -> Found:
    """The new versions are good: packages to go back to are no longer needed."""
    seen, mark = read(STATE / "seen.json"), read(STATE / "mark.json")
    broken = {name: each for name, each in seen.get("broken", {}).items() if name not in mark.get("new", {})}
    write(STATE / "seen.json", {**seen, "broken": broken})
    shutil.rmtree(STATE / "old", ignore_errors=True)
    (STATE / "mark.json").unlink(missing_ok=True)
    return status()


def rollback() -> Found:
    """Brings back the versions that were there before."""
    mark = read(STATE / "mark.json")
    if not mark:
        return status()
    write(STATE / "mark.json", {**mark, "phase": "rollback"})
    debs = [str(STATE / "old" / f"{name}.deb") for name in mark["old"]]
    lost = [path for path in debs if not Path(path).exists()]
    if lost:
        raise Fault(f"there is nothing to go back to: {', '.join(lost)}", "install versions that work by hand, or `lemonstand rebuild`")
    run("dpkg", "--force-downgrade", "--force-confold", "--force-confdef", "-i", *debs, seconds=INSTALL_SECONDS, env=UNTOUCHED)
    failed = run("systemctl", "list-units", "--plain", "--no-legend", "--state=failed", "--type=service", seconds=60).split("\n")
    ours = {path.name.removesuffix(".json") for path in CONVERGED.glob("*.json")}
    restart(keep_sessions=False, also=[line.split()[0] for line in failed if line and line.split()[0] in ours])
    seen = read(STATE / "seen.json")
    broken = {**seen.get("broken", {}), **{name: mark["new"][name] for name in mark["old"]}}
    write(STATE / "seen.json", {**seen, "broken": broken})
    shutil.rmtree(STATE / "old", ignore_errors=True)
    (STATE / "mark.json").unlink(missing_ok=True)
    return status()


# --- who asks ---

LOOKS = {"status": status, "refresh": refresh}
DOES = {"arrive": arrive, "install": renew, "keep": keep, "rollback": rollback}


def apart(words: list[str]) -> Found:
    """Does it as a unit of its own, which ends whoever asked; waits for it, and for one that is under way."""
    answer = STATE / "answer.json"
    own = ["/usr/bin/python3", "-I", "-B", str(HERE), "--here", *words]
    for _ in range(INSTALL_SECONDS):
        active = subprocess.run(["systemctl", "is-active", "--quiet", UNIT], check=False).returncode == 0
        if not active:
            break
        time.sleep(1)
    answer.unlink(missing_ok=True)
    limits = ["-p", f"RuntimeMaxSec={3 * INSTALL_SECONDS}", "-p", "KillMode=process"]
    subprocess.run(
        ["systemd-run", "--quiet", "--collect", "--wait", "--service-type=exec", f"--unit={UNIT}", *limits, *own],
        check=False, capture_output=True, timeout=3 * INSTALL_SECONDS,
    )  # fmt: skip
    found = read(answer)
    if not found:
        raise Fault(f"{' '.join(words)} was cut off", f"journalctl -u {UNIT}; give the command again: it goes on")
    return found


def answered(words: list[str]) -> Found:
    """Does what was asked for; a fault is an answer as well."""
    try:
        name, here = words[0], words[1:]
        if name in LOOKS:
            return LOOKS[name]()
        if name == "restart":
            return restart(keep_sessions="--keep-sessions" in here)
        return DOES[name]()
    except Fault as problem:
        return {"error": str(problem), "remedy": problem.remedy}


def main(words: list[str]) -> int:
    """Runs one command; returns the exit status."""
    here = words[:1] == ["--here"]
    words = words[1:] if here else words
    if not words or words[0] not in (*LOOKS, *DOES, "restart"):
        print(__doc__, file=sys.stderr)
        return 2
    os.umask(0o022)
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    if here or words[0] in LOOKS or words[0] == "arrive":
        with (STATE / "lock").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            found = answered(words)
        if here:
            write(STATE / "answer.json", found)
            return 0
    else:
        try:
            found = apart(words)
        except Fault as problem:
            found = {"error": str(problem), "remedy": problem.remedy}
    print(json.dumps(found))
    return 1 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
