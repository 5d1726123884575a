#!/usr/bin/python3
"""What an edge of a pair does when the addresses change hands. keepalived calls it, and systemd after keepalived has ended.

    edge-pair master     this edge is at work now: what the other one told of connections becomes its own, in the kernel
    edge-pair backup     the other one is: it is asked for all it knows
    edge-pair fault      this edge is of no use: a network is gone, or nobody answers
    edge-pair stop       keepalived ends
    edge-pair conflict   the other edge believed to be at work as well
    edge-pair release    keepalived has ended, however it did: nothing of what both share stays here

What is so, and since when, stands in /run/lemonstand/edge-pair.json.
"""

import fcntl
import json
import os
import pathlib
import subprocess
import sys
import syslog
import time

SETTINGS = pathlib.Path("/etc/lemonstand/edge-pair.json")
RUN = pathlib.Path("/run/lemonstand")
STATE = RUN / "edge-pair.json"
TURN = RUN / "edge-pair.lock"
PATIENCE = 20
"""Seconds one call of conntrackd may take; a table of 100,000 connections takes it about one."""
SETTLE = 1
"""Seconds the other edge gets to tell all it knows."""

TAKE_OVER = ("-f", "-R", "-B")
"""After the commit of what the other edge told: forget both caches; read the kernel's table anew; send all of it to the other edge."""
ENDED = ("LAST_ACK", "TIME_WAIT", "CLOSE")
"""States of connections that are over. The commit gives them as long as the others: a client that comes by the same port again would be
taken for the old one, and led where that was led."""


GIVE_UP = ("-t", "-n")
"""Forget this edge's own connections a minute from now, unless it is at work again by then: they are the other one's, and what has ended
there would stay here for hours. Ask for all that the other one has."""


def run(*words: str) -> str:
    """What a program complained of; empty if it did what it should."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as fault:
        return f"{words[0]}: {fault}"
    return "" if done.returncode == 0 else "{}: {}".format(" ".join(words), (done.stderr or done.stdout).strip() or done.returncode)


def remembered() -> dict[str, object]:
    """The state as it was written down last."""
    try:
        found: dict[str, object] = json.loads(STATE.read_text())
    except (OSError, ValueError):
        return {}
    return found


def remember(**changes: object) -> None:
    """Writes the state down, whole or not at all."""
    fresh = STATE.with_suffix(".new")
    fresh.write_text(json.dumps({**remembered(), **changes}))
    fresh.replace(STATE)


def take_over() -> list[str]:
    """Makes the other edge's connections this one's; returns what went wrong."""
    faults = [fault] if (fault := run("conntrackd", "-c")) else []
    for state in ENDED:
        for family in ("ipv4", "ipv6"):
            run("conntrack", "-D", "-f", family, "-p", "tcp", "--state", state)  # none: just right
    return faults + [fault for option in TAKE_OVER if (fault := run("conntrackd", option))]


def give_up() -> list[str]:
    """Leaves the connections to the other edge; returns what went wrong."""
    return [fault for option in GIVE_UP if (fault := run("conntrackd", option))]


def release() -> list[str]:
    """Takes the shared addresses off: an edge whose keepalived was killed would answer for them beside the other one."""
    for each in json.loads(SETTINGS.read_text())["addresses"]:
        run("ip", "addr", "del", "{address}/{length}".format(**each), "dev", each["device"])  # not there: just right
    return []


def main() -> int:
    """Does one verb; returns the exit status."""
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    RUN.mkdir(exist_ok=True)
    syslog.openlog("edge-pair", facility=syslog.LOG_DAEMON)
    # keepalived does not wait for one call before it makes the next.
    with TURN.open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        begun = time.time()
        if verb == "conflict":
            # What happened at the other edge while this one stood still is on its way, or has yet to be asked for.
            run("conntrackd", "-n")
            time.sleep(SETTLE)
        if verb in {"master", "conflict"}:
            faults = take_over()
        elif verb == "backup":
            faults = give_up()
        elif verb == "release":
            faults = release()
        elif verb in {"fault", "stop"}:
            faults = []
        else:
            print(__doc__, file=sys.stderr)
            return 2
        if verb == "conflict":
            remember(conflict=begun)
            syslog.syslog(syslog.LOG_CRIT, "two edges were at work at the same time; this one goes on")
        elif verb != "release":
            remember(state=verb, since=begun, took=round(time.time() - begun, 3))
            syslog.syslog(syslog.LOG_NOTICE, f"{verb}, after {time.time() - begun:.2f} s")
        for fault in faults:
            syslog.syslog(syslog.LOG_ERR, fault)
        if faults:
            remember(fault="; ".join(faults), faulted=begun)
    return 1 if faults else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
