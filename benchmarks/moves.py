"""What a move costs the user who is moved, and whether mail is lost or doubled: moves to and fro while mail comes and he is logged in.

On a lab of the site that is named, with two stores: `--site DIR --lab NAME`. Messages come in by all relays in turn at a steady pace; a
client asks for news twice a second and comes back when its session ends. At the end every message is looked for where he is by then.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from lemonstand import admin
from lemonstand import lab as labs
from lemonstand.admin.moves import move
from lemonstand.admin.placement import Placement
from lemonstand.errors import LemonstandError
from lemonstand.site import Site, load_site

SENDER = r"""
import smtplib, sys, time
relays, user, tag, pace = sys.argv[1].split(","), sys.argv[2], sys.argv[3], float(sys.argv[4])
number = 0
while not __import__("os").path.exists("/run/moves-end"):
    begun = time.monotonic()
    for turn in range(60):
        try:
            with smtplib.SMTP(relays[(number + turn) % len(relays)], 25, local_hostname="mx.peer.test", timeout=10) as way:
                way.starttls()
                way.sendmail("root@peer.test", [user], f"From: root@peer.test\r\nTo: {user}\r\nSubject: {tag} {number}\r\n\r\nx\r\n")
            number += 1
            break
        except OSError:
            time.sleep(0.5)
    time.sleep(max(0.0, pace - (time.monotonic() - begun)))
print(number)
"""
CLIENT = r"""
import imaplib, json, os, ssl, sys, time
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with open("/run/moves-password") as stream:
    password = stream.read().rstrip("\n")
away, ended, session = [], None, None
while not os.path.exists("/run/moves-end"):
    try:
        if session is None:
            session = imaplib.IMAP4(sys.argv[1], 143, timeout=30)
            session.starttls(context)
            session.login(sys.argv[2], password)
            session.select()
            if ended is not None:
                away.append(time.monotonic() - ended)
                ended = None
        session.noop()
    except (OSError, imaplib.IMAP4.error):
        ended = ended or time.monotonic()
        session = None
    time.sleep(0.5)
print(json.dumps(away))
"""
SETTLE_SECONDS = 60


def arrived(lab: str, host: str, user: str, tag: str) -> list[str]:
    """The subjects of the messages with a tag that a user has."""
    text: str = labs.run_on(lab, host, f"doveadm -f tab fetch -u {user} hdr.subject mailbox '*' header subject '{tag} '")
    return [line for line in text.splitlines() if line.startswith(f"{tag} ")]


def main() -> int:
    """Moves, counts, prints figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--site", required=True, type=Path)
    parser.add_argument("--lab", required=True)
    parser.add_argument("--moves", type=int, default=500)
    parser.add_argument("--pace", type=float, default=0.5, help="seconds from one message to the next")
    given = parser.parse_args()
    os.environ.update(labs.environment(given.lab))
    site = load_site(given.site)
    print(json.dumps(measured(site, given.lab, given.moves, given.pace), indent=1))
    return 0


def measured(site: Site, lab: str, moves: int, pace: float) -> dict[str, Any]:
    """The figures: how many moves, messages lost and doubled, seconds without service."""
    user = site.settings.probe_users[0]
    tag = f"moves-{os.getpid()}"
    relays = ",".join(str(host.interfaces["dmz"].ipv6) for host in site.group("relays"))
    labs.run_on(lab, "peer", "rm -f /run/moves-end; cat >/run/moves.py <<'END'\n" + SENDER + "\nEND")
    labs.run_on(lab, "handset", "rm -f /run/moves-end; cat >/run/moves.py <<'END'\n" + CLIENT + "\nEND")
    secret = site.password_of(user) or ""
    labs.run_on(lab, "handset", f"umask 077; cat >/run/moves-password <<'END'\n{secret}\nEND")
    labs.run_on(lab, "peer", f"nohup python3 /run/moves.py {relays} {user} {tag} {pace} >/run/moves.out 2>&1 </dev/null &")
    door = site.settings.public_ipv4 or site.group("frontends")[0].interfaces["dmz"].ipv6
    labs.run_on(lab, "handset", f"nohup python3 /run/moves.py {door} {user} >/run/moves.out 2>&1 </dev/null &")
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    stores = list(site.pairs)
    begun = time.monotonic()
    with admin.Hosts(site.inventory) as hosts:
        placement = Placement(site, hosts, lambda _: None)
        where = placement.read().placement["users"][user]
        for _ in range(moves):
            where = stores[(stores.index(where) + 1) % len(stores)]
            try:
                done.append(move(placement, user, where))
            except LemonstandError as fault:
                failed.append(fault.what)
                where = placement.read().placement["users"][user]
        for name in ("peer", "handset"):
            labs.run_on(
                lab, name, "touch /run/moves-end; rm -f /run/moves-password; while pgrep -f /run/moves.p[y] >/dev/null; do sleep 1; done"
            )
        expected = int(labs.run_on(lab, "peer", "cat /run/moves.out").split()[-1])
        away = sorted(json.loads(labs.run_on(lab, "handset", "cat /run/moves.out").splitlines()[-1]))
        host = placement.read().active(where)
        until = time.monotonic() + SETTLE_SECONDS
        while len(set(found := arrived(lab, host, user, tag))) < expected and time.monotonic() < until:
            time.sleep(2)
    without = sorted(each["without"] for each in done)
    return {
        "moves": len(done),
        "failed": failed[:5],
        "messages": expected,
        "lost": expected - len(set(found)),
        "doubled": len(found) - len(set(found)),
        "sessions ended": len(away),
        "seconds away, as the client saw it": {"median": round(statistics.median(away), 1), "most": round(away[-1], 1)} if away else {},
        "late messages": sum(each["late"] for each in done),
        "seconds without service": {"median": round(statistics.median(without), 1), "most": round(without[-1], 1)} if without else {},
        "seconds": round(time.monotonic() - begun),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    sys.exit(main())
