"""Snapshots of a lab: what all hosts hold on disk and in their network namespaces, kept under a name and brought back (record 0017).

A snapshot freezes all containers for the second their file systems are copied, so it is what a power cut would leave. A restore is a
power cut with other disks: containers are killed, their files replaced, systemd starts what is enabled, and then the rules and kernel
settings that lived in memory only are put back. Wires, addresses and the clock stay as they are.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lemonstand.errors import InputError, LemonstandError
from lemonstand.files import read_json, write_text
from lemonstand.lab.containers import await_boot, inside, inspect
from lemonstand.lab.shell import run
from lemonstand.lab.topology import Topology
from lemonstand.site.fields import suggest

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
FORMAT = 1
SERVICE_SECONDS = 20
NOTES = ("etc/hostname", "run/lemonstand")
"""What lies outside a container's own file system: the name, which podman mounts, and what roles noted in memory about this boot."""
FREEZING, RESTORING = ".freezing", ".restoring"
"""Marks in the directory of snapshots while one is taken or restored. Without anybody at work (the lab's lock), its work was cut off."""
OURS = ("pki", "secrets")
"""What the controller keeps of the site; hosts' certificates would not fit another CA."""
_ACTIVE = "systemctl list-units --type=service --state=running --plain --no-legend | cut -d' ' -f1 | grep -v '@' | sort"


@dataclass(frozen=True)
class Snapshot:
    """A kept state.

    Args:
        name: its name.
        taken: when, UTC.
        key: content of the image the lab ran on.
        size: bytes on disk.
        services: what ran, by host.
    """

    name: str
    taken: dt.datetime
    key: str
    size: int
    services: dict[str, tuple[str, ...]]


def take(topology: Topology, folder: Path, name: str, key: str, *, replace: bool = False) -> Snapshot:
    """Keeps the state of a running lab.

    Args:
        topology: the lab.
        folder: its directory.
        name: the snapshot's name.
        key: content of the lab's image.
        replace: whether one of the same name may go.

    Raises:
        LemonstandError: the name is taken or none, a host does not run, the disk is full.
    """
    if not NAME.match(name):
        raise InputError(f"'{name}' can't name a snapshot", "SNAPSHOT", "use 1 to 32 characters of a-z, 0-9 and -, no - first")
    place = _place(folder)
    if (place / name).exists() and not replace:
        raise InputError(f"there is a snapshot '{name}' already", str(place / name), "choose another name, or add --replace")
    new = place / f".{name}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    hosts = [machine.name for machine in topology.machines]
    try:
        with ThreadPoolExecutor(len(hosts)) as pool:
            services = dict(zip(hosts, pool.map(lambda host: _keep_memory(topology, host, new / host), hosts), strict=True))
            with _frozen(place, [topology.container(host) for host in hosts]):
                list(pool.map(lambda host: _copy(_disk(topology, host), new / host / "disk"), hosts))
        for part in OURS:
            _copy(folder / part, new / part)
        size = int(run(["du", "-sb", new]).stdout.split()[0])
        snapshot = Snapshot(name, dt.datetime.now(dt.UTC).replace(microsecond=0), key, size, services)
        write_text(new / "snapshot.json", _plain(snapshot))
        old = place / f".{name}.old"
        if (place / name).exists():
            (place / name).rename(old)
        new.rename(place / name)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as fault:
        shutil.rmtree(new, ignore_errors=True)
        raise InputError(
            f"the snapshot can't be written: {fault.strerror}",
            str(place),
            "make room: `lemonstand lab snapshots --drop NAME`; hosts go on as before",
        ) from None
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return snapshot


def restore(topology: Topology, folder: Path, snapshot: Snapshot, say: Callable[[str], None]) -> None:
    """Brings a lab back to a kept state. What came after it is lost, on every host.

    Args:
        topology: the lab.
        folder: its directory.
        snapshot: what `fitting` found.
        say: told what is going on, a line at a time.

    Raises:
        LemonstandError: a service does not come back.
    """
    kept = _place(folder) / snapshot.name
    (_place(folder) / RESTORING).write_text(snapshot.name, encoding="ascii")
    hosts = [machine.name for machine in topology.machines]
    containers = [topology.container(host) for host in hosts]
    began = time.monotonic()
    run(["podman", "unpause", *containers], check=False)  # a snapshot that was killed may have left one frozen
    disks = {host: _disk(topology, host) for host in hosts}
    run(["podman", "stop", "--time", "0", *containers])
    with ThreadPoolExecutor(len(hosts)) as pool:
        list(pool.map(lambda host: _replace(kept / host / "disk", disks[host]), hosts))
        for part in OURS:
            _replace(kept / part, folder / part)
        say(f"files are back after {time.monotonic() - began:.1f} s")
        for _ in pool.map(lambda host: _start(topology, host, kept / host, snapshot.services[host]), hosts):
            pass
    (_place(folder) / RESTORING).unlink(missing_ok=True)
    say(f"services are back after {time.monotonic() - began:.1f} s")


def fitting(folder: Path, name: str, key: str) -> Snapshot:
    """The snapshot of that name, which the lab can be brought back to.

    Args:
        folder: the lab's directory.
        name: the snapshot's name.
        key: content of the lab's image now.

    Raises:
        LemonstandError: there is none, or it belongs to other containers.
    """
    snapshot = find(folder, name)
    if snapshot.key != key:
        raise LemonstandError(
            f"the snapshot '{name}' belongs to another base image than the lab runs on", str(_place(folder) / name), "take a new one"
        )
    return snapshot


def find(folder: Path, name: str) -> Snapshot:
    """The snapshot of that name.

    Raises:
        InputError: there is none.
    """
    known = {snapshot.name: snapshot for snapshot in listed(folder)}
    if name not in known:
        none = "take one: `lemonstand lab snapshot NAME`" if not known else f"there are: {', '.join(known)}"
        raise InputError(f"there is no snapshot '{name}'", str(folder / "snapshots"), suggest(name, known, none) if known else none)
    return known[name]


def listed(folder: Path) -> list[Snapshot]:
    """All snapshots of a lab, oldest first."""
    found = []
    for path in (folder / "snapshots").glob("[!.]*/snapshot.json"):
        remedy = f"remove the directory {path.parent}: without that file nobody knows what it holds"
        data = read_json(path, "the snapshot's description", remedy)
        try:
            services = {str(host): tuple(names) for host, names in data["services"].items()}
            taken = dt.datetime.fromisoformat(data["taken"])
            found.append(Snapshot(str(data["name"]), taken, str(data["key"]), int(data["size"]), services))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError("the snapshot's description is of another form", str(path), remedy) from None
    return sorted(found, key=lambda each: (each.taken, each.name))


def drop(folder: Path, name: str) -> None:
    """Removes a snapshot.

    Raises:
        InputError: there is none.
    """
    find(folder, name)
    shutil.rmtree(folder / "snapshots" / name)


def _place(folder: Path) -> Path:
    place = folder / "snapshots"
    place.mkdir(mode=0o700, exist_ok=True)
    return place


def _plain(snapshot: Snapshot) -> str:
    data = {
        "format": FORMAT, "name": snapshot.name, "taken": snapshot.taken.isoformat(), "key": snapshot.key, "size": snapshot.size,
        "services": snapshot.services,
    }  # fmt: skip
    return json.dumps(data, indent=1)


def _disk(topology: Topology, host: str) -> Path:
    """The directory with all a container changed of its image.

    Raises:
        LemonstandError: podman keeps it otherwise, or there is no such container.
    """
    container = topology.container(host)
    found = inspect(container, "{{.GraphDriver.Name}} {{.GraphDriver.Data.UpperDir}}").split()
    if len(found) != 2 or found[0] != "overlay":
        raise LemonstandError(
            f"podman keeps {container} by '{' '.join(found) or 'nothing'}', not by overlay",
            "podman info",
            "`lemonstand lab up` makes missing hosts; snapshots need podman's storage driver overlay",
        )
    return Path(found[1])


def _copy(source: Path, target: Path) -> None:
    """Copies a directory with all its owners, attributes, devices and sockets."""
    run(["cp", "--archive", "--reflink=auto", source, target])


def _replace(source: Path, target: Path) -> None:
    """Puts a copy in the place of a directory; the directory itself stays, since others hold it by its path."""
    run(["find", target, "-mindepth", "1", "-delete"])
    run(["cp", "--archive", "--reflink=auto", f"{source}/.", target])


@contextmanager
def _frozen(place: Path, containers: list[str]) -> Iterator[None]:
    """Nothing runs in the containers, so all hosts' files are of one moment."""
    (place / FREEZING).touch()
    try:
        for last in (False, False, True):  # a busy machine may not stop all processes of a host in the time that runc gives it
            if run(["podman", "pause", *containers], check=last).returncode == 0:
                break
            run(["podman", "unpause", *containers], check=False)
        yield
    finally:
        run(["podman", "unpause", *containers], check=False)
        (place / FREEZING).unlink(missing_ok=True)


def marked(folder: Path) -> bool:
    """Whether a snapshot or a restore is at work, or was killed."""
    place = folder / "snapshots"
    return any((place / name).exists() for name in (FREEZING, RESTORING)) or any(place.glob(".*.new")) or any(place.glob(".*.old"))


def heal(topology: Topology, folder: Path) -> None:
    """Undoes what a killed snapshot left. For whoever holds the lab's lock.

    Raises:
        InputError: a restore was cut off, so that hosts hold half of two states.
    """
    place = folder / "snapshots"
    if (place / FREEZING).exists():
        for machine in topology.machines:  # one by one: one that is not frozen is an error for podman
            run(["podman", "unpause", topology.container(machine.name)], check=False)
        (place / FREEZING).unlink()
    for old in place.glob(".*.old"):
        kept = place / old.name[1:].removesuffix(".old")
        if kept.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(kept)
    for new in place.glob(".*.new"):
        shutil.rmtree(new, ignore_errors=True)
    if (place / RESTORING).exists():
        wanted = (place / RESTORING).read_text(encoding="utf-8", errors="replace").strip()
        name = "" if topology.name == "lab" else f" --name {topology.name}"
        raise InputError(
            f"a restore of '{wanted}' was cut off: hosts hold half of two states",
            str(place / RESTORING),
            f"lemonstand lab restore{name} {wanted} finishes it; lemonstand lab up{name} --fresh makes all anew",
        )


def _keep_memory(topology: Topology, host: str, target: Path) -> tuple[str, ...]:
    """What a host has in memory and no boot would bring: rules, kernel settings of its network, notes of roles. Returns what runs."""
    container = topology.container(host)
    target.mkdir(mode=0o700)
    active = tuple(inside(container, _ACTIVE).split())
    rules = inside(container, "command -v nft >/dev/null && nft list ruleset || true")
    (target / "rules.nft").write_text(rules, encoding="utf-8")
    (target / "sysctl").write_text(_sysctls(container), encoding="utf-8")
    notes = inside(container, f"tar -C / -cz $(cd / && ls -d {' '.join(NOTES)} 2>/dev/null) | base64")
    (target / "notes").write_text(notes, encoding="ascii")
    return active


def _sysctls(namespace: str) -> str:
    """A network namespace's own settings; unreadable ones are left out."""
    return run(["ip", "netns", "exec", namespace, "sysctl", "-e", "-a", "--pattern", r"^net\."], check=False).stdout


def _start(topology: Topology, host: str, kept: Path, services: tuple[str, ...]) -> None:
    container = topology.container(host)
    run(["podman", "start", container])
    await_boot(container, host)
    notes = (kept / "notes").read_text(encoding="ascii")
    if notes.strip():
        inside(container, "base64 -d | tar -C / -xz --overwrite", stdin=notes)
    rules = (kept / "rules.nft").read_text(encoding="utf-8")
    inside(container, "! command -v nft >/dev/null || nft -f -", stdin=f"flush ruleset\n{rules}")
    before, now = (_sysctls_by_name(text) for text in ((kept / "sysctl").read_text(encoding="utf-8"), _sysctls(container)))
    differ = "".join(f"{name}={value}\n" for name, value in before.items() if now.get(name) not in {value, None})
    if differ:
        run(["ip", "netns", "exec", container, "sysctl", "-q", "-p", "-"], stdin=differ)
    _await_services(container, host, services)


def _sysctls_by_name(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, found, value in (line.partition("=") for line in text.splitlines()) if found}


def _await_services(container: str, host: str, services: tuple[str, ...]) -> None:
    """Waits for what ran, and stops what a boot starts and was not running."""
    deadline = time.monotonic() + SERVICE_SECONDS
    while missing := sorted(set(services) - set(inside(container, _ACTIVE, check=False).split())):
        if time.monotonic() > deadline:
            raise LemonstandError(
                f"what ran on {host} does not run again: {', '.join(missing)}",
                f"podman exec {container} systemctl status {missing[0]}",
                "see its journal; `lemonstand apply` starts what a role knows",
            )
        time.sleep(0.3)
    idle = sorted(set(inside(container, _ACTIVE).split()) - set(services))
    if idle:
        inside(container, f"systemctl stop {' '.join(idle)}")
