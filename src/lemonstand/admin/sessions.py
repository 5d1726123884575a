"""Sessions that frontends proxy, and how some of them are ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lemonstand.admin.access import PYTHON, Hosts, program
from lemonstand.errors import LemonstandError
from lemonstand.paths import data_dir


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
    said, untold = _asked(hosts, frontends, {"action": "end", "marks": list(marks), "to": list(to)})
    left = {host: int(answer["left"]) for host, answer in said.items() if answer["left"]}
    return Ended(sum(int(answer["ended"]) for answer in said.values()), left, untold)


def marks_on(hosts: Hosts, frontends: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The marks that sessions on frontends have, by frontend; and why others could not be asked."""
    said, unasked = _asked(hosts, frontends, {"action": "marks"})
    return {host: list(answer["marks"]) for host, answer in said.items()}, unasked


def _asked(hosts: Hosts, frontends: Sequence[str], order: Mapping[str, object]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    text = (data_dir("roles") / "imap_frontend" / "files" / "proxied_sessions.py").read_text(encoding="utf-8")
    answers = hosts.run_on(list(frontends), PYTHON, program(text, order))
    lost = {host: answer.what for host, answer in answers.items() if isinstance(answer, LemonstandError)}
    return {host: json.loads(answer) for host, answer in answers.items() if isinstance(answer, str)}, lost
