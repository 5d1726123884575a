"""What the carrying machine must offer, asked before anything is changed; and its few settings the lab raises and puts back."""

from __future__ import annotations

import json
import os
import shutil
from ipaddress import ip_address, ip_network
from pathlib import Path

from lemonstand.errors import InputError, LemonstandError
from lemonstand.files import read_json, write_text
from lemonstand.lab.shell import run
from lemonstand.lab.topology import Topology
from lemonstand.paths import state_dir

TOOLS = {
    "podman": "podman",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "nc": "netcat-openbsd",
    "iptables": "iptables",
    "dpkg-deb": "dpkg",
}
"""Program and the Debian package it comes from. podman's netavark wants iptables even where it isn't used."""

KERNEL_SETTINGS = {"fs/inotify/max_user_instances": 16384, "fs/inotify/max_user_watches": 1048576}
"""Floors of settings that no container has for itself: each idling mailbox takes an inotify instance (Dovecot hibernation)."""

MEMORY_MIB = 1200
MEMORY_MIB_A_HOST = 250
DISK_MIB = 6000


def cgroup_v1() -> bool:
    """Whether this machine still runs the first version of control groups."""
    return not Path("/sys/fs/cgroup/cgroup.controllers").exists()


def check(topology: Topology, *, other_prefixes: dict[str, str]) -> None:
    """Asks everything a lab needs of the machine.

    Args:
        topology: the lab to be.
        other_prefixes: names of the other labs on this machine and their prefixes.

    Raises:
        LemonstandError: names what is missing or in the way, and the remedy.
    """
    check_tools()
    for name, prefix in other_prefixes.items():
        if prefix == topology.prefix:
            raise LemonstandError(
                f"the lab '{name}' uses {topology.ipv4} already", "--prefix", f"choose another one, for instance --prefix {_other(prefix)}"
            )
    _check_clash(topology)


def check_tools() -> None:
    """Asks whether containers with systemd can be run here.

    Raises:
        LemonstandError: names what is missing, and the remedy.
    """
    if os.geteuid() != 0:
        raise LemonstandError("a lab needs root: it makes network namespaces and system containers", "this user", "run it with sudo")
    missing = {tool: package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    if missing:
        raise LemonstandError(
            "missing programs: " + ", ".join(missing),
            "PATH",
            "apt-get install " + " ".join(sorted(set(missing.values()))) + " (or `make setup`)",
        )
    if cgroup_v1():
        if not Path("/sys/fs/cgroup/systemd").is_dir():
            raise LemonstandError(
                "control groups of version 1 without the systemd hierarchy: no container could run systemd",
                "/sys/fs/cgroup/systemd",
                "mkdir /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd",
            )
        if shutil.which("runc") is None:
            raise LemonstandError("control groups of version 1 need the runtime runc", "PATH", "apt-get install runc")


def _other(prefix: str) -> str:
    first, second = prefix.split(".")
    return f"{first}.{(int(second) + 1) % 256}"


def check_space(hosts: int) -> None:
    """Asks for memory and disk.

    Args:
        hosts: how many hosts the lab has.

    Raises:
        LemonstandError: names what there is too little of.
    """
    memory = MEMORY_MIB + MEMORY_MIB_A_HOST * hosts
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:") and int(line.split()[1]) // 1024 < memory:
            what = f"a lab of {hosts} hosts takes about {memory} MiB of memory"
            raise LemonstandError(what, "/proc/meminfo", "stop something else or another lab")
    free = shutil.disk_usage("/var/lib").free // 2**20
    if free < DISK_MIB:
        raise LemonstandError(
            f"{free} MiB free, a lab needs {DISK_MIB} MiB", "/var/lib/containers", "make room; `make distclean` drops caches"
        )


def _check_clash(topology: Topology) -> None:
    remedy = f"choose another prefix: --prefix {_other(topology.prefix)}"
    for family, network in (("-4", topology.ipv4), ("-6", topology.ipv6)):
        for route in json.loads(run(["ip", family, "-j", "route", "show", "table", "all"]).stdout or "[]"):
            text = route.get("dst", "default")
            if text == "default" or ("/" not in text and text.startswith(("127.", "ff", "fe80", "::1"))):
                continue
            try:
                used = ip_network(text, strict=False)
            except ValueError:
                continue
            if used.prefixlen > 0 and used.version == network.version and used.overlaps(network):
                raise LemonstandError(
                    f"the lab's network {network} clashes with this machine's route {text} dev {route.get('dev')}", "ip route", remedy
                )
    resolvers = Path("/etc/resolv.conf")
    for line in resolvers.read_text(encoding="utf-8").splitlines() if resolvers.exists() else []:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            address = ip_address(words[1].split("%")[0])
            if address in (topology.ipv4 if address.version == 4 else topology.ipv6):
                raise LemonstandError(f"the lab's network holds this machine's resolver {address}", "/etc/resolv.conf", remedy)


def raise_settings() -> None:
    """Raises kernel settings below their floor and remembers what they were."""
    memory = state_dir() / "kernel-settings.json"
    before = _remembered(memory)
    raised = {}
    for name, floor in KERNEL_SETTINGS.items():
        value = int(Path("/proc/sys", name).read_text(encoding="ascii"))
        if value < floor:
            before.setdefault(name, value)
            raised[name] = floor
    if raised:
        write_text(memory, json.dumps(before))
        for name, floor in raised.items():
            Path("/proc/sys", name).write_text(str(floor), encoding="ascii")


def _remembered(memory: Path) -> dict[str, int]:
    """What settings were; of a note that can't be read, nothing: they stay raised until the machine is started again."""
    try:
        found = read_json(memory, "the kernel's settings of before", "remove it") if memory.exists() else {}
    except InputError:
        return {}
    return {name: value for name, value in found.items() if name in KERNEL_SETTINGS and type(value) is int}


def restore_settings() -> None:
    """Puts back what `raise_settings` changed; for the moment the last lab is gone."""
    memory = state_dir() / "kernel-settings.json"
    if memory.exists():
        for name, value in _remembered(memory).items():
            Path("/proc/sys", name).write_text(str(value), encoding="ascii")
        memory.unlink()
