"""Loses a host of a lab, and puts an empty machine in its place."""

from __future__ import annotations

from lemonstand.lab import images, machine, network
from lemonstand.lab.seeds import fresh_host_key
from lemonstand.lab.shell import run
from lemonstand.lab.starting import start_host
from lemonstand.lab.state import Say, lock, require, topology_of
from lemonstand.paths import lab_dir


def replace(name: str, host: str, progress: Say = print) -> str:
    """Loses all that a host is and has: files, rules and kernel settings in its namespace, SSH key. What comes in its place is empty.

    As of any new machine nobody is told of its SSH key: ssh refuses it until somebody who has seen the fingerprint says so
    (`lemonstand rebuild --host-key`), or `lab up` lays the lab's files anew.

    Args:
        name: the lab's name.
        host: the machine.
        progress: told what is going on, a line at a time.

    Returns:
        The fingerprint of its new SSH key, as its console would show it (`SHA256:…`).

    Raises:
        InputError: the lab is not up, or has no such host.
        LemonstandError: a tool failed; the same command again goes on.
    """
    require(name)
    with lock(name):
        topology = topology_of(name)
        item = topology.machine(host)
        container, folder = topology.container(host), lab_dir(name)
        log = folder / "logs" / "lab-replace.log"
        log.write_text("", encoding="ascii")
        base = images.prepare(progress, log)
        machine.raise_settings()
        network.end_processes(topology.controller, item.management)  # connections to it alone: others are somebody's measurement
        run(["podman", "rm", "--force", "--ignore", "--time", "0", "--volumes", container], log=log)
        network.cut(topology, item)
        progress(f"{host} is lost, with all it held")
        fingerprint = fresh_host_key(folder / "hosts" / host, host)
        network.add(topology, item)
        network.carry(topology)
        network.forget_neighbours(topology)
        start_host(topology, host, base, log)
        return fingerprint
