"""Sets kernel settings that differ, and reads them back. Comes over standard input; every change is a line `changed: ...`."""

import base64
import json
import pathlib
import sys


def words(value: object) -> str:
    """A setting as the kernel shows it: numbers separated by blanks."""
    if isinstance(value, bool):
        value = int(value)
    return " ".join(str(value).split())


# Gone where the kernel was started with ipv6.disable=1: then there is nothing to set.
IPV6 = pathlib.Path("/proc/sys/net/ipv6/conf")


def main_encoded(text: str) -> int:
    """Does one order, base64 of JSON: `settings`, `not_ours` and `check`; returns the exit status."""
    order = json.loads(base64.b64decode(text))
    faults, skipped = [], []
    for name, value in sorted(order["settings"].items()):
        path = pathlib.Path("/proc/sys", name.replace(".", "/"))
        if name in order["not_ours"] or (name.startswith("net.ipv6.") and not IPV6.exists()):
            skipped.append(name)
            continue
        try:
            now = words(path.read_text())
            if now == words(value):
                continue
            print(f"changed: {'would set ' if order['check'] else ''}{name} from {now} to {words(value)}")
            if not order["check"]:
                path.write_text(words(value))
                if words(path.read_text()) != words(value):
                    faults.append(f"{name} stays {words(path.read_text())}")
        except OSError as fault:
            if not order["check"]:
                faults.append(f"{name}: {fault.strerror}")
    if not order["check"]:
        report = pathlib.Path("/run/lemonstand/sysctl-skipped.json")
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(skipped))
    for each in faults:
        print(f"{each}; name it in sysctl_not_ours if it belongs to the machine below", file=sys.stderr)
    return 1 if faults else 0
