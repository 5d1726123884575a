"""Labs: real Debian hosts with systemd in containers, on wires of their own. The only place that knows podman and network namespaces."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lemonstand.errors import InputError, LemonstandError
from lemonstand.files import read_json, write_text
from lemonstand.lab import images, machine, network, snapshots
from lemonstand.lab.containers import await_boot, inspect
from lemonstand.lab.shell import run
from lemonstand.lab.topology import CONTROLLER_OCTET, MACHINES, Topology
from lemonstand.paths import data_dir, lab_dir, state_dir
from lemonstand.survey import read_text

Say = Callable[[str], None]
DEFAULT_NAME = "lab"
SCRIPT_SECONDS = 90
DEFAULT_PREFIX = "10.83"
LIMIT = 32768


class Busy(LemonstandError):
    """Another process is working on the lab."""


def environment(name: str) -> dict[str, str]:
    """The variables by which the lab inventory finds this lab."""
    state = _read(name)
    return {"LEMONSTAND_LAB_DIR": str(lab_dir(name)), "LEMONSTAND_LAB_PREFIX": state.get("prefix", DEFAULT_PREFIX)}


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
    known = {} if fresh else _read(name)
    topology = Topology(name, prefix or known.get("prefix") or (_prefix(name) if fresh else "") or DEFAULT_PREFIX)
    with _lock(name):
        if known.get("up"):
            _bring_back(topology, known, progress)
            return
        # A lab that never came up holds nothing: no command works on it.
        if known or fresh:
            _tear_down(topology)
        machine.check(topology, other_prefixes={other: data.get("prefix", "") for other, data in _labs().items() if other != name})
        folder = lab_dir(name)
        log = _prepare_folder(folder)
        progress(f"full log: {log}")
        base = images.prepare(progress, log)
        for line in base.drift:
            progress(f"package differs from the lock: {line}")
        _write(name, {"prefix": topology.prefix, "key": images.content_key(), "up": False})
        machine.raise_settings()
        _seed(topology, folder)
        network.build(topology)
        started = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(_start, topology, m.name, base, log) for m in MACHINES]:
                progress(f"{done.result():<10} up after {time.monotonic() - started:5.1f} s")
        _write(name, {"prefix": topology.prefix, "key": images.content_key(), "up": True})


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
    _heal(topology, folder)
    _seed(topology, folder)  # a user added to the inventory gets a password
    older = known.get("key") != images.content_key()
    still = [item.name for item in MACHINES if not _lives(topology.container(item.name))]
    if not still:
        progress(f"lab '{name}' is up already")
    else:
        machine.check_tools()
        machine.raise_settings()
        log = _prepare_folder(folder)
        if not all(network.exists(namespace) for namespace in topology.namespaces()):
            # The wires went with a boot of this machine. No container's files lie on them.
            progress("laying the wires again")
            run(["podman", "stop", "--time", "2", *_containers(topology)], check=False)
            network.remove(topology)
            network.build(topology)
            still = [item.name for item in MACHINES]
        there = {word.removeprefix(topology.container("")) for word in _containers(topology)}
        gone = [host for host in still if host not in there]
        base = images.prepare(progress, log) if gone else None
        for host in still:
            if base is not None and host in gone:
                _start(topology, host, base, log)
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


def _containers(topology: Topology) -> list[str]:
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


def heal(name: str) -> None:
    """Undoes what a killed snapshot left: hosts that stand frozen, half a snapshot. For every command that is about to use the lab.

    Raises:
        InputError: a restore was cut off, so that hosts hold half of two states.
    """
    folder = lab_dir(name, create=False)
    if not snapshots.marked(folder):
        return
    try:
        with _lock(name):
            _heal(Topology(name, _read(name).get("prefix", DEFAULT_PREFIX)), folder)
    except Busy:
        return  # somebody is taking one just now: all is as it should be


def _heal(topology: Topology, folder: Path) -> None:
    snapshots.heal(topology, folder)


def down(name: str = DEFAULT_NAME, progress: Say = print) -> None:
    """Removes a lab with its secrets, and the machine's raised settings with the last one. Safe to repeat, whatever is left of it."""
    topology = Topology(name, _prefix(name))
    if os.geteuid() != 0:
        raise LemonstandError("removing a lab needs root", "this user", "run it with sudo")
    _tear_down(topology)
    shutil.rmtree(lab_dir(name), ignore_errors=True)
    if not _labs():
        machine.restore_settings()
    progress(f"lab '{name}' is gone")


def status(name: str = DEFAULT_NAME) -> list[dict[str, Any]]:
    """One entry a host: name, state of the container, state of systemd, addresses, memory in bytes."""
    heal(name)
    topology = Topology(name, _read(name).get("prefix", DEFAULT_PREFIX))
    rows = []
    for item in MACHINES:
        container = topology.container(item.name)
        state = inspect(container, "{{.State.Status}}") or "absent"
        systemd = ""
        memory = 0
        if state == "running" and not _lives(container):
            state = "dead: lemonstand lab up"
        if state == "running":
            systemd = run(["podman", "exec", container, "systemctl", "is-system-running"], check=False).stdout.strip()
            memory = _memory(container)
        addresses = [f(leg.zone, leg.octets[0]) for leg in item.legs for f in (topology.address4, topology.address6)]
        rows.append({"host": item.name, "state": state, "systemd": systemd, "addresses": addresses, "memory": memory})
    return rows


def snapshot(name: str, snapshot_name: str, *, replace: bool = False) -> snapshots.Snapshot:
    """Keeps the state of all hosts of a running lab under a name.

    Args:
        name: the lab's name.
        snapshot_name: the snapshot's name.
        replace: whether one of the same name may go.

    Raises:
        LemonstandError: the lab is not up, the name is taken, or the disk is full.
    """
    _require(name)
    with _lock(name):
        topology = Topology(name, _read(name)["prefix"])
        if not _all_running(topology):
            raise LemonstandError(f"not all hosts of the lab '{name}' run", "lemonstand lab status", f"lemonstand lab up --name {name}")
        return snapshots.take(topology, lab_dir(name), snapshot_name, _read(name)["key"], replace=replace)


def restore(name: str, snapshot_name: str, progress: Say = print) -> snapshots.Snapshot:
    """Brings all hosts of a lab back to a kept state; what came after it is lost.

    Args:
        name: the lab's name.
        snapshot_name: the snapshot's name.
        progress: told what is going on, a line at a time.

    Raises:
        LemonstandError: the lab is not up, there is no such snapshot, or a service does not come back.
    """
    _require(name, whole=False)
    with _lock(name):
        state = _read(name)
        snapshot = snapshots.fitting(lab_dir(name), snapshot_name, state["key"])
        _close_connections(name)  # not before it is sure that the hosts go: whoever measures over them loses what he has
        snapshots.restore(Topology(name, state["prefix"]), lab_dir(name), snapshot, progress)
        return snapshot


def kept(name: str) -> list[snapshots.Snapshot]:
    """The lab's snapshots, oldest first; none of a lab that is not up."""
    return snapshots.listed(lab_dir(name, create=False))


def drop(name: str, snapshot_name: str) -> None:
    """Removes a snapshot of a lab.

    Raises:
        InputError: there is none.
    """
    with _lock(name):
        snapshots.drop(lab_dir(name), snapshot_name)


def _close_connections(name: str) -> None:
    """Ends SSH connections to the hosts, whoever shares them: they would wait for hosts that no longer know them."""
    network.end_processes(Topology(name).controller)


def ssh(name: str, host: str, argv: list[str]) -> int:
    """Opens a shell on a host, or runs a command there; returns its exit status."""
    Topology(name).machine(host)
    _require(name)
    return subprocess.run(["ssh", "-F", str(lab_dir(name) / "ssh" / "config"), host, *argv], check=False).returncode


def run_on(name: str, host: str, script: str) -> str:
    """Runs a shell script on a host and returns what it printed.

    Raises:
        LemonstandError: it failed, or took longer than `SCRIPT_SECONDS`.
    """
    command = ["ssh", "-F", str(lab_dir(name) / "ssh" / "config"), host, "sh -s"]
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=SCRIPT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise LemonstandError(f"commands took more than {SCRIPT_SECONDS} s", host, "see what the host waits for") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LemonstandError(f"commands failed: {said}", host, f"lemonstand apply --lab {name} mends the host")
    return done.stdout


def logs(name: str, host: str | None = None) -> int:
    """Prints a host's journal, or without a host where the logs of the lab lie."""
    if host is None:
        for path in sorted(lab_dir(name).glob("**/*.log")):
            print(path)
        return 0
    return ssh(name, host, ["journalctl", "--no-pager", "-n", "200"])


def names() -> list[str]:
    """The names of all labs on this machine."""
    return sorted(_labs())


def _require(name: str, *, whole: bool = True) -> None:
    Topology(name)  # a name that can be none is no path either
    if _read(name).get("up"):
        if whole:
            heal(name)
    else:
        raise InputError(f"no lab '{name}' is up", str(lab_dir(name)), f"lemonstand lab up --name {name}")


def _labs() -> dict[str, dict[str, Any]]:
    """All labs; of one whose state can't be read, the name alone."""
    found = {}
    for path in sorted((state_dir() / "labs").glob("*/lab.json")):
        try:
            found[path.parent.name] = _read(path.parent.name)
        except InputError:
            found[path.parent.name] = {}
    return found


def _prefix(name: str) -> str:
    """The prefix of a lab, or the default one if nobody knows."""
    try:
        return str(_read(name).get("prefix", DEFAULT_PREFIX))
    except InputError:
        return DEFAULT_PREFIX


def _read(name: str) -> dict[str, Any]:
    path = lab_dir(name, create=False) / "lab.json"
    if not path.exists():
        return {}
    remedy = f"lemonstand lab up --name {name} --fresh makes the lab anew; lemonstand lab down --name {name} takes it away"
    state = read_json(path, f"the state of the lab '{name}'", remedy)
    try:
        Topology(name, state["prefix"])
        sound = isinstance(state["key"], str) and isinstance(state["up"], bool)
    except (InputError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise InputError(f"the state of the lab '{name}' is of another form", str(path), remedy)
    return state


def _write(name: str, state: dict[str, Any]) -> None:
    write_text(lab_dir(name) / "lab.json", json.dumps(state))


@contextmanager
def _lock(name: str) -> Iterator[None]:
    path = state_dir() / f"{name}.lock"
    with path.open("a", encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process is working on the lab '{name}'", str(path), "wait for it, or stop it") from None
        yield


def _all_running(topology: Topology) -> bool:
    with ThreadPoolExecutor(len(MACHINES)) as pool:
        return all(pool.map(lambda item: _lives(topology.container(item.name)), MACHINES))


def _lives(container: str) -> bool:
    """Whether something can be run in it: after the machine was restarted podman still calls its containers running."""
    return run(["podman", "exec", container, "true"], check=False).returncode == 0


def _tear_down(topology: Topology) -> None:
    shutil.rmtree(lab_dir(topology.name, create=False) / "snapshots", ignore_errors=True)  # they belong to these containers
    for last in (False, False, True):  # podman may stumble over a container that ends by itself while it is stopped
        containers = run(["podman", "ps", "-aq", "--filter", f"label=lemonstand.lab={topology.name}"]).stdout.split()
        if not containers or run(["podman", "rm", "--force", "--time", "2", "--volumes", *containers], check=last).returncode == 0:
            break
    network.remove(topology)
    shutil.rmtree(_control_directory(topology.name), ignore_errors=True)


def _control_directory(name: str) -> Path:
    """Where SSH keeps its shared connections: a short path, since a socket's may not pass 108 bytes."""
    return Path("/run", f"lemonstand-{name}")


def _seed(topology: Topology, folder: Path) -> None:
    """Keys and passwords of this lab, made once and kept until it goes down; they never touch the work tree."""
    key = folder / "ssh" / "id_ed25519"
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lemonstand-{topology.name}", "-f", key])
    controller = topology.address4("management", CONTROLLER_OCTET)
    public = key.with_suffix(".pub").read_text(encoding="ascii")
    known, blocks = [], []
    for item in MACHINES:
        seed = folder / "hosts" / item.name
        seed.mkdir(mode=0o755, exist_ok=True)
        host_key = seed / "ssh_host_ed25519_key"
        if not host_key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", item.name, "-f", host_key])
        (seed / "authorized_keys").write_text(f'from="{controller}" {public}', encoding="ascii")
        address = topology.management(item.name)
        known.append(f"{item.name},{address} {host_key.with_suffix('.pub').read_text(encoding='ascii').strip()}")
        blocks.append(f"Host {item.name} {address}\n  HostName {address}\n")
    (folder / "ssh" / "known_hosts").write_text("\n".join(known) + "\n", encoding="ascii")
    _control_directory(topology.name).mkdir(mode=0o700, exist_ok=True)
    blocks.append(
        f"Host *\n  User root\n  IdentityFile {key}\n  IdentitiesOnly yes\n  BatchMode yes\n"
        f"  UserKnownHostsFile {folder}/ssh/known_hosts\n  StrictHostKeyChecking yes\n"
        f"  ProxyCommand ip netns exec {topology.controller} nc %h %p\n  ConnectTimeout 10\n"
        f"  ControlMaster auto\n  ControlPersist 300\n  ControlPath {_control_directory(topology.name)}/%C\n"
        "  ServerAliveInterval 15\n  ServerAliveCountMax 8\n  LogLevel ERROR\n"
    )
    (folder / "ssh" / "config").write_text("".join(blocks), encoding="ascii")
    passwords = folder / "secrets" / "passwords.yml"
    known_passwords = _passwords(passwords)
    before = dict(known_passwords)
    users, probes = _demo_users()
    for user in users:
        # What checks type as one of their users has letters with two spellings, and some that a step on the way might take for its own.
        odd = " Gr\u00f6\u00dfe 1\u00aa\u00b4 100%u" if user in probes[1:2] else ""
        known_passwords.setdefault(user, secrets.token_urlsafe(12) + odd)
    if known_passwords != before or not passwords.exists():
        write_text(passwords, yaml.safe_dump(known_passwords))


def _passwords(path: Path) -> dict[str, str]:
    """The passwords a lab has; none yet is none.

    Raises:
        InputError: they can't be read.
    """
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(item, str) for pair in found.items() for item in pair):
        raise InputError(
            "the lab's passwords can't be read: this is no list of them, or cut off",
            str(path),
            "write NAME: PASSWORD lines; or remove the file: new ones are made, and `lemonstand user passwd` sets them",
        )
    return found


def _demo_users() -> tuple[list[str], list[str]]:
    """The users of the lab's inventory, and those that checks log in as."""
    users: list[str] = []
    probes: list[str] = []
    for path in sorted(data_dir("inventories").glob("lab/group_vars/all/*.yml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        users += [user["name"] for user in data.get("lemonstand_users", [])]
        probes += data.get("lemonstand_probe_users", [])
    return users, probes


def _start(topology: Topology, host: str, base: images.Base, log: Path) -> str:
    container = topology.container(host)
    version_1 = machine.cgroup_v1()
    run(
        [
            "podman", *(["--runtime", "runc"] if version_1 else []), "run", "--detach", "--name", container, "--hostname", host,
            "--label", f"lemonstand.lab={topology.name}", "--network", f"ns:/run/netns/{container}",
            "--systemd=always", *limits(), "--pids-limit", "16384",
            "--cap-add", "NET_ADMIN,NET_RAW,SYS_ADMIN", "--security-opt", "unmask=/proc/sys",
            "--no-hosts", "--dns", "none", "--log-driver", "none",
            "--volume", f"{lab_dir(topology.name)}/hosts/{host}:{images.SEED_MOUNT}:ro",
            "--volume", f"{base.packages}:{images.PACKAGE_MOUNT}:ro",
            base.image, "/sbin/init", *(["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"] if version_1 else []),
        ],
        log=log,
    )  # fmt: skip
    await_boot(container, host, log)
    run(["podman", "exec", container, "apt-get", "-q", "update"], log=log)
    return host


def limits() -> list[str]:
    """Open files and processes as high as this machine allows: asking for more than the hard limit would fail without CAP_SYS_RESOURCE."""
    options = []
    for word, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(kind)[1]
        limit = LIMIT if hard == resource.RLIM_INFINITY else min(hard, LIMIT)
        options += ["--ulimit", f"{word}={limit}:{limit}"]
    return options


def _memory(container: str) -> int:
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
