"""Compares files, directories and accounts of this host with what they should be, and brings them there.

Runs on a host from standard input (`python3 -`), on the standard library alone, and leaves nothing of itself there. The action plugin
`files` appends a call of `main_encoded` with the order: what should be is worked out on the controller (`plugin_utils/manifest.py`).
"""

import base64
import contextlib
import grp
import hashlib
import json
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

MARK = ".lemonstand-"
"""Stands in the name of a file that is about to take another's place."""
SHOWN_OCTETS = 256 * 1024
"""A file larger than this is not shown in a diff."""
KINDS = {"file": stat.S_ISREG, "directory": stat.S_ISDIR}


def owner_of(info: os.stat_result) -> str:
    """The owner's name, or his number where he has none."""
    try:
        return pwd.getpwuid(info.st_uid).pw_name
    except KeyError:
        return str(info.st_uid)


def group_of(info: os.stat_result) -> str:
    """The group's name, or its number where it has none."""
    try:
        return grp.getgrgid(info.st_gid).gr_name
    except KeyError:
        return str(info.st_gid)


def differences(entry: dict[str, Any]) -> list[str]:
    """What is not as it should be: `absent`, `present`, `type`, `content`, `owner`, `group`, `mode`; nothing where all is well.

    Args:
        entry: path, state (file, directory, absent), owner, group, mode (octal text), and of a file its sha256 (hexadecimal).
    """
    path = Path(entry["path"])
    try:
        info = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return [] if entry["state"] == "absent" else ["absent"]
    if entry["state"] == "absent":
        return ["present"]
    if not KINDS[entry["state"]](info.st_mode):
        return ["type"]
    found = []
    if entry["state"] == "file" and hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        found.append("content")
    if owner_of(info) != entry["owner"]:
        found.append("owner")
    if group_of(info) != entry["group"]:
        found.append("group")
    if stat.S_IMODE(info.st_mode) != int(entry["mode"], 8):
        found.append("mode")
    return found


def present(path: Path) -> dict[str, Any]:
    """Owner, group and mode of what is there; empty if nothing is."""
    try:
        info = path.lstat()
    except OSError:
        return {}
    return {"owner": owner_of(info), "group": group_of(info), "mode": f"{stat.S_IMODE(info.st_mode):04o}"}


def text_of(path: Path) -> str | None:
    """A file's text for a diff; None if it is too large, no text, or no file."""
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > SHOWN_OCTETS:
            return None
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        return None


def stale(entry: dict[str, Any]) -> list[str]:
    """The files of a directory that nobody asked for, where it holds nothing else (`only`)."""
    path = Path(entry["path"])
    if entry.get("only") is None or not path.is_dir():
        return []
    return sorted(str(each) for each in path.iterdir() if each.name not in entry["only"] and not each.is_dir())


def compare(order: dict[str, Any]) -> dict[str, Any]:
    """Says what differs, and changes nothing.

    Args:
        order: `accounts`, `entries`; with `diff`, each differing file's text comes along unless it is `secret`.

    Returns:
        `accounts`: those that are missing; `differing`: {path, what, before, text}; `stale`: paths.
    """
    differing = []
    for entry in order["entries"]:
        what = differences(entry)
        if what:
            path = Path(entry["path"])
            shown = order["diff"] and not entry.get("secret") and entry["state"] == "file"
            differing.append({"path": entry["path"], "what": what, "before": present(path), "text": text_of(path) if shown else None})
    return {
        "accounts": {each["name"]: account(each["name"]) for each in order["accounts"]},
        "differing": differing,
        "stale": [path for entry in order["entries"] for path in stale(entry)],
    }


def account(name: str) -> dict[str, int] | None:
    """A user's numbers: `uid`, `gid`; None if there is no such user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return {"uid": found.pw_uid, "gid": found.pw_gid}


def make_account(wanted: dict[str, Any]) -> dict[str, int] | None:
    """Makes a system user without a password; its home directory is not made."""
    shell = wanted.get("shell") or "/usr/sbin/nologin"
    words = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", shell, "--home-dir", wanted["home"]]
    run([*words, "--comment", wanted.get("comment", ""), wanted["name"]])
    return account(wanted["name"])


def run(words: list[str]) -> None:
    """Runs a command; OSError with what it printed if it fails."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise OSError(f"{Path(words[0]).name} refuses it (exit {done.returncode}): {said}")


def numbers(entry: dict[str, Any]) -> tuple[int, int]:
    """User and group numbers of an entry; OSError naming what is missing on this host."""
    try:
        uid = pwd.getpwnam(entry["owner"]).pw_uid
    except KeyError:
        raise OSError(f"there is no user {entry['owner']} on this host") from None
    try:
        return uid, grp.getgrnam(entry["group"]).gr_gid
    except KeyError:
        raise OSError(f"there is no group {entry['group']} on this host") from None


def settle(path: Path, entry: dict[str, Any]) -> None:
    """Gives what is there its owner, group and mode."""
    uid, gid = numbers(entry)
    os.chown(path, uid, gid, follow_symlinks=False)
    path.chmod(int(entry["mode"], 8))


def validate(entry: dict[str, Any]) -> None:
    """Shows the new text to the program that will read it; OSError if it does not take it."""
    if not entry.get("validate"):
        return
    folder = Path(tempfile.mkdtemp(prefix="lemonstand-"))  # for root alone
    try:
        file = folder / Path(entry["path"]).name
        file.write_text(entry["text"], encoding="utf-8")
        file.chmod(int(entry["mode"], 8) | 0o400)
        run([word.replace("%s", str(file)) for word in shlex.split(entry["validate"])])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(path: Path, entry: dict[str, Any]) -> None:
    """Puts a text in a file's place in one step, with owner and mode from the first octet on."""
    uid, gid = numbers(entry)
    for old in path.parent.glob(f".{path.name}{MARK}*"):  # of a run that died
        old.unlink()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{MARK}")
    new = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            os.fchown(stream.fileno(), uid, gid)
            os.fchmod(stream.fileno(), int(entry["mode"], 8))
            stream.write(entry["text"])
            stream.flush()
            os.fsync(stream.fileno())
        try:
            new.replace(path)
        except OSError:
            if not entry.get("in_place"):
                raise
            # A mount of its own, which nothing can take the place of.
            path.write_text(entry["text"], encoding="utf-8")
            settle(path, entry)
    finally:
        new.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def bring(entry: dict[str, Any]) -> list[str]:
    """Brings one file or directory to what it should be; returns what differed. OSError: it stays as it was."""
    path, what = Path(entry["path"]), differences(entry)
    if not what:
        return []
    if entry["state"] == "absent":
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif entry["state"] == "directory":
        if what == ["type"]:
            raise OSError("there is something that is no directory")
        if what == ["absent"]:
            numbers(entry)
            path.mkdir(mode=0o700, parents=True)
        settle(path, entry)
    elif path.is_dir() and not path.is_symlink():
        raise OSError("there is a directory")
    elif {"absent", "type", "content"} & set(what):
        validate(entry)
        write(path, entry)
    else:
        settle(path, entry)
    return what


def hold(order: dict[str, Any]) -> dict[str, Any]:
    """Makes missing accounts, writes what differs, removes what is stale. One fault does not keep the others from being written.

    Returns:
        `accounts`: as they are now; `changed`: paths and accounts; `faults`: sentences.
    """
    changed, faults = [], []
    accounts: dict[str, dict[str, int] | None] = {}
    for wanted in order["accounts"]:
        accounts[wanted["name"]] = account(wanted["name"])
        if accounts[wanted["name"]] is None:
            try:
                accounts[wanted["name"]] = make_account(wanted)
                changed.append(f"user {wanted['name']}")
            except OSError as fault:
                faults.append(f"user {wanted['name']}: {fault}")
    for entry in order["entries"]:
        try:
            if bring(entry):
                changed.append(entry["path"])
            for path in stale(entry):
                Path(path).unlink()
                changed.append(path)
        except OSError as fault:
            faults.append(f"{entry['path']}: {fault}")
    return {"accounts": accounts, "changed": changed, "faults": faults}


def main_encoded(text: str) -> int:
    """Does one order (base64 of JSON) and prints the answer as JSON."""
    os.umask(0o077)
    order = json.loads(base64.b64decode(text))
    print(json.dumps(hold(order) if order["write"] else compare(order)))
    return 0
