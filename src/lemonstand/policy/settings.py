"""What a site's variables are worth where the site says nothing (`playbooks/settings.yml`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lemonstand.paths import data_dir
from lemonstand.policy.text import read_shipped


@cache
def _read(path: Path | None) -> Mapping[str, Any]:
    def parts(found: Any) -> Mapping[str, Any]:
        return MappingProxyType({part: MappingProxyType(found[part]) for part in ("defaults", "options")})

    return read_shipped(path or data_dir("playbooks") / "settings.yml", "defaults", parts)


def load_defaults(path: Path | None = None) -> Mapping[str, Any]:
    """Reads `settings.yml`: name of a variable without `lemonstand_` to its default, as YAML has it.

    Args:
        path: another file; default: the shipped one.

    Raises:
        LemonstandError: the file breaks its own form; that is a fault of this copy of lemonstand, not of the site.
    """
    found: Mapping[str, Any] = _read(path)["defaults"]
    return found


def load_options(path: Path | None = None) -> Mapping[str, Any]:
    """What a play may be told on the command line, with its default; arguments and errors as for `load_defaults`."""
    found: Mapping[str, Any] = _read(path)["options"]
    return found
