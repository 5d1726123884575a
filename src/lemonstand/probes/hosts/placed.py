"""Who serves whom, as a store or relay was told last (docs/decisions/0036)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PLACE = Path("/var/lib/lemonstand/placement.json")


def serving(names: list[str], place: str = str(PLACE)) -> dict[str, str]:
    """The host that serves each of these login names; of a name nobody has nothing.

    Args:
        names: login names.
        place: file with the placement.
    """
    told: dict[str, Any] = json.loads(Path(place).read_text(encoding="utf-8"))
    stores = {name: told["users"][name] for name in names if name in told["users"]}
    return {name: str(told["active"].get(store, {}).get("host", store)) for name, store in stores.items()}
