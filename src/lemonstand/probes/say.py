"""What a running probe tells before its result: one line of JSON each, at once."""

from __future__ import annotations

import json
import sys
from typing import Any


def emit(event: str, **values: Any) -> None:
    """Prints an event."""
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()
