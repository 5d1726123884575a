"""Runs the machine's own tools and turns their failures into errors a user can act on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lemonstand.errors import LemonstandError
from lemonstand.surroundings import LOCALE


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 300,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command without a shell.

    Args:
        argv: program and arguments; never a secret (arguments are public on a machine).
        stdin: text for its standard input.
        check: raise when it fails.
        timeout: seconds until it is killed.
        env: variables added to the environment.
        log: file that its output is appended to.

    Raises:
        LemonstandError: it failed, took too long or doesn't exist.
    """
    words = [str(word) for word in argv]
    line = " ".join(words)
    try:
        done = subprocess.run(
            words,
            input=stdin,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "LC_ALL": LOCALE, **(env or {})},
        )
    except FileNotFoundError:
        raise LemonstandError(f"the program '{words[0]}' is not installed", line[:200], "run `make setup`, which installs it") from None
    except subprocess.TimeoutExpired:
        raise LemonstandError(f"no end after {timeout:.0f} s", line[:200], "run the command by hand to see what it waits for") from None
    if log is not None:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"$ {line}\n{done.stdout}{done.stderr}")
    if check and done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise LemonstandError(
            "; ".join(lines[-4:]) or f"exit status {done.returncode}", line[:300], "run the command by hand, then this again"
        )
    return done
