"""The command line: parses, calls, prints. Everything it does can be done from Python with the packages it calls.

One module a topic; each hangs its commands on `main` when it is imported, which is when one of them is asked for (`base.Root`).
"""

import os

# Before the first model is made: plugins of other projects have no say in what ours take, and to look for them takes a fifth of a second.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

from lemonstand.cli.base import main

__all__ = ["main"]
