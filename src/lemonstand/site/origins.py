"""Where Ansible read a value: the one place that looks into a private part of ansible-core.

Ansible tags what it loads with file and line, and says so in its own errors, but gives others no public way to ask. If a version keeps its
tags elsewhere, messages lose the line and keep the rest.
"""

from __future__ import annotations

from typing import Any

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # another version of ansible-core
    Origin: Any = None  # type: ignore[no-redef]


def origin(value: object) -> str:
    """Where a value comes from: `FILE:LINE`, `FILE`, or nothing if it is not known."""
    tag = Origin.get_tag(value) if Origin is not None else None
    if tag is None or tag.path is None:
        return ""
    return f"{tag.path}:{tag.line_num}" if tag.line_num else str(tag.path)
