"""The certificates on a host's disk, as they are now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PKI = Path("/etc/lemonstand/pki")


def files() -> dict[str, Any]:
    """Every certificate below `/etc/lemonstand/pki`, by the name of its file without `.crt`.

    Returns:
        `certificates`: PEM by name, those of CAs as `ca-NAME`; `renewed_here`: the names something on this host renews.
    """
    return {
        "certificates": {path.stem: path.read_text(encoding="ascii") for path in sorted(PKI.glob("*.crt"))},
        "renewed_here": sorted(path.stem for path in PKI.glob("*.renewed-here")),
    }
