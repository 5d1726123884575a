"""Reproduces pipelined-past-the-end (docs/upstream.md) in a lab: `.venv/bin/python docs/upstream/pipelined.py LAB`.

A fixed Dovecot answers 250 in every line. 0 means that the server closed the connection in place of the answer; the message is delivered
all the same.
"""

from __future__ import annotations

import os
import shutil
import sys

from lemonstand import lab as labs
from lemonstand.paths import data_dir
from lemonstand.remote.connections import read_connections, sockets_directory
from lemonstand.remote.endpoints import accounts_of, ca_of_clients, endpoint_of, vantage_of
from lemonstand.remote.prober import Prober
from lemonstand.site import load_site


def main(name: str) -> None:
    """Asks the lab's frontend from its handset and prints a line a way."""
    os.environ.update(labs.environment(name))
    inventory = data_dir("inventories") / "lab"
    site = load_site(inventory)
    accounts, sockets = accounts_of(site), sockets_directory()
    try:
        prober, endpoint = Prober(read_connections(inventory, sockets)), endpoint_of(site, ca_of_clients(site), "frontends", 4)
        found = prober.ask(vantage_of(site), "past-the-end", endpoint=endpoint, account=accounts[0], recipient=accounts[1]["user"])
        for way, each in found.items():
            got = prober.ask(vantage_of(site), "wait-for", endpoint=endpoint, account=accounts[1], ident=each["ident"], within=20)
            print(f"{way:<20} answer {each['answer']:>3}, {'arrived' if got['seconds'] is not None else 'did not arrive'}")
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "lab")
