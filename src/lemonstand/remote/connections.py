"""How to reach the hosts: the connection variables of an inventory, worked out by ansible-core in a process of its own.

`lemonstand.site.reader` leaves `ansible_*` out, since they are no part of the site. Run as
`python -m lemonstand.remote.connections INVENTORY PLAYBOOK_DIR` this prints `{host: {variable: value}}` as JSON.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lemonstand.errors import InputError
from lemonstand.site.process import answer_of
from lemonstand.site.raw import BECOME_PASSWORDS

VARIABLES = (
    "ansible_host", "ansible_port", "ansible_user", "ansible_become", "ansible_ssh_common_args", "ansible_ssh_extra_args",
    "ansible_ssh_private_key_file", "ansible_become_method",
)  # fmt: skip
REFUSED = 251
"""Exit status of what could not become root."""
REFUSAL = "lemonstand: no root: "
"""Begins the line that says why."""
_PLAIN_SUDO = f'''said=$(sudo -n true 2>&1 </dev/null) || {{ printf '{REFUSAL}%s\\n' "$said" >&2; exit {REFUSED}; }}; exec sudo -n "$@"'''
# The first line is tried, the second one used, so that sudo never takes for a password what is meant for the program.
_SUDO_WITH_PASSWORD = (
    'IFS= read -r word; if sudo -n true 2>/dev/null </dev/null; then IFS= read -r word; exec sudo -n "$@"; fi; '
    'said=$(printf "%s\\n" "$word" | sudo -k -S -p "" true 2>&1) || '
    f'''{{ printf '{REFUSAL}%s\\n' "$said" >&2; exit {REFUSED}; }}; exec sudo -k -S -p "" "$@"'''
)
READ_SECONDS = 60
SOCKETS = Path("/lemonstand-sockets")
"""Stands for the directory of a command's sockets in what is kept for the next one."""
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Connection:
    """How testinfra reaches a host.

    Args:
        target: `ssh://user@address:port`.
        ssh_arguments: everything else ssh must know.
        sudo: whether to become root there.
        password: what sudo asks for, if it does.
    """

    target: str
    ssh_arguments: str
    sudo: bool
    password: str = field(default="", repr=False)

    def at(self, sockets: Path) -> Connection:
        """The same with its socket in a directory, where `SOCKETS` stood."""
        return replace(self, ssh_arguments=self.ssh_arguments.replace(str(SOCKETS), str(sockets)))

    def as_root(self, command: Sequence[str]) -> str:
        """The line for the shell over there that runs a command as root; it reads `given` first."""
        if not self.sudo:
            return shlex.join(command)
        return shlex.join(["sh", "-c", _SUDO_WITH_PASSWORD if self.password else _PLAIN_SUDO, "sh", *command])

    def given(self, text: str = "") -> str:
        """The standard input of such a line: what sudo wants, then what the command is given."""
        return f"{self.password}\n{self.password}\n{text}" if self.sudo and self.password else text

    def refusal(self, code: int, errors: str) -> str:
        """Why nobody became root over there; empty if somebody did.

        Args:
            code: the exit status of the line.
            errors: what it wrote to standard error.
        """
        if code != REFUSED or REFUSAL not in errors:
            return ""
        said = errors.partition(REFUSAL)[2].strip().splitlines() or ["no reason given"]
        return f"sudo said no: {said[-1].strip()[:200]}"


BECOME_REMEDY = "add --ask-become-pass, set ansible_become_password for the host, or let the user become root without a password"


def read_connections(inventory: Path, sockets: Path) -> dict[str, Connection]:
    """The connections of all hosts.

    Args:
        inventory: the site's directory or hosts file.
        sockets: a private directory for ssh's control sockets; keep its path short.

    Raises:
        LemonstandError: Ansible can't work them out.
    """
    answer = answer_of(
        "lemonstand.remote.connections", inventory, what="the hosts' connections can't be read",
        remedy="see if `ansible all -m ping -i` on it works", seconds=READ_SECONDS,
    )  # fmt: skip
    return {name: connection(name, values, sockets) for name, values in json.loads(answer).items()}


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
    become = values.get("ansible_become", "").lower() in {"true", "yes", "1"} or user not in {"", "root"}
    method, password = values.get("ansible_become_method", "sudo"), values.get("password", "")
    if become and method.rpartition(".")[2] != "sudo":
        raise InputError(
            f"{name} is to become root by '{method}'; checks and commands can do so by sudo only", "ansible_become_method", "use sudo there"
        )
    if "\n" in password or "\0" in password:
        raise InputError(f"the become password of {name} has more than one line", "ansible_become_password", "set another one")
    return Connection(target, shlex.join(words), become, password)


@contextmanager
def connected(inventory: Path) -> Iterator[dict[str, Connection]]:
    """The connections of all hosts; the ssh sessions that are shared end with the block.

    Args:
        inventory: the site's directory or hosts file.

    Raises:
        LemonstandError: Ansible can't work them out.
    """
    sockets = sockets_directory()
    try:
        yield read_connections(inventory, sockets)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)  # a master without its socket ends by itself


def sockets_directory() -> Path:
    """A private directory with a short path: ssh's sockets must fit in 104 characters."""
    return Path(tempfile.mkdtemp(prefix="lemonstand-ssh-"))


def main() -> None:
    """Prints the connection variables of the inventory named on the command line."""
    from ansible import constants  # noqa: PLC0415
    from ansible.errors import AnsibleError  # noqa: PLC0415
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415 - reads its configuration when it is imported
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.parsing.vault import get_file_vault_secret  # noqa: PLC0415
    from ansible.plugins.loader import init_plugin_loader  # noqa: PLC0415
    from ansible.template import Templar  # noqa: PLC0415
    from ansible.vars.manager import VariableManager  # noqa: PLC0415

    from lemonstand.site.reader import command_line, unlock  # noqa: PLC0415

    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever plugins print is no part of the answer
    init_plugin_loader()
    command_line()
    try:
        loader = DataLoader()
        loader.set_basedir(sys.argv[2])
        unlock(loader)
        manager = InventoryManager(loader=loader, sources=[str(Path(sys.argv[1]).absolute())])
        variables = VariableManager(loader=loader, inventory=manager)
        asked = ""
        if constants.BECOME_PASSWORD_FILE:
            secret = get_file_vault_secret(filename=str(constants.BECOME_PASSWORD_FILE), loader=loader)
            secret.load()
            asked = secret.bytes.decode().strip("\r\n")
        result = {}
        for host in manager.get_hosts():
            known = variables.get_vars(host=host)
            templar = Templar(loader=loader, variables=known)
            values = {name: str(templar.template(known[name])) for name in VARIABLES if name in known}
            password = next((str(templar.template(known[name])) for name in BECOME_PASSWORDS if name in known), asked)
            # Before a play says so, this name is what the inventory calls the host.
            result[str(host.name)] = {"ansible_host": str(host.name), **values, "password": password}
    except AnsibleError as fault:
        sys.exit(" ".join(str(fault).split())[:500])
    with answer:
        json.dump(result, answer)


if __name__ == "__main__":
    main()
