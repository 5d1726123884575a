"""Looks at the files of an inventory before anybody parses them: what is no plain text file of a sane size is named, not waited for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lemonstand.errors import InputError, InputErrors

MOST_OCTETS = 8 * 2**20
"""Of one file: ten thousand users with their password hashes take a quarter of it."""
MOST_FILES = 5000
MOST_LEVELS = 64
MOST_VALUES = 1_000_000
"""Of one file, aliases written out."""
PASSED_OVER = (
    "~", ".orig", ".bak", ".cfg", ".retry", ".pyc", ".pyo", ".txt", ".rst", ".md", ".png", ".jpg", ".jpeg", ".pdf", ".gif", ".svg", ".swp",
    ".pem", ".crt", ".key", ".csr", ".der", ".p12", ".log",
)  # fmt: skip
"""Ends of names of files that no program of ours parses."""
YAML = (".yml", ".yaml", ".json")
FOLDERS = ("group_vars", "host_vars")
KINDS = (
    (stat.S_ISFIFO, "a pipe (FIFO): whoever reads it waits for a writer"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def look_at(inventory: Path) -> None:
    """Looks at all files of an inventory.

    Args:
        inventory: its directory or hosts file.

    Raises:
        InputErrors: everything that is in the way of reading it.
    """
    faults = list(_faults(inventory))
    if faults:
        raise InputErrors(faults)


def shown(path: object) -> str:
    """A path for a message, whatever octets it has."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def read_text(path: Path) -> str:
    """A small text file's content, without waiting for anybody.

    Raises:
        InputError: it is none, or can't be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        raise InputError(f"this can't be read: {fault.strerror}", shown(path), "mend that, or take it away") from None
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            kind = next((words for test, words in KINDS if test(found.st_mode)), "a directory")
            raise InputError(f"this is {kind}, no file", shown(path), "put a file of text in its place, or take it away")
        if found.st_size > MOST_OCTETS:
            raise InputError(
                f"this file has {found.st_size / 2**20:.0f} MiB; more than {MOST_OCTETS // 2**20} are not read",
                shown(path),
                "divide it, or take it away",
            )
        try:
            content = stream.read(MOST_OCTETS + 1)
        except OSError as fault:
            raise InputError(f"this can't be read: {fault.strerror}", shown(path), "mend that, or take it away") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        raise InputError("this is not UTF-8", f"{shown(path)}:{line}", "write it as UTF-8, or take it away") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError("this is no text: it holds a NUL", f"{shown(path)}:{line}", "put text in its place, or take it away")
    return text


def _faults(inventory: Path) -> Iterator[InputError]:
    folder = inventory if inventory.is_dir() else inventory.parent
    count = 0
    seen: set[tuple[int, int]] = set()
    for path in files(inventory):
        count += 1
        if count > MOST_FILES:
            yield InputError(f"more than {MOST_FILES} files", shown(folder), "name the directory of the site alone with --site")
            return
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError:
            yield InputError("this file's name is not UTF-8", shown(path), "give it another name")
            continue
        try:
            found = path.stat()
        except OSError as fault:
            broken = path.is_symlink()
            what = f"this link leads nowhere: {fault.strerror}" if broken else f"this can't be read: {fault.strerror}"
            yield InputError(what, shown(path), "let it lead to a file, or take it away" if broken else "mend that, or take it away")
            continue
        if stat.S_ISDIR(found.st_mode):
            if path.is_symlink() and any(parent.samefile(path) for parent in path.absolute().parents):
                yield InputError("this link leads back to a directory it lies in", shown(path), "take it away")
            elif path.suffix in YAML and path.parent.name not in FOLDERS:
                yield InputError("this is a directory, no file", shown(path), "put a file of text in its place, or give it another name")
            continue
        place = (found.st_dev, found.st_ino)
        if place in seen or path.name.endswith(PASSED_OVER):
            if not stat.S_ISREG(found.st_mode):
                yield from _unreadable(path)
            continue
        seen.add(place)
        yield from _unreadable(path)


def files(inventory: Path) -> Iterator[Path]:
    """All that lies where Ansible looks: everything below a directory; beside a hosts file, the folders of variables."""
    if inventory.is_dir():
        starts = [inventory]
    else:
        yield inventory
        starts = [inventory.parent / name for name in FOLDERS]
    for start in starts:
        for place, folders, names in os.walk(start):
            folders[:] = sorted(name for name in folders if name != ".git")
            for name in [*folders, *sorted(names)]:
                yield Path(place, name)


def _unreadable(path: Path) -> Iterator[InputError]:
    try:
        text = read_text(path)
    except InputError as unreadable:
        yield unreadable
        return
    if path.suffix in YAML and not text.startswith("$ANSIBLE_VAULT"):
        fault = grown(text, shown(path))
        if fault is not None:
            yield fault


@lru_cache(64)  # a command may look at a site more than once
def grown(text: str, where: str) -> InputError | None:
    """What is wrong with the shape of a YAML text: too deep, or too large with its aliases written out. Its grammar is Ansible's matter."""
    measure = _Measure(where)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            fault = measure.take(event)
            if fault is not None:
                return fault
    except yaml.YAMLError:
        return None
    return None


class _Measure:
    """Counts the values of a YAML text while it is parsed, aliases as what they repeat."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._sizes: dict[str, int] = {}
        self._open: list[tuple[str | None, int]] = []

    def take(self, event: Any) -> InputError | None:
        """Counts one event."""
        if isinstance(event, yaml.ScalarEvent):  # nearly all of them
            size = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open.append((event.anchor, 1))
            if len(self._open) > MOST_LEVELS:
                return InputError(f"this is nested more than {MOST_LEVELS} levels deep", self._place(event), "write it flatter")
            return None
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = self._open.pop()
            if anchor:
                self._sizes[anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in self._open):
                return InputError(f"'*{event.anchor}' stands within what it repeats", self._place(event), "write the value out")
            size = self._sizes.get(str(event.anchor), 1)
        else:
            return None
        if self._open:
            anchor, before = self._open[-1]
            self._open[-1] = (anchor, before + size)
            if before + size > MOST_VALUES:
                kind = "aliases make this grow to" if self._sizes else "this has"
                return InputError(f"{kind} more than {MOST_VALUES} values", self._place(event), "write out what you mean")
        return None

    def _place(self, event: Any) -> str:
        return f"{self._where}:{event.start_mark.line + 1}"


def of_a_lab(inventory: Path) -> bool:
    """Whether an inventory is a lab's: it reads where the lab's keys and passwords lie."""
    return any("LEMONSTAND_LAB_DIR" in read_text(text) for text in files(inventory) if text.suffix == ".yml" and text.is_file())
