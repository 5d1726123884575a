"""What thousands of sleeping sessions cost each host that carries them, and which limit they would meet first. Prints two tables.

Run on a lab that is up and deployed, such as one of `inventories/lab-pairs`: `python benchmarks/crowd.py --lab NAME [--sessions 10000]
[--minutes 10]`. Sessions come by every frontend's own address and by the public one, and sleep with timers as they are. Users for them
are added first, as many to each store, and room by an apply (200 sessions a login process, record 0004); both are taken back at the
end. Memory is PSS of all Dovecot processes of a host, with sessions less without, divided by their number; wake-ups are what processes
went on after waiting.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from bench import lemonstand, machine, table_of
from dormancy import PROCESSES, SHARED
from rich.console import Console

from lemonstand import lab as labs
from lemonstand.admin.users import hash_password
from lemonstand.measure import Vantage, open_vantage
from lemonstand.measure.failover import doors
from lemonstand.probes.protocols.wire import Account
from lemonstand.remote.prober import Running, results
from lemonstand.site import Site, load_site

CLIENTS = 4
"""Programs that hold the sessions, side by side."""
SETTLE_SECONDS = 60
LONGEST = 7200
SESSIONS_A_USER = 50
"""Each user more is a mailbox more that stores make and standbys copy, which is not what is asked here."""
MARGIN = 1.25
"""Room beyond the sessions that are opened."""
RATIO_OF = {
    "tracked connections": "cat /proc/sys/net/netfilter/nf_conntrack_count /proc/sys/net/netfilter/nf_conntrack_max",
    "processes": "cat /sys/fs/cgroup/pids/pids.current /sys/fs/cgroup/pids/pids.max",
    "memory of the machine, MiB": "awk '/MemTotal/ {t=$2} /MemAvailable/ {a=$2} END {print int((t-a)/1024), int(t/1024)}' /proc/meminfo",
}
SERVICES = ("imap-login", "imap", "imap-hibernate", "imap-urlauth-login")


def room(folder: Path, people: int) -> Path:
    """A file of variables with room for so many people."""
    more = {
        "lemonstand_room_for": people,
        "lemonstand_devices_per_user": round(SESSIONS_A_USER * MARGIN),
        "imap_frontend_sessions_per_process": SHARED,
        "mail_store_sessions_per_process": SHARED,
    }
    file = folder / "room.yml"
    file.write_text(yaml.safe_dump(more), encoding="utf-8")
    return file


@contextmanager
def people(folder: Path, lab: str, site: Site, count: int) -> Iterator[list[Account]]:
    """So many users more, with one password; they are gone at the end, with their mail."""
    password = secrets.token_urlsafe(18)
    stores = list(site.pairs)
    names = [f"crowd{number}@{site.settings.mail_domains[0]}" for number in range(count)]
    hashed = hash_password(password)
    rows = [{"name": name, "store": stores[number % len(stores)], "password_hash": hashed} for number, name in enumerate(names)]
    file = folder / "people.yml"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(rows), encoding="utf-8")
    there = folder / "there.yml"
    words = [sys.executable, "-m", "lemonstand", "user", "export", "--lab", lab]
    there.write_text(subprocess.run(words, capture_output=True, text=True, check=True).stdout, encoding="utf-8")
    lemonstand("users", "sync", str(file), "--lab", lab)
    try:
        yield [Account(user=name, password=password) for name in names]
    finally:
        lemonstand("users", "sync", str(there), "--delete-missing", "--lab", lab)


def used(vantage: Vantage, host: str) -> dict[str, int]:
    """What the processes of Dovecot on a host hold and have used so far."""
    seen = [vantage.prober.ask(host, "processes", name=name) for name in PROCESSES]
    return {what: sum(each[what] for each in seen) for what in ("memory", "processor", "wake_ups")}


@dataclass(frozen=True, order=True)
class Limit:
    """How much of a limit is used."""

    share: float
    host: str
    what: str
    used: int
    allowed: int


def limits(lab: str, site: Site) -> list[Limit]:
    """The limits that sessions meet, the nearest first."""
    found: list[tuple[str, str, int, int]] = []
    for host in (each for group in ("edges", "frontends", "stores") for each in site.group(group)):
        for what, command in RATIO_OF.items():
            words = labs.run_on(lab, host.name, command).split()
            if len(words) == 2 and words[1].isdigit():
                found.append((host.name, what, int(words[0]), int(words[1])))
        for service in SERVICES if "edges" not in host.role_groups else ():
            text = labs.run_on(lab, host.name, f"doveadm -f tab service status {service} 2>/dev/null || true").splitlines()
            if len(text) > 1:
                values = dict(zip(text[0].split("\t"), text[1].split("\t"), strict=False))
                share, busy = int(values["client_limit"]), int(values["process_count"]) - int(values["process_avail"])
                found.append((host.name, f"sessions of {service}", busy * share, int(values["process_limit"]) * share))
    return sorted((Limit(now / most, host, what, now, most) for host, what, now, most in found if most), reverse=True)


def measured(lab: str, site: Site, accounts: list[Account], *, sessions: int, minutes: float, console: Console) -> None:
    """Opens the sessions, lets them sleep, prints the tables."""
    hosts = [host.name for group in ("frontends", "stores") for host in site.group(group)]
    with open_vantage(site) as vantage, ExitStack() as stack:
        ways = doors(vantage)
        before = {host: used(vantage, host) for host in hosts}
        begun = time.monotonic()
        crowds: dict[str, Running] = {}
        for number in range(CLIENTS):
            crowds[str(number)] = stack.enter_context(
                vantage.prober.start(
                    vantage.host, "idle-crowd", seconds=LONGEST, endpoints=ways, accounts=accounts,
                    count=sessions // (CLIENTS * len(ways)), within=LONGEST,
                )
            )  # fmt: skip
        opened = sum(int(each.wait("idling").values["opened"]) for each in crowds.values())
        console.print(f"{opened} of {sessions} sessions opened in {time.monotonic() - begun:.0f} s, load {os.getloadavg()[0]:.0f}")
        time.sleep(SETTLE_SECONDS)
        asleep = {host: used(vantage, host) for host in hosts}
        time.sleep(minutes * 60)
        later = {host: used(vantage, host) for host in hosts}
        near = limits(lab, site)
        for crowd in crowds.values():
            crowd.enough()
        done: list[dict[str, Any]] = list(results(crowds).values())
    hours = minutes / 60
    table = table_of(
        f"{opened} sessions asleep for {minutes:.0f} minutes",
        ("host", "memory a session", "processor in that time", "wake-ups of processes an hour, a session"),
    )
    for host in hosts:
        spent = {what: later[host][what] - asleep[host][what] for what in ("processor", "wake_ups")}
        held = (asleep[host]["memory"] - before[host]["memory"]) / max(1, opened) / 1024
        table.add_row(host, f"{held:.0f} KiB", f"{spent['processor'] / 1000:.1f} s", f"{spent['wake_ups'] / max(1, opened) / hours:.2f}")
    console.print(table)
    heard, answered = (sum(each[what] for each in done) for what in ("heard", "answered"))
    console.print(f"{answered} of {opened} answered at the end; lines that clients were sent meanwhile: {heard}")
    for reason in [reason for each in done for reason in (*each["refused"], *each["ended"])][:5]:
        console.print(f"    {reason}")
    table = table_of("limits, the nearest first", ("host", "limit", "used", "allowed", "share"))
    for each in near[:12]:
        table.add_row(each.host, each.what, str(each.used), str(each.allowed), f"{each.share:.0%}")
    console.print(table)


def main() -> int:
    """Makes room, measures, takes the room back."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lab", required=True)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    os.environ.update(labs.environment(given.lab))
    console = Console(width=160, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="lemonstand-crowd-"))
    console.print(f"measured on {machine()}")
    try:
        count = -(-given.sessions // SESSIONS_A_USER)
        site = load_site(labs.inventory_of(given.lab), labs.environment(given.lab))
        lemonstand("apply", "--lab", given.lab, "-e", f"@{room(folder, count)}")
        with people(folder, given.lab, site, count) as accounts:
            measured(given.lab, site, accounts, sessions=given.sessions, minutes=given.minutes, console=console)
    finally:
        lemonstand("apply", "--lab", given.lab)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
