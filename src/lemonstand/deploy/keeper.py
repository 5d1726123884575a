"""Keeps Ansible from outliving whoever started it. Run as `python -I keeper.py LOCK PARENT COMMAND…`; standard library only.

It holds LOCK until all it started has ended, and Ansible inherits the lock: as long as anything of the run lives, no other run begins. If
the process PARENT dies, however it does, the kernel tells (`prctl(2)`), and Ansible is asked to end, then killed with all it left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5
"""How long Ansible may take to end its workers by itself."""
BUSY = 75
"""Exit status if the lock is held (EX_TEMPFAIL)."""
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Runs the command; returns its exit status, or 128 and the number of the signal that ended it."""
    lock, parent, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    asked: list[float] = []
    child: list[int] = []

    def end(_number: int, _frame: FrameType | None) -> None:
        if not asked:
            asked.append(time.monotonic())
            for process in child:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    if os.getppid() != parent:  # it died before it could be watched
        return BUSY
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return BUSY
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    try:
        process = subprocess.Popen(command, pass_fds=(handle,), preexec_fn=_follow)  # noqa: PLW1509 - this program has no threads
    except OSError as fault:
        print(f"{command[0]}: {fault.strerror}", file=sys.stderr)
        return 127
    child.append(process.pid)
    if asked:  # between the first line of this program and here
        process.send_signal(signal.SIGINT)
    while True:
        try:
            code = process.wait(0.2)
            break
        except subprocess.TimeoutExpired:
            if asked and time.monotonic() - asked[0] > GRACE_SECONDS:
                process.kill()
    if asked or code < 0:
        for left in _left(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _follow() -> None:
    """In the child: if the keeper is killed, so is Ansible, which passes the signal on to its workers."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # The terminal's end would kill it before it has told its workers.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _left(parent: int) -> Iterator[int]:
    """All processes below one, but for connections of SSH that others share."""
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        for word in task.read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):
                if b"[mux]" not in Path(f"/proc/{word}/cmdline").read_bytes():
                    yield from _left(int(word))
                    yield int(word)


if __name__ == "__main__":
    sys.exit(main())
