"""Reads the data files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lemonstand.errors import LemonstandError

T = TypeVar("T")


def read_shipped(path: Path, what: str, make: Callable[[Any], T]) -> T:
    """A data file that ships with lemonstand, as what its model makes of it.

    Args:
        path: the file, YAML.
        what: what it holds, for the message: "flows".
        make: takes the content; it raises KeyError, TypeError or ValidationError where that has another form.

    Raises:
        LemonstandError: the file can't be read or breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    try:
        return make(read_yaml(path))
    except (OSError, KeyError, TypeError, yaml.YAMLError, ValidationError) as error:
        raise LemonstandError(f"{what} can't be read: {error}", str(path), "restore the file from the release") from None


def read_yaml(path: Path) -> Any:
    """A YAML file's content, by libyaml where Python has it, which takes a tenth of the time.

    Raises:
        OSError: it can't be read.
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
