"""Runs commands of the host a probe is on."""

from __future__ import annotations

import subprocess


def command(*words: str, data: str | None = None, check: bool = True) -> str:
    """What a command of this host prints.

    Raises:
        RuntimeError: it failed, and `check` is set.
    """
    done = subprocess.run(words, input=data, capture_output=True, text=True, timeout=30, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words[:3])}: {done.stderr.strip()[:300]}")
    return done.stdout
