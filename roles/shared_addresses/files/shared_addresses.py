#!/usr/bin/python3
"""Puts addresses of other hosts on the loopback device, and takes off those that are none any more.

Neighbours are told nothing of them: an address of the loopback device is never answered for on a link (RFC 4861 section 7.2.3 asks for one
that is the receiving interface's). So the packets of others come here only if a router sends them.
"""

import json
import pathlib
import subprocess
import sys

SETTINGS = pathlib.Path("/etc/lemonstand/shared-addresses.json")
OURS = "76"
"""The mark of an address that this program has put there (`protocol` of ip-address(8))."""


def ip(*words: str) -> str:
    """What ip(8) printed; ends the program with what it complained of."""
    done = subprocess.run(["ip", "-6", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit("ip -6 {}: {}".format(" ".join(words), done.stderr.strip()))
    return done.stdout


def main() -> None:
    """Brings the loopback device to the settings."""
    wanted = set(json.loads(SETTINGS.read_text()))
    there = {
        each["local"]
        for link in json.loads(ip("-j", "addr", "show", "dev", "lo", "proto", OURS) or "[]")
        for each in link.get("addr_info", [])
        if "local" in each
    }
    for address in sorted(there - wanted):
        ip("addr", "del", f"{address}/128", "dev", "lo")
    for address in sorted(wanted - there):
        # Never the source of what this host says for itself.
        ip("addr", "add", f"{address}/128", "dev", "lo", "preferred_lft", "0", "proto", OURS)


if __name__ == "__main__":
    main()
