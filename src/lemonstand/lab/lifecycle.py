"""Brings labs up and takes them down."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lemonstand.errors import InputError, LemonstandError
from lemonstand.lab import images, machine, network, snapshots
from lemonstand.lab.containers import await_boot
from lemonstand.lab.inspection import lives
from lemonstand.lab.seeds import control_directory, seed_lab
from lemonstand.lab.shell import run
from lemonstand.lab.starting import start_host
from lemonstand.lab.state import DEFAULT_NAME, DEFAULT_PREFIX, Say, known_labs, lock, prefix_of, read_state, write_state
from lemonstand.lab.topology import MACHINES, Topology
from lemonstand.paths import lab_dir


def up(name: str = DEFAULT_NAME, prefix: str | None = None, progress: Say = print, *, fresh: bool = False) -> None:
    """Brings a lab up, without losing what its hosts hold: a running one is left alone, one that stands still is started again.

    Args:
        name: the lab's name.
        prefix: first two octets of its private network; default: that of the last time, else 10.83.
        progress: told what is going on, a line at a time.
        fresh: take down what there is and make all hosts anew; mail, directory and snapshots of before are lost.

    Raises:
        InputError: it can be brought up only by making it anew, and `fresh` is not given.
        LemonstandError: the machine can't carry it, or a tool failed; running it again finishes the work.
    """
    known = {} if fresh else read_state(name)
    topology = Topology(name, prefix or known.get("prefix") or (prefix_of(name) if fresh else "") or DEFAULT_PREFIX)
    with lock(name):
        if known.get("up"):
            _bring_back(topology, known, progress)
            return
        # A lab that never came up holds nothing: no command works on it.
        if known or fresh:
            _tear_down(topology)
        machine.check(topology, other_prefixes={other: data.get("prefix", "") for other, data in known_labs().items() if other != name})
        folder = lab_dir(name)
        log = _prepare_folder(folder)
        progress(f"full log: {log}")
        base = images.prepare(progress, log)
        for line in base.drift:
            progress(f"package differs from the lock: {line}")
        write_state(name, {"prefix": topology.prefix, "key": images.content_key(), "up": False})
        machine.raise_settings()
        seed_lab(topology, folder)
        network.build(topology)
        started = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(start_host, topology, m.name, base, log) for m in MACHINES]:
                progress(f"{done.result():<10} up after {time.monotonic() - started:5.1f} s")
        write_state(name, {"prefix": topology.prefix, "key": images.content_key(), "up": True})


def _prepare_folder(folder: Path) -> Path:
    """Makes a lab's directories and begins its log."""
    for part in ("logs", "ssh", "secrets", "pki", "hosts"):
        (folder / part).mkdir(mode=0o700, exist_ok=True)
    log = folder / "logs" / "lab-up.log"
    log.write_text("", encoding="ascii")
    return log


def _bring_back(topology: Topology, known: dict[str, Any], progress: Say) -> None:
    """Starts what stands still of a lab that was up once; makes hosts that are gone. Takes nothing down."""
    name, folder = topology.name, lab_dir(topology.name)
    again = f"lemonstand lab up --name {name}"
    if known.get("prefix") != topology.prefix:
        raise InputError(
            f"the lab '{name}' is {known.get('prefix')}, not {topology.prefix}, and its hosts hold data",
            "--prefix",
            f"leave it out; or add --fresh to make all anew, without the mail of before; or choose another --name: {again}",
        )
    snapshots.heal(topology, folder)
    seed_lab(topology, folder)  # a user added to the inventory gets a password
    older = known.get("key") != images.content_key()
    still = [item.name for item in MACHINES if not lives(topology.container(item.name))]
    if not still:
        progress(f"lab '{name}' is up already")
    else:
        machine.check_tools()
        machine.raise_settings()
        log = _prepare_folder(folder)
        if not all(network.exists(namespace) for namespace in topology.namespaces()):
            # The wires went with a boot of this machine. No container's files lie on them.
            progress("laying the wires again")
            run(["podman", "stop", "--time", "2", *containers_of(topology)], check=False)
            network.remove(topology)
            network.build(topology)
            still = [item.name for item in MACHINES]
        there = {word.removeprefix(topology.container("")) for word in containers_of(topology)}
        gone = [host for host in still if host not in there]
        base = images.prepare(progress, log) if gone else None
        for host in still:
            if base is not None and host in gone:
                start_host(topology, host, base, log)
                progress(f"{host:<10} was gone: made anew, empty; lemonstand apply brings it to what the inventory says")
                continue
            _restart(topology, host, log, again)
            progress(f"{host:<10} runs again, with what it held")
    if older:
        log = _prepare_folder(folder)
        if images.supply(str(known["key"]), images.prepare(progress, log)):
            for item in MACHINES:
                run(["podman", "exec", topology.container(item.name), "apt-get", "-q", "update"], log=log)
        progress("its hosts are of an older base image, and find the packages of today. --fresh makes all anew, without the mail of before")


def containers_of(topology: Topology) -> list[str]:
    """The names of all containers of a lab, running or not."""
    listing = ["podman", "ps", "--all", "--format", "{{.Names}}", "--filter", f"label=lemonstand.lab={topology.name}"]
    return run(listing).stdout.split()


def _restart(topology: Topology, host: str, log: Path, again: str) -> None:
    """Starts a container that stands still, or that podman still calls running after this machine was started again."""
    container = topology.container(host)
    try:
        run(["podman", "stop", "--time", "2", container], check=False, log=log)
        run(["podman", "start", container], log=log)
        await_boot(container, host, log)
    except LemonstandError as fault:
        raise InputError(
            f"{host} does not start again: {fault.what}",
            f"podman start {container}",
            f"{again} tries again, once that is mended; without the mail of before: {again} --fresh",
        ) from None


def down(name: str = DEFAULT_NAME, progress: Say = print) -> None:
    """Removes a lab with its secrets, and the machine's raised settings with the last one. Safe to repeat, whatever is left of it."""
    topology = Topology(name, prefix_of(name))
    if os.geteuid() != 0:
        raise LemonstandError("removing a lab needs root", "this user", "run it with sudo")
    _tear_down(topology)
    shutil.rmtree(lab_dir(name), ignore_errors=True)
    if not known_labs():
        machine.restore_settings()
    progress(f"lab '{name}' is gone")


def _tear_down(topology: Topology) -> None:
    shutil.rmtree(lab_dir(topology.name, create=False) / "snapshots", ignore_errors=True)  # they belong to these containers
    for last in (False, False, True):  # podman may stumble over a container that ends by itself while it is stopped
        containers = run(["podman", "ps", "-aq", "--filter", f"label=lemonstand.lab={topology.name}"]).stdout.split()
        if not containers or run(["podman", "rm", "--force", "--time", "2", "--volumes", *containers], check=last).returncode == 0:
            break
    network.remove(topology)
    shutil.rmtree(control_directory(topology.name), ignore_errors=True)
