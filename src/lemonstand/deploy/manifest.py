"""What every host of a site should hold, worked out on the controller without any host: the manifest that `apply` writes from.

Run as `python -m lemonstand.deploy.manifest INVENTORY` it prints the manifest as JSON: `{host: {"files": [entries], "units": [names],
"accounts": [names], "texts": {path: text}}}`, the texts of `TEXTS` alone. What a run finds out on hosts may stand on standard input, as one
JSON object with `all` and `hosts`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
from lemonstand.site.process import answer_of
from lemonstand.site.reader import command_line, unlock

LATE = {"stores": ["mail_store"]}
"""Roles that have a play of their own in `playbooks/site.yml`, by kind of host."""
TEXTS = ("/etc/sysctl.d/60-lemonstand.conf", "/etc/chrony/chrony.conf")
"""Files whose lines are compared with what is in force, one by one. They hold no secrets."""
SECONDS, SECONDS_A_HOST = 90, 30
"""How long it may take on a machine that is busy with the hosts themselves, as a lab's is: for the site, and more for each host."""


@dataclass
class Held:
    """What one host should hold.

    Args:
        entries: files and directories, in the order they are written (`plugin_utils/manifest.py`: `Entry`).
        units: systemd units that roles bring to their files, and enable.
        accounts: users that roles make.
    """

    entries: list[Any] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)

    def as_dict(self, whole: bool) -> dict[str, Any]:
        """As JSON, without texts but those of `TEXTS`.

        Args:
            whole: what a run finds out is known, so that hashes of texts that follow it are right.
        """
        texts = {entry.path: entry.text for entry in self.entries if entry.path in TEXTS}
        files = [entry.as_dict() | ({"sha256": entry.sha256} if whole and entry.during_run else {}) for entry in self.entries]
        return {"files": files, "units": self.units, "accounts": self.accounts, "texts": texts}


def read_manifest(inventory: Path, known_in_run: Mapping[str, Any], hosts: int) -> dict[str, dict[str, Any]]:
    """The manifest, made in a process of its own as `site.load.read_inventory` does it.

    Args:
        inventory: a site's directory.
        known_in_run: what a run finds out on hosts, in `all` or by host in `hosts`; no secrets. Hashes of texts that follow it are told
            then.
        hosts: how many there are, for the time it may take.

    Raises:
        LemonstandError: it can't be made.
    """
    answer = answer_of(
        "lemonstand.deploy.manifest", inventory, what="what hosts should hold can't be worked out",
        remedy="see what `lemonstand check` says of the inventory", seconds=SECONDS + hosts * SECONDS_A_HOST,
        settings={"ANSIBLE_DEPRECATION_WARNINGS": "false"}, given=json.dumps(known_in_run),
    )  # fmt: skip
    found: dict[str, dict[str, Any]] = json.loads(answer)
    return found


def manifest(inventory: Path, known_in_run: Mapping[str, Any] | None = None) -> dict[str, list[Any]]:
    """The entries of all hosts that roles put files on; see `held` for the arguments."""
    return {name: each.entries for name, each in held(inventory, known_in_run).items()}


def held(
    inventory: Path, known_in_run: Mapping[str, Any] | None = None, by_host: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Held]:
    """What all hosts that roles put files on should hold.

    Args:
        inventory: a site's directory.
        known_in_run: what a run would find out on hosts, such as the keys of issuers. Left out, the texts that follow it are not what a
            host has; `Entry.during_run` says so.
        by_host: the same for one host, by its name.

    Raises:
        AnsibleError: the inventory, a role or a template is wrong.
    """
    playbooks = data_dir("playbooks")
    command_line()
    init_plugin_loader([str(playbooks / "collections")])
    add_all_plugin_dirs(str(playbooks))
    filter_loader.add_directory(str(playbooks / "filter_plugins"))
    kit = importlib.import_module("ansible_collections.lemonstand.lemonstand.plugins.plugin_utils.roles")
    loader = DataLoader()
    loader.set_basedir(str(playbooks))
    unlock(loader)
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    variables = VariableManager(loader=loader, inventory=manager)
    hostvars = HostVars(inventory=manager, variable_manager=variables, loader=loader)
    found: dict[str, Held] = {}
    for host in manager.get_hosts():
        known = {**variables.get_vars(host=host), "ansible_check_mode": False, "hostvars": hostvars, **(known_in_run or {})}
        known.update((by_host or {}).get(str(host.name), {}))
        if "lemonstand_kind" in known:  # a vantage host gets nothing
            templar = Templar(loader=loader, variables=known)
            roles = kit.roles(_roles_of(str(known["lemonstand_kind"]), templar), str(playbooks), templar, loader)
            entries = [entry for role in roles for name in ("files", "made") for entry in role.entries(name)]
            units = [str(step["unit"]) for role in roles for step in role.says("steps") if "unit" in step]
            accounts = [str(each["name"]) for role in roles for each in role.says("accounts")]
            # Two roles may name the same directory; the last word counts, as when they write.
            found[str(host.name)] = Held(list({entry.path: entry for entry in entries}.values()), list(dict.fromkeys(units)), accounts)
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
    given = "" if sys.stdin.isatty() else sys.stdin.read()
    told = json.loads(given) if given.strip() else {}
    wanted = held(Path(sys.argv[1]), told.get("all"), told.get("hosts"))
    print(json.dumps({host: each.as_dict(bool(told)) for host, each in wanted.items()}, indent=1))
