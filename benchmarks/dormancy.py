"""What sleeping costs: wake-ups an hour beside stock Dovecot and the RFC's floor, lost pushes, memory of sleepers. Prints three tables.

Run by `make bench-dormancy` on a lab of its own; `--lab NAME` takes one that is up. Intervals are shortened to 1/`SCALE`, for all alike,
and the figures are scaled back: the line above the table says so. Memory is PSS of all Dovecot processes of a host, with sessions less
without, divided by their number. Pushes are changes that come while sessions fall asleep, with and without who wakes them (decision 0018).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from bench import lemonstand, machine

from lemonstand import lab as labs
from lemonstand.measure import Vantage, hibernation, open_vantage
from lemonstand.paths import data_dir
from lemonstand.policy import load_timers
from lemonstand.probes.protocols.wire import Account
from lemonstand.site import Site, load_site

NAME, PREFIX = "dormancy", "10.86"
SCALE = 20
STOCK_SECONDS = 120
"""imap_idle_notify_interval of Dovecot as it comes."""
FLOOR_SECONDS = 7200
"""RFC 5383 section 4.1: no connection is silent for longer by default."""
WATCHED_HOURS = 2
PUSHES = 500
"""Sessions that meet a change in the moment they fall asleep, or beside it."""
SHARED = 200
"""Sessions a login process holds in the high-performance setup."""
DEVICES, RESERVE, NOBODYS = 60, 12, "{SSHA}nobody"
"""Room for 2,000 sessions follows from users and devices; the users in reserve never log in."""
PROCESSES = ("imap-login", "imap", "imap-hibernate", "auth", "anvil", "stats", "dovecot", "log", "config", "mailbox-nudge")
SETTLE_SECONDS = 20
Overrides = dict[str, Any]
Rows = list[tuple[str, ...]]


def applied(lab: str, folder: Path, overrides: Overrides) -> Site:
    """The lab with other variables, deployed; its site."""
    target = folder / "site"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(data_dir("inventories") / "lab", target)
    (target / "group_vars" / "all" / "zz-bench.yml").write_text(yaml.safe_dump(overrides), encoding="utf-8")
    lemonstand("apply", "--site", str(target), "--lab", lab, "--limit", "frontend:store")
    return load_site(target, labs.environment(lab))


def hurried(lab: str, site: Site, **seconds: int) -> None:
    """Puts shortened timers into force on the store itself: no site may ask for them. The next apply takes them away."""
    edits = " ".join(f"-e 's/^{name} = .*/{name} = {value} s/'" for name, value in seconds.items())
    labs.run_on(lab, site.group("stores")[0].name, f"sed -i {edits} /etc/dovecot/dovecot.conf && systemctl restart dovecot\n")


def wake_ups(lab: str) -> Rows:
    """One idling client, for each interval between the server's lines."""
    site = load_site(data_dir("inventories") / "lab", labs.environment(lab))
    profiles = {f"profile '{name}'": values["idle_notify"] for name, values in load_timers().profiles.items()}
    rows: Rows = []
    measured: dict[int, tuple[str, str]] = {}
    for name, interval in {"stock Dovecot": STOCK_SECONDS, **profiles}.items():
        if interval not in measured:
            hurried(lab, site, imap_idle_notify_interval=round(interval / SCALE), imap_hibernate_timeout=1)
            with open_vantage(site) as vantage:
                measured[interval] = _watched(vantage)
        rows.append((name, f"{interval} s", *measured[interval]))
    rows.append(("RFC 5383, computed", f"{FLOOR_SECONDS} s", f"{3600 / FLOOR_SECONDS:.1f}", "-"))
    return rows


def _watched(vantage: Vantage) -> tuple[str, str]:
    within = WATCHED_HOURS * 3600 / SCALE
    settle = 5.0
    seen = vantage.ask(
        "idle", seconds=int(within) + 60, endpoint=vantage.endpoints(4), account=vantage.accounts[0], within=within + settle, settle=settle
    )
    if seen["ended"] or seen["arrived"]:
        sys.exit(f"the session was not left alone: {seen}")
    hours = seen["counted"] * SCALE / 3600
    return f"{seen['wake_ups'] / hours:.1f}", f"{seen['octets'] / hours:.0f} B"


def pushes(lab: str) -> Rows:
    """Changes that come while sessions fall asleep: how many are lost without who wakes them, and with him."""
    site = load_site(data_dir("inventories") / "lab", labs.environment(lab))
    store = site.group("stores")[0].name
    rows: Rows = []
    for name, does in (("stock Dovecot", "stop"), ("with mailbox-nudge", "start")):
        labs.run_on(lab, store, f"systemctl {does} mailbox-nudge.socket mailbox-nudge.service\n")
        with open_vantage(site) as vantage:
            found = hibernation.falling_asleep(vantage, kinds=(*hibernation.CHANGES, "twice"), sessions=PUSHES).data
        met = [seconds for seen in found.values() for _, seconds in seen["sessions"]]
        told = sorted(seconds for seconds in met if seconds is not None)
        crossed = sum(seen["crossed"] for seen in found.values())
        rows.append((name, f"{len(met) - len(told)} of {len(met)}", str(crossed), f"{told[len(told) // 2]:.2f} s", f"{told[-1]:.2f} s"))
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
    return rows


def memory(lab: str, folder: Path, counts: list[int]) -> Rows:
    """Sleeping sessions, isolated and not, hibernated and not."""
    rows: Rows = []
    shipped = data_dir("inventories") / "lab" / "group_vars" / "all" / "users.yml"
    users = yaml.safe_load(shipped.read_text(encoding="utf-8"))["lemonstand_users"]
    for share, login in ((1, "a process each"), (SHARED, f"{SHARED} a process")):
        for timeout, sleep in ((2, "yes"), (0, "no")):
            overrides = {
                "lemonstand_devices_per_user": DEVICES,
                "lemonstand_users": [
                    *users,
                    *({"name": f"reserve-{number}@lemon.test", "password_hash": NOBODYS} for number in range(RESERVE)),
                ],
                "imap_frontend_sessions_per_process": share,
                "mail_store_sessions_per_process": share,
            }
            site = applied(lab, folder, overrides)
            hurried(lab, site, imap_hibernate_timeout=timeout)
            with open_vantage(site) as vantage:
                for count in counts:
                    rows.append((str(count), login, sleep, *_standing(vantage, count)))
                    print("| " + " | ".join(rows[-1]) + " |", flush=True)
    return rows


def _standing(vantage: Vantage, count: int) -> tuple[str, ...]:
    frontend, store = (vantage.site.group(group)[0].name for group in ("frontends", "stores"))
    passwords = {user.name: vantage.site.password_of(user.name) for user in vantage.site.settings.users}
    accounts = [Account(user=name, password=password) for name, password in passwords.items() if password]
    endpoints = [vantage.endpoints(4), vantage.endpoints(6)]
    time.sleep(SETTLE_SECONDS)
    before = {host: _used(vantage, host) for host in (frontend, store)}
    with vantage.prober.start(
        vantage.host,
        "idle-crowd",
        seconds=1800,
        endpoints=endpoints,
        accounts=accounts,
        count=count // len(endpoints),
        within=SETTLE_SECONDS * 2,
    ) as crowd:
        opened = int(crowd.wait("idling").values["opened"])
        time.sleep(SETTLE_SECONDS)
        after = {host: _used(vantage, host) for host in (frontend, store)}
        result = crowd.wait("result").values["data"]
    if result["refused"]:
        print(f"{count - opened} of {count} sessions could not be opened: {'; '.join(result['refused'][:3])}", file=sys.stderr, flush=True)
    if not opened:
        sys.exit("no session could be opened")
    each = [f"{(after[host] - before[host]) / opened / 1024:.0f} KiB" for host in (frontend, store)]
    return (*each, f"{result['answered']} of {count}")


def _used(vantage: Vantage, host: str) -> int:
    return sum(vantage.prober.ask(host, "processes", name=name)["memory"] for name in PROCESSES)


def _table(*heading: str) -> None:
    print("| " + " | ".join(heading) + " |\n|" + "---|" * len(heading), flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", help="a lab that is up and deployed; it is left as it was")
    parser.add_argument("--sessions", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--only", choices=["wake-ups", "pushes", "memory"])
    chosen = parser.parse_args()
    lab = chosen.lab or NAME
    if not chosen.lab:
        labs.down(NAME, lambda line: None)
        lemonstand("lab", "up", "--name", NAME, "--prefix", PREFIX)
        lemonstand("apply", "--lab", NAME)
    os.environ.update(labs.environment(lab))
    folder = Path(tempfile.mkdtemp(prefix="lemonstand-dormancy-"))
    print(f"measured on {machine()}\n", flush=True)
    try:
        if chosen.only in {None, "wake-ups"}:
            print(f"one idling client, intervals shortened to 1/{SCALE}, figures scaled back to an hour\n")
            _table("server", "a line each", "wake-ups an hour", "carried an hour")
            for row in wake_ups(lab):
                print("| " + " | ".join(row) + " |", flush=True)
            print()
        if chosen.only in {None, "pushes"}:
            _table(
                "changes while sessions fall asleep",
                "not told",
                "in the last half second before sleep",
                "told after, median",
                "at the latest",
            )
            pushes(lab)
            print()
        if chosen.only in {None, "memory"}:
            _table("sessions", "login process", "hibernated", "a session on the frontend", "on the store", "answered at the end")
            memory(lab, folder, chosen.sessions)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if chosen.lab:
            lemonstand("apply", "--lab", lab)
        else:
            labs.down(NAME, lambda line: None)


if __name__ == "__main__":
    main()
