"""What the controller runs on hosts: for how long it waits, by what it is told."""

from __future__ import annotations

import subprocess
import time

import pytest

from lemonstand.admin.access import heard


def test_what_goes_on_saying_something_may_take_its_time() -> None:
    """Five words, each within the silence that is allowed, all of them together longer than it."""
    done = heard(["sh", "-c", "read word; for n in 1 2 3 4 5; do sleep 0.5; echo; done; echo $word; echo oh >&2; exit 3"], "given\n", 1.5)
    assert (done.returncode, done.stdout, done.stderr) == (3, "\n\n\n\n\ngiven\n", "oh\n")


def test_what_says_nothing_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        heard(["sh", "-c", "echo begun; exec sleep 60"], "", 1.0)
    assert time.monotonic() - began < 30


def test_a_program_that_reads_nothing_is_no_fault() -> None:
    assert heard(["sh", "-c", "exec 0<&-; echo done"], "x" * 1_000_000, 10.0).stdout == "done\n"
