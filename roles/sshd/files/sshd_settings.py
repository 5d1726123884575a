#!/usr/bin/python3
"""Tries settings of sshd before they count, and takes them back unless the controller comes in again.

    sshd-settings validate FILE                would sshd do as FILE says, with all its other files, and let in who is here now?
    sshd-settings arm --rollback SECONDS [--check]   the settings are new: arm the way back, before sshd is reloaded
    sshd-settings confirm                      the controller is in: disarm, and keep these settings as the way back of next time
    sshd-settings restore                      the way back

"As FILE says" is what sshd itself makes of FILE alone: the two are compared, setting by setting, for everybody and for the account of this
session. What differs is said by another file that comes first, or that adds to a list.
"""

import argparse
import fnmatch
import grp
import ipaddress
import os
import pathlib
import pwd
import re
import subprocess
import sys
import tempfile

MAIN = pathlib.Path("/etc/ssh/sshd_config")
OURS = pathlib.Path("/etc/ssh/sshd_config.d/00-lemonstand.conf")
CONFIRMED = pathlib.Path("/var/lib/lemonstand/sshd.confirmed")
RUN = pathlib.Path("/run/lemonstand")
ARMED = RUN / "sshd.armed"
TAKEN_BACK = RUN / "sshd.taken-back"
UNIT = "lemonstand-sshd-rollback"
SSHD = "/usr/sbin/sshd"
Settings = dict[str, list[str]]
"""By keyword in small letters, the values in order: some keywords may be there several times."""


class Fault(Exception):
    """A sentence for the operator."""


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command."""
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)


def session(environ: str = "/proc/{}/environ", status: str = "/proc/{}/status") -> tuple[str, list[str]] | None:
    """The account of the SSH session this runs in, and [client, its port, own address, own port]; None if it is no SSH.

    sudo takes them out of the environment; a process above still has them.
    """
    process = os.getpid()
    while process > 1:
        try:
            pairs = dict(each.partition("=")[::2] for each in pathlib.Path(environ.format(process)).read_text(errors="replace").split("\0"))
            parent = re.search(r"^PPid:\s*(\d+)", pathlib.Path(status.format(process)).read_text(), re.MULTILINE)
        except OSError:
            return None
        ends = pairs.get("SSH_CONNECTION", "").split()
        if len(ends) == 4 and not pairs.get("SUDO_USER") and pairs.get("USER"):
            return pairs["USER"], ends
        process = int(parent.group(1)) if parent else 0
    return None


def settings(text: str) -> Settings:
    """What `sshd -T` printed."""
    found: Settings = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword.lower(), []).append(value)
    return found


def asked(main: pathlib.Path, who: tuple[str, list[str]] | None, *options: str) -> Settings:
    """What sshd would do by a configuration; Fault with its own words if it does not take that."""
    words = [SSHD, "-T", "-f", str(main), *options]
    if who is not None:
        client, _, own, port = who[1]
        words += ["-C", f"user={who[0]},host={client},addr={client},laddr={own},lport={port}"]
    done = command(*words)
    if done.returncode:
        raise Fault("sshd does not take it: " + " ".join((done.stderr or done.stdout).split())[-500:])
    return settings(done.stdout)


def keywords(text: str) -> list[str]:
    """The settings a file names, in small letters."""
    words = [line.split()[0].lower() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [word for word in dict.fromkeys(words) if word not in {"match", "include"}]


def elsewhere(keyword: str) -> str:
    """Where else on this host a setting is named."""
    found = []
    for path in [MAIN, *sorted(OURS.parent.glob("*.conf"))]:
        if path != OURS and path.is_file():
            lines = path.read_text(errors="replace").splitlines()
            found += [f"{path}:{number}" for number, line in enumerate(lines, 1) if line.split()[:1] and line.split()[0].lower() == keyword]
    return ", ".join(found)


def differences(wanted: Settings, real: Settings, names: list[str], whom: str) -> list[str]:
    """Sentences about settings that would not come out as the file says."""
    faults = []
    for name in names:
        if sorted(wanted.get(name, [])) != sorted(real.get(name, [])):
            where = elsewhere(name)
            remedy = f"take it from {where}" if where else f"let {MAIN} begin with `Include {OURS.parent}/*.conf`"
            said = ", ".join(real.get(name, [])) or "not set"
            faults.append(f"for {whom} sshd would have {name} {said}, not {', '.join(wanted.get(name, [])) or 'unset'}: {remedy}")
    return faults


def named(pattern: str, user: str, client: str) -> bool:
    """Whether a word of AllowUsers or DenyUsers means an account: USER or USER@HOST, with wildcards or networks."""
    name, at, host = pattern.rpartition("@") if "@" in pattern else (pattern, "", "")
    if not fnmatch.fnmatchcase(user, name):
        return False
    if not at or fnmatch.fnmatchcase(client, host):
        return True
    try:
        return ipaddress.ip_address(client.partition("%")[0]) in ipaddress.ip_network(host, strict=False)
    except ValueError:
        return False


def groups_of(user: str) -> set[str]:
    """The names of an account's groups."""
    try:
        numbers = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return set()
    return {grp.getgrgid(number).gr_name for number in numbers if number in {each.gr_gid for each in grp.getgrall()}}


def shut_out(real: Settings, user: str, client: str, groups: set[str]) -> list[str]:
    """Why an account would not be let in."""

    def words(name: str) -> list[str]:
        return [word for value in real.get(name, []) for word in value.split()]

    def member(name: str) -> bool:
        return any(fnmatch.fnmatchcase(group, word) for word in words(name) for group in groups)

    faults = []
    if words("allowusers") and not any(named(word, user, client) for word in words("allowusers")):
        faults.append(f"AllowUsers names {', '.join(words('allowusers'))}")
    if any(named(word, user, client) for word in words("denyusers")):
        faults.append(f"DenyUsers names {', '.join(words('denyusers'))}")
    if words("allowgroups") and not member("allowgroups"):
        faults.append(f"AllowGroups names {', '.join(words('allowgroups'))}")
    if member("denygroups"):
        faults.append(f"DenyGroups names {', '.join(words('denygroups'))}")
    if user == "root" and words("permitrootlogin") == ["no"]:
        faults.append("PermitRootLogin is no")
    if words("pubkeyauthentication") == ["no"]:
        faults.append("PubkeyAuthentication is no")
    if faults:
        faults = [f"{user}, as whom Ansible came, would be shut out: {', '.join(faults)}; name the account in sshd_allow_users"]
    return faults


def judge(text: str) -> list[str]:
    """What is wrong with a file in the place of ours: sentences."""
    who = session()
    with tempfile.TemporaryDirectory(prefix="lemonstand-sshd-") as folder:
        # The same configuration, with this file in the place of ours.
        there = pathlib.Path(folder, "sshd_config.d")
        there.mkdir()
        for path in OURS.parent.glob("*.conf"):
            if path != OURS and path.is_file():
                (there / path.name).write_bytes(path.read_bytes())
        (there / OURS.name).write_text(text)
        main = pathlib.Path(folder, "sshd_config")
        main.write_text(MAIN.read_text().replace(f"{OURS.parent}/", f"{there}/"))
        real = asked(main, None)
        keys = [f"-oHostKey={path}" for path in real.get("hostkey", [])]
        names = keywords(text)
        faults = differences(asked(there / OURS.name, None, *keys), real, names, "everybody")
        if who is not None:
            real = asked(main, who)
            faults += differences(asked(there / OURS.name, who, *keys), real, names, who[0])
            faults += shut_out(real, who[0], who[1][0], groups_of(who[0]))
    return list(dict.fromkeys(faults))


def disarm() -> None:
    """Gives up the way back."""
    command("systemctl", "stop", UNIT + ".timer")
    command("systemctl", "reset-failed", UNIT + ".service")
    ARMED.unlink(missing_ok=True)


def arm(rollback: int, check: bool) -> None:
    """Sees to it that settings that nobody has confirmed go away by themselves."""
    text = OURS.read_text() if OURS.exists() else ""
    if check or not text:
        return
    TAKEN_BACK.unlink(missing_ok=True)
    faults = judge(text)
    if faults:
        raise Fault("\n".join(faults))
    if CONFIRMED.exists() and CONFIRMED.read_text() == text and not ARMED.exists():
        return
    disarm()
    ARMED.touch()
    # A timer is a minute late unless it is told not to be.
    timer = [f"--on-active={rollback}", "--timer-property=AccuracySec=1s", f"--unit={UNIT}"]
    done = command("systemd-run", "--quiet", *timer, sys.argv[0], "restore")
    if done.returncode:
        raise Fault(f"the way back can't be armed: {done.stderr.strip()}")
    print(f"unconfirmed: the settings of sshd are taken back in {rollback} s unless the controller comes in again")


def confirm() -> None:
    """The controller is in: the settings stay."""
    if TAKEN_BACK.exists():
        raise Fault(f"the settings of sshd were taken back: nobody confirmed them in time; see `journalctl -u {UNIT} -u ssh`")
    if ARMED.exists():
        disarm()
        CONFIRMED.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        CONFIRMED.write_text(OURS.read_text())


def restore() -> None:
    """The settings before this run, or none of ours if there were none."""
    if CONFIRMED.exists():
        fresh = OURS.with_suffix(".new")
        fresh.write_text(CONFIRMED.read_text())
        fresh.replace(OURS)
    else:
        OURS.unlink(missing_ok=True)
    ARMED.unlink(missing_ok=True)
    TAKEN_BACK.touch()
    command("systemctl", "reload", "ssh.service")


def validate(path: pathlib.Path) -> None:
    """Fault with all that is wrong with a file."""
    faults = judge(path.read_text())
    if faults:
        raise Fault("\n".join(faults))


def main() -> int:
    """Does one verb; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["validate", "arm", "confirm", "restore"])
    parser.add_argument("file", nargs="?", type=pathlib.Path)
    parser.add_argument("--rollback", type=int, default=45)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if (given.verb == "validate") != (given.file is not None):
        parser.error("validate, and nothing else, takes a file")
    RUN.mkdir(exist_ok=True)
    try:
        {
            "validate": lambda: validate(given.file),
            "arm": lambda: arm(given.rollback, given.check),
            "confirm": confirm,
            "restore": restore,
        }[given.verb]()
    except Fault as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
