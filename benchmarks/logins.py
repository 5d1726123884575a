"""What a login costs, on a lab that is up: through the frontend with a ticket, beside a login at the store with the same kind of ticket.

    python benchmarks/logins.py [LAB]

Prints ratios and throughput; times are of one machine. It takes the least time of refusals off the issuer while it measures what an
unknown name costs, and puts it back. What crowds, a storm of one user and an outage of the issuer come to is measured twice in one run,
the second time with the issuer and the frontend as they were before there was a queue (record 0023), which is put back as well.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from lemonstand import lab as labs
from lemonstand.paths import data_dir
from lemonstand.remote.connections import read_connections
from lemonstand.remote.endpoints import accounts_of, ca_of_clients, endpoint_of, inner_services_of
from lemonstand.remote.prober import Prober
from lemonstand.site import load_site

COUNT = 100
PARALLEL = (1, 8, 32)
REFUSALS = 60
SETTINGS = "/etc/lemonstand/ticket/issuer.json"
CROWD, STORM, STORM_SECONDS, PATIENCE = 60, 20, 20, 60
OUTAGE_SECONDS = 60
LUA = "/etc/dovecot/ticket.lua"
NO_QUEUE = f"""
cp -p {SETTINGS} {SETTINGS}.bench
sed -i 's/"parallel_passwords": .*/"parallel_passwords": 1000,/' {SETTINGS}
sed -i 's/"directory_timeout_seconds": .*/"directory_timeout_seconds": 3,/' {SETTINGS}
sed -i.bench 's/^threads = .*/threads = 16/; s/^keepalive = .*/keepalive = 2/' /etc/lemonstand/ticket/gunicorn.conf.py
systemctl restart ticket-issuer
"""
QUEUE = f"""
mv {SETTINGS}.bench {SETTINGS}
mv /etc/lemonstand/ticket/gunicorn.conf.py.bench /etc/lemonstand/ticket/gunicorn.conf.py
systemctl restart ticket-issuer
"""
KEPT_CLIENT = f"""
cp -p {LUA} {LUA}.bench
sed -i -e 's/^  local client = dovecot/  client = client or dovecot/' -e '/^  client, http, answer = nil/d' -e '/"Prefer"/d' \
  -e '/max_connect_attempts/d; /connect_backoff_time/d' -e 's/connect_timeout = ".*"/connect_timeout = "3s"/' \
  -e 's/request_max_attempts = 1/request_max_attempts = 2/' -e 's/request_timeout = ".*"/request_timeout = "5s"/' \
  -e 's/request_absolute_timeout = ".*"/request_absolute_timeout = "8s"/' {LUA}
systemctl restart dovecot
"""
NEW_CLIENT = f"mv {LUA}.bench {LUA}\nsystemctl restart dovecot\n"
SILENT = """nft add table inet away
nft 'add chain inet away input { type filter hook input priority -300; }'
nft add rule inet away input tcp dport 8443 drop
"""
OUTAGES = {
    "stopped": ("systemctl stop ticket-issuer\n", "systemctl start ticket-issuer\n"),
    "silent": (SILENT, "nft delete table inet away\n"),
}


def crowds(lab: str, prober: Prober, inner_services: Any, endpoint: Any, accounts: list[Any]) -> dict[str, str]:
    """What many logins at once, one user's storm and outages of the issuer come to, as the lab is now."""
    frontend, auth = inner_services["client"].split(".")[0], inner_services["issuer"].split(".")[0]
    found = prober.ask(frontend, "ticket-crowd", seconds=300, inner_services=inner_services, account=accounts[0], count=CROWD)
    shown = {f"{CROWD} tickets at once, each for another place": f"{found['statuses']}, slowest {found['slowest']:.1f} s"}
    found = prober.ask("handset", "logins", seconds=550, endpoint=endpoint, accounts=accounts, count=CROWD, parallel=CROWD, stall=PATIENCE)
    failed = len(found["failed"]) + len(found["stalled"])
    shown[f"{CROWD} logins at once through the frontend"] = f"{failed} failed, slowest {found['slowest']:.1f} s"
    orders = {"endpoint": endpoint, "account": accounts[0], "other": accounts[1], "timeout": float(PATIENCE)}
    found = prober.ask("handset", "login-storm", seconds=300, clients=STORM, duration=float(STORM_SECONDS), **orders)
    shown[f"storm of {STORM} clients of one user, {STORM_SECONDS} s"] = (
        f"{len(found['storm_refused'])} of its and {len(found['refused'])} of another user's logins refused, "
        f"{found['others']} of his worked, slowest {found['slowest']:.1f} s"
    )
    for way, (away, back) in OUTAGES.items():
        labs.run_on(lab, auth, away)
        until = time.monotonic() + OUTAGE_SECONDS
        try:
            while time.monotonic() < until:
                prober.ask(
                    "handset", "login-answers", seconds=300, endpoint=endpoint, account=accounts[0], count=4, timeout=float(PATIENCE)
                )
        finally:
            labs.run_on(lab, auth, back)
        began, answers = time.monotonic(), {"imap": [{"status": ""}]}
        while answers["imap"][0]["status"] != "OK" and time.monotonic() - began < 120:
            answers = prober.ask("handset", "login-answers", seconds=300, endpoint=endpoint, account=accounts[0], timeout=float(PATIENCE))
        took = answers["imap"][0].get("seconds", 0.0)
        shown[f"issuer {way} for {OUTAGE_SECONDS} s: first login after it"] = f"{took:.1f} s, worked after {time.monotonic() - began:.1f} s"
    return shown


def main(lab: str) -> None:
    """Measures and prints."""
    os.environ.update(labs.environment(lab))
    inventory = data_dir("inventories") / "lab"
    site = load_site(inventory)
    frontend, auth = (site.group(group)[0] for group in ("frontends", "auths"))
    inner_services = inner_services_of(site)
    endpoint, accounts = endpoint_of(site, ca_of_clients(site), "frontends", 4), accounts_of(site)
    sockets = Path(tempfile.mkdtemp(prefix="lemonstand-ssh-"))
    print("| what | measured |\n|---|---|")
    try:
        prober = Prober(read_connections(inventory, sockets))
        through: dict[int, Any] = {}
        for parallel in PARALLEL:
            found = prober.ask(
                "handset", "logins", seconds=550, endpoint=endpoint, accounts=accounts, count=COUNT, parallel=parallel, stall=30
            )
            through[parallel] = found
            print(
                f"| {COUNT} logins through the frontend, {parallel} at a time | {found['count'] / found['seconds']:.1f} a second, "
                f"median {found['median'] * 1000:.0f} ms, {len(found['failed']) + len(found['stalled'])} failed |",
                flush=True,
            )
        straight = prober.ask(frontend.name, "ticket-logins", seconds=550, inner_services=inner_services, account=accounts[0], count=COUNT)
        print(f"| a login at the store with a ticket, from the frontend's place | median {straight['login'] * 1000:.0f} ms |")
        print(f"| asking the issuer for the ticket | median {straight['ticket'] * 1000:.0f} ms |")
        print(f"| through the frontend : straight to the store | {through[1]['median'] / straight['login']:.2f} |", flush=True)
        labs.run_on(
            lab,
            auth.name,
            f'sed -i.bench \'s/"refusal_milliseconds": .*/"refusal_milliseconds": 0,/\' {SETTINGS} && systemctl restart ticket-issuer\n',
        )
        try:
            refused = prober.ask(
                frontend.name, "refusal-times", seconds=550, inner_services=inner_services, account=accounts[0], count=REFUSALS
            )
        finally:
            labs.run_on(lab, auth.name, f"mv {SETTINGS}.bench {SETTINGS} && systemctl restart ticket-issuer\n")
        wrong, unknown = refused["wrong"] * 1000, refused["unknown"] * 1000
        print(f"| refusal, least time off: wrong password, unknown name | median {wrong:.0f} ms, {unknown:.0f} ms |")
        print(f"| unknown name : wrong password | {unknown / wrong:.2f} |", flush=True)
        after = crowds(lab, prober, inner_services, endpoint, accounts)
        try:
            labs.run_on(lab, auth.name, NO_QUEUE)
            labs.run_on(lab, frontend.name, KEPT_CLIENT)
            before = crowds(lab, prober, inner_services, endpoint, accounts)
        finally:
            labs.run_on(lab, frontend.name, NEW_CLIENT)
            labs.run_on(lab, auth.name, QUEUE)
        print("\n| what | before there was a queue | now |\n|---|---|---|")
        for what, now in after.items():
            print(f"| {what} | {before[what]} | {now} |")
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lab", nargs="?", default="lab", help="a lab that is up and deployed; it is left as it was")
    main(parser.parse_args().lab)
