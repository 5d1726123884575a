"""Begins the agent on a host that holds nothing of lemonstand.

The text of this file is the argument of `python3 -c`; the first line of standard input brings the texts of the agent's modules, and
says which of them goes on. What comes after that line is that one's.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import types
from collections.abc import Sequence

sys.dont_write_bytecode = True  # a probe leaves nothing behind, whatever it imports


class Sent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that were sent.

    Args:
        modules: their texts by name.
        packages: which of them are packages.
    """

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}
        self.packages: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A module of ours, or None."""
        if fullname not in self.modules:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=fullname in self.packages)

    def exec_module(self, module: types.ModuleType) -> None:
        """Fills it with its text."""
        exec(compile(self.modules[module.__name__], module.__name__, "exec"), module.__dict__)  # noqa: S102 - our own modules


def main() -> None:
    """Reads the first line and hands the rest to the agent. Nothing is read ahead by a buffer that the agent does not know."""
    data = b""
    while b"\n" not in data:
        more = os.read(0, 65536)
        if not more:
            sys.exit(3)
        data += more
    line, _, rest = data.partition(b"\n")
    first = json.loads(line)
    sent = Sent()
    sent.modules.update(first["modules"])
    sent.packages.update(first["packages"])
    sys.meta_path.insert(0, sent)
    importlib.import_module(first["main"]).main(sent, rest)


main()
