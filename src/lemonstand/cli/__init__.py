"""The command line: parses, calls, prints. Everything it does can be done from Python with the packages it calls.

One module a topic; each hangs its commands on `main` when it is imported, which is when one of them is asked for (`base.Root`).
"""

from lemonstand.cli.base import main

__all__ = ["main"]
