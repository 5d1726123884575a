"""What a site is as an inventory has it, in one digest: what the stamps of its hosts name (docs/decisions/0038).

Run as `python -m lemonstand.site.digest INVENTORY PLAYBOOK_DIR` it prints the digest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from lemonstand.site.process import answer_of
from lemonstand.site.reader import command_line, find_plugins, unlock
from lemonstand.site.shipped import filter_plugin

SECONDS = 60


def inventory_digest(inventory: Path) -> str:
    """The digest of an inventory, worked out in a process of its own as `load.read_inventory` does it.

    Args:
        inventory: a site's directory or hosts file.

    Raises:
        LemonstandError: it can't be read.
    """
    answer = answer_of(
        "lemonstand.site.digest", inventory, what="the inventory can't be read", remedy="see what `lemonstand check` says of it",
        seconds=SECONDS, settings={"ANSIBLE_DEPRECATION_WARNINGS": "false"},
    )  # fmt: skip
    return answer.strip()


def _digest(inventory: Path, playbooks: Path) -> str:
    find_plugins()
    command_line()
    loader = DataLoader()
    loader.set_basedir(str(playbooks))
    unlock(loader)
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    variables = VariableManager(loader=loader, inventory=manager)
    found: str = filter_plugin("operation").inventory_digest(HostVars(inventory=manager, variable_manager=variables, loader=loader))
    return found


if __name__ == "__main__":
    print(_digest(Path(sys.argv[1]), Path(sys.argv[2])))
