"""Which labs there are and what is known of each; one process at a time works on one."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lemonstand.errors import InputError, LemonstandError
from lemonstand.files import read_json, write_text
from lemonstand.lab import snapshots
from lemonstand.lab.topology import Topology, from_plain
from lemonstand.paths import DEFAULT_SITE, inventory_path, lab_dir, state_dir

Say = Callable[[str], None]
DEFAULT_NAME = "lab"
DEFAULT_PREFIX = "10.83"


class Busy(LemonstandError):
    """Another process is working on the lab."""


def environment(name: str) -> dict[str, str]:
    """The variables by which a lab's inventory finds this lab."""
    return environment_of(topology_of(name))


def environment_of(topology: Topology) -> dict[str, str]:
    """As `environment`, of a lab that may not be yet."""
    return {"LEMONSTAND_LAB_DIR": str(lab_dir(topology.name)), "LEMONSTAND_LAB_PREFIX": topology.prefix}


def topology_of(name: str) -> Topology:
    """The hosts, wires and routes of a lab; of one that nothing is known of, the names of the driver's own parts.

    Raises:
        InputError: its state can't be read.
    """
    state = read_state(name)
    return from_plain(name, state["prefix"], state["topology"]) if state else Topology(name, DEFAULT_PREFIX)


def inventory_of(name: str) -> Path:
    """What stands in a lab for the inventory it was brought up for; the shipped lab's if there is no such lab.

    Raises:
        InputError: its state can't be read.
    """
    return inventory_path(str(read_state(name).get("inventory", DEFAULT_SITE)))


def heal(name: str) -> None:
    """Undoes what a killed snapshot left: hosts that stand frozen, half a snapshot. For every command that is about to use the lab.

    Raises:
        InputError: a restore was cut off, so that hosts hold half of two states.
    """
    folder = lab_dir(name, create=False)
    if not snapshots.marked(folder):
        return
    try:
        with lock(name):
            snapshots.heal(topology_of(name), folder)
    except Busy:
        return  # somebody is taking one just now: all is as it should be


def names() -> list[str]:
    """The names of all labs on this machine."""
    return sorted(known_labs())


def is_up(name: str) -> bool:
    """Whether a lab came up and was not taken down since.

    Raises:
        InputError: its state can't be read.
    """
    return bool(read_state(name).get("up"))


def require(name: str, *, whole: bool = True) -> None:
    Topology(name)  # a name that can be none is no path either
    if is_up(name):
        if whole:
            heal(name)
    else:
        raise InputError(f"no lab '{name}' is up", str(lab_dir(name)), f"lemonstand lab up --name {name}")


def known_labs() -> dict[str, dict[str, Any]]:
    """All labs; of one whose state can't be read, the name alone."""
    found = {}
    for path in sorted((state_dir() / "labs").glob("*/lab.json")):
        try:
            found[path.parent.name] = read_state(path.parent.name)
        except InputError:
            found[path.parent.name] = {}
    return found


def prefix_of(name: str) -> str:
    """The prefix of a lab, or the default one if nobody knows."""
    try:
        return str(read_state(name).get("prefix", DEFAULT_PREFIX))
    except InputError:
        return DEFAULT_PREFIX


def read_state(name: str) -> dict[str, Any]:
    path = lab_dir(name, create=False) / "lab.json"
    if not path.exists():
        return {}
    remedy = f"lemonstand lab up --name {name} --fresh makes the lab anew; lemonstand lab down --name {name} takes it away"
    state = read_json(path, f"the state of the lab '{name}'", remedy)
    if isinstance(state, dict) and {"prefix", "key", "up"} <= set(state) and "topology" not in state:
        state = _of_seven_hosts(name, state)
    try:
        from_plain(name, state["prefix"], state["topology"])
        sound = isinstance(state["key"], str) and isinstance(state["up"], bool)
        sound &= all(isinstance(state[part], str) for part in ("site", "inventory")) and isinstance(state["addresses"], dict)
    except (InputError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise InputError(f"the state of the lab '{name}' is of another form", str(path), remedy)
    return state


def _of_seven_hosts(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """The state of a lab that was made when all labs had the hosts of the shipped one: it says what they are from now on."""
    from lemonstand.lab.plan import planned  # noqa: PLC0415 - for old labs alone
    from lemonstand.site import read_inventory  # noqa: PLC0415

    bare, path = Topology(name, state["prefix"]), inventory_path(DEFAULT_SITE)
    topology = planned(bare, path, read_inventory(path, environment_of(bare)))
    state = {**state, "site": DEFAULT_SITE, "inventory": DEFAULT_SITE, "addresses": {}, "topology": topology.plain()}
    write_state(name, state)
    return state


def write_state(name: str, state: dict[str, Any]) -> None:
    write_text(lab_dir(name) / "lab.json", json.dumps(state))


@contextmanager
def lock(name: str) -> Iterator[None]:
    path = state_dir() / f"{name}.lock"
    with path.open("a", encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process is working on the lab '{name}'", str(path), "wait for it, or stop it") from None
        yield
