"""Judges that plain Ansible uses as well: they ship beside the playbooks, and the site model takes them from there: both say the same."""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir


@cache
def filter_plugin(name: str) -> ModuleType:
    """A module of `playbooks/filter_plugins`.

    Raises:
        LemonstandError: it is not there.
    """
    path = data_dir("playbooks") / "filter_plugins" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"lemonstand_{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise LemonstandError("the shipped playbooks are not whole", str(path), "install lemonstand anew")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
