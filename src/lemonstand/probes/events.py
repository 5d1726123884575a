"""What a running probe tells before its result: one line of JSON each, at once; and the word it is told."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

ENOUGH = threading.Event()
"""Set when the asker has seen what it wanted; a probe that only waits then ends."""


class Refused(OSError):
    """A service said no to what it must allow. A class of its own: the kernel's own refusals mean that a probe could not look."""


class Later(OSError):
    """A service said that it can't just now, and went on saying so: whoever looked at something else could not look."""


def emit(event: str, **values: Any) -> None:
    """Prints an event."""
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()
