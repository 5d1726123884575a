"""What an apply that restarts services of every edge, auth host and relay costs clients. Prints a table.

Run on a lab that is up and deployed, of a site with two of each: `python benchmarks/turns.py --lab NAME [--sessions 200]`. The second apply
takes back what the first one changed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial

from bench import site_of, table_of
from rich.console import Console

from lemonstand.measure import failover, open_vantage

RESTARTS = {
    "edge_pair_commit_timeout": 7600,  # conntrackd
    "ticket_issuer_directory_timeout_seconds": 16,  # the issuer
    "mail_relay_submission_sessions": 210,  # postfix
}
"""Variables of roles for which services have to be started anew."""
HEADINGS = ("done", "asleep", "dropped", "told", "new ones failed", "longest")


def apply(lab: str, words: list[str]) -> None:
    """Applies the lab's inventory, with variables of this run alone."""
    subprocess.run([sys.executable, "-m", "lemonstand", "apply", "--lab", lab, *words], check=True)


def main() -> int:
    """Prints the table; 1 if a session was dropped or an apply failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lab", required=True)
    parser.add_argument("--sessions", type=int, default=200)
    given = parser.parse_args()
    site = site_of(given.lab)
    table = table_of(f"{given.sessions} sleeping sessions", HEADINGS)
    lost = 0
    with open_vantage(site) as vantage:
        for what, words in {"apply with restarts": ["-e", json.dumps(RESTARTS)], "apply that takes it back": []}.items():
            seen = failover.through(vantage, given.sessions, partial(apply, given.lab, words))
            failed, opened = (sum(int(each[key]) for each in seen.openings) for key in ("failed", "opened"))
            counts = (str(seen.opened), str(len(seen.ended)), str(seen.pushed))
            table.add_row(what, *counts, f"{failed} of {opened + failed}", f"{seen.longest:.1f} s")
            lost += len(seen.ended)
    Console(width=160, highlight=False).print(table)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
