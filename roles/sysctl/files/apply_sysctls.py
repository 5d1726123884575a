"""Sets kernel settings that differ, and reads them back. Comes over standard input; every change is a line `changed: ...`.

Names are those of sysctl.d(5), read as systemd-sysctl reads them at boot: `*` stands for whatever is there, a name without one goes before
it, `-` in front leaves out what the kernel doesn't have, and the first of `.` and `/` in a name is what parts it.
"""

import base64
import json
import pathlib
import sys


def words(value: object) -> str:
    """A setting as the kernel shows it: numbers separated by blanks."""
    if isinstance(value, bool):
        value = int(value)
    return " ".join(str(value).split())


ROOT = pathlib.Path("/proc/sys")
FORWARDING = [("net", "ipv4", "ip_forward"), ("net", "ipv4", "conf", "all", "forwarding")]
REDIRECTS = ("net", "ipv4", "conf", "all", "accept_redirects")
REPORT = pathlib.Path("/run/lemonstand/sysctl-skipped.json")


def parts(name: str) -> list[str]:
    """A name as a path below /proc/sys. In `net.ipv4.conf.eth0/7.forwarding` and `net/ipv4/conf/eth0.7/forwarding` the device is eth0.7."""
    first = next((letter for letter in name if letter in "./"), ".")
    swapped = name if first == "/" else name.translate(str.maketrans("./", "/."))
    return swapped.split("/")


def turn(path: tuple[str, ...]) -> tuple[int, int, tuple[str, ...]]:
    """When a setting's turn is.

    Forwarding comes first: when IPv4's changes, the kernel resets other settings. `all` and `default` come after the interfaces: a write to
    `default` also sets those interfaces of IPv4 that nobody has set before.
    """
    forwards = path[-1] in ("ip_forward", "forwarding")
    return (0 if forwards else 1, {"default": 1, "all": 2}.get(path[-2] if len(path) > 1 else "", 0), path)


def expanded(settings: dict[str, object]) -> dict[tuple[str, ...], tuple[str, object]]:
    """What is to be set: path to (the name it is from, value)."""
    exact: dict[tuple[str, ...], tuple[str, object]] = {}
    wide: dict[tuple[str, ...], tuple[str, object]] = {}
    for name, value in settings.items():
        path = parts(name.removeprefix("-"))
        (wide if "*" in path else exact)[tuple(path)] = (name, value)
    found = {}
    for pattern, (name, value) in wide.items():
        at = pattern.index("*")
        folder = ROOT.joinpath(*pattern[:at])
        there = sorted(each.name for each in folder.iterdir() if each.joinpath(*pattern[at + 1 :]).exists()) if folder.is_dir() else []
        # A pattern that meets nothing stays, to be told like any other name the kernel doesn't have.
        found.update({(*pattern[:at], each, *pattern[at + 1 :]): (name, value) for each in there or ["*"]})
    return {**found, **exact}


def main_encoded(text: str) -> int:
    """Does one order, base64 of JSON: `settings`, `not_ours` and `check`; returns the exit status."""
    order = json.loads(base64.b64decode(text))
    faults, skipped = [], []
    # Gone where the kernel was started with ipv6.disable=1: then there is nothing to set.
    has_ipv6 = ROOT.joinpath("net/ipv6/conf").exists()
    wanted = expanded(order["settings"])
    # What a run would find that check mode does not see: IPv4's forwarding, when it changes, sets this to its opposite.
    coming: dict[tuple[str, ...], str] = {}
    for path in sorted(wanted, key=turn):
        name, value = wanted[path]
        file = ROOT.joinpath(*path)
        known = name.removeprefix("-")
        if known in order["not_ours"] or (path[:2] == ("net", "ipv6") and not has_ipv6) or (name.startswith("-") and not file.exists()):
            skipped.append(known)
            continue
        shown = ".".join(path) if all("." not in part for part in path) else "/".join(path)
        try:
            now = coming.get(path) or words(file.read_text())
            if now == words(value):
                continue
            if order["check"] and path in FORWARDING:
                coming[REDIRECTS] = str(1 - int(words(value)))
            print(f"changed: {'would set ' if order['check'] else ''}{shown} from {now} to {words(value)}")
            if not order["check"]:
                file.write_text(words(value))
                if words(file.read_text()) != words(value):
                    faults.append(f"{shown} stays {words(file.read_text())}")
        except OSError as fault:
            if not order["check"]:
                faults.append(f"{shown}: {fault.strerror}")
    if not order["check"]:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(json.dumps(sorted(skipped)))
    for each in faults:
        print(f"{each}; name it in sysctl_not_ours if it belongs to the machine below", file=sys.stderr)
    return 1 if faults else 0
