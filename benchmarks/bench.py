"""Measures a lab of its own, from nothing to nothing, and prints one table.

Run by `make bench`. Times are of one run on one machine: compare the ratios, and say on what they were measured (the first lines do).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lemonstand import lab as labs
from lemonstand.evidence.model import topic
from lemonstand.paths import data_dir, lab_dir
from lemonstand.probes.protocols.wire import Account, Endpoint
from lemonstand.remote.connections import read_connections
from lemonstand.remote.endpoints import ELSEWHERE, FAMILIES, PEER_SENDER, accounts_of, ca_of_clients, endpoint_of
from lemonstand.remote.prober import Prober
from lemonstand.site import Site, load_site

NAME, PREFIX = "bench", "10.85"
LOGINS = 300
PUSHES = 5
SIZE = 10_000_000
STALL_SECONDS = 10
AWAY_SECONDS = 10
LATE_BEFORE = 308
"""Seconds, measured before the relay's times were set: 300 s between attempts, and what was left of the outage."""
Rows = list[tuple[str, str]]


def lemonstand(*words: str) -> float:
    """Runs the command line; seconds it took."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "lemonstand", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"lemonstand {' '.join(words)}: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.monotonic() - started


def machine() -> str:
    """What this was measured on."""
    total = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if line.startswith("MemTotal")
    )
    return f"{os.cpu_count()} cores, {total / 2**20:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def site_of(lab: str) -> Site:
    """The site of a lab that is up; what reads the inventory by itself finds the lab from now on."""
    env = labs.environment(lab)
    os.environ.update(env)
    return load_site(labs.inventory_of(lab), env)


def table_of(what: str, headings: Sequence[str]) -> Table:
    """An empty table that says what was measured, and on what."""
    table = Table(box=None, pad_edge=False, title=f"{what}, {machine()}", title_justify="left")
    for heading in headings:
        table.add_column(heading)
    return table


def last_run() -> dict[str, Any]:
    """The record of the newest run."""
    record: dict[str, Any] = json.loads(max((lab_dir(NAME) / "runs").glob("*/run.json")).read_text(encoding="utf-8"))
    return record


def _stages(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {seconds:.0f}" for name, seconds in record["stages"].items() if seconds >= 1)


def _topics(evidence: dict[str, Any]) -> str:
    """The share of each topic of checks, the longest first; what takes less than a hundredth is left out."""
    topics: dict[str, float] = {}
    for result in evidence["results"]:
        name = topic(result["check"])
        topics[name] = topics.get(name, 0) + result["seconds"]
    whole = sum(topics.values())
    share = sorted(topics.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {seconds:.1f} s ({seconds / whole:.0%})" for name, seconds in share if seconds >= whole / 100)


def deployment() -> Rows:
    """From empty hosts to verified ones."""
    rows: Rows = [("lab up (caches warm)", f"{lemonstand('lab', 'up', '--name', NAME, '--prefix', PREFIX):.1f} s")]
    first = lemonstand("apply", "--lab", NAME)
    stages = _stages(last_run())
    rows.append(("first apply", f"{first:.1f} s ({stages})"))
    second = lemonstand("apply", "--lab", NAME)
    record = last_run()
    stages = _stages(record)
    rows.append(("second apply", f"{second:.1f} s ({stages}), {len(record['changes'])} changed"))
    rows.append(("tasks a host", ", ".join(f"{host} {tally['tasks']}" for host, tally in record["hosts"].items() if host != "localhost")))
    rows.append(("verify", f"{lemonstand('verify', '--lab', NAME):.1f} s"))
    rows.append(("of which, by topic", _topics(json.loads((lab_dir(NAME) / "evidence" / "evidence.json").read_text(encoding="utf-8")))))
    rows.append(
        ("make lab in all (caches warm)", f"{sum(float(value.split()[0]) for name, value in rows if name.split(' ')[0] in WHOLE):.0f} s")
    )
    memory = {row["host"]: row["memory"] / 2**20 for row in labs.status(NAME)}
    rows.append(("memory", f"{sum(memory.values()):.0f} MiB: " + ", ".join(f"{host} {size:.0f}" for host, size in memory.items())))
    return rows


WHOLE = ("lab", "first", "verify")


def mail() -> Rows:
    """What a handset sees."""
    os.environ.update(labs.environment(NAME))
    inventory = data_dir("inventories") / "lab"
    site = load_site(inventory)
    ca = ca_of_clients(site)
    endpoints = {f"IPv{version}": endpoint_of(site, ca, "frontends", version) for version in FAMILIES}
    accounts, mx = accounts_of(site), endpoint_of(site, ca, "relays", 4)
    sockets = Path(tempfile.mkdtemp(prefix="lemonstand-ssh-"))
    try:
        prober = Prober(read_connections(inventory, sockets))
        return [
            *_logins(prober, endpoints, accounts),
            *_forward(prober, endpoints, accounts),
            *_push(prober, endpoints["IPv4"], mx, accounts[0]),
            *_outage(prober, endpoints["IPv4"], mx, accounts[0]),
        ]
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _logins(prober: Prober, endpoints: dict[str, Endpoint], accounts: list[Account]) -> Rows:
    rows: Rows = []
    for family, endpoint in endpoints.items():
        for parallel in (1, 8):
            found = prober.ask(
                "handset", "logins", seconds=550, endpoint=endpoint, accounts=accounts, count=LOGINS, parallel=parallel, stall=STALL_SECONDS
            )
            rows.append(
                (
                    f"{LOGINS} logins, {parallel} at a time, {family}",
                    f"{len(found['stalled'])} stalled, {len(found['failed'])} failed; median {found['median'] * 1000:.0f} ms, "
                    f"slowest {found['slowest'] * 1000:.0f} ms, {found['count'] / found['seconds']:.0f} a second",
                )
            )
    return rows


def _forward(prober: Prober, endpoints: dict[str, Endpoint], accounts: list[Account]) -> Rows:
    rows: Rows = []
    for catenate in (False, True):
        seen = prober.ask(
            "handset", "forward", endpoint=endpoints["IPv4"], sender=accounts[0], recipient=accounts[1], size=SIZE, catenate=catenate
        )
        if seen["code"] != 250 or seen["arrived"]["sha256"] != seen["body"]:
            sys.exit(f"the forward failed: {seen['code']} {seen['text']}")
        rows.append(
            (
                f"forward of {seen['stored'] / 1e6:.1f} MB by {'CATENATE and ' if catenate else ''}BURL",
                f"client sends {seen['sent']} B, gets {seen['received']} B of application data "
                f"({seen['kernel_sent']} and {seen['kernel_received']} B in TLS); opening both connections took "
                f"{seen['setup_sent']} B; {seen['seconds'] * 1000:.0f} ms",
            )
        )
    return rows


def _push(prober: Prober, endpoint: Endpoint, mx: Endpoint, account: Account) -> Rows:
    delays = []
    for _ in range(PUSHES):
        with prober.start("handset", "push", endpoint=endpoint, account=account, within=20) as waiting:
            waiting.wait("idling")
            recipient = account["user"]
            with prober.start("peer", "foreign-mx", endpoint=mx, sender=PEER_SENDER, recipient=recipient, elsewhere=ELSEWHERE) as sending:
                accepted = sending.wait("result")
            delays.append(waiting.wait("exists").at - accepted.at)
        prober.ask("handset", "wait-for", endpoint=endpoint, account=account, ident=accepted.values["data"]["ident"], within=20)
    return [
        ("push, from acceptance at the MX to EXISTS", f"median {statistics.median(delays):.2f} s, slowest {max(delays):.2f} s of {PUSHES}")
    ]


def _outage(prober: Prober, endpoint: Endpoint, mx: Endpoint, account: Account) -> Rows:
    """How late mail is for a store that was away."""
    lemonstand("lab", "ssh", "--name", NAME, "store", "systemctl", "stop", "dovecot")
    sent = prober.ask("peer", "foreign-mx", endpoint=mx, sender=PEER_SENDER, recipient=account["user"], elsewhere=ELSEWHERE)
    time.sleep(AWAY_SECONDS)
    lemonstand("lab", "ssh", "--name", NAME, "store", "systemctl", "start", "dovecot")
    back = time.monotonic()
    prober.ask("handset", "wait-for", seconds=400, endpoint=endpoint, account=account, ident=sent["ident"], within=330)
    return [
        (
            f"mail that came while a store was away for {AWAY_SECONDS} s",
            f"{time.monotonic() - back:.0f} s after its return (up to {LATE_BEFORE} s with Postfix's own times between two attempts)",
        )
    ]


def main() -> None:
    """Measures and prints."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    labs.down(NAME, lambda line: None)
    print(f"measured on {machine()}\n", flush=True)
    print("| what | measured |\n|---|---|")
    try:
        for part in (deployment, mail):
            for name, value in part():
                print(f"| {name} | {value} |", flush=True)
    finally:
        labs.down(NAME, lambda line: None)


if __name__ == "__main__":
    main()
