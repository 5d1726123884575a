"""Both ways to the judge of inventories, in one process: as `lemonstand check` goes, and as the preflight of plain Ansible does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from lemonstand.policy import load_flows, load_timers
from lemonstand.site import preflight, reader
from lemonstand.site.load import judge
from lemonstand.site.raw import RawSite, packed, unpacked
from lemonstand.site.shipped import filter_plugin

PLAYBOOKS = Path(__file__).resolve().parents[1] / "playbooks"


def by_the_model(inventory: Path) -> list[str]:
    """What `lemonstand check` finds, a line a fault."""
    data = unpacked(json.loads(json.dumps(packed(reader.read(inventory, PLAYBOOKS)))))
    faults, _ = judge(RawSite.from_plain(data), load_flows(), load_timers())
    return [preflight.line(fault.what, fault.where, fault.remedy) for fault in faults]


def by_preflight(inventory: Path, ask: Callable[[Any], list[str]] | None = None) -> list[str]:
    """What the play finds, over an inventory that Ansible has read as ansible-playbook reads it.

    Args:
        ask: another filter than the play's.

    Raises:
        AnsibleError: Ansible ends by itself, before a play begins.
    """
    reader._find_plugins()
    loader = DataLoader()
    loader.set_basedir(str(PLAYBOOKS))
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    hostvars = HostVars(manager, VariableManager(loader=loader, inventory=manager), loader)
    found: list[str] = (ask or filter_plugin("site_faults").site_faults)(hostvars)
    return found
