"""Starts the containers that a lab's hosts are."""

from __future__ import annotations

import resource
from pathlib import Path

from lemonstand.lab import images, machine
from lemonstand.lab.containers import await_boot
from lemonstand.lab.seeds import become_password
from lemonstand.lab.shell import run
from lemonstand.lab.topology import ROOT, Machine, Topology
from lemonstand.paths import lab_dir

LIMIT = 32768


def start_host(topology: Topology, host: str, base: images.Base, log: Path) -> str:
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
    item = topology.machine(host)
    if item.account != ROOT:
        _open_account(topology.name, container, item, log)
    return host


def _open_account(lab: str, container: str, item: Machine, log: Path) -> None:
    """Makes the account the controller comes as, as an installer of Debian would: with sudo, and closed to root."""
    run(["podman", "exec", container, "sh", "-c", _ACCOUNT, "sh", item.account, "" if item.asks else "NOPASSWD:"], log=log)
    if item.asks:
        run(["podman", "exec", "-i", container, "chpasswd"], stdin=f"{item.account}:{become_password(lab)}\n", log=log)


_ACCOUNT = """set -eu
DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install sudo
id "$1" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$1"
umask 0337
echo "$1 ALL=(ALL:ALL) ${2}ALL" > /etc/sudoers.d/lemonstand-lab
visudo -c -q
"""


def limits() -> list[str]:
    """Open files and processes as high as this machine allows: asking for more than the hard limit would fail without CAP_SYS_RESOURCE."""
    options = []
    for word, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(kind)[1]
        limit = LIMIT if hard == resource.RLIM_INFINITY else min(hard, LIMIT)
        options += ["--ulimit", f"{word}={limit}:{limit}"]
    return options
