"""What is in force on a host, with a file or without: accounts, units, sockets, rules, ways, kernel settings, processes, trust."""

# ruff: noqa: PTH115, PTH123

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from lemonstand.probes.hosts.files import Packages, canonical
from lemonstand.probes.hosts.shared import KEY, below, command, command_json, owner_name, text

PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
USUAL = frozenset({"LANG", "LC_ALL", "LANGUAGE", "PATH", "TERM", "XDG_DATA_DIRS"})
"""What systemd itself puts into its environment, by its command line and locale.conf(5)."""
UNIT_PROPERTIES = "Id,ActiveState,FragmentPath,Transient,NeedDaemonReload,SourcePath,LogLevelMax,ExecStart"


def accounts() -> list[dict[str, Any]]:
    """Who there is, whether he has a password, where he may log in."""
    shadow = {line.split(":")[0]: line.split(":")[1] for line in text("/etc/shadow").splitlines() if line.count(":") >= 7}
    found = []
    for each in (line.split(":") for line in text("/etc/passwd").splitlines()):
        if len(each) != 7:
            found.append({"name": ":".join(each)[:80], "uid": -1, "gid": -1, "home": "", "shell": "", "password": "broken"})
            continue
        word = shadow.get(each[0], each[1])
        kind = "locked" if word[:1] in {"!", "*"} else "none" if word == "" else "set"
        found.append({"name": each[0], "uid": int(each[2]), "gid": int(each[3]), "home": each[5], "shell": each[6], "password": kind})
    return found


def keys(accounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keys that open an account over SSH: {user, path, type, fingerprint, options}, and what is in the way of reading them."""
    found = []
    settings = command("sshd", "-T") or ""
    patterns = next(
        (line.split()[1:] for line in settings.splitlines() if line.startswith("authorizedkeysfile ")), [".ssh/authorized_keys"]
    )
    for account in accounts:
        for pattern in patterns:
            name = pattern.replace("%u", account["name"]).replace("%h", account["home"]).replace("%%", "%")
            path = name if name.startswith("/") else f"{account['home']}/{name}"
            for line in text(path).splitlines():
                entry = line.strip()
                if not entry or entry.startswith("#"):
                    continue
                key = re.search(r"(?:^|\s)((?:ssh|ecdsa|sk)-[a-z0-9@.-]+)\s+([A-Za-z0-9+/=]+)", entry)
                try:
                    blob = base64.b64decode(key.group(2)) if key else b""
                except ValueError:
                    blob = b""
                digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=") if blob else ""
                found.append({
                    "user": account["name"], "path": path, "type": key.group(1) if key else "?",
                    "fingerprint": f"SHA256:{digest}" if digest else "?", "tail": (key.group(2) if key else entry)[-24:],
                    "options": (entry[: key.start()] if key else entry[:80]).strip(),
                })  # fmt: skip
    unique = {(each["user"], each["path"], each["fingerprint"], each["options"]): each for each in found}
    return list(unique.values())


AT_WORK = ("active", "activating", "reloading", "refreshing", "deactivating")


def units() -> list[dict[str, str]]:
    """Units that are at work, on their way there or away, or failed, with where they come from."""
    printed = _told("show", "*", "-p", UNIT_PROPERTIES)
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line) for block in printed.split("\n\n")]
    return [block for block in blocks if block.get("ActiveState") in {*AT_WORK, "failed"}]


def environment() -> dict[str, str]:
    """What systemd gives each service that starts from now on, beside what its unit says."""
    pairs = dict(line.partition("=")[::2] for line in (command("systemctl", "show-environment") or "").splitlines())
    return {name: value for name, value in pairs.items() if name and name not in USUAL}


def _told(*words: str) -> str:
    """What systemd says.

    Raises:
        TimeoutError: nothing, as on a host that is too busy. That is no host without units.
    """
    printed = command("systemctl", *words)
    if not printed:
        raise TimeoutError(f"systemctl {words[0]} gets no answer of systemd")
    return printed


def enabled() -> dict[str, str]:
    """Every unit file's state: enabled, disabled, masked, static and so on."""
    printed = _told("list-unit-files", "--no-legend", "--no-pager", "--plain")
    found = {line.split()[0]: line.split()[1] for line in printed.splitlines() if len(line.split()) > 1}
    found["default.target"] = (command("systemctl", "get-default") or "").strip()
    return found


def sockets() -> list[dict[str, Any]]:
    """What listens, and which programs hold it."""
    found = []
    for protocol, options in (("tcp", "-Htlnpe"), ("udp", "-Huanpe"), ("raw", "-Hwanp"), ("packet", "-H0np"), ("sctp", "-HSlnp")):
        for line in (command("ss", options) or "").splitlines():
            words = line.split()
            at = 4 if protocol == "packet" else 3
            if len(words) <= at:
                continue
            if protocol == "udp" and words[0] != "UNCONN":
                continue
            address, _, port = words[at].rpartition(":")
            pids = [int(pid) for pid in re.findall(r"pid=(\d+)", line)]
            group = re.search(r"cgroup:(\S+)", line)
            unit = group.group(1) if group else _unit_of(pids[0]) if pids else ""
            found.append({
                "protocol": protocol, "address": address.strip("[]").partition("%")[0], "port": port, "pids": pids,
                "programs": sorted({_program(pid) for pid in pids}), "unit": unit.rpartition("/")[2],
            })  # fmt: skip
    return found


def _unit_of(pid: int) -> str:
    """The control group systemd has put a process into."""
    lines = text(f"/proc/{pid}/cgroup").splitlines()
    return next((line.rpartition(":")[2] for line in lines if "name=systemd" in line or line.startswith("0::")), "")


def _program(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def tables() -> list[dict[str, str]]:
    """Tables of the packet filter, those of its older forms as well; each with its chains and rules counted."""
    found = []
    listed = command_json("nft", "-j", "list", "ruleset")
    for entry in (listed or {}).get("nftables", []):
        if "table" in entry:
            found.append({"family": entry["table"]["family"], "name": entry["table"]["name"]})
    for version, file in (
        ("ip", "/proc/net/ip_tables_names"),
        ("ip6", "/proc/net/ip6_tables_names"),
        ("arp", "/proc/net/arp_tables_names"),
    ):
        found += [{"family": f"{version}tables-legacy", "name": name} for name in text(file).split()]
    return found


def routes() -> dict[str, Any]:
    """Routes, rules and addresses of both versions, tunnels and bridges among the links, and neighbours somebody wrote down."""
    return {
        "rules": {v: command_json("ip", f"-{v}", "-j", "rule") for v in "46"},
        "routes": {v: command_json("ip", f"-{v}", "-j", "route", "show", "table", "all") for v in "46"},
        "links": command_json("ip", "-j", "-d", "link"),
        "addresses": command_json("ip", "-j", "addr"),
        "neighbours": [each for each in command_json("ip", "-j", "neigh", "show", "nud", "permanent") or [] if each.get("dst")],
        "xfrm": (command("ip", "xfrm", "state", "count") or "").strip(),
    }


def sysctl() -> dict[str, str]:
    """All of the kernel's settings that are about the network or about safety, for each interface."""
    found = {}
    for root in ("net/ipv4", "net/ipv6", "net/core", "net/netfilter", "kernel", "fs"):
        for path, entry in below(f"/proc/sys/{root}"):
            if entry.is_file(follow_symlinks=False):
                try:
                    with open(path, encoding="ascii", errors="replace") as stream:
                        found[path.removeprefix("/proc/sys/").replace(".", "/").replace("/", ".")] = " ".join(stream.read(4096).split())
                except OSError:
                    continue
    return found


def mounts() -> list[dict[str, str]]:
    rows = [line.split() for line in text("/proc/self/mountinfo").splitlines()]
    found = []
    for row in rows:
        after = row.index("-")
        found.append(
            {"root": row[3], "target": row[4].replace("\\040", " "), "type": row[after + 1], "source": row[after + 2], "options": row[5]}
        )
    return found


def modules() -> dict[str, str]:
    """Modules from outside the kernel's own tree, by what they taint it with."""
    rows = [line.split() for line in text("/proc/modules").splitlines()]
    return {row[0]: row[-1] for row in rows if row[-1].startswith("(")}


def processes(packages: Packages) -> list[dict[str, Any]]:
    """Processes whose program no package brought, that was removed, or that are in no unit's group; with what they load beside packages."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        program = _program(int(entry.name))
        if not program:
            continue
        unit = _unit_of(int(entry.name))
        environ = text(f"/proc/{entry.name}/environ").split("\0")
        preload = next((each for each in environ if each.startswith(("LD_PRELOAD=", "LD_AUDIT=", "LD_LIBRARY_PATH="))), "")
        clean = program.removesuffix(" (deleted)")
        libraries = {
            line.split(None, 5)[5].strip() for line in text(f"/proc/{entry.name}/maps").splitlines() if " r-xp " in line and line.count("/")
        }
        odd = sorted(each for each in libraries if canonical(each.removesuffix(" (deleted)")) not in packages.owner)
        # A shell's child that lost its parent: whoever logged in has gone, and this has not.
        parent = text(f"/proc/{entry.name}/stat").rpartition(")")[2].split()[1:2]
        in_session = unit.strip().endswith((".scope", "/ssh.service")) and not unit.strip().endswith("/init.scope")
        orphan = parent == ["1"] and in_session and not program.endswith(("/sshd", "/systemd")) and ("pam" not in program)
        found.append({
            "pid": int(entry.name), "orphan": orphan, "program": program,
            "package": packages.owner.get(canonical(clean), ""), "unit": unit.strip(),
            "preload": preload, "odd": odd,
            "user": owner_name(entry.stat().st_uid), "command": text(f"/proc/{entry.name}/cmdline").replace("\0", " ").strip()[:200],
        })  # fmt: skip
    unique = {(each["program"], each["unit"], each["command"], each["user"]): each for each in found}
    return list(unique.values())


def trusted() -> list[str]:
    """CAs the host trusts that no package brought: SHA-256 of each certificate's text."""
    known = set()
    for path in Path("/usr/share/ca-certificates").rglob("*.crt"):
        known |= {_squeezed(each) for each in PEM.findall(path.read_bytes())}
    found = set()
    for path in [Path("/etc/ssl/certs/ca-certificates.crt"), *Path("/usr/local/share/ca-certificates").rglob("*.crt")]:
        try:
            found |= {_squeezed(each) for each in PEM.findall(path.read_bytes())}
        except OSError:
            continue
    return sorted(hashlib.sha256(each).hexdigest() for each in found - known)


def _squeezed(pem: bytes) -> bytes:
    return b"".join(pem.split())


def pam() -> list[str]:
    """Lines of PAM's common files that no profile of a package explains (pam-auth-update(8)): `FILE: LINE`."""
    known = {"session [default=end] pam_permit.so"}  # pam-auth-update's own
    for path in [*Path("/usr/share/pam-configs").glob("*"), *Path("/usr/share/pam").glob("common-*")]:
        for line in text(path).splitlines():
            words = _pam_words(line)
            known |= {words, words.partition(" ")[2]}
    odd = []
    for path in sorted(path for path in Path("/etc/pam.d").glob("common-*") if "." not in path.name):
        for line in text(path).splitlines():
            words = _pam_words(line)
            if words and words not in known and words.partition(" ")[2] not in known:
                odd.append(f"{path}: {line.strip()[:120]}")
    return odd


def _pam_words(line: str) -> str:
    """A line of PAM's with its jumps made comparable: profiles say `end` where files have a number."""
    words = " ".join(line.partition("#")[0].split())
    return re.sub(r"=(?:end|\d+)(?=[ \]])", "=end", words)


def tickets() -> dict[str, dict[str, str]]:
    """Keys of tickets by path: their public halves, which kind of file they are in, and what a link points to."""
    found = {}
    for top in ("/etc/lemonstand/ticket", "/etc/lemonstand/ticket-keys"):
        for path, entry in below(top):
            if entry.is_dir(follow_symlinks=False):
                continue
            if entry.is_symlink():
                found[path] = {"link": os.readlink(path)}
            elif b"PUBLIC KEY" in (data := Path(path).read_bytes()):
                found[path] = {"public": data.decode(errors="replace").strip()}
            elif KEY.search(data):
                found[path] = {"private": (command("openssl", "pkey", "-in", path, "-pubout") or "").strip()}
    return found


def archives() -> list[str]:
    """Lines by which apt would take packages that nobody signed: `FILE: LINE`."""
    found = []
    folders = ("/etc/apt/sources.list.d", "/etc/apt/apt.conf.d", "/etc/lemonstand/apt/sources.d")
    for path in [Path("/etc/apt/sources.list"), *(path for folder in folders for path in Path(folder).glob("*"))]:
        for line in text(path).splitlines():
            unsigned = re.search(
                r"trusted\s*[=:]\s*yes|allow-(?:insecure|weak|downgrade-to-insecure)\s*[=:]\s*yes"
                # Who says no to it says what holds without him.
                r'|Allow(?:Unauthenticated|Insecure|Weak|DowngradeToInsecure)\w*(?!\w|\s+"?(?:false|no|0)\b)',
                line,
                re.I,
            )
            if unsigned and not line.lstrip().startswith(("#", "//")):
                found.append(f"{path}: {line.strip()[:160]}")
    return found


def certificates() -> dict[str, str]:
    """The certificates of this host and of those it trusts, by path."""
    return {str(path): text(path) for path in sorted(Path("/etc/lemonstand/pki").glob("*.crt"))}


def suffix() -> str:
    """The suffix of the directory that is here (`/var/lib/lemonstand/directory.json`)."""
    try:
        return str(json.loads(text("/var/lib/lemonstand/directory.json"))["suffix"])
    except (ValueError, KeyError, TypeError):
        return ""


def journal() -> dict[str, str]:
    """Whether what is logged is kept."""
    return {
        "settings": command("systemd-analyze", "cat-config", "systemd/journald.conf") or "",
        "level": (command("systemctl", "log-level") or "").strip(),
    }


def traffic(links: list[dict[str, Any]] | None) -> list[str]:
    """What looks at or changes packets beside the packet filter: filters of the traffic control, programs at the interfaces."""
    found = [line for line in (command("tc", "qdisc", "show") or "").splitlines() if re.match(r"qdisc (?:ingress|clsact)", line)]
    for link in links or []:
        if link.get("xdp"):
            found.append(f"xdp at {link['ifname']}")
    return found


def installed() -> dict[str, list[str]]:
    """{package: [version, wanted and present state]}; a held package's state is `hold`."""
    printed = command("dpkg-query", "-W", "-f", "${binary:Package}\t${Version}\t${db:Status-Want} ${db:Status-Status}\n") or ""
    return {line.split("\t")[0]: line.split("\t")[1:] for line in printed.splitlines() if line.count("\t") == 2}
