"""What readings of a host share: commands, texts, names of owners, and a walk that follows no link."""

# Thousands of files are looked at: os is three times as fast as pathlib.

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
HASH = re.compile(rb"(?:\{(?:ARGON2|SSHA|CRYPT|SHA512|BLF|PBKDF2)[^}]*\}|\$(?:argon2id?|2[aby]|6|y)\$)[A-Za-z0-9$./+=,-]{20,}")
"""What a thief would want, in a file: a private key, a hash of a password."""
SECONDS = 30
"""A command may take, on a busy host too."""


def command(*words: str) -> str | None:
    """What a command printed; None where it is not there or fails.

    Raises:
        TimeoutError: it did not end. That is no empty answer: nothing strange would be found in it.
    """
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
    except OSError:
        return None
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{' '.join(words[:2])} does not end within {SECONDS} s") from None
    return done.stdout if done.returncode == 0 else None


def command_json(*words: str) -> Any:
    try:
        return json.loads(command(*words) or "null")
    except ValueError:
        return None


def text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def owner_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def below(place: str, device: int | None = None) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a place that is on the same file system, but for links' targets."""
    waiting = [place]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            yield entry.path, entry
            if entry.is_dir(follow_symlinks=False) and (device is None or entry.stat(follow_symlinks=False).st_dev == device):
                waiting.append(entry.path)
