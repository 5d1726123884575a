"""Renders every file that roles would write for a site, with Ansible's own variables, precedence and templating, and no host at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import add_all_plugin_dirs, filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

ROOT = Path(__file__).resolve().parents[2]
KEY_ID = "0123456789abcdef"
TICKET_KEYS = {
    KEY_ID: "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
}
GIVEN = {
    "ansible_check_mode": False,
    "mail_store_ticket_keys": TICKET_KEYS,
    "ansible_user_dir": "/root",
    "__lab_peer_user": {"uid": 999, "group": 999},
}
"""What other tasks of a play would have set."""
LEFT = {"certificates"}
"""Roles without templates."""


def render(inventory: Path) -> dict[str, dict[str, str]]:
    """The text of every file by host and path.

    Args:
        inventory: a site's directory.
    """
    init_plugin_loader()
    add_all_plugin_dirs(str(ROOT / "playbooks"))
    filter_loader.add_directory(str(ROOT / "playbooks" / "filter_plugins"))
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "playbooks"))
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    variables = VariableManager(loader=loader, inventory=manager)
    files: dict[str, dict[str, str]] = {}
    hostvars = HostVars(inventory=manager, variable_manager=variables, loader=loader)
    for host in manager.get_hosts():
        known = variables.get_vars(host=host)
        if "lemonstand_kind" not in known:
            continue  # a vantage host gets nothing
        found = files[str(host.name)] = {}
        for role in roles_of(str(known["lemonstand_kind"])):
            found.update(_of_role(loader, role, {**known, "hostvars": hostvars}))
    return files


def roles_of(kind: str) -> list[str]:
    """The roles that write files on a kind of host."""
    tasks = yaml.safe_load((ROOT / "playbooks" / "tasks" / "configure" / f"{kind}.yml").read_text(encoding="utf-8"))
    names = [next(value["name"] for key, value in task.items() if key.endswith("_role")) for task in tasks]
    return names + (["mail_store"] if kind == "stores" else [])


def _of_role(loader: DataLoader, role: str, known: dict[str, Any]) -> dict[str, str]:
    folder = ROOT / "roles" / role
    own = (
        loader.load_from_file(str(folder / "vars" / "main.yml"), trusted_as_template=True)
        if (folder / "vars" / "main.yml").exists()
        else {}
    )
    defaults = loader.load_from_file(str(folder / "defaults" / "main.yml"), trusted_as_template=True) or {}
    everything = {**defaults, **known, **GIVEN, **own, "role_path": str(folder), "ansible_search_path": [str(folder)]}
    templar = Templar(loader=loader, variables=everything)
    if f"__{role}_files" not in own:
        assert role in LEFT, f"{role} has no list of files"
        return {}
    found = {}
    for entry in templar.template(own[f"__{role}_files"]):
        source = f"{str(entry['path'])[1:]}.j2"
        found[str(entry["path"])] = str(templar.template(trust_as_template(f"{{{{ lookup('ansible.builtin.template', '{source}') }}}}")))
    if role == "lab_peer":
        for name, records in templar.template(known["lab_peer_zones"]).items():
            extra = templar.copy_with_new_env(available_variables={**everything, "__lab_peer_zone": {"key": name, "value": records}})
            zone = extra.template(trust_as_template("{{ lookup('ansible.builtin.template', 'etc/nsd/zone.j2') }}"))
            found[f"/etc/nsd/lemonstand-{name}.zone"] = str(zone)
    return found
