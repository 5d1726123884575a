"""What a login costs, on a lab that is up: through the frontend with a ticket, beside a login at the store with the same kind of ticket.

    python benchmarks/logins.py [LAB]

Prints ratios and throughput; times are of one machine. It takes the least time of refusals off the issuer while it measures what an
unknown name costs, and puts it back.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from lemonstand import lab as labs
from lemonstand.checks.connections import read_connections
from lemonstand.checks.doors import accounts_of, ca_of_clients, door_to, inward_of
from lemonstand.checks.prober import Prober
from lemonstand.paths import data_dir
from lemonstand.site import load_site

COUNT = 100
PARALLEL = (1, 8, 32)
REFUSALS = 60
SETTINGS = "/etc/lemonstand/ticket/issuer.json"


def main(lab: str) -> None:
    """Measures and prints."""
    os.environ.update(labs.environment(lab))
    inventory = data_dir("inventories") / "lab"
    site = load_site(inventory)
    frontend, auth = (site.group(group)[0] for group in ("frontends", "auths"))
    inward = inward_of(site)
    door, accounts = door_to(site, ca_of_clients(site), "frontends", 4), accounts_of(site)
    sockets = Path(tempfile.mkdtemp(prefix="lemonstand-ssh-"))
    print("| what | measured |\n|---|---|")
    try:
        prober = Prober(read_connections(inventory, sockets))
        through: dict[int, Any] = {}
        for parallel in PARALLEL:
            found = prober.ask("handset", "logins", seconds=550, door=door, accounts=accounts, count=COUNT, parallel=parallel, stall=30)
            through[parallel] = found
            print(
                f"| {COUNT} logins through the frontend, {parallel} at a time | {found['count'] / found['seconds']:.1f} a second, "
                f"median {found['median'] * 1000:.0f} ms, {len(found['failed']) + len(found['stalled'])} failed |",
                flush=True,
            )
        straight = prober.ask(frontend.name, "ticket-logins", seconds=550, inward=inward, account=accounts[0], count=COUNT)
        print(f"| a login at the store with a ticket, from the frontend's place | median {straight['login'] * 1000:.0f} ms |")
        print(f"| asking the issuer for the ticket | median {straight['ticket'] * 1000:.0f} ms |")
        print(f"| through the frontend : straight to the store | {through[1]['median'] / straight['login']:.2f} |", flush=True)
        labs.run_on(
            lab,
            auth.name,
            f'sed -i.bench \'s/"refusal_milliseconds": .*/"refusal_milliseconds": 0,/\' {SETTINGS} && systemctl restart ticket-issuer\n',
        )
        try:
            refused = prober.ask(frontend.name, "refusal-times", seconds=550, inward=inward, account=accounts[0], count=REFUSALS)
        finally:
            labs.run_on(lab, auth.name, f"mv {SETTINGS}.bench {SETTINGS} && systemctl restart ticket-issuer\n")
        wrong, unknown = refused["wrong"] * 1000, refused["unknown"] * 1000
        print(f"| refusal, least time off: wrong password, unknown name | median {wrong:.0f} ms, {unknown:.0f} ms |")
        print(f"| unknown name : wrong password | {unknown / wrong:.2f} |")
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "lab")
