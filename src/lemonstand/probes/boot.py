"""Runs a probe on a host that holds nothing of lemonstand.

The text of this file is the argument of `python3 -c`; a line of JSON on standard input brings the modules' texts and the order.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import types
from collections.abc import Sequence

sys.dont_write_bytecode = True  # a probe leaves nothing behind, whatever it imports
ORDER = json.loads(sys.stdin.readline())
PACKAGES = frozenset(ORDER["packages"])


class Sent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that were sent."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A module of ours, or None."""
        if fullname not in ORDER["modules"]:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=fullname in PACKAGES)

    def exec_module(self, module: types.ModuleType) -> None:
        """Fills it with its text."""
        exec(compile(ORDER["modules"][module.__name__], module.__name__, "exec"), module.__dict__)  # noqa: S102 - our own modules


sys.meta_path.insert(0, Sent())
importlib.import_module("lemonstand.probes.execute").main(ORDER)
