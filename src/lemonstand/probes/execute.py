"""Carries out one order, in a process of its own, and prints lines of JSON.

An order is `{"function": "PACKAGE.MODULE.FUNCTION", "args": {...}, "seconds": N}`. Lines: `{"event": NAME, ...}` while it runs, then one of
`{"event": "result", "data": ...}`; `{"event": "refused", "message": ...}` where a service said no to what it must allow
(`events.Refused`); `{"event": "error", "kind": ..., "message": ...}`. The process ends itself after `seconds`, whatever happens
to the connection, and as soon as its standard input ends.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from lemonstand.probes.events import ENOUGH, Refused, emit


def _end_with_the_asker() -> None:
    """Whoever gave the order keeps standard input open as long as the answer is wanted, and may say that he has seen enough."""
    for line in sys.stdin:
        if line.strip() == "enough":
            ENOUGH.set()
    os._exit(3)


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.rpartition(".")
    probe: Callable[..., Any] = getattr(importlib.import_module(f"lemonstand.probes.{module}"), function)
    return probe


def main(order: dict[str, Any]) -> None:
    """Carries out the order."""
    signal.alarm(int(order["seconds"]))
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    try:
        data = _function(order["function"])(**order["args"])
    except Refused as refusal:
        emit("refused", message=str(refusal)[:2000])
        sys.exit(2)
    except Exception as fault:  # the other side has to learn of anything
        emit("error", kind=type(fault).__name__, message=str(fault)[:2000])
        sys.exit(1)
    emit("result", data=data)
