"""What the loss of one edge, and of one frontend, costs clients: sleeping sessions, seconds, lifetimes of states. Prints a table.

Run on a lab that is up and deployed, of a site with two edges: `python benchmarks/failover.py --lab NAME [--sessions 200]`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bench import site_of, table_of
from rich.console import Console

from lemonstand.measure import Vantage, failover, open_vantage
from lemonstand.measure.failover import Loss
from lemonstand.outcomes import Invalid, NotApplicable

HEADINGS = (
    "lost", "host", "taken over", "asleep", "dropped", "told", "heard", "new ones failed", "longest", "state left", "back: holds, knows",
)  # fmt: skip
BESIDE = 40
"""Sessions that sleep at other frontends while one is lost."""


def losses(sessions: int) -> dict[str, Callable[[Vantage], Loss]]:
    """What is lost, and how, by name.

    Args:
        sessions: that sleep while an edge is lost.
    """
    return {
        "edge, silent": lambda vantage: failover.edge_falls_silent(vantage, sessions),
        "edge, its election killed": lambda vantage: failover.election_dies(vantage, sessions),
        "frontend, silent": lambda vantage: failover.frontend_falls_silent(vantage, BESIDE),
        "relay, silent": failover.relay_falls_silent,
    }


def row(name: str, loss: Loss) -> list[str]:
    """A row of the table."""
    opened = sum(int(each["opened"]) for each in loss.openings)
    failed = sum(int(each["failed"]) for each in loss.openings)
    return [
        name,
        loss.lost,
        "-" if loss.seconds is None else f"{loss.seconds:.1f} s",
        str(loss.opened),
        str(len(loss.ended)),
        str(loss.pushed),
        str(loss.answered),
        f"{failed} of {opened + failed}",
        f"{loss.longest:.1f} s",
        f"{loss.left} s" if loss.entries else "-",
        "-" if loss.in_step is None else "{}, {} of {}".format("none" if not loss.back else len(loss.back), *reversed(loss.in_step)),
    ]


def main() -> int:
    """Prints the table; 1 if something could not be measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lab", required=True)
    parser.add_argument("--sessions", type=int, default=200)
    given = parser.parse_args()
    site = site_of(given.lab)
    table = table_of(f"{given.sessions} sleeping sessions", HEADINGS)
    code = 0
    with open_vantage(site) as vantage:
        for name, lose in losses(given.sessions).items():
            try:
                cells = row(name, lose(vantage))
                table.add_row(*cells)
                print(", ".join(f"{heading} {cell}" for heading, cell in zip(HEADINGS, cells, strict=True)), flush=True)
            except (Invalid, NotApplicable) as fault:
                table.add_row(name, str(fault)[:80])
                code = int(isinstance(fault, Invalid))
    Console(width=200, highlight=False).print(table)
    return code


if __name__ == "__main__":
    sys.exit(main())
