"""State files: read without a traceback whatever they hold, written so that the old one is there until the new one is whole."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from lemonstand.errors import InputError


def read_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """A JSON object of ours.

    Args:
        path: the file.
        what: what it holds, for the error.
        remedy: what makes it anew.

    Raises:
        InputError: it can't be read, is cut off, or is something else.
    """
    from lemonstand.survey import read_text  # noqa: PLC0415 - it loads YAML

    try:
        found = json.loads(read_text(path))
    except InputError as fault:
        raise InputError(f"{what} can't be read: {fault.what}", fault.where, remedy) from None
    except (ValueError, RecursionError):
        raise InputError(f"{what} can't be read: this is no JSON, or cut off", str(path), remedy) from None
    if not isinstance(found, dict):
        raise InputError(f"{what} can't be read: this is another form", str(path), remedy)
    return found


def write_text(path: Path, text: str) -> None:
    """Puts a file in place in one step, mode 0600: whoever reads it sees the old one or the new one, whole.

    Raises:
        InputError: it can't be written; the old one is as it was.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}-")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(handle)
        Path(temporary).replace(path)
    except OSError as fault:
        _drop(temporary)
        raise InputError(
            f"this can't be written: {fault.strerror}", str(path), "make room or let it be written; what was there before is as it was"
        ) from None
    except BaseException:
        _drop(temporary)
        raise


def _drop(temporary: str) -> None:
    with contextlib.suppress(OSError):
        if temporary:
            Path(temporary).unlink()
