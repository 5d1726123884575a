"""Sessions that frontends proxy, and how some of them are ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from lemonstand.admin.access import Hosts
from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir

PYTHON = ("/usr/bin/python3", "-I", "-B", "-")


@dataclass
class Ended:
    """What came of it.

    Args:
        ended: sessions that are over.
        left: sessions that went on, by frontend.
        untold: why a frontend could not be told.
    """

    ended: int = 0
    left: dict[str, int] = field(default_factory=dict)
    untold: dict[str, str] = field(default_factory=dict)


def end_sessions(hosts: Hosts, frontends: Sequence[str], *, marks: Sequence[str] = (), to: Sequence[str] = ()) -> Ended:
    """Ends sessions on frontends; both client and store are told.

    Args:
        frontends: by their names in the inventory.
        marks: those of app passwords (`session_mark`).
        to: those to stores with these addresses.
    """
    program = (data_dir("roles") / "imap_frontend" / "files" / "proxied_sessions.py").read_text(encoding="utf-8")
    order = json.dumps({"marks": list(marks), "to": list(to)})
    found = Ended()
    for host, answer in hosts.run_on(list(frontends), PYTHON, f"{program}\nmain({order})\n").items():
        if isinstance(answer, LemonstandError):
            found.untold[host] = answer.what
            continue
        said = json.loads(answer)
        found.ended += int(said["ended"])
        if said["left"]:
            found.left[host] = int(said["left"])
    return found
