"""The inventories of labs that ship, read with passwords nobody uses."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import yaml

from lemonstand.lab.plan import planned as planned_lab
from lemonstand.lab.topology import Topology
from lemonstand.paths import data_dir
from lemonstand.redteam.lab_page import PREFIX, lab_site
from lemonstand.site import Site, read_inventory
from lemonstand.site.raw import RawSite

ROOT = data_dir("inventories")


def hosts(name: str = "lab") -> tuple[str, ...]:
    """The names of an inventory's hosts, in its order; Ansible is not asked."""
    groups = yaml.safe_load((ROOT / name / "hosts.yml").read_text(encoding="utf-8"))["all"]["children"]
    return tuple(host for group in groups.values() for host in group["hosts"])


@cache
def topology(name: str = "lab") -> Topology:
    """The lab that a shipped inventory names, planned as `lab up` plans it."""
    return planned(ROOT / name)


def planned(inventory: Path) -> Topology:
    """The lab that any inventory names, likewise."""
    return read(inventory)[1]


@cache
def read(inventory: Path) -> tuple[Site, Topology, RawSite]:
    """The site of any inventory, the lab that it names, and what it says."""
    with tempfile.TemporaryDirectory() as folder:
        found = site(Path(folder) / "lab", inventory)
        (Path(folder) / "lab" / "secrets" / "become").write_text("nobody's either")
        raw = read_inventory(inventory, {"LEMONSTAND_LAB_DIR": f"{folder}/lab", "LEMONSTAND_LAB_PREFIX": PREFIX})
        return found, planned_lab(Topology("sample", PREFIX), inventory, raw), raw


def ways(site: Site) -> dict[str, str]:
    """The address each host with a leg is reached at."""
    everybody = {**site.hosts, **site.apart}
    return {name: str(host.interfaces[host.way_in].addresses[0]) for name, host in everybody.items() if host.way_in}


def site(folder: Path, inventory: Path = ROOT / "lab") -> Site:
    """The site of an inventory, whose passwords are written to a folder."""
    return lab_site(folder, inventory)
