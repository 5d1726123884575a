"""The command line: parses, calls, prints. Everything it does can be done from Python with the packages it calls.

One module a topic; each hangs its commands on `main` when it is imported, in the order of the help text. A command about one user is given
often and is over soon, so that it loads its own modules only.
"""

import importlib
import sys
from pathlib import Path

from lemonstand.cli.base import main

TOPICS = (
    "alarms", "backup", "certificates", "deploy", "dkim", "documents", "evidence", "keys", "lab", "mail", "mutate", "operations",
    "probe", "redteam", "report", "service", "store", "user", "verify",
)  # fmt: skip
"""The modules, in the order of the help text."""
OWN = {"user": ("user", "store"), "users": ("user",)}
"""What a process whose first word is one of these needs of them."""
PROGRAMS = ("lemonstand", "__main__.py")


def wanted(words: list[str]) -> tuple[str, ...]:
    """The modules that a process with these words has to load."""
    mine = len(words) > 1 and Path(words[0]).name in PROGRAMS
    return OWN.get(words[1], TOPICS) if mine else TOPICS


for _topic in wanted(sys.argv):
    importlib.import_module(f"lemonstand.cli.{_topic}")

__all__ = ["main"]
