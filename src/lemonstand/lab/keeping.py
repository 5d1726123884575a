"""Keeps the state of a lab's hosts under a name, and brings it back."""

from __future__ import annotations

from lemonstand.errors import LemonstandError
from lemonstand.lab import network, snapshots
from lemonstand.lab.inspection import all_running
from lemonstand.lab.state import Say, lock, read_state, require, topology_of
from lemonstand.lab.topology import Topology
from lemonstand.paths import lab_dir


def snapshot(name: str, snapshot_name: str, *, replace: bool = False) -> snapshots.Snapshot:
    """Keeps the state of all hosts of a running lab under a name.

    Args:
        name: the lab's name.
        snapshot_name: the snapshot's name.
        replace: whether one of the same name may go.

    Raises:
        LemonstandError: the lab is not up, the name is taken, or the disk is full.
    """
    require(name)
    with lock(name):
        topology = topology_of(name)
        if not all_running(topology):
            raise LemonstandError(f"not all hosts of the lab '{name}' run", "lemonstand lab status", f"lemonstand lab up --name {name}")
        return snapshots.take(topology, lab_dir(name), snapshot_name, read_state(name)["key"], replace=replace)


def restore(name: str, snapshot_name: str, progress: Say = print) -> snapshots.Snapshot:
    """Brings all hosts of a lab back to a kept state; what came after it is lost.

    Args:
        name: the lab's name.
        snapshot_name: the snapshot's name.
        progress: told what is going on, a line at a time.

    Raises:
        LemonstandError: the lab is not up, there is no such snapshot, or a service does not come back.
    """
    require(name, whole=False)
    with lock(name):
        state = read_state(name)
        snapshot = snapshots.fitting(lab_dir(name), snapshot_name, state["key"])
        close_connections(name)  # not before it is sure that the hosts go: whoever measures over them loses what he has
        snapshots.restore(topology_of(name), lab_dir(name), snapshot, progress)
        return snapshot


def kept(name: str) -> list[snapshots.Snapshot]:
    """The lab's snapshots, oldest first; none of a lab that is not up."""
    return snapshots.listed(lab_dir(name, create=False))


def drop(name: str, snapshot_name: str) -> None:
    """Removes a snapshot of a lab.

    Raises:
        InputError: there is none.
    """
    with lock(name):
        snapshots.drop(lab_dir(name), snapshot_name)


def close_connections(name: str) -> None:
    """Ends SSH connections to the hosts, whoever shares them: they would wait for hosts that no longer know them."""
    network.end_processes(Topology(name).controller)
