"""The programs that make lists of people on hosts, as they ship: a check asks them what should be there."""

from __future__ import annotations

import functools
import importlib.util
import sys
from types import ModuleType

from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir

FILES = {"placement": "base", "served_users": "mail_store", "relay_placement": "mail_relay"}
"""Each with its role; the first one is what the others import."""


@functools.cache
def programs() -> dict[str, ModuleType]:
    """They by name.

    Raises:
        LemonstandError: this copy of lemonstand lacks one.
    """
    found: dict[str, ModuleType] = {}
    before = sys.modules.get("placement")
    path = list(sys.path)
    try:
        for name, role in FILES.items():
            spec = importlib.util.spec_from_file_location(name, data_dir("roles") / role / "files" / f"{name}.py")
            if spec is None or spec.loader is None:
                raise LemonstandError(f"this copy of lemonstand lacks {name}.py", role, "use a complete checkout")
            module = importlib.util.module_from_spec(spec)
            if name == "placement":
                sys.modules[name] = module
            spec.loader.exec_module(module)
            found[name] = module
    finally:
        sys.path[:] = path  # the programs add the directory they have on hosts
        if before is None:
            sys.modules.pop("placement", None)
        else:
            sys.modules["placement"] = before
    return found
