"""Brings labs up and takes them down."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemonstand.errors import InputError, InputErrors, LemonstandError
from lemonstand.lab import images, machine, network, rehearsal, snapshots
from lemonstand.lab.containers import await_boot
from lemonstand.lab.inspection import lives
from lemonstand.lab.plan import planned
from lemonstand.lab.seeds import control_directory, seed_lab, seed_passwords, seed_secrets
from lemonstand.lab.shell import run
from lemonstand.lab.starting import start_host
from lemonstand.lab.state import (
    DEFAULT_NAME,
    DEFAULT_PREFIX,
    Say,
    environment_of,
    known_labs,
    lock,
    read_state,
    topology_of,
    write_state,
)
from lemonstand.lab.topology import Topology
from lemonstand.paths import DEFAULT_SITE, inventory_path, known_as, lab_dir
from lemonstand.policy import load_flows, load_timers
from lemonstand.site import build, read_inventory
from lemonstand.survey import of_a_lab


def up(
    name: str = DEFAULT_NAME,
    prefix: str | None = None,
    progress: Say = print,
    *,
    fresh: bool = False,
    site: str | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Brings a lab up, without losing what its hosts hold: a running one is left alone, one that stands still is started again.

    Args:
        name: the lab's name.
        prefix: first two octets of its private network; default: that of the last time, else 10.83.
        progress: told what is going on, a line at a time.
        fresh: take down what there is and make all hosts anew; mail, directory and snapshots of before are lost.
        site: the inventory whose hosts it has, a path or the name of a shipped one; default: that of the last time, else `inventories/lab`.
        env: what a real site's inventory is read with, such as the password of its vault.

    Raises:
        InputError: the inventory is wrong; or the lab can be brought up only by making it anew, and `fresh` is not given.
        LemonstandError: the machine can't carry it, or a tool failed; running it again finishes the work.
    """
    before = _state_before(name, fresh=fresh)
    known = {} if fresh else before
    path = inventory_path(site or before.get("site") or DEFAULT_SITE)
    bare = Topology(name, prefix or before.get("prefix") or DEFAULT_PREFIX)
    with lock(name):
        if known.get("up"):
            _bring_back(bare, path, known, progress, env or {})
            return
        machine.check(bare, other_prefixes={other: data.get("prefix", "") for other, data in known_labs().items() if other != name})
        folder = lab_dir(name)
        log = _prepare_folder(folder)
        # Before anything is taken down: an inventory with faults costs nobody his lab.
        made = _planned(bare, path, folder, {}, env or {})
        topology = made.topology
        # A lab that never came up holds nothing: no command works on it.
        if before or fresh:
            _tear_down(topology_of(name) if before else bare)
        machine.check_space(len(topology.machines))
        progress(f"full log: {log}")
        base = images.prepare(progress, log)
        for line in base.drift:
            progress(f"package differs from the lock: {line}")
        state = made.state(images.content_key())
        write_state(name, {**state, "up": False})
        machine.raise_settings()
        seed_lab(topology, folder)
        network.build(topology)
        started = time.monotonic()
        for host in _make(topology, [machine.name for machine in topology.machines], base, log):
            progress(f"{host:<10} up after {time.monotonic() - started:5.1f} s")
        write_state(name, {**state, "up": True})


def _state_before(name: str, *, fresh: bool) -> dict[str, Any]:
    """What is known of a lab; with `fresh`, a state that can't be read is none."""
    try:
        return read_state(name)
    except InputError:
        if not fresh:
            raise
        return {}


@dataclass(frozen=True)
class Plan:
    """What a lab is to be.

    Args:
        topology: its hosts and wires.
        site: the inventory it was asked for.
        inventory: what commands read: the same one, or what stands for a real site in the lab.
        addresses: the lab's address for each of a real site's.
    """

    topology: Topology
    site: str
    inventory: str
    addresses: dict[str, str]

    def state(self, key: str) -> dict[str, Any]:
        """What is kept of it beside the lab's image."""
        return {
            "prefix": self.topology.prefix,
            "key": key,
            "site": self.site,
            "inventory": self.inventory,
            "addresses": self.addresses,
            "topology": self.topology.plain(),
        }


def _planned(bare: Topology, path: Path, folder: Path, addresses: Mapping[str, str], given: Mapping[str, str]) -> Plan:
    """The lab an inventory names; its users have passwords then.

    Args:
        bare: its name and prefix.
        path: the inventory.
        folder: the lab's directory.
        addresses: those given to a real site's before.
        given: variables for reading it, beside the lab's own.

    Raises:
        InputErrors: everything that is wrong with the inventory, or that no lab can hold.
    """
    env = {**given, **environment_of(bare)}
    seed_secrets(folder)
    wanted, known = path, dict(addresses)
    if not of_a_lab(path):
        raw = read_inventory(path, given)
        real = build(path, raw, load_flows(), load_timers())
        wanted = rehearsal.write(bare, real, raw, folder, known)
    raw = read_inventory(wanted, env)
    # The inventory reads the passwords, so they are made of what it says beside them, and it is read again where some were missing.
    if seed_passwords(raw, folder):
        raw = read_inventory(wanted, env)
    return Plan(planned(bare, wanted, raw), known_as(path), known_as(wanted), known)


def _make(topology: Topology, hosts: list[str], base: images.Base, log: Path) -> Iterator[str]:
    """Makes hosts anew, four at a time, and names each when it is up."""
    with ThreadPoolExecutor(4) as pool:
        for done in as_completed([pool.submit(start_host, topology, host, base, log) for host in hosts]):
            yield done.result()


def _prepare_folder(folder: Path) -> Path:
    """Makes a lab's directories and begins its log."""
    for part in ("logs", "ssh", "secrets", "pki", "hosts"):
        (folder / part).mkdir(mode=0o700, exist_ok=True)
    log = folder / "logs" / "lab-up.log"
    log.write_text("", encoding="ascii")
    return log


def _bring_back(bare: Topology, path: Path, known: dict[str, Any], progress: Say, given: Mapping[str, str]) -> None:
    """Starts what stands still of a lab that was up once; makes hosts that are gone or new. Takes nothing down."""
    name, folder = bare.name, lab_dir(bare.name)
    again = f"lemonstand lab up --name {name}"
    if known.get("prefix") != bare.prefix:
        raise InputError(
            f"the lab '{name}' is {known.get('prefix')}, not {bare.prefix}, and its hosts hold data",
            "--prefix",
            f"leave it out; or add --fresh to make all anew, without the mail of before; or choose another --name: {again}",
        )
    before = topology_of(name)
    snapshots.heal(before, folder)
    made = _planned(bare, path, folder, known["addresses"], given)  # a user added to the inventory gets a password
    topology = made.topology
    _only_new_hosts(before, topology, path, again)
    seed_lab(topology, folder)
    write_state(name, {**known, **made.state(known["key"])})
    older = known.get("key") != images.content_key()
    still = [item.name for item in topology.machines if not lives(topology.container(item.name))]
    if not still:
        progress(f"lab '{name}' is up already")
    else:
        machine.check_tools()
        machine.raise_settings()
        log = _prepare_folder(folder)
        if _lay_wires(before, topology, progress):
            still = [item.name for item in topology.machines]
        there = {word.removeprefix(topology.container("")) for word in containers_of(topology)}
        gone = [host for host in still if host not in there]
        known_hosts = {item.name for item in before.machines}
        for host in _make(topology, gone, images.prepare(progress, log), log) if gone else ():
            why = "was gone" if host in known_hosts else "is new in the inventory"
            progress(f"{host:<10} {why}: made anew, empty; lemonstand apply brings it to what the inventory says")
        for host in still:
            if host not in gone:
                _restart(topology, host, log, again)
                progress(f"{host:<10} runs again, with what it held")
    if older:
        _supply(str(known["key"]), topology, folder, progress)


def _lay_wires(before: Topology, topology: Topology, progress: Say) -> bool:
    """Lays the wires of new hosts, or all of them where they went with a boot of this machine; returns whether it was all."""
    if all(network.exists(namespace) for namespace in before.namespaces()):
        for item in topology.machines:
            if not network.exists(topology.container(item.name)):
                network.add(topology, item)
        network.carry(topology)
        return False
    # No container's files lie on the wires.
    progress("laying the wires again")
    run(["podman", "stop", "--time", "2", *containers_of(topology)], check=False)
    network.remove(topology)
    network.build(topology)
    return True


def _supply(key: str, topology: Topology, folder: Path, progress: Say) -> None:
    """Lets hosts of an older base image find the packages of today."""
    log = _prepare_folder(folder)
    if images.supply(key, images.prepare(progress, log)):
        for item in topology.machines:
            run(["podman", "exec", topology.container(item.name), "apt-get", "-q", "update"], log=log)
    progress("its hosts are of an older base image, and find the packages of today. --fresh makes all anew, without the mail of before")


def _only_new_hosts(before: Topology, now: Topology, path: Path, again: str) -> None:
    """Refuses an inventory that no longer names what the lab's hosts are: they hold data, and their wires are laid.

    Raises:
        InputErrors: hosts that are gone from it, or that stand elsewhere.
    """
    known = {item.name: item for item in now.machines}
    faults = [
        InputError(
            f"the host {item.name} of the lab '{before.name}' "
            + ("stands elsewhere in its inventory now" if item.name in known else "is in its inventory no more"),
            str(path),
            f"put it back; or make the lab anew, without the mail of before: {again} --fresh",
        )
        for item in before.machines
        if known.get(item.name) != item
    ]
    if faults:
        raise InputErrors(faults)


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
    topology = _last_known(name)
    if os.geteuid() != 0:
        raise LemonstandError("removing a lab needs root", "this user", "run it with sudo")
    _tear_down(topology)
    shutil.rmtree(lab_dir(name), ignore_errors=True)
    if not known_labs():
        machine.restore_settings()
    progress(f"lab '{name}' is gone")


def _last_known(name: str) -> Topology:
    """What is known of a lab's hosts; of one whose state can't be read, what podman and the namespaces say by their names."""
    try:
        return topology_of(name)
    except InputError:
        return Topology(name)


def _tear_down(topology: Topology) -> None:
    shutil.rmtree(lab_dir(topology.name, create=False) / "snapshots", ignore_errors=True)  # they belong to these containers
    for last in (False, False, True):  # podman may stumble over a container that ends by itself while it is stopped
        containers = run(["podman", "ps", "-aq", "--filter", f"label=lemonstand.lab={topology.name}"]).stdout.split()
        if not containers or run(["podman", "rm", "--force", "--time", "2", "--volumes", *containers], check=last).returncode == 0:
            break
    network.remove(topology)
    shutil.rmtree(control_directory(topology.name), ignore_errors=True)
