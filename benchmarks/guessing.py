"""Sixty connections from one address guess invented names for five minutes, while users log in from networks they were never seen on.

    python benchmarks/guessing.py [LAB]

A line a minute of a lab that is up: what the guesser was answered, and what became of the users. He must not get faster, and they must not
notice (record 0030).
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench import site_of

from lemonstand.remote.connections import connected
from lemonstand.remote.endpoints import accounts_of, ca_of_clients, endpoint_of, inner_services_of, outsider_of
from lemonstand.remote.prober import Prober

MINUTES, MINUTE = 5, 60
CONNECTIONS = 60
MOST_LOGINS = 1_000_000
"""So many that the time ends it."""


def main() -> None:
    """Guesses and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("lab", nargs="?", default="lab")
    lab = parser.parse_args().lab
    site = site_of(lab)
    frontend, outsider, accounts = site.group("frontends")[0].name, outsider_of(site), accounts_of(site)[:2]
    services, endpoint = inner_services_of(site), endpoint_of(site, ca_of_clients(site), "frontends")
    domain = site.settings.mail_domains[0]
    with connected(site.inventory) as connections, Prober(connections) as prober, ThreadPoolExecutor(max_workers=1) as pool:

        def roaming() -> list[dict[str, Any]]:
            return list(prober.ask(frontend, "roaming", seconds=150, inner_services=services, accounts=accounts))

        def guess() -> dict[str, int]:
            order = {"domain": domain, "connections": CONNECTIONS, "logins": MOST_LOGINS, "within": MINUTE}
            return dict(prober.ask(outsider, "crowd-names", seconds=3 * MINUTE, endpoint=endpoint, **order))

        for minute in range(1, MINUTES + 1):
            guessing, users = pool.submit(guess), []
            while not guessing.done():
                users += roaming()
            answers = ", ".join(f"{count} x {answer}" for answer, count in sorted(guessing.result().items()))
            refused = [each for each in users if each["status"] != 200]
            slowest = max((each["seconds"] or 0 for each in users), default=0)
            print(
                f"minute {minute}: guesser: {answers}; users: {len(users)} logins, {len(refused)} refused, {slowest:.1f} s at most",
                flush=True,
            )


if __name__ == "__main__":
    main()
