"""What judging an inventory costs, and what templating a host's variables costs: by users and by hosts, CPU time of the controller.

    python benchmarks/judging.py [--before COMMIT]

With a commit, that one is measured in the same run beside what is checked out here: before : after. No host is needed. Sites are made up in
a temporary folder; they are judged by `lemonstand check`, and templated as Ansible's workers do, each host in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
USERS = (100, 1000, 10_000)
HOSTS = (5, 50, 200)
A_KIND = 3
"""Hosts of each kind that are templated."""
FACTS = ("__defaults", "__grammar", "__timers", "__flows", "__members", "__user_count")
"""What the preflight play leaves behind for a run."""
HASH = "{SSHA}NHqZKoTHLmiSaXSyHEhpbtmBpJdzYWx0"


def write_site(folder: Path, users: int, hosts: int) -> Path:
    """A sound site with so many users and hosts: one edge, one auth, the rest frontends, stores and relays alike."""
    zones = {"dmz": 2, "auth": 3, "store": 4, "management": 5}
    kinds = [("edges", "edge", ("dmz", "auth", "store")), ("auths", "auth", ("auth",))]
    for number in range(hosts - 2):
        group, zone = (("frontends", "dmz"), ("stores", "store"), ("relays", "dmz"))[number % 3]
        kinds.append((group, f"{group[:-1]}{number // 3}", (zone,)))
    children: dict[str, Any] = {}
    for number, (group, name, legs) in enumerate(kinds, 1):
        ends = {zone: (f"10.{zones[zone]}.{number // 250}.{number % 250 + 1}", f"2001:db8:{zones[zone]}::{number:x}") for zone in zones}
        interfaces = {zone: {"device": f"{zone}0", "ipv4": ends[zone][0], "ipv6": ends[zone][1]} for zone in (*legs, "management")}
        if group == "edges":
            interfaces["internet"] = {"device": "internet0", "ipv4": "203.0.113.1", "ipv6": "2001:db8:1::1"}
        host = {"ansible_host": ends["management"][0], "lemonstand_interfaces": interfaces}
        children.setdefault(group, {"hosts": {}})["hosts"][name] = host
    shared = {
        "lemonstand_site_name": "bench",
        "lemonstand_zones": {zone: {"ipv4": f"10.{octet}.0.0/16", "ipv6": f"2001:db8:{octet}::/64"} for zone, octet in zones.items()},
        "lemonstand_mail_domains": ["lemon.example"],
        "lemonstand_public_name": "mail.lemon.example",
        "lemonstand_mx_name": "mx.lemon.example",
        "lemonstand_internal_domain": "site.lemon.example",
        "lemonstand_public_ipv4": "203.0.113.1",
        "lemonstand_controllers": ["10.5.255.254"],
        "lemonstand_ntp_servers": ["203.0.113.123"],
        "lemonstand_dns_resolvers": ["203.0.113.53"],
        "lemonstand_pki_dir": str(folder / "pki"),
        "lemonstand_users": [
            {"name": f"user{number}@lemon.example", "aliases": [f"alias{number}@lemon.example"], "store": "store0", "password_hash": HASH}
            for number in range(users)
        ],
    }
    (folder / "group_vars" / "all").mkdir(parents=True)
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": children}}), encoding="ascii")
    (folder / "group_vars" / "all" / "site.yml").write_text(yaml.safe_dump(shared, sort_keys=False), encoding="ascii")
    return folder


def run(tree: Path, *words: str) -> tuple[float, str]:
    """CPU seconds and output of a Python that takes the package from a tree; a command that fails takes for ever."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {**os.environ, "PYTHONPATH": str(tree / "src"), "ANSIBLE_CONFIG": str(tree / "ansible.cfg")}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=env, cwd=tree)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (seconds if done.returncode == 0 else float("inf")), done.stdout


def template(tree: Path, site: Path) -> float:
    """Mean CPU seconds a host for templating all that its roles are handed. Runs in a process of its own: Ansible is set up but once."""
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415 - only now is its configuration the tree's
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.plugins.loader import filter_loader, init_plugin_loader  # noqa: PLC0415
    from ansible.template import Templar  # noqa: PLC0415
    from ansible.vars.hostvars import HostVars  # noqa: PLC0415
    from ansible.vars.manager import VariableManager  # noqa: PLC0415

    init_plugin_loader()
    filter_loader.add_directory(str(tree / "playbooks" / "filter_plugins"))
    loader = DataLoader()
    loader.set_basedir(str(tree / "playbooks"))
    manager = InventoryManager(loader=loader, sources=[str(site)])
    variables = VariableManager(loader=loader, inventory=manager)
    hostvars = HostVars(manager, variables, loader)
    roles = tuple(f"{path.name}_" for path in (tree / "roles").iterdir() if path.is_dir())

    def known_of(host: Any) -> dict[str, Any]:
        known: dict[str, Any] = variables.get_vars(host=host)
        known["hostvars"] = hostvars
        return known

    first = known_of(manager.get_hosts()[0])
    templar = Templar(loader=loader, variables=first)
    facts = {name: templar.template(first[name]) for name in FACTS} if "__members" in first else {}
    spent = []
    for group in ("edges", "frontends", "auths", "stores", "relays"):
        for name in manager.groups[group].hosts[:A_KIND]:
            known = known_of(manager.get_host(str(name))) | facts
            receiver, sender = os.pipe()
            if os.fork() == 0:
                templar = Templar(loader=loader, variables=known)
                started = time.process_time()
                for variable in [each for each in known if each.startswith(roles)]:
                    try:
                        templar.template(known[variable])
                    except Exception:  # noqa: S112 - what leans on a running host can't be had here
                        continue
                os.write(sender, json.dumps(time.process_time() - started).encode())
                os._exit(0)
            os.wait()
            spent.append(float(os.read(receiver, 64)))
            os.close(receiver)
            os.close(sender)
    return sum(spent) / len(spent)


def measured(tree: Path, folder: Path) -> dict[str, float]:
    """All rows for one tree."""
    rows: dict[str, float] = {}
    sites = {**{(users, 5): f"check, {users} users" for users in USERS}, **{(100, hosts): f"check, {hosts} hosts" for hosts in HOSTS[1:]}}
    for (users, hosts), title in sites.items():
        rows[title] = run(tree, "-m", "lemonstand", "check", "--site", str(folder / f"{users}-{hosts}"))[0]
    for users, hosts in ((100, 5), (100, 200)):
        seconds, said = run(tree, __file__, "--template", str(tree), str(folder / f"{users}-{hosts}"))
        rows[f"templating a host, of {hosts}"] = float(said) if seconds != float("inf") else seconds
    return rows


def main() -> None:
    """Measures, and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="COMMIT", help="measured as well")
    parser.add_argument("--template", nargs=2, metavar=("TREE", "SITE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.template:
        sys.stdout.write(str(template(*map(Path, given.template))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for users, hosts in {*((users, 5) for users in USERS), *((100, hosts) for hosts in HOSTS)}:
            write_site(folder / f"{users}-{hosts}", users, hosts)
        before: dict[str, float] = {}
        if given.before:
            old = folder / "before"
            subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(old), given.before], check=True, cwd=ROOT)
            try:
                before = measured(old, folder)
            finally:
                subprocess.run(["git", "worktree", "remove", "--force", str(old)], check=True, cwd=ROOT)
        after = measured(ROOT, folder)
    for title, seconds in after.items():
        sys.stdout.write(f"{title:32} {f'{before[title]:7.2f} s : ' if before else ''}{seconds:5.2f} s\n")


if __name__ == "__main__":
    main()
