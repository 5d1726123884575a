"""How the hosts of a lab are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lemonstand.lab.containers import inspect
from lemonstand.lab.shell import run
from lemonstand.lab.state import DEFAULT_NAME, heal, topology_of
from lemonstand.lab.topology import Topology


def status(name: str = DEFAULT_NAME) -> list[dict[str, Any]]:
    """One entry a host: name, state of the container, state of systemd, addresses, memory in bytes."""
    heal(name)
    topology = topology_of(name)
    rows = []
    for item in topology.machines:
        container = topology.container(item.name)
        state = inspect(container, "{{.State.Status}}") or "absent"
        systemd = ""
        memory = 0
        if state == "running" and not lives(container):
            state = "dead: lemonstand lab up"
        if state == "running":
            systemd = run(["podman", "exec", container, "systemctl", "is-system-running"], check=False).stdout.strip()
            memory = memory_of(container)
        addresses = [address.partition("/")[0] for leg in item.legs for address in leg.addresses[:2]]
        rows.append({"host": item.name, "state": state, "systemd": systemd, "addresses": addresses, "memory": memory})
    return rows


def all_running(topology: Topology) -> bool:
    with ThreadPoolExecutor(len(topology.machines)) as pool:
        return all(pool.map(lambda item: lives(topology.container(item.name)), topology.machines))


def lives(container: str) -> bool:
    """Whether something can be run in it: after the machine was restarted podman still calls its containers running."""
    return run(["podman", "exec", container, "true"], check=False).returncode == 0


def memory_of(container: str) -> int:
    """Resident bytes of a container's processes, shared pages counted in full (a bound from above)."""
    done = run(
        [
            "podman",
            "exec",
            container,
            "sh",
            "-c",
            "cat /sys/fs/cgroup/memory/memory.usage_in_bytes /sys/fs/cgroup/memory.current 2>/dev/null",
        ],
        check=False,
    )
    words = done.stdout.split()
    return int(words[0]) if words else 0
