"""What every host of a site should hold, worked out on the controller without any host: the manifest that `apply` writes from.

Run as `python -m lemonstand.deploy.manifest INVENTORY` it prints the manifest as JSON: {host: [entries]}.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import add_all_plugin_dirs, filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from lemonstand.paths import data_dir

LATE = {"stores": ["mail_store"]}
"""Roles that have a play of their own in `playbooks/site.yml`, by kind of host."""


def manifest(inventory: Path, known_in_run: Mapping[str, Any] | None = None) -> dict[str, list[Any]]:
    """The entries of all hosts that roles put files on (`plugin_utils/manifest.py`: `Entry`), in the order they are written.

    Args:
        inventory: a site's directory.
        known_in_run: what a run would find out on hosts, such as the keys of issuers. Left out, the texts that follow it are not what a
            host has; `Entry.during_run` says so.

    Raises:
        AnsibleError: the inventory, a role or a template is wrong.
    """
    playbooks = data_dir("playbooks")
    init_plugin_loader([str(playbooks / "collections")])
    add_all_plugin_dirs(str(playbooks))
    filter_loader.add_directory(str(playbooks / "filter_plugins"))
    kit = importlib.import_module("ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.roles")
    loader = DataLoader()
    loader.set_basedir(str(playbooks))
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    variables = VariableManager(loader=loader, inventory=manager)
    hostvars = HostVars(inventory=manager, variable_manager=variables, loader=loader)
    found: dict[str, list[Any]] = {}
    for host in manager.get_hosts():
        known = {**variables.get_vars(host=host), "ansible_check_mode": False, "hostvars": hostvars, **(known_in_run or {})}
        if "lemonstand_kind" in known:  # a vantage host gets nothing
            templar = Templar(loader=loader, variables=known)
            roles = kit.roles(_roles_of(str(known["lemonstand_kind"]), templar), str(playbooks), templar, loader)
            held = [entry for role in roles for name in ("files", "made") for entry in role.entries(name)]
            found[str(host.name)] = list({entry.path: entry for entry in held}.values())
    return found


def _roles_of(kind: str, templar: Templar) -> Iterator[str]:
    """The roles that write files on a kind of host, in their order."""
    for task in yaml.safe_load((data_dir("playbooks") / "tasks" / "configure" / f"{kind}.yml").read_text(encoding="utf-8")):
        if "when" in task and not templar.evaluate_conditional(trust_as_template(task["when"])):
            continue
        said = next(value for key, value in task.items() if key.endswith(("_role", ".files", ".certificates")))
        if "roles" in said:
            yield from said["roles"]
        elif "role" in said:
            yield said["role"]
        elif said["tasks_from"] == "configure":
            yield said["name"]
    yield from LATE.get(kind, [])


if __name__ == "__main__":
    print(json.dumps({host: [entry.as_dict() for entry in held] for host, held in manifest(Path(sys.argv[1])).items()}, indent=1))
