"""How to reach the hosts: the connection variables of an inventory, worked out by ansible-core in a process of its own.

`lemonstand.site.reader` leaves `ansible_*` out, since they are no part of the site. Run as
`python -m lemonstand.checks.connections INVENTORY PLAYBOOK_DIR` this prints `{host: {variable: value}}` as JSON.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir

VARIABLES = (
    "ansible_host", "ansible_port", "ansible_user", "ansible_become", "ansible_ssh_common_args", "ansible_ssh_extra_args",
    "ansible_ssh_private_key_file",
)  # fmt: skip
READ_SECONDS = 60
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Connection:
    """How testinfra reaches a host.

    Args:
        target: `ssh://user@address:port`.
        ssh_arguments: everything else ssh must know.
        sudo: whether to become root there.
    """

    target: str
    ssh_arguments: str
    sudo: bool


def read_connections(inventory: Path, sockets: Path) -> dict[str, Connection]:
    """The connections of all hosts.

    Args:
        inventory: the site's directory or hosts file.
        sockets: a private directory for ssh's control sockets; keep its path short.

    Raises:
        LemonstandError: Ansible can't work them out.
    """
    done = subprocess.run(
        [sys.executable, "-m", "lemonstand.checks.connections", str(inventory), str(data_dir("playbooks"))],
        check=False, capture_output=True, text=True, timeout=READ_SECONDS,
        env={**os.environ, "ANSIBLE_CONFIG": str(data_dir("ansible.cfg"))},
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LemonstandError(
            f"the hosts' connections can't be read: {last}", str(inventory), "see if `ansible all -m ping -i` on it works"
        )
    return {name: connection(name, values, sockets) for name, values in json.loads(done.stdout).items()}


def connection(name: str, values: dict[str, str], sockets: Path) -> Connection:
    """One host's connection from its variables, with one lasting ssh session shared by all checks."""
    user, port = values.get("ansible_user", ""), values.get("ansible_port", "")
    address = values.get("ansible_host", name)
    target = f"ssh://{user + '@' if user else ''}{f'[{address}]' if ':' in address else address}{':' + port if port else ''}"
    own = [
        "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", "ControlMaster=auto", "-o", "ControlPersist=60",
        "-o", f"ControlPath={sockets / '%C'}", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
    ]  # fmt: skip
    if values.get("ansible_ssh_private_key_file"):
        own += ["-i", values["ansible_ssh_private_key_file"]]
    given = [shlex.split(values.get(key, "")) for key in ("ansible_ssh_common_args", "ansible_ssh_extra_args")]
    words = [*own, *given[0], *given[1]]
    become = values.get("ansible_become", "").lower() in {"true", "yes", "1"}
    return Connection(target, shlex.join(words), become or user not in {"", "root"})


def sockets_directory() -> Path:
    """A private directory with a short path: ssh's sockets must fit in 104 characters."""
    return Path(tempfile.mkdtemp(prefix="lemonstand-ssh-"))


def main() -> None:
    """Prints the connection variables of the inventory named on the command line."""
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415 - reads its configuration when it is imported
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.plugins.loader import init_plugin_loader  # noqa: PLC0415
    from ansible.template import Templar  # noqa: PLC0415
    from ansible.vars.manager import VariableManager  # noqa: PLC0415

    init_plugin_loader()
    loader = DataLoader()
    loader.set_basedir(sys.argv[2])
    manager = InventoryManager(loader=loader, sources=[str(Path(sys.argv[1]).absolute())])
    variables = VariableManager(loader=loader, inventory=manager)
    result = {}
    for host in manager.get_hosts():
        known = variables.get_vars(host=host)
        templar = Templar(loader=loader, variables=known)
        values = {name: str(templar.template(known[name])) for name in VARIABLES if name in known}
        # Before a play says so, this name is what the inventory calls the host.
        result[str(host.name)] = {"ansible_host": str(host.name), **values}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
