"""Labs: real Debian hosts with systemd in containers, on wires of their own. The only place that knows podman and network namespaces."""

from lemonstand.lab.access import logs, run_on, ssh
from lemonstand.lab.inspection import status
from lemonstand.lab.keeping import drop, kept, restore, snapshot
from lemonstand.lab.lifecycle import down, up
from lemonstand.lab.offers import offer
from lemonstand.lab.replacing import replace
from lemonstand.lab.state import DEFAULT_NAME, DEFAULT_PREFIX, Busy, environment, heal, inventory_of, is_up, names, topology_of

__all__ = [
    "DEFAULT_NAME", "DEFAULT_PREFIX", "Busy", "down", "drop", "environment", "heal", "inventory_of", "is_up", "kept", "logs", "names",
    "offer", "replace", "restore", "run_on", "snapshot", "ssh", "status", "topology_of", "up",
]  # fmt: skip
