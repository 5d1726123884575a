#!/usr/bin/python3
"""Loads the host's own nftables table, and takes it back unless the controller comes in again. Closes and opens what clients connect to.

    packet-filter apply --rollback SECONDS [--check]   load /etc/lemonstand/nftables.nft if it is not what runs; arm the way back
    packet-filter confirm                              the controller is in: disarm
    packet-filter restore                              the way back: load what ran before
    packet-filter boot                                 load at boot
    packet-filter close --ports N,N [--device NAME] [--cut] [--reason TEXT]
                                                       close these TCP ports: towards this host, or on a router what comes in by the device
    packet-filter open                                 open them again

Only the tables `inet lemonstand` and `inet lemonstand_closed` are ever touched, each in one transaction. What runs is compared with what
the file makes of an empty network namespace: a rule that somebody put in or took out by hand is found, named, and mended.
"""

import argparse
import datetime
import difflib
import hashlib
import json
import pathlib
import subprocess
import sys
from typing import Any

RULES = pathlib.Path("/etc/lemonstand/nftables.nft")
CLOSED = pathlib.Path("/etc/lemonstand/closed.nft")
RUN = pathlib.Path("/run/lemonstand")
MEMORY = RUN / "packet-filter.json"
BEFORE = RUN / "packet-filter.before"
UNIT = "lemonstand-nftables-rollback"
DEBIANS = "nftables.service"  # its start, stop and restart flush every table
SHOWN = 12  # differences that are printed


def command(*words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command; ends the program with what it complained of if it failed and that matters."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit("{}: {}".format(" ".join(words), done.stderr.strip()))
    return done


def running(table: str = "lemonstand") -> str:
    """The table as nft lists it, without counters and handles; empty if there is none."""
    return command("nft", "--stateless", "list", "table", "inet", table, check=False).stdout


def expected() -> str:
    """The table as nft would list it if nothing but the file had made it; empty where no network namespace can be had."""
    script = f"nft -f {RULES} && nft --stateless list table inet lemonstand"
    done = command("unshare", "--net", "sh", "-c", script, check=False)
    return done.stdout if done.returncode == 0 else ""


def digest(text: str) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def load(rules: str) -> None:
    """Hands rules to nft, in one transaction."""
    command("nft", "-f", "-", stdin=rules)


def differences(now: str, wanted: str) -> list[str]:
    """Sentences about rules that run and should not, or should and do not; none where no table runs at all."""
    if not now:
        return []
    words = {"-": "runs, and is not in the file: ", "+": "is in the file, and does not run: "}
    pairs = difflib.unified_diff(now.splitlines(), wanted.splitlines(), n=0, lineterm="")
    lines = [words[line[0]] + line[1:].strip() for line in pairs if line[0] in words and line[:3] not in {"---", "+++"}]
    return lines[:SHOWN] + [f"and {len(lines) - SHOWN} more"] * (len(lines) > SHOWN)


def remember() -> None:
    """Writes down which file was loaded, and what runs since."""
    MEMORY.write_text(json.dumps({"file": digest(RULES.read_text()), "running": digest(running())}))


def disarm() -> None:
    """Gives up the way back."""
    command("systemctl", "stop", UNIT + ".timer", check=False)
    command("systemctl", "reset-failed", UNIT + ".service", check=False)


def closure() -> dict[str, Any] | None:
    """What is closed, since when and why, as the file's first line has it; None if nothing is."""
    if not CLOSED.exists():
        return None
    found: dict[str, Any] = json.loads(CLOSED.read_text().splitlines()[0].lstrip("# "))
    return found


def close(ports: list[int], device: str, cut: bool, reason: str) -> None:
    """Writes and loads the table that closes; the same words again change nothing."""
    known = closure()
    wanted: dict[str, Any] = {"ports": sorted(set(ports)), "device": device, "cut": cut, "reason": " ".join(reason.split())}
    if known and {**wanted, "since": known["since"]} == known and running("lemonstand_closed"):
        return
    since = known["since"] if known else datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    numbers = ", ".join(map(str, wanted["ports"]))
    those = "{ " + numbers + " }"
    hook, back = ("forward", "forward") if device else ("input", "output")
    where, whence = (f'iifname "{device}" ', f'oifname "{device}" ') if device else ("", "")
    # Open sessions go on unless they are to be cut: then nothing passes in either direction.
    only = "" if cut else "ct state != { established, related } "
    text = "\n".join([
        "# " + json.dumps({**wanted, "since": since}),
        "table inet lemonstand_closed",
        "delete table inet lemonstand_closed",
        "table inet lemonstand_closed {",
        "  chain towards {",
        f"    type filter hook {hook} priority -10; policy accept;",
        f'    {where}tcp dport {those} {only}drop comment "closed"',
        "  }",
        *(["  chain back {", f"    type filter hook {back} priority -10; policy accept;",
           f'    {whence}tcp sport {those} drop comment "closed"', "  }"] if cut else []),
        "}",
        "",
    ])  # fmt: skip
    fresh = CLOSED.with_suffix(".new")
    fresh.write_text(text)
    load(text)
    fresh.replace(CLOSED)
    print("changed: closed TCP {}{}".format(numbers, ", open sessions too" if cut else ""))


def open_again() -> None:
    """Takes the table away that closes."""
    was = closure() is not None or bool(running("lemonstand_closed"))
    CLOSED.unlink(missing_ok=True)
    load("table inet lemonstand_closed\ndelete table inet lemonstand_closed\n")
    if was:
        print("changed: opened")


def mask(word: str, check: bool) -> None:
    """Keeps Debian's unit from flushing all rules, ours too: whoever starts, stops or restarts it is told that it is masked."""
    state = command("systemctl", "is-enabled", DEBIANS, check=False).stdout.strip()
    if state != "masked":
        print(f"changed: {word}mask {DEBIANS}, which would flush our rules")
        if not check:
            # A file of its own in the place of the link would make systemctl refuse.
            command("systemctl", "mask", "--quiet", DEBIANS)


def tell_closure(check: bool) -> None:
    """Says what is closed, and sees to it that it is."""
    known = closure()
    if known is None:
        return
    if not running("lemonstand_closed"):
        print("changed: {}close TCP {} again".format("would " if check else "", known["ports"]))
        if not check:
            load(CLOSED.read_text())
    ports, reason = ", ".join(map(str, known["ports"])), known["reason"] or "no reason given"
    print(f"notice: TCP {ports} is closed since {known['since']}: {reason}")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["apply", "confirm", "restore", "boot", "close", "open"])
    parser.add_argument("--rollback", type=int, default=45)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--ports", type=lambda text: [int(word) for word in text.split(",")], default=[])
    parser.add_argument("--device", default="")
    parser.add_argument("--cut", action="store_true")
    parser.add_argument("--reason", default="")
    given = parser.parse_args()
    if given.verb == "close" and not given.ports:
        parser.error("name the ports to close: --ports 143,587")
    return given


def confirm() -> None:
    """The controller is in: the rules stay."""
    disarm()
    if not MEMORY.exists():
        sys.exit(
            f"the rules were taken back: nobody confirmed them in time. Can the controller come in by them? See `journalctl -u {UNIT}`"
        )
    # So that the unit shows what is true: the rules are in force.
    if command("systemctl", "is-active", "lemonstand-nftables.service", check=False).stdout.strip() != "active":
        command("systemctl", "start", "lemonstand-nftables.service")


def restore() -> None:
    """The way back: what ran before runs again."""
    load("table inet lemonstand\ndelete table inet lemonstand\n" + BEFORE.read_text())
    MEMORY.unlink(missing_ok=True)


def boot() -> None:
    """Loads at boot; what is closed stays closed, from before the first rule that opens anything."""
    if CLOSED.exists():
        load(CLOSED.read_text())
    load(RULES.read_text())
    remember()


def apply(rollback: int, check: bool) -> None:
    """Loads the file if it is not what runs, and arms the way back.

    Args:
        rollback: seconds after which what ran before is loaded again unless `confirm` comes first.
        check: say what would be done, and do nothing.
    """
    word = "would " if check else ""
    if command("systemctl", "is-enabled", "lemonstand-nftables.service", check=False).stdout.strip() != "enabled":
        print(f"changed: {word}enable lemonstand-nftables.service")
        if not check:
            command("systemctl", "daemon-reload")
            command("systemctl", "enable", "--quiet", "lemonstand-nftables.service")
    mask(word, check)
    if not RULES.exists() and check:
        print("changed: would load rules")
        return
    known = json.loads(MEMORY.read_text()) if MEMORY.exists() else {}
    now, wanted = running(), expected()
    by_hand = now != wanted if wanted else known.get("running") != digest(now)
    if known.get("file") != digest(RULES.read_text()) or by_hand:
        print(f"changed: {word}load {RULES}")
        for line in differences(now, wanted) if wanted else ():
            print("changed: " + line)
        if not check:
            disarm()
            BEFORE.write_text(now)
            # A timer is a minute late unless it is told not to be.
            timer = [f"--on-active={rollback}", "--timer-property=AccuracySec=1s", f"--unit={UNIT}"]
            command("systemd-run", "--quiet", *timer, sys.argv[0], "restore")
            load(RULES.read_text())
            remember()
    elif command("systemctl", "is-active", UNIT + ".timer", check=False).stdout.strip() == "active":
        print("unconfirmed: a run before this one ended too early")
    tell_closure(check)


def main() -> None:
    """Does one verb."""
    given = arguments()
    RUN.mkdir(exist_ok=True)
    {
        "apply": lambda: apply(given.rollback, given.check),
        "confirm": confirm,
        "restore": restore,
        "boot": boot,
        "close": lambda: close(given.ports, given.device, given.cut, given.reason),
        "open": open_again,
    }[given.verb]()


if __name__ == "__main__":
    main()
