"""What a host says of itself: limits that were reached, units, file systems, queue, clock, certificates.

Standard library only: it is sent to the host, runs there as root and prints one line. What it could not find out is a fault, never
a silence.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

MARK = "lemonstand-alarms "
"""What the answer's line begins with: a line without it is somebody else's."""
SECONDS = 12
"""For one question to a program of the host."""
MOST = 1000
"""Lines of one kind, at most; the newest."""
WRITERS = (
    "ticket-issuer.service",
    "ticket-peers.service",
    "submission-limits.service",
    "mail-standby.service",
    "relay-way.service",
)
"""Units of ours that write `alarm=` lines."""
CONVERGED = Path("/var/lib/lemonstand/converge")
"""One file a unit that a role has brought to its configuration: these have to run."""
RESTART_SCHEDULED = "5eb03494b6584870a536b337290809b3"
"""systemd's MESSAGE_ID of "Scheduled restart job" (sd-messages(3))."""
DIRECTORY = Path("/etc/ldap/lemonstand.conf")
ACCOUNTS = Path("/usr/local/lib/lemonstand/directory_users.py")
STEP_SECONDS = 2
"""What is written on one auth host is to be on the others within that time."""
FULL = 0.9
"""Share of a file system, of its space or of its inodes, from which on it is an alarm: what is left is what a bad night needs."""
STORED = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "overlay", "tmpfs", "vfat", "nfs", "nfs4", "jfs", "bcachefs"})
"""Types of file systems that fill up. Images (squashfs, iso9660) are always full, and pseudo file systems hold nothing."""
WRITTEN = ("/", "/etc", "/run", "/tmp", "/var", "/var/lib", "/var/log", "/var/spool", "/var/mail", "/srv", "/home")  # noqa: S108 - looked at only
"""Where services write: read-only there is an alarm."""
QUEUE_SECONDS = 3600
"""Mail that is older and still in a queue of ours has been tried more than ten times."""
OFFSET_SECONDS = 1.0
"""As the check of clocks has it: tickets are dated 5 s back (record 0004)."""
CERTIFICATES = Path("/etc/lemonstand/pki")
LEAST_DAYS = 21.0
"""Left of a certificate. It is renewed 30 days before its end, so a week of renewals has failed then."""
LEAST_SHARE = 7 / 30
"""Left of the whole life, for certificates that live for days only: 21 of 90 days."""
LEAST_CA_DAYS, LEAST_CA_SHARE = 180.0, 0.05
"""The same of a CA: nothing it signs outlives it, so it is changed while it has more than a certificate's life left, and at ease."""
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

BACKUP_SETTINGS, BACKUP_WORD = Path("/etc/lemonstand/backup/settings.json"), Path("/var/lib/lemonstand-backup/state.json")
"""What the role backup wrote, and what came of its runs."""
EDGE_WATCH, EDGE_PAIR = Path("/run/lemonstand/edge-watch.json"), Path("/run/lemonstand/edge-pair.json")
"""What edges write down, of hosts they lead to and of their twin (roles edge and edge_pair)."""

Found = dict[str, Any]


class Fault(Exception):
    """Something could not be found out; the text says what and why."""


def run(*command: str, codes: tuple[int, ...] = (0,), given: str | None = None) -> tuple[str, str]:
    """What a program printed, and what it complained of.

    Args:
        given: its standard input.

    Raises:
        Fault: it isn't there, takes too long or failed.
    """
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except FileNotFoundError:
        raise Fault(f"{command[0]} is not installed") from None
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Fault(f"{command[0]}: {type(problem).__name__}") from None
    if done.returncode not in codes:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise Fault(f"{command[0]}: {said[:200]}")
    return done.stdout, done.stderr


def journal(*words: str, since: int) -> Iterator[Found]:
    """Lines of the journal of the last seconds, the oldest first."""
    out, said = run("journalctl", "-o", "json", "--no-pager", "--since", f"-{since}s", *words)
    if "No journal files" in said or "insufficient permissions" in said:
        raise Fault("the journal can't be read: " + said.strip().splitlines()[0][:150])
    for line in out.splitlines():
        if line.startswith("{"):
            entry: Found = json.loads(line)
            yield entry


def alarm(kind: str, details: str, at: float | None = None) -> Found:
    """One alarm; without a time it is true now."""
    return {"at": time.time() if at is None else at, "kind": kind, "details": details}


def watched() -> list[str]:
    """The units that the roles of this host have brought to their configuration."""
    found = sorted(path.name.removesuffix(".json") for path in CONVERGED.glob("*.json"))
    if not found:
        raise Fault("no unit was ever brought to its configuration here: `apply` was not run")
    return found


def limits(since: int) -> Iterator[Found]:
    """Limits that were reached, as our services say."""
    words = [word for unit in WRITERS for word in ("-u", unit)]
    lines = [each for each in journal("-p", "warning", *words, since=since) if str(each.get("MESSAGE", "")).startswith("alarm=")]
    for each in lines[-MOST:]:
        kind, _, details = str(each["MESSAGE"]).removeprefix("alarm=").partition(" ")
        yield alarm(kind, details, int(each["__REALTIME_TIMESTAMP"]) / 1e6)


def units(_since: int) -> Iterator[Found]:
    """Units that failed, and those of ours that don't run."""
    text, _ = run("systemctl", "list-units", "--all", "--state=failed", "--plain", "--no-legend", "--no-pager")
    failed = [line.split()[0] for line in text.splitlines() if line.split()]
    for name in failed:
        yield alarm("failed", f"unit={name} result={show(name).get('Result', '?')}")
    for name in watched():
        state = show(name)
        if name in failed or state.get("ActiveState") in ("active", "reloading", "refreshing"):
            if is_stopped(state.get("MainPID", "0")):
                yield alarm("stopped", f"unit={name} pid={state['MainPID']}: a signal stopped it; `lemonstand apply` restarts it")
            continue
        if state.get("SubState", "").startswith("auto-restart") or state.get("ActiveState") == "activating":
            yield alarm("restarting", f"unit={name} restarts={state.get('NRestarts', '?')} result={state.get('Result', '?')}")
        else:
            yield alarm("not-running", f"unit={name} state={state.get('ActiveState', '?')}")


def show(name: str) -> dict[str, str]:
    """What systemd says of a unit."""
    text, _ = run("systemctl", "show", name, "-p", "ActiveState,SubState,Result,NRestarts,MainPID")
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)


def is_stopped(pid: str) -> bool:
    """Whether a process was stopped by a signal (proc_pid_stat(5): state T): systemd calls its unit active, and it does nothing."""
    try:
        return Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def restarts(since: int) -> Iterator[Found]:
    """Units that systemd started again since then, each once, with how often and when last."""
    seen: dict[str, list[float]] = {}
    for each in journal(f"MESSAGE_ID={RESTART_SCHEDULED}", since=since):
        seen.setdefault(str(each.get("UNIT", "?")), []).append(int(each["__REALTIME_TIMESTAMP"]) / 1e6)
    for name, times in sorted(seen.items()):
        yield alarm("restarted", f"unit={name} times={len(times)}", times[-1])


def mounts() -> Iterator[tuple[str, str]]:
    """Where file systems that hold something are mounted, and their types."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, place, kind = line.split(" ")[:3]
        if kind in STORED and not place.startswith(("/proc/", "/sys/", "/dev/")):
            yield place.replace("\\040", " "), kind


def disks(_since: int) -> Iterator[Found]:
    """File systems that are nearly full, of space or of inodes, and places for writing that are read-only. Each file system once."""
    seen = set()
    for place, _ in mounts():
        try:
            info, number = os.statvfs(place), Path(place).stat().st_dev
        except OSError as problem:
            if isinstance(problem, (FileNotFoundError, PermissionError)):
                continue  # mounted over, or somebody's own
            raise Fault(f"{place}: {problem.strerror}") from None
        if number in seen:
            continue
        seen.add(number)
        # As df counts: what is root's alone is neither used nor free.
        usable = info.f_blocks - info.f_bfree + info.f_bavail
        for what, used in (("space", usable and 1 - info.f_bavail / usable), ("inodes", info.f_files and 1 - info.f_favail / info.f_files)):
            if used >= FULL:
                yield alarm("disk", f"at={place} {what}={used:.0%} free={info.f_bavail * info.f_frsize >> 20}MiB")
    done = set()
    for place in WRITTEN:
        if Path(place).is_dir() and os.statvfs(place).f_flag & os.ST_RDONLY and Path(place).stat().st_dev not in done:
            done.add(Path(place).stat().st_dev)
            yield alarm("read-only", f"at={place}")


def queue(_since: int) -> Iterator[Found]:
    """Mail that is not delivered and grows old."""
    if not Path("/usr/sbin/postqueue").exists():
        return
    text, _ = run("/usr/sbin/postqueue", "-j")
    messages = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    old = [each for each in messages if time.time() - each["arrival_time"] > QUEUE_SECONDS]
    if old:
        first = min(old, key=lambda each: int(each["arrival_time"]))
        reasons = [to.get("delay_reason") for to in first.get("recipients", []) if to.get("delay_reason")]
        why = (reasons or [f"in the {first.get('queue_name', '?')} queue"])[0]
        hours = (time.time() - first["arrival_time"]) / 3600
        yield alarm("queue", f"messages={len(old)} of={len(messages)} oldest={hours:.1f}h why={why[:120]!r}", first["arrival_time"])


def clock(_since: int) -> Iterator[Found]:
    """A clock that follows nobody, or is off."""
    if "chrony.service" not in watched():
        return
    text, _ = run("chronyc", "-c", "tracking")
    row = text.strip().split(",")
    if len(row) < 14:
        raise Fault(f"chronyc: {text.strip()[:100]!r}")
    source, offset, leap = row[1] or row[0], float(row[4]), row[-1]
    if leap == "Not synchronised":
        yield alarm("clock", "follows nobody")
    elif abs(offset) > OFFSET_SECONDS:
        yield alarm("clock", f"offset={offset:.3f}s source={source}")


def certificates(_since: int) -> Iterator[Found]:
    """Certificates that end soon: they should have been renewed."""
    for path in sorted(CERTIFICATES.glob("*.crt")):
        lives = [_life(pem) for pem in PEM.findall(path.read_text(encoding="ascii", errors="replace")) or [""]]
        # Of CAs in one file the last one to end counts, of a chain its first one, the host's own.
        authority = path.name.startswith("ca-")
        begin, end = max(lives, key=lambda life: life[1]) if authority else lives[0]
        left = (end - time.time()) / 86400
        if left < least_days((end - begin) / 86400, authority=authority):
            mend = "lemonstand certificates rotate" if authority else "lemonstand certificates renew --due"
            yield alarm("certificate", f"file={path} days-left={left:.1f}: it was not renewed; `{mend}` says why", time.time())


def least_days(life: float, *, authority: bool = False) -> float:
    """Days that have to be left of a certificate or CA that lives for so many."""
    return min(LEAST_CA_DAYS, LEAST_CA_SHARE * life) if authority else min(LEAST_DAYS, LEAST_SHARE * life)


def _life(pem: str) -> tuple[float, float]:
    """When a certificate begins and ends, in Unix time."""
    text, _ = run("openssl", "x509", "-noout", "-dates", given=pem)
    dates = dict(line.partition("=")[::2] for line in text.splitlines())
    return _moment(dates["notBefore"]), _moment(dates["notAfter"])


def twins(_since: int) -> Iterator[Found]:
    """Auth hosts that do not have what is written on this one, or the other way round, or that give no answer."""
    if not DIRECTORY.exists() or "\nsyncrepl " not in DIRECTORY.read_text(encoding="utf-8"):
        return
    order = json.dumps({"action": "step", "seconds": STEP_SECONDS}) + "\n"
    answer = json.loads(run("/usr/bin/python3", str(ACCOUNTS), codes=(0, 1), given=order)[0])
    if "error" in answer:
        yield alarm("twin", f"what=directory reason={answer['error']!r}")
    for name, state in answer.get("twins", {}).items():
        if state != "in step":
            yield alarm("twin", f"host={name} what=directory reason={state!r}")


def backups(_since: int) -> Iterator[Found]:
    """Backups that failed, that are too old, or of which nothing came back; nothing where the host is not backed up."""
    try:
        oldest = float(json.loads(BACKUP_SETTINGS.read_text(encoding="utf-8"))["oldest"])
    except FileNotFoundError:
        return
    timer = show("lemonstand-backup.timer").get("ActiveState")
    if timer != "active":
        yield alarm("backup", f"timer={timer}: none will be made; `lemonstand apply` brings it back")
    try:
        word: Found = json.loads(BACKUP_WORD.read_text(encoding="utf-8"))
    except FileNotFoundError:
        word = {}
    if "fault" in word:
        yield alarm("backup", f"why={word['fault']['what'][:200]!r}", word["fault"]["at"])
    for part, what in (("made", "backup"), ("proven", "proof that it comes back")):
        if part not in word:
            yield alarm("backup", f"there was no {what} yet")
        elif (age := time.time() - word[part]["at"]) > oldest:
            yield alarm("backup", f"the last {what} is {age / 3600:.1f}h old, {oldest / 3600:.0f}h at the most", word[part]["at"])


def _moment(text: str) -> float:
    """Unix time of `Nov 29 20:00:00 2026 GMT`, as openssl writes it in any language."""
    month, day, hour, year, zone = text.split()
    return parsedate_to_datetime(f"{day} {month} {year} {hour} {zone}").timestamp()


def edges(since: int) -> Iterator[Found]:
    """What an edge has seen of what it leads to and of its twin; nothing where it watches neither."""
    if "lemonstand-edge-watch.service" not in watched():
        return
    try:
        seen: Found = json.loads(EDGE_WATCH.read_text())
    except (OSError, ValueError) as problem:
        raise Fault(f"{EDGE_WATCH}: {problem}") from None
    for name, each in seen["members"].items():
        if not each["answers"]:
            yield alarm("silent", f"host={name} why={each['why'][:120]!r}: new connections go to others", each["since"])
    if seen["conflict"]:
        told = "; ".join(seen["conflict"]["claims"])
        yield alarm("two-edges", f"both hold the shared addresses: {told[:160]}", seen["conflict"]["since"])
    if seen["alone"]:
        yield alarm("alone", "no other host answers this edge, so it holds no shared address", seen["alone"])
    elif seen["twin_silent"]:
        yield alarm("no-twin", "the other edge does not answer: nobody would take over from this one", seen["twin_silent"])
    if EDGE_PAIR.exists():
        pair: Found = json.loads(EDGE_PAIR.read_text())
        if time.time() - pair.get("conflict", 0) < since and not seen["conflict"]:
            yield alarm("two-edges", "both held the shared addresses for a while; one gave them up", pair["conflict"])
        if time.time() - pair.get("faulted", 0) < since:
            yield alarm("hand-over", f"why={pair['fault'][:160]!r}", pair["faulted"])


PARTS: dict[str, Callable[[int], Iterator[Found]]] = {
    "limits": limits,
    "units": units,
    "restarts": restarts,
    "file systems": disks,
    "queue": queue,
    "clock": clock,
    "certificates": certificates,
    "twins": twins,
    "edges": edges,
    "backups": backups,
}


def main(since: int) -> int:
    """Prints the answer: `alarms`, and `faults`, by part what could not be found out."""
    os.environ["LC_ALL"] = "C"
    found: list[Found] = []
    faults: dict[str, str] = {}
    for name, part in PARTS.items():
        try:
            found += part(since)
        except Fault as fault:
            faults[name] = str(fault)
        except Exception as problem:  # whatever it is, the other parts still count
            faults[name] = f"{type(problem).__name__}: {problem}"[:200]
    print(MARK + json.dumps({"alarms": found, "faults": faults}))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
