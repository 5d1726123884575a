"""Judges that plain Ansible uses as well, and programs of roles: they are taken from where they ship, so that both say the same."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir


@cache
def filter_plugin(name: str) -> ModuleType:
    """A module of `playbooks/filter_plugins`.

    Raises:
        LemonstandError: it is not there.
    """
    return _module(data_dir("playbooks") / "filter_plugins" / f"{name}.py", f"lemonstand_{name}")


@cache
def role_program(role: str, name: str) -> ModuleType:
    """A program of a role that this machine can use as well.

    Raises:
        LemonstandError: it is not there.
    """
    return _module(data_dir("roles") / role / "files" / f"{name}.py", f"lemonstand_{role}_{name}")


def _module(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise LemonstandError("the shipped playbooks are not whole", str(path), "install lemonstand anew")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
