"""Prints the threat analysis of the lab that ships (`docs/threat-analysis.md`); no lab has to be up. Its hash goes to standard error."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import yaml

from lemonstand.paths import data_dir
from lemonstand.redteam.analysis import analyse, digest, render
from lemonstand.site import Site, load_site

USERS = "group_vars/all/users.yml"
PREFIX = "10.99"


def lab_site(folder: Path, inventory: Path | None = None) -> Site:
    """The site of a lab's inventory as if a lab of it were up, with passwords nobody uses.

    Args:
        folder: a new directory, which stands for what a lab keeps on the controller.
        inventory: its inventory; default: the lab that ships.
    """
    inventory = inventory or data_dir("inventories") / "lab"
    users = yaml.safe_load((inventory / USERS).read_text(encoding="utf-8"))["lemonstand_users"]
    (folder / "secrets").mkdir(mode=0o700, parents=True)
    passwords = {user["name"]: "nobody's password" for user in users}
    (folder / "secrets" / "passwords.yml").write_text(yaml.safe_dump(passwords), encoding="utf-8")
    return load_site(inventory, {"LEMONSTAND_LAB_DIR": str(folder), "LEMONSTAND_LAB_PREFIX": PREFIX})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        site = lab_site(Path(made))
    sys.stdout.write(render(analyse(site)))
    sys.stderr.write(f"lemonstand_review.analysis of inventories/lab, once it was read: {digest(site)}\n")
