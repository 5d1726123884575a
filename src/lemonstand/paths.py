"""Where things lie: data that ships with lemonstand, the cache, and state on the controller (docs/decisions/0001)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lemonstand.errors import InputError, LemonstandError

LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,11}\Z")
"""What can name a lab: it is part of every container, namespace and directory name."""
DEFAULT_SITE = "inventories/lab"
"""The inventory of a lab that is made for no other."""
_INVENTORIES = "inventories/"
_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """A shipped file or directory, in a checkout as well as in an installed wheel.

    Args:
        name: `roles`, `playbooks`, `inventories`, `templates` or `ansible.cfg`.

    Raises:
        LemonstandError: this copy of lemonstand lacks it.
    """
    checkout = _PACKAGE.parent.parent
    # A checkout is told by its build file, so a stray `roles/` beside site-packages is never taken for ours.
    places = [checkout / name] if (checkout / "pyproject.toml").is_file() and _PACKAGE.parent.name == "src" else []
    places.append(_PACKAGE / "_data" / name)
    for place in places:
        if place.exists():
            return place
    raise LemonstandError(f"this copy of lemonstand lacks '{name}'", str(places[0]), "install lemonstand again, or use a complete checkout")


def inventory_path(site: str) -> Path:
    """An inventory by its path, or by the name of one that ships with lemonstand.

    Raises:
        InputError: there is none.
    """
    path = Path(site)
    shipped = data_dir("inventories")
    if not path.exists():
        path = shipped / site.removeprefix(_INVENTORIES)
    if not path.exists():
        known = ", ".join(sorted(item.name for item in shipped.iterdir() if item.is_dir()))
        raise InputError(f"there is no inventory '{site}'", "--site", f"name a directory; these ship with lemonstand: {known}")
    return path.absolute()


def known_as(path: Path) -> str:
    """What a lab keeps of its inventory's path: of a shipped one the name, for it may be read by another copy of lemonstand."""
    shipped = data_dir("inventories").absolute()
    return f"{_INVENTORIES}{path.name}" if path.parent == shipped else str(path)


def cache_dir() -> Path:
    """What can be made again (images, packages): `$LEMONSTAND_CACHE`, else below `$XDG_CACHE_HOME` or `~/.cache`."""
    own = os.environ.get("LEMONSTAND_CACHE")
    return _private(Path(own) if own else _xdg("XDG_CACHE_HOME", ".cache") / "lemonstand")


def state_dir() -> Path:
    """What must be kept (labs, runs): `$LEMONSTAND_STATE`, else below `$XDG_STATE_HOME` or `~/.local/state`."""
    own = os.environ.get("LEMONSTAND_STATE")
    return _private(Path(own) if own else _xdg("XDG_STATE_HOME", ".local/state") / "lemonstand")


def lab_dir(name: str, *, create: bool = True) -> Path:
    """The directory of one lab: keys, passwords, logs, runs.

    Args:
        name: the lab's name.
        create: make it (mode 0700) if it isn't there.
    """
    path = state_dir() / "labs" / name
    return _private(path) if create else path


def site_dir(name: str) -> Path:
    """The directory of one real site: its runs and its evidence (made with mode 0700)."""
    return _private(state_dir() / "sites" / name)


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    if value.startswith("/"):
        return Path(value)
    try:
        return Path.home() / fallback
    except RuntimeError:
        raise InputError("this user has no home directory", "HOME", REMEDY) from None


REMEDY = "name directories that can be written in LEMONSTAND_STATE and LEMONSTAND_CACHE"


def _private(path: Path) -> Path:
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"this directory can't be made: {fault.strerror}", str(path), REMEDY) from None
    return path
