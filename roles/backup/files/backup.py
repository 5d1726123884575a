#!/usr/bin/python3
"""Backs up what this host alone has into a repository that lets nothing be deleted, and brings it back (docs/decisions/0039).

Mail is never read as files lie there: Dovecot copies each user's home into a spool (`doveadm backup`), under its own locks, with UIDs,
flags, scripts and attributes; only what changed since the last time. restic sends the spool on. Of a directory goes what slapcat says. Each
run ends with a proof: one user's home, the next in turn, or the directory, is brought back into a scratch place and compared; then the
repository is looked through, and a part of its data read.

    backup.py run          one backup and one proof; what came of it stands in state.json
    backup.py first        begins one if there was none yet (for who sets the host up); `--check` says whether it would
    backup.py order        one order of an operator's command, JSON on standard input, answer on standard output

Standard library alone.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, "/usr/local/lib/lemonstand")

with contextlib.suppress(ImportError):  # stores alone have it, and mail
    import home_names
    from home_commands import at, leave_gap

FOLDER = Path("/etc/lemonstand/backup")
STATE = Path("/var/lib/lemonstand-backup")
RUN = Path("/run/lemonstand-backup")
SPOOL, SCRATCH = STATE / "spool", STATE / "scratch"
WORD = STATE / "state.json"
LDIF, DATABASES = RUN / "directory.ldif", RUN / "databases"
UNIT = "lemonstand-backup.service"
TAG = "lemonstand"
NO_REPOSITORY, WRONG_KEY = 10, 12
"""restic's exit statuses (restic, Scripting: exit codes)."""
UNKNOWN, LATER = 67, 75
"""doveadm's exit statuses for a user that is unknown here, or served by another host (sysexits.h)."""
PLACEMENT = Path("/var/lib/lemonstand/placement.json")
"""There where a user may be served by another host (docs/decisions/0036)."""
WHICH = "mailbox uid guid flags"
NOTHING = 68
"""doveadm's exit status for a search that finds nothing."""
DESYNC = 2
"""doveadm's exit status for a mailbox that changed while it was copied: what is missing comes with the next try."""
FOUND = (0, NOTHING)
TRIES = 4
READ_BACK = "1G"
"""Of a repository's data, read with each backup: all of a small one, of a large one another part each time."""
ANSWER_SECONDS, TRUST_SECONDS = 90, 20
"""For a repository to say what it has; for one that is not to be talked to."""
SECONDS = 4 * 3600
PLAIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
"""The environment of every program that is run."""
UNDERWAY = ("start", "running", "stop")
"""How systemd's sub-states of a unit that is at work begin; one that failed and waits for its next try is not."""
"""For one program; the unit has a limit of its own for all of it."""


class Failed(Exception):
    """It can't be done; the text says why, and `remedy` what to do."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


def settings() -> dict[str, Any]:
    """Return what the role wrote.

    Raises:
        Failed: nothing is backed up here.
    """
    try:
        found: dict[str, Any] = json.loads((FOLDER / "settings.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failed("this host is not backed up", "name a repository in lemonstand_services, then `lemonstand apply`") from None
    return found


# --- programs -----------------------------------------------------------------------------------------------------------------------


def call(
    words: Sequence[str],
    *,
    owner: str = "",
    codes: Sequence[int] = (0,),
    seconds: int = SECONDS,
    env: dict[str, str] | None = None,
    **more: Any,
) -> str:
    """Run a program and return what it printed.

    Args:
        owner: as whom; empty: as root.
        codes: exit statuses that are no fault.
        seconds: after so many it is ended.

    Raises:
        Failed: it ended otherwise; `code` is its exit status.
    """
    who: dict[str, Any] = {"user": owner, "group": owner, "extra_groups": []} if owner else {}
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env={**PLAIN, **(env or {})},
            cwd="/",
            **who,
            **more,
        )
    except subprocess.TimeoutExpired as late:
        said = late.stderr.decode("utf-8", "replace") if isinstance(late.stderr, bytes) else late.stderr or ""
        raise Failed(f"{words[0]}: not done within {seconds} s; {(said.strip().splitlines() or ['it said nothing'])[-1][:300]}") from None
    if done.returncode not in codes:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        fault = Failed(f"{words[0]}: {said[:300]}")
        fault.code = done.returncode  # type: ignore[attr-defined]
        raise fault
    return str(done.stdout)


def code_of(fault: Failed) -> int:
    """Return the exit status of the program that failed; -1 where none did."""
    return int(getattr(fault, "code", -1))


def restic(
    given: dict[str, Any], *words: str, key: str = "", authority: str = "", codes: Sequence[int] = (0,), seconds: int = SECONDS
) -> str:
    """Ask the repository, as this host.

    Args:
        key: another key than the host's.
        authority: file with another CA than the one that signs for the repository.
        seconds: after so many it is ended: by itself it tries for a quarter of an hour to reach a server.

    Raises:
        Failed: with what restic said.
    """
    return call(["restic", "--retry-lock", "2m", *words], env=credentials(given, key, authority), codes=codes, seconds=seconds)


def credentials(given: dict[str, Any], key: str = "", authority: str = "") -> dict[str, str]:
    """What restic is told by its environment, where no process list shows it; arguments as `restic` takes them."""
    return {
        "RESTIC_REPOSITORY": given["repository"],
        "RESTIC_CACERT": authority or given["ca"],
        "RESTIC_CACHE_DIR": str(STATE / "cache"),
        "RESTIC_PROGRESS_FPS": "0.1",
        "RESTIC_REST_USERNAME": given["host"],
        "RESTIC_REST_PASSWORD": (FOLDER / "password").read_text(encoding="ascii").strip(),
        "RESTIC_PASSWORD": key or (FOLDER / "key").read_text(encoding="ascii").strip(),
    }


def lines(text: str) -> Iterator[dict[str, Any]]:
    """What a program printed as one JSON object a line."""
    for line in text.splitlines():
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            yield found


def snapshots(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the backups there are, the oldest first: `id`, `time` (RFC 3339), `bytes`, `files`."""
    found = json.loads(restic(given, "snapshots", "--json", "--no-lock", "--tag", TAG, seconds=ANSWER_SECONDS) or "[]") or []
    rows = []
    for each in sorted(found, key=lambda one: str(one["time"])):
        told = each.get("summary") or {}
        rows.append(
            {
                "id": each["short_id"],
                "time": each["time"],
                "bytes": told.get("total_bytes_processed"),
                "files": told.get("total_files_processed"),
                "added": told.get("data_added_packed"),
            }
        )
    return rows


# --- mail ---------------------------------------------------------------------------------------------------------------------------


def homes(top: Path) -> Iterator[tuple[str, Path]]:
    """Users and their homes below a directory."""
    for domain in sorted(_folders(top)):
        for home in sorted(_folders(domain)):
            yield f"{home.name}@{domain.name}", home


def _folders(top: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(top):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield Path(entry.path)


def spool_of(user: str) -> Path:
    """Where a user's copy lies.

    Raises:
        Failed: the name would lead elsewhere.
    """
    local, _, domain = user.partition("@")
    if any(not part or part.startswith(".") or "/" in part or "\0" in part for part in (local, domain)):
        raise Failed(f"'{user}' is no user", "name one by the whole address, such as alice@example.org")
    return SPOOL / domain / local


def home_of(mail: dict[str, Any], user: str) -> Path:
    """Where a user's mail lies."""
    local, _, domain = user.partition("@")
    return Path(mail["directory"], domain, local)


def own(path: Path, owner: str) -> Path:
    """Make a directory of the owner's, and those above it below the spool or scratch place."""
    for each in reversed([path, *path.parents]):
        if each.is_relative_to(STATE) and each != STATE and not each.exists():
            each.mkdir(mode=0o700)
            shutil.chown(each, owner, owner)
    return path


def copy_mail(mail: dict[str, Any]) -> dict[str, int]:
    """Bring the spool to what the store has.

    Raises:
        Failed: a user's mail could not be copied.
    """
    owner, served, there = mail["owner"], set(), 0
    own(SPOOL, owner)
    for user, home in homes(Path(mail["directory"])):
        if is_elsewhere(user):
            there += 1
            continue
        place = own(spool_of(user), owner)
        before = home_names.names(place)
        for attempt in range(TRIES):
            try:
                call([*at(user, home, "backup"), *at(user, place, "dsync-server")], owner=owner)
                home_names.remove(place, before - home_names.names(home))
                served.add(user)
                break
            except Failed as fault:
                if code_of(fault) != DESYNC or attempt == TRIES - 1:
                    raise Failed(f"{user}: {fault}", "look for the user in `journalctl -u dovecot`") from None
    for user, place in list(homes(SPOOL)):
        if user not in served:
            shutil.rmtree(place)
    return {"users": len(served), "elsewhere": there}


def is_elsewhere(user: str) -> bool:
    """Whether another host serves a user. Mail of one whom nobody knows any more is backed up like that of others.

    Raises:
        Failed: Dovecot can't tell.
    """
    try:
        call(["doveadm", "user", "-f", "home", user])
    except Failed as fault:
        if code_of(fault) == LATER and PLACEMENT.exists():
            return True
        if code_of(fault) != UNKNOWN:
            raise Failed(f"{user}: {fault}", "is Dovecot up? `systemctl status dovecot`") from None
    return False


def by_message(rows: list[dict[str, str]]) -> dict[tuple[str, str, str], str]:
    """Messages by mailbox, UID and GUID, each with its flags; not \\Recent, which is about who looked first (RFC 9051 appendix E)."""
    return {(row["mailbox"], row["uid"], row["guid"]): " ".join(sorted(set(row["flags"].split()) - {"\\Recent"})) for row in rows}


def inventory(user: str, home: Path, owner: str) -> dict[str, Any]:
    """Return what a copy holds, as Dovecot reads it: messages by mailbox with UID, GUID and flags, and the number of scripts."""
    boxes = call(at(user, home, "-f", "json", "mailbox status", "uidvalidity uidnext", "*"), owner=owner, codes=FOUND)
    rows = json.loads(call(at(user, home, "-f", "json", "fetch", WHICH, "mailbox", "*", "all"), owner=owner, codes=FOUND) or "[]")
    found = sorted("\t".join((*message, flags)) for message, flags in by_message(rows).items())
    return {
        "messages": len(found),
        "boxes": {row["mailbox"]: [row["uidvalidity"], row["uidnext"]] for row in json.loads(boxes or "[]")},
        "uids": hashlib.sha256("\n".join(found).encode()).hexdigest()[:16],
        "scripts": len(list((home / "sieve").glob("*.sieve"))),
    }


@contextlib.contextmanager
def brought(given: dict[str, Any], what: Path, snapshot: str, owner: str) -> Iterator[Path]:
    """A directory of a backup in a scratch place of its own, the owner's.

    Raises:
        Failed: that backup, or that directory in it, is not there or can't be read.
    """
    place = Path(tempfile.mkdtemp(dir=SCRATCH))
    try:
        try:
            restic(given, "restore", f"{snapshot}:{what}", "--target", str(place), "--host", given["host"])
        except Failed as fault:
            raise Failed(
                f"{what.relative_to(STATE) if what.is_relative_to(STATE) else what} can't be had from the backup '{snapshot}': {fault}",
                "`lemonstand backup list` shows the backups; name another with --at",
            ) from None
        call(["chown", "-R", f"{owner}:{owner}", str(place)])
        place.chmod(0o700)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


# --- the directory ------------------------------------------------------------------------------------------------------------------


def blocks(ldif: str) -> dict[str, str]:
    """Entries of an LDIF by name, without what only counts where it is."""
    found = {}
    for block in re.sub(r"\n ", "", ldif).split("\n\n"):
        kept = [line for line in block.splitlines() if line and not line.startswith(("#", "contextCSN:"))]
        if kept:
            found[kept[0].partition(":: " if ":: " in kept[0] else ": ")[2]] = "\n".join(sorted(kept))
    return found


def changed_at(ldif: str) -> str:
    """The newest change in an LDIF, as entryCSN has it (its text sorts by time)."""
    return max((line.partition(": ")[2] for line in ldif.splitlines() if line.startswith("entryCSN: ")), default="")


def says(given: dict[str, Any]) -> str:
    """What the directory holds now, with operational attributes."""
    return call(["slapcat", "-f", given["directory"]["configuration"]], owner=given["directory"]["owner"])


def has_twins(given: dict[str, Any]) -> bool:
    """Whether other auth hosts have the same directory."""
    return "\nsyncrepl " in Path(given["directory"]["configuration"]).read_text(encoding="utf-8")


def database_of(given: dict[str, Any]) -> Path:
    """Where slapd keeps its database."""
    text = Path(given["directory"]["configuration"]).read_text(encoding="utf-8")
    return Path(next(line.split()[1] for line in text.splitlines() if line.startswith("directory")))


def fill_directory(given: dict[str, Any], place: Path, ldif: str) -> None:
    """Build slapd's database of an LDIF where none is, while slapd does not run."""
    owner = given["directory"]["owner"]
    place.mkdir(mode=0o700, parents=True)
    shutil.chown(place, owner, owner)
    with tempfile.NamedTemporaryFile("w", dir=RUN, suffix=".ldif", encoding="utf-8") as stream:
        stream.write(ldif)
        stream.flush()
        shutil.chown(stream.name, owner, owner)
        call(["slapadd", "-q", "-f", given["directory"]["configuration"], "-l", stream.name], owner=owner)


def loaded(given: dict[str, Any], ldif: str) -> dict[str, str]:
    """Build a directory of an LDIF in a scratch place, and return what it says then."""
    owner = given["directory"]["owner"]
    place = Path(tempfile.mkdtemp(dir=SCRATCH))
    try:
        (place / "database").mkdir(mode=0o700)
        text = Path(given["directory"]["configuration"]).read_text(encoding="utf-8")
        (place / "slapd.conf").write_text(re.sub(r"(?m)^directory\s.*$", f"directory {place}/database", text), encoding="utf-8")
        (place / "ldif").write_text(ldif, encoding="utf-8")
        call(["chown", "-R", f"{owner}:{owner}", str(place)])
        call(["slapadd", "-q", "-f", str(place / "slapd.conf"), "-l", str(place / "ldif")], owner=owner)
        return blocks(call(["slapcat", "-f", str(place / "slapd.conf")], owner=owner))
    finally:
        shutil.rmtree(place, ignore_errors=True)


# --- a run --------------------------------------------------------------------------------------------------------------------------


def read_word() -> dict[str, Any]:
    """Return what came of the runs so far."""
    try:
        found: dict[str, Any] = json.loads(WORD.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def write_word(word: dict[str, Any]) -> None:
    """Replace it in one step."""
    put(WORD, json.dumps(word), mode=0o644)


def put(path: Path, text: str, *, mode: int) -> None:
    """Put a file in another one's place in one step, on the disk before it is there."""
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(handle)
    Path(fresh).chmod(mode)
    Path(fresh).replace(path)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One run or restore at a time.

    Raises:
        Failed: there is one.
    """
    for each in (STATE, RUN, SCRATCH):
        each.mkdir(exist_ok=True)
        each.chmod(0o711)  # owners of mail and directory get to what is theirs below
    with (STATE / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed("a backup or a restore is under way here", "wait for its end: `systemctl status lemonstand-backup`") from None
        yield


def gather(given: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Have what is backed up lie still; return where, and what it is."""
    places, told = [each for each in given["paths"] if Path(each).exists()], {}
    for each in given["databases"]:
        if Path(each).exists():
            DATABASES.mkdir(mode=0o700, exist_ok=True)
            with (
                contextlib.closing(sqlite3.connect(each)) as live,
                contextlib.closing(sqlite3.connect(DATABASES / Path(each).name)) as copy,
            ):
                live.backup(copy)
            places.append(str(DATABASES / Path(each).name))
    if given["mail"]:
        told = copy_mail(given["mail"])
        places.append(str(SPOOL))
    if given["directory"]:
        ldif = says(given)
        LDIF.touch(mode=0o600)
        LDIF.write_text(ldif, encoding="utf-8")
        told["entries"] = len(blocks(ldif))
        places.append(str(LDIF))
    return places, told


def prove(given: dict[str, Any], turn: int, snapshot: str) -> dict[str, Any]:
    """Bring something back from a backup that was just made, and compare it with what was sent.

    Args:
        turn: a number that grows by one each time: whose mail it is.

    Raises:
        Failed: it is not what was sent.
    """
    began = time.time()
    if given["directory"]:
        sent = LDIF.read_text(encoding="utf-8")
        back = restic(given, "dump", snapshot, str(LDIF))
        if back != sent or loaded(given, back) != blocks(sent):
            raise Failed(f"the directory that backup {snapshot} gives back is not the one that was sent")
        seen: dict[str, Any] = {"what": "directory", "entries": len(blocks(back))}
    elif given["mail"] and (every := list(homes(SPOOL))):
        user, home = every[turn % len(every)]
        owner = given["mail"]["owner"]
        with brought(given, home, snapshot, owner) as place:
            there, here = inventory(user, place, owner), inventory(user, home, owner)
        if there != here:
            raise Failed(f"the mailbox of {user} that backup {snapshot} gives back is not the one that was sent")
        seen = {"what": user, "messages": here["messages"], "scripts": here["scripts"]}
    else:
        restic(given, "ls", snapshot)
        seen = {"what": "files"}
    return {**seen, "at": began, "seconds": round(time.time() - began, 2), "snapshot": snapshot}


def look_through(given: dict[str, Any], part: str) -> None:
    """Have restic look whether the repository is whole, and read a part of its data back.

    Args:
        part: as `restic check --read-data-subset` takes it.

    Raises:
        Failed: something in it is lost or damaged.
    """
    try:
        restic(given, "check", f"--read-data-subset={part}")
    except Failed as fault:
        raise Failed(
            f"the repository of {given['host']} is damaged: {fault}",
            f"let its owner see what is lost (`restic check --read-data`), then move the part of {given['host']} aside; "
            f"`lemonstand backup run {given['host']}` begins a new one, whole",
        ) from None


def run(given: dict[str, Any]) -> dict[str, Any]:
    """One backup, a look through the repository, and the proof; the state says what came of it, whichever way it ends."""
    with alone():
        word, began = read_word(), time.time()
        word["tried"] = began
        try:
            places, told = gather(given)
            try:
                restic(given, "cat", "config", "--no-lock", seconds=ANSWER_SECONDS)
            except Failed as fault:
                if code_of(fault) == WRONG_KEY:
                    raise Failed(
                        "the repository was made with another key",
                        "give the host the key its backups were made with (the controller keeps it beside the CAs)",
                    ) from None
                if code_of(fault) != NO_REPOSITORY:
                    raise
                restic(given, "init")
            text = restic(given, "backup", "--json", "--tag", TAG, "--host", given["host"], *places)
            summary = next(each for each in lines(text) if each.get("message_type") == "summary")
            word["made"] = {
                **told,
                "at": began,
                "seconds": round(time.time() - began, 2),
                "snapshot": summary["snapshot_id"][:8],
                "bytes": summary["total_bytes_processed"],
                "files": summary["total_files_processed"],
                "added": summary["data_added"],
            }
            # First: of what is damaged nothing has to be tried, and the owner of the repository is told what it is.
            look_through(given, READ_BACK)
            turn = int(word.get("turn", -1)) + 1
            word["proven"] = prove(given, turn, word["made"]["snapshot"])
            word["turn"] = turn
            word.pop("fault", None)
        except Failed as fault:
            word["fault"] = {"at": time.time(), "what": str(fault), "remedy": fault.remedy}
            raise
        finally:
            LDIF.unlink(missing_ok=True)
            shutil.rmtree(DATABASES, ignore_errors=True)
            write_word(word)
    return word


# --- orders -------------------------------------------------------------------------------------------------------------------------


def status(given: dict[str, Any], _order: dict[str, Any]) -> dict[str, Any]:
    """How backups stand, without asking the repository."""
    timer = call(["systemctl", "is-active", "lemonstand-backup.timer"], codes=(0, 3, 4)).strip()
    underway = call(["systemctl", "show", "--property=SubState", "--value", UNIT]).strip().startswith(UNDERWAY)
    return {"now": time.time(), "timer": timer, "underway": underway, "oldest": given["oldest"], **read_word()}


def started(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Have the unit make a backup now, with its niceness and its limits, and wait for its end."""
    call(["systemctl", "start", UNIT], codes=(0, 1))
    word = status(given, order)
    if "fault" in word:
        raise Failed(word["fault"]["what"], word["fault"]["remedy"])
    return word


def listed(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """The backups in the repository."""
    return {"snapshots": snapshots(given), **status(given, order)}


def checked(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Let restic look whether the repository is whole, with a part of the data read back; prove the controller's key on it."""
    if order.get("key"):
        try:
            restic(given, "cat", "config", "--no-lock", key=str(order["key"]), seconds=ANSWER_SECONDS)
        except Failed as fault:
            raise Failed(
                f"the controller's key does not open the repository: {fault}",
                "find the key these backups were made with before this host is lost: it has it in /etc/lemonstand/backup/key",
            ) from None
    look_through(given, str(order.get("share", "5%")))
    return {"whole": True, "snapshots": len(snapshots(given))}


def opened(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Say whether a key opens the repository."""
    try:
        restic(given, "cat", "config", "--no-lock", key=str(order["key"]), seconds=ANSWER_SECONDS)
    except Failed as fault:
        if code_of(fault) == WRONG_KEY:
            return {"opens": False}
        raise
    return {"opens": True}


def rekeyed(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Have the repository open with another key too (`key`), and use that one from now on.

    Append-only means that nobody here can take the old one away: the repository's owner does, once nothing uses it. Asked again after it
    was cut off, it ends where it would have.

    Returns:
        `current` and `others`: ids of the keys that open the repository, of which the first is the host's.
    """
    key = str(order["key"])
    with alone():
        if (FOLDER / "key").read_text(encoding="ascii").strip() != key:
            if not opened(given, {"key": key})["opens"]:
                with tempfile.NamedTemporaryFile("w", dir=RUN, prefix="key-", encoding="ascii") as stream:  # 0600
                    stream.write(f"{key}\n")
                    stream.flush()
                    restic(given, "key", "add", "--host", given["host"], "--new-password-file", stream.name, seconds=ANSWER_SECONDS)
            if not opened(given, {"key": key})["opens"]:
                raise Failed("the repository does not open with the new key", "the old one is in use as before; see the repository's log")
            put(FOLDER / "key", f"{key}\n", mode=0o600)
        known = json.loads(restic(given, "key", "list", "--json", "--no-lock", seconds=ANSWER_SECONDS))
    return {
        "current": next((each["id"] for each in known if each["current"]), ""),
        "others": [each["id"] for each in known if not each["current"]],
    }


def trusts(given: dict[str, Any], _order: dict[str, Any]) -> dict[str, Any]:
    """Say whether the server would be talked to if another of this host's authorities had to stand for it."""
    others = [str(path) for path in sorted(Path("/etc/lemonstand/pki").glob("ca-*.crt")) if str(path) != given["ca"]]
    if not others:
        raise Failed("this host knows no other authority to try with")
    env = {**PLAIN, **credentials(given, authority=others[0])}
    words = ["restic", "cat", "config", "--no-lock"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", env=env, cwd="/") as asked:
        end = threading.Timer(TRUST_SECONDS, asked.kill)
        end.start()
        try:
            # It would go on trying for a quarter of an hour: the first word about the certificate is the answer.
            why = next((line.strip() for line in asked.stderr or () if "x509" in line), "")
        finally:
            end.cancel()
            asked.kill()
    return {"talks": asked.returncode == 0, "why": why[:300]}


def tried(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Bring a user's mailbox, or the directory, back into a scratch place, and say what it holds; nothing else is touched."""
    with alone():
        snapshot = str(order.get("snapshot") or "latest")
        began = time.time()
        if "user" not in order:
            ldif = restic(given, "dump", "--host", given["host"], "--tag", TAG, snapshot, str(LDIF))
            found = loaded(given, ldif)
            live = blocks(says(given))
            differing = sorted(name for name in found.keys() | live.keys() if found.get(name) != live.get(name))
            return {"entries": len(found), "live": len(live), "differing": differing[:50], "seconds": time.time() - began}
        user, owner = str(order["user"]), given["mail"]["owner"]
        with brought(given, spool_of(user), snapshot, owner) as place:
            return {**inventory(user, place, owner), "seconds": time.time() - began}


def mailbox(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Bring mail of a user back: beside what he has, under a folder of its own, or as it was.

    `user`, `snapshot`, `query` (of doveadm-search-query(7), words), `under` (a folder), or `replace` (his mailboxes become what they were;
    what came since is removed, so that is refused unless `overwrite`), `dry`.
    """
    user, owner = str(order["user"]), given["mail"]["owner"]
    snapshot = str(order.get("snapshot") or "latest")
    with alone(), brought(given, spool_of(user), snapshot, owner) as place:
        query = [str(word) for word in order.get("query") or ["all"]]
        found = json.loads(call(at(user, place, "-f", "json", "fetch", WHICH, *query), owner=owner, codes=FOUND) or "[]")
        if not found:
            raise Failed(f"the backup '{snapshot}' has no such message of {user}", "try another backup (--at), or another search")
        if order.get("replace"):
            text = call(["doveadm", "-f", "json", "fetch", "-u", user, WHICH, "mailbox", "*", "all"], owner=owner, codes=FOUND)
            have, kept = by_message(json.loads(text or "[]")), by_message(found)
            removed = sum(each not in kept for each in have)
            changed = sum(have[each] != kept[each] for each in have if each in kept)
            told = {"messages": len(found), "removed": removed, "changed": changed}
            if order.get("dry"):
                return told
            if (removed or changed) and not order.get("overwrite"):
                raise Failed(
                    f"{user} has {removed} messages that the backup does not have, and {changed} with other flags: both would be gone",
                    "leave --in-place away, and they stay beside what comes back; or give --overwrite as well",
                )
            call(["doveadm", "backup", "-R", "-u", user, *at(user, place, "dsync-server")], owner=owner)
            # What came after the backup had numbers that clients may remember.
            leave_gap(user, home_of(given["mail"], user), partial(call, owner=owner, codes=FOUND))
            return told
        told = {"messages": len(found), "mailboxes": len({row["mailbox"] for row in found})}
        if not order.get("dry"):
            boxes: dict[str, list[int]] = {}
            for row in found:
                boxes.setdefault(row["mailbox"], []).append(int(row["uid"]))
            for name, uids in sorted(boxes.items()):
                put_beside(user, place, owner, name, uids, new=f"{order['under']}/{name}")
        return told


def put_beside(user: str, place: Path, owner: str, name: str, uids: list[int], *, new: str) -> None:
    """Make a mailbox of some messages of a backup's: a Maildir takes files that are moved into it, and their names hold the flags.

    Args:
        place: the home that was brought back.
        name, uids: the mailbox there, and the messages that are wanted.
        new: the mailbox that is made.

    Raises:
        Failed: there is one of that name, or not all of it arrived.
    """
    source = Path(call(at(user, place, "mailbox path", name), owner=owner).rstrip("\n"))
    files = {each.name.partition(":2,")[0]: each for part in ("new", "cur") for each in (source / part).iterdir()}
    wanted = [files[base] for uid, base in names_of((source / "dovecot-uidlist").read_text(encoding="utf-8")).items() if uid in set(uids)]
    try:
        call(["doveadm", "mailbox", "create", "-u", user, new], owner=owner)
    except Failed as fault:
        raise Failed(f"the mailbox {new} can't be made: {fault}", "name another folder with --to") from None
    target = Path(call(["doveadm", "mailbox", "path", "-u", user, new], owner=owner).rstrip("\n"))
    for part in ("tmp", "new", "cur"):
        if not (target / part).exists():
            (target / part).mkdir(mode=0o700)
            shutil.chown(target / part, owner, owner)
    # What the letters of keywords in names stand for; then the messages, each in one step.
    for each in [source / "dovecot-keywords", *wanted]:
        if each.exists():
            aside = target / "tmp" / each.name
            shutil.copy2(each, aside)
            shutil.chown(aside, owner, owner)
            aside.rename(target / (each.parent.name if each in wanted else "") / each.name)
    rows = json.loads(call(["doveadm", "-f", "json", "mailbox", "status", "-u", user, "messages", new], owner=owner, codes=FOUND) or "[]")
    there = int(rows[0]["messages"]) if rows else 0
    if there != len(uids):
        raise Failed(f"{there} of {len(uids)} messages arrived in {new}", "see `journalctl -u dovecot`, then remove that mailbox")


def names_of(uidlist: str) -> dict[int, str]:
    """UIDs and the names of their files, less the flags (Dovecot's dovecot-uidlist, version 3)."""
    return {int(line.split(" ", 1)[0]): line.partition(":")[2] for line in uidlist.splitlines()[1:] if ":" in line}


def scripts(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Bring a user's Sieve scripts back: those he has no more, and with `overwrite` those that differ; and which one is active."""
    user, owner = str(order["user"]), given["mail"]["owner"]
    home = Path(given["mail"]["directory"], user.partition("@")[2], user.partition("@")[0])
    with alone(), brought(given, spool_of(user), str(order.get("snapshot") or "latest"), owner) as place:
        kept = {path.stem: path.read_bytes() for path in sorted((place / "sieve").glob("*.sieve"))}
        live = {path.stem: path.read_bytes() for path in sorted((home / "sieve").glob("*.sieve"))}
        differing = sorted(name for name in kept if name in live and live[name] != kept[name])
        back = sorted(name for name in kept if name not in live) + (differing if order.get("overwrite") else [])
        active = Path((place / ".dovecot.sieve").readlink()).stem if (place / ".dovecot.sieve").is_symlink() else ""
        chosen = Path((home / ".dovecot.sieve").readlink()).stem if (home / ".dovecot.sieve").is_symlink() else ""
        wakes = active if active and active != chosen and (not chosen or order.get("overwrite")) else ""
        if not order.get("dry"):
            for name in back:
                call(["doveadm", "sieve", "put", "-u", user, name], owner=owner, input=kept[name].decode("utf-8"))
            if wakes:
                call(["doveadm", "sieve", "activate", "-u", user, wakes], owner=owner)
        left = [] if order.get("overwrite") else differing
        return {"scripts": len(kept), "back": back, "differing": left, "activated": wakes}


def directory(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Let the directory be what a backup has. What was changed since is kept aside, and is a reason to refuse unless `overwrite`."""
    if has_twins(given):
        raise Failed(
            "another auth host has the same directory, and would bring back what it knows", "let it fill this one: `lemonstand apply`"
        )
    with alone():
        ldif = restic(given, "dump", "--host", given["host"], "--tag", TAG, str(order.get("snapshot") or "latest"), str(LDIF))
        there, now = loaded(given, ldif), says(given)
        here = blocks(now)
        told: dict[str, Any] = {
            "entries": len(there),
            "lost": sorted(name for name in here if name not in there),
            "changed": sorted(name for name in there if name in here and here[name] != there[name]),
            "back": sorted(name for name in there if name not in here),
            "newest": changed_at(ldif),
        }
        if order.get("dry"):
            return told
        if changed_at(now) > changed_at(ldif) and not order.get("overwrite"):
            raise Failed(
                f"the directory was changed after that backup: {len(told['lost'])} entries are new, {len(told['changed'])} differ",
                "give --overwrite as well; what is there now is kept aside",
            )
        place = database_of(given)
        aside = place.with_name(f"{place.name}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        call(["systemctl", "stop", "slapd.service"])
        try:
            place.rename(aside)
            fill_directory(given, place, ldif)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            aside.rename(place)
            raise
        finally:
            call(["systemctl", "start", "slapd.service"])
        return {**told, "aside": str(aside)}


# --- a whole host -------------------------------------------------------------------------------------------------------------------


def whole(given: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Bring back all that a backup holds, to a host whose services have not begun yet (docs/decisions/0045). Safe to repeat.

    `snapshot`: an id, so that a repetition takes the same one whatever was sent since.

    Returns:
        `at` (of that backup, RFC 3339), and what came back: `paths`, `entries`, or `users`, `mailboxes`, `messages`, `scripts`; or
        `configure`: the directory's settings have to be written again first, since it has another suffix than new ones have.

    Raises:
        Failed: that backup is not there, or a service that would be in the way runs.
    """
    units = (["dovecot.service"] if given["mail"] else []) + (["slapd.service", "ticket-issuer.service"] if given["directory"] else [])
    busy = [unit for unit in units if call(["systemctl", "is-active", unit], codes=(0, 3, 4)).strip() == "active"]
    if busy:
        raise Failed(f"{', '.join(busy)} runs here, and nothing is put under a service at work", f"systemctl stop {' '.join(busy)}")
    snapshot = str(order["snapshot"])
    made = next((each for each in snapshots(given) if each["id"] == snapshot), None)
    if made is None:
        raise Failed(f"there is no backup '{snapshot}' of {given['host']}", "`lemonstand backup list` shows the backups")
    with alone():
        told: dict[str, Any] = {"at": made["time"], "paths": put_back(given, snapshot)}
        if given["directory"]:
            found = put_directory(given, snapshot)
            if found is None:
                return {**told, "configure": True}
            told["entries"] = found
        if given["mail"]:
            told |= put_mail(given["mail"], given, snapshot)
    return told


def put_back(given: dict[str, Any], snapshot: str) -> list[str]:
    """Put files and databases of a backup in the place of what setting the host up made; return which."""
    wanted = {each: Path(each) for each in given["paths"]}
    # Of several auth hosts the others have what was counted since, and go on from there.
    if not (given["directory"] and has_twins(given)):
        wanted |= {str(DATABASES / Path(each).name): Path(each) for each in given["databases"]}
    if not wanted:
        return []
    place = Path(tempfile.mkdtemp(dir=SCRATCH))
    try:
        chosen = [word for each in wanted for word in ("--include", each)]
        restic(given, "restore", snapshot, "--target", str(place), "--host", given["host"], *chosen)
        back = []
        for each, target in wanted.items():
            source = place / each.lstrip("/")
            if source.exists():
                replace(source, target)
                back.append(str(target))
        return back
    finally:
        shutil.rmtree(place, ignore_errors=True)


def replace(source: Path, target: Path) -> None:
    """Put a file or directory in another one's place; owners are this host's: the same users have other numbers elsewhere."""
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    whose = target if target.exists() else target.parent
    owner, group = whose.stat().st_uid, whose.stat().st_gid
    new = target.with_name(f".{target.name}.back")
    shutil.rmtree(new, ignore_errors=True)
    new.unlink(missing_ok=True)
    call(["cp", "-a", str(source), str(new)])
    call(["chown", "-hR", f"{owner}:{group}", str(new)])
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    new.rename(target)


def put_directory(given: dict[str, Any], snapshot: str) -> int | None:
    """Build the directory of a backup; return its number of entries, or None where slapd is configured for another suffix."""
    ldif = restic(given, "dump", "--host", given["host"], snapshot, str(LDIF))
    text = Path(given["directory"]["configuration"]).read_text(encoding="utf-8")
    suffix = next((line.split(None, 1)[1].strip().strip('"') for line in text.splitlines() if line.startswith("suffix")), "")
    if suffix.lower() not in {name.lower() for name in blocks(ldif)}:
        return None
    place = database_of(given)
    shutil.rmtree(place, ignore_errors=True)
    fill_directory(given, place, ldif)
    if blocks(says(given)) != blocks(ldif):
        raise Failed(f"the directory of the backup '{snapshot}' is not the same once it is here", "take another backup with --at")
    return len(blocks(ldif))


def put_mail(mail: dict[str, Any], given: dict[str, Any], snapshot: str) -> dict[str, Any]:
    """Bring all homes of a backup back, with UIDs, flags, scripts and attributes.

    Clients know of messages that came after it. So that no UID is given twice, and no number of a change, each mailbox goes on far behind
    what it had (RFC 9051 section 2.3.1.1; RFC 7162 section 3.1.1).
    """
    owner, top = mail["owner"], Path(mail["directory"])
    before = top.stat()
    for _, home in list(homes(top)):  # of a run that was cut off: nobody was ever served here
        shutil.rmtree(home)
    restic(given, "restore", f"{snapshot}:{SPOOL}", "--target", str(top), "--host", given["host"])
    call(["chown", "-hR", f"{owner}:{owner}", str(top)])
    top.chmod(before.st_mode & 0o7777)
    told = {"users": 0, "mailboxes": 0, "messages": 0, "scripts": 0}
    for user, home in homes(top):
        seen = inventory(user, home, owner)
        told["users"] += 1
        told["mailboxes"] += len(seen["boxes"])
        told["messages"] += seen["messages"]
        told["scripts"] += seen["scripts"]
        leave_gap(user, home, partial(call, owner=owner, codes=FOUND))
    return told


ORDERS: dict[str, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]] = {
    "run": started,
    "status": status,
    "list": listed,
    "check": checked,
    "opens": opened,
    "rekey": rekeyed,
    "trusts": trusts,
    "try": tried,
    "mailbox": mailbox,
    "scripts": scripts,
    "directory": directory,
    "whole": whole,
}


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order; what can't be done is told as `error`, with `remedy`."""
    try:
        return ORDERS[str(order["action"])](settings(), order)
    except Failed as fault:
        return {"error": str(fault), "remedy": fault.remedy}


def first(*, check: bool) -> int:
    """Begin a backup where there was none and none is under way."""
    busy = call(["systemctl", "is-active", UNIT], codes=(0, 3, 4)).strip() in {"active", "activating", "reloading"}
    if "made" in read_word() or busy:
        return 0
    if not check:
        call(["systemctl", "start", "--no-block", UNIT])
    print(f"changed: {'would begin' if check else 'began'} the first backup")
    return 0


def main(words: list[str]) -> int:
    """Do what the command line says."""
    os.umask(0o077)
    if words[:1] == ["first"]:
        return first(check="--check" in words)
    if words == ["order"]:
        print(json.dumps(answer(json.loads(sys.stdin.readline() or "{}"))))
        return 0
    if words != ["run"]:
        sys.exit(__doc__)
    try:
        done = run(settings())
    except Failed as fault:
        print(f"alarm=backup {fault}{f'; {fault.remedy}' if fault.remedy else ''}", file=sys.stderr)
        return 1
    print(f"backup {done['made']['snapshot']}: {done['made']}; proven: {done['proven']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
