"""Who is about to change a site, from where and by which code; what the site is as this inventory has it (docs/decisions/0038)."""

from __future__ import annotations

import functools
import getpass
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import secrets
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PLAYBOOKS = Path(__file__).resolve().parents[1]
PREFIX = "lemonstand_"
NOT_OF_THE_SITE = {f"{PREFIX}pki_dir", f"{PREFIX}signer", f"{PREFIX}kind", f"{PREFIX}user_passwords"}
"""Where this controller keeps something, what the plays set themselves, and secrets: no part of what a site is."""
SECRET = re.compile(r"pass|secret|token|key|vault|credential", re.IGNORECASE)
STAMPS = "site.yml"
"""The playbook that brings whole hosts to what the inventory says."""
LONGEST = 400
"""Letters of a command in the history."""
SEATS = ("auths", "stores")
"""Groups whose hosts keep the lock and the history: none of them stands where the Internet comes first."""
GIT_SECONDS = 10


def seats(groups: Mapping[str, Sequence[str]], without: Sequence[str] = ()) -> list[str]:
    """The hosts that keep the lock and the history, in the order in which they are asked."""
    return [str(name) for group in SEATS for name in groups.get(group, ()) if name not in without]


def inventory_digest(hostvars: Any) -> str:
    """SHA-256 over the site's variables of all its hosts, in hexadecimal digits; secrets and paths of this controller left out.

    Args:
        hostvars: Ansible's variable of that name.
    """
    values = _sibling("lemonstand")
    total = hashlib.sha256()
    told: dict[int, str] = {}  # most values are the same for all hosts, and there may be thousands of users
    kept: list[Any] = []
    for name in sorted(map(str, hostvars)):
        raw = hostvars.raw_get(name) if hasattr(hostvars, "raw_get") else hostvars[name]
        if not set(raw.get("group_names") or ()) & {*values.GROUPS, *values.SHAPE["outer"]}:
            continue
        for variable in sorted(key for key in raw if key.startswith(PREFIX) and key not in NOT_OF_THE_SITE):
            if id(raw[variable]) not in told or not values._is_plain(raw[variable]):
                plain = _open(values._values(hostvars, name, [variable])[variable])
                text = json.dumps(plain, sort_keys=True, default=str)
                told[id(raw[variable])] = hashlib.sha256(text.encode()).hexdigest()
                kept.append(raw[variable])  # so that no other value gets its number
            total.update(f"{name}\0{variable}\0{told[id(raw[variable])]}\0".encode())
    return total.hexdigest()


def _open(value: Any) -> Any:
    """A value without what its keys call secret."""
    if isinstance(value, Mapping):
        return {str(key): _open(item) for key, item in value.items() if not SECRET.search(str(key))}
    if isinstance(value, list | tuple):
        return [_open(item) for item in value]
    return value


def code() -> dict[str, Any]:
    """The code of this controller.

    Returns:
        `version`; `commit` (empty where there is no checkout) and its `commit_time` (seconds since 1970, 0 likewise); `dirty`: it has
        changes that are in no commit; `layout`: the last migration it knows.
    """
    known = {"version": _version(), "commit": "", "commit_time": 0, "dirty": False, "layout": _layout()}
    found = _git("log", "-1", "--format=%H %ct")
    if found:
        commit, _, when = found.partition(" ")
        known |= {"commit": commit, "commit_time": int(when), "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    return known


def _git(*words: str) -> str:
    root = PLAYBOOKS.parent
    if not (root / ".git").exists():
        return ""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), "--no-optional-locks", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIT_SECONDS, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version() -> str:
    """Of the checkout these playbooks are in, of the collection, or of the package."""
    for name, form in (("pyproject.toml", r'^version = "([^"]+)"'), ("MANIFEST.json", r'"version": *"([^"]+)"')):
        path = PLAYBOOKS.parent / name
        found = re.search(form, path.read_text(encoding="utf-8"), re.MULTILINE) if path.is_file() else None
        if found:
            return found.group(1)
    try:
        return importlib.metadata.version("lemonstand")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _layout() -> int:
    layout: int = _load(PLAYBOOKS / "files" / "migrations.py").LAYOUT
    return layout


def controller() -> dict[str, Any]:
    """This machine and the process that is at work.

    Returns:
        `who` (user@machine); `controller`, which tells machines and boots apart; `process`, of this run; `living`: processes here that
        may hold a lock. A process is its number and when it started.
    """
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    parts = [socket.gethostname()]
    for name in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        parts.append(Path(name).read_text(encoding="ascii").strip() if Path(name).exists() else "")
    parts.append(str(Path("/proc/self/ns/pid").readlink()))
    processes = {int(path.name): _process(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    living = {number: found for number, found in processes.items() if found and (found[2] or number == os.getpid())}
    mine, number = os.getpid(), os.getpid()
    while processes.get(number):
        found = processes[number]
        if found is None:
            break
        mine = number if found[2] else mine
        number = found[0]
    return {
        "who": f"{user}@{socket.gethostname()}",
        "controller": hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16],
        "process": _name(mine, processes[mine]),
        "living": [_name(each, found) for each, found in sorted(living.items())],
    }


def _name(number: int, found: tuple[int, int, bool] | None) -> str:
    return f"{number}/{found[1] if found else 0}"


def _process(number: int) -> tuple[int, int, bool] | None:
    """Of a process: its parent, when it started (ticks), whether it may be a run of ours; None if it is gone."""
    folder = Path("/proc", str(number))
    try:
        fields = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        words = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    ours = any(Path(word.decode("utf-8", "replace")).name in {"ansible-playbook", "lemonstand"} for word in words[:3])
    return int(fields[1]), int(fields[19]), ours


def operation(hostvars: Any, playbook: str, limit: str = "") -> dict[str, Any]:
    """All that a run says of itself to the site.

    Args:
        hostvars: Ansible's variable of that name.
        playbook: the file's name, for who started plain Ansible.
        limit: Ansible's pattern of hosts.

    Returns:
        What `code` and `controller` do, and `id`, `command`, `limit`; and `inventory`, where the playbook writes it on hosts.
    """
    command = os.environ.get("LEMONSTAND_COMMAND") or f"ansible-playbook {playbook}"
    return {
        **code(),
        **controller(),
        "id": os.environ.get("LEMONSTAND_RUN") or new_id(),
        "command": _line(command),
        "limit": _line(str(limit or "")),
        **({"inventory": inventory_digest(hostvars)} if playbook == STAMPS else {}),
    }


def _line(text: str) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def new_id() -> str:
    """Tells a run from all others."""
    return secrets.token_hex(8)


def refusal(answers: Sequence[Mapping[str, Any]]) -> str:
    """Why a run must not go on, by what the seats said; empty: it may.

    Args:
        answers: results of asking them one by one, as Ansible registers them.
    """
    told: dict[str, None] = {}
    for each in answers:
        said = each.get("answer") or {}
        if not each.get("unreachable") and not said and not each.get("skipped"):
            told[
                f"{each.get('item')} can't keep the site's lock: {each.get('msg')}; mend that host, or do without it (`--without-seat`, "
                'with plain Ansible -e \'{"site_lock_without": ["HOST"]}\')'
            ] = None
        if held := said.get("held"):
            limit = f" --limit {held['limit']}" if held.get("limit") and "--limit" not in str(held.get("command")) else ""
            told[
                f"{held['who']} changes this site since {held['since']} (`{held['command']}{limit}`, says {each.get('item')}): wait until "
                "that ends. If its controller is gone the site is free ten minutes later, or after `lemonstand unlock`"
            ] = None
        if newer := said.get("newer"):
            told[
                f"lemonstand {_named(newer)} was here (layout {newer.get('layout')}, {newer.get('who')}, {newer.get('when')}, says "
                f"{each.get('item')}), and this controller is older: bring it up to that. To go back on purpose: `--older`, with plain "
                "Ansible -e site_older=true"
            ] = None
    return "\n".join(told)


SAID = ("version", "commit", "commit_time", "dirty", "layout", "inventory", "who")
"""What a stamp takes of what a run says of itself."""


def stamp(known: Mapping[str, Any]) -> dict[str, Any]:
    """What a host's stamp says of a run that has come to its end there."""
    return {**{name: known[name] for name in SAID}, "run": known["id"], "result": "ok"}


def changes(host: Mapping[str, Any]) -> int:
    """How many tasks of this run changed a host, by its variables."""
    return int((host.get("ansible_facts") or {}).get("lemonstand_changes", 0))


def _named(known: Mapping[str, Any]) -> str:
    commit = str(known.get("commit") or "")[:12]
    return f"{known.get('version')}{f' ({commit})' if commit else ''}"


@functools.cache
def _sibling(name: str) -> Any:
    """Another module of this directory, which Ansible loads under names of its own."""
    return _load(Path(__file__).with_name(f"{name}.py"))


@functools.cache
def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"lemonstand_plain_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # noqa: S101 - for the type checker
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FilterModule:
    """Announces the filters to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {
            "lemonstand_operation": operation,
            "lemonstand_seats": seats,
            "lemonstand_refusal": refusal,
            "lemonstand_changes": changes,
            "lemonstand_stamp": stamp,
        }
