"""Reads all that configuration checks want of a host in one go; changes nothing.

Passwords and private keys are never part of it: of keys it tells modes and public halves, of files that hold secrets it tells that they are
there.
"""
# os.walk and friends read all of /etc in a tenth of a second.
# ruff: noqa: PTH110, PTH113, PTH114, PTH115, PTH116, PTH118, PTH119, PTH123, PTH207, PTH208

from __future__ import annotations

import glob
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import time
from typing import Any

from lemonstand.probes.hosts import shared
from lemonstand.probes.hosts.shared import HASH, KEY, SECONDS

SYSCTLS = [
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries", "net.ipv4.tcp_retries1", "net.ipv4.tcp_retries2", "net.ipv4.tcp_orphan_retries",
    "net.ipv4.tcp_mtu_probing", "net.ipv4.ip_no_pmtu_disc", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_tcp_loose", "net.netfilter.nf_conntrack_helper",
    "net.netfilter.nf_conntrack_tcp_timeout_established", "net.netfilter.nf_conntrack_tcp_timeout_unacknowledged",
    "net.netfilter.nf_conntrack_tcp_timeout_max_retrans", "net.netfilter.nf_conntrack_tcp_timeout_fin_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait", "net.netfilter.nf_conntrack_tcp_timeout_syn_sent",
    "net.netfilter.nf_conntrack_tcp_timeout_syn_recv", "net.netfilter.nf_conntrack_tcp_timeout_last_ack",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait", "net.netfilter.nf_conntrack_tcp_timeout_close",
    "fs.inotify.max_user_instances", "fs.inotify.max_user_watches",
]  # fmt: skip
# Of each interface: who may tell this host its routes. What of it counts is worked out by remote/interfaces.py.
INTERFACE_SETTINGS = {
    "ipv4": ["forwarding", "accept_redirects", "secure_redirects", "send_redirects", "accept_source_route", "log_martians"],
    "ipv6": ["forwarding", "accept_redirects", "accept_source_route", "accept_ra"],
}  # fmt: skip
HARDENING = [
    "kernel.dmesg_restrict", "kernel.kptr_restrict", "kernel.unprivileged_bpf_disabled", "kernel.yama.ptrace_scope",
    "dev.tty.ldisc_autoload", "fs.protected_fifos", "fs.protected_hardlinks", "fs.protected_regular", "fs.protected_symlinks",
    "fs.suid_dumpable",
]  # fmt: skip
UNITS = [
    "dovecot.service",
    "mailbox-nudge.service",
    "postfix.service",
    "slapd.service",
    "ticket-issuer.service",
    "submission-limits.service",
    "urlauth-own.service",
    "chrony.service",
    "lemonstand-nftables.service",
]
UNIT_PROPERTIES = [
    "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "RuntimeMaxUSec", "RestrictAddressFamilies", "IPAddressDeny",
    "IPAddressAllow", "NoNewPrivileges", "CapabilityBoundingSet", "ProtectHome", "RestrictNamespaces", "MemoryDenyWriteExecute",
    "LimitNOFILE", "TasksMax", "User", "NRestarts", "ActiveEnterTimestamp", "RootDirectory", "ProtectSystem", "PrivateDevices",
    "LimitCORE", "StateDirectoryMode", "Restart", "ExecStart",
]  # fmt: skip
AFTER_A_CRASH = [
    "LoadState", "ActiveState", "Type", "Restart", "RestartUSec", "RestartSteps", "RestartMaxDelayUSec", "StartLimitIntervalUSec",
    "StartLimitBurst", "OOMPolicy", "NeedDaemonReload", "MainPID",
]  # fmt: skip
TEXTS = [
    "/etc/dovecot/ticket.lua", "/etc/lemonstand/ticket/issuer.json", "/etc/lemonstand/ticket/gunicorn.conf.py",
    "/etc/ldap/lemonstand.conf", "/etc/default/slapd", "/etc/postfix/lmtp_tls", "/etc/sysctl.d/60-lemonstand.conf",
    "/etc/modules-load.d/lemonstand.conf", "/etc/os-release", "/etc/lemonstand/closed.nft",
]  # fmt: skip
PACKAGES = re.compile(
    r"^(dovecot|postfix|slapd|ldap-utils|libldap|chrony|nftables|openssh-server|openssl|libssl|gunicorn|python3$|python3-(jwt|ldap|cryptography|"
    r"flask|gunicorn)|conntrack|systemd$|linux-image|libsasl2|haproxy|nginx|apache2|stunnel|websock|sslh|socat|sqlite3|mariadb|postgresql|"
    r"libnss-ldap|libpam-ldap|sssd|nfs-common|cifs-utils|glusterfs|ceph)"
)
SECRET_FORMS = {
    "private key": KEY,
    "password hash": HASH,
    "credential in a setting": re.compile(
        rb"(?m)^\s*(?:bindpw|rootpw|doveadm_password|master_password|dnpass|auth_bind_password)\s*=?\s*\S+"
    ),
}
SECRET_PLACES = ["/etc", "/srv", "/root", "/home", "/opt", "/usr/local", "/var/lib", "/var/mail", "/var/spool"]
# The key of sshd proves this host to the controller; passwords of local accounts open no mail.
SECRET_KNOWN = (
    "/etc/ssh/ssh_host_",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssl/private/ssl-cert-snakeoil.key",
    "/var/lib/dpkg/",
    "/var/lib/apt/",
)
# What a service runs: unit to how its first process is found, by its unit or its own pid file.
RUNNING = {
    "dovecot": "dovecot.service", "postfix": "/var/spool/postfix/pid/master.pid", "slapd": "slapd.service",
    "ticket-issuer": "ticket-issuer.service", "chrony": "chrony.service", "ssh": "ssh.service", "systemd": "1",
}  # fmt: skip
# What makes a host what it is, without keys and without files that services write themselves.
STATE_PLACES = [
    "/etc/lemonstand", "/etc/dovecot", "/etc/postfix", "/etc/ldap/lemonstand.conf", "/etc/default/slapd", "/etc/chrony",
    "/etc/sysctl.d/60-lemonstand.conf", "/etc/modules-load.d/lemonstand.conf", "/etc/systemd/system", "/usr/local/lib/lemonstand",
    "/etc/nsd", "/etc/ssh/sshd_config.d",
]  # fmt: skip
STATE_LEFT_OUT = re.compile(r"(\.key|\.db|\.lmdb|\.pyc|\.dpkg-.*|\.pem|~)$")
# Renewed by the clock, or by a check of that: that they are there, and whose, is the state; which of them it is at the moment is not.
STATE_RENEWED = re.compile(r"^/etc/lemonstand/pki/(?!ca)[^/]+$")
SIEVE = 'require ["enotify", "imap4flags", "relational", "vacation", "variables", "comparator-i;unicode-casemap"];\nkeep;\n'


def command(*words: str) -> str | None:
    """What a command printed; None where it is not there, fails or hangs: what a service that hangs says is for its checks to tell."""
    try:
        return shared.command(*words)
    except TimeoutError:
        return None


def read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


def interfaces() -> dict[str, dict[str, dict[str, int]]]:
    """The settings of each interface, of `all` and of `default`: {IP version: {interface: {setting: value}}}."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for version, names in INTERFACE_SETTINGS.items():
        place = f"/proc/sys/net/{version}/conf"
        for device in sorted(map(os.path.basename, glob.glob(f"{place}/*"))):
            values = {name: text for name in names if (text := read(f"{place}/{device}/{name}")) is not None}
            found.setdefault(version, {})[device] = {name: int(text) for name, text in values.items()}
    return found


def settings_of_boot() -> list[list[str]] | None:
    """What systemd-sysctl is told about interfaces, in the order it reads it: [name with slashes, value], no value: never by a pattern."""
    text = command("/usr/lib/systemd/systemd-sysctl", "--cat-config")
    if text is None:
        return None
    told = []
    for line in text.splitlines():
        name, given, value = (part.strip() for part in line.strip().lstrip("-").partition("="))
        first = next((letter for letter in name if letter in "./"), "")
        name = name if first == "/" else name.translate(str.maketrans("./", "/."))
        if name.startswith(("net/ipv4/conf/", "net/ipv6/conf/")) and (given or line.strip().startswith("-")):
            told.append([name, value])
    return told


def login() -> tuple[str, str]:
    """The account of this SSH session and where it comes from. sudo takes both out of the environment; a process above still has them."""
    process = os.getpid()
    while process > 1:
        pairs = dict(pair.partition("=")[::2] for pair in (read(f"/proc/{process}/environ") or "").split("\0"))
        if pairs.get("SSH_CONNECTION") and pairs.get("USER") and not pairs.get("SUDO_USER"):
            return pairs["USER"], pairs["SSH_CONNECTION"].split()[0]
        parent = re.search(r"^PPid:\s*(\d+)", read(f"/proc/{process}/status") or "", re.MULTILINE)
        process = int(parent.group(1)) if parent else 0
    return "root", "127.0.0.1"


def ssh_server() -> dict[str, Any]:
    """What sshd would do, for everybody and for the account of this session."""
    account, client = login()
    who = f"user={account},host={client},addr={client}"
    return {"account": account, "everybody": command("/usr/sbin/sshd", "-T"), "account's": command("/usr/sbin/sshd", "-T", "-C", who)}


def sysctls() -> dict[str, int]:
    values: dict[str, int] = {}
    for name in SYSCTLS + HARDENING:
        text = read("/proc/sys/" + name.replace(".", "/"))
        if text is not None:
            values[name] = int(text.split()[0])
    return values


def sockets() -> list[dict[str, Any]]:
    """Listening sockets: address as the kernel shows it, `*` for any."""
    found = []
    for protocol, option in (("tcp", "-Htlnp"), ("udp", "-Hulnp")):
        for line in (command("ss", option) or "").splitlines():
            local = line.split()[3]
            address, _, port = local.rpartition(":")
            program = re.search(r'users:\(\("([^"]+)"', line)
            found.append(
                {
                    "protocol": protocol, "address": address.strip("[]").partition("%")[0], "port": int(port),
                    "program": program.group(1) if program else "",
                }
            )  # fmt: skip
    return found


def units() -> dict[str, dict[str, str]]:
    text = command("systemctl", "show", *UNITS, "-p", "Id," + ",".join(UNIT_PROPERTIES)) or ""
    result = {}
    for block in text.split("\n\n"):
        pairs = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        if pairs.get("Id") and pairs.get("LoadState") == "loaded":
            result[pairs.pop("Id")] = pairs
    return result


def services() -> dict[str, dict[str, str]]:
    """What follows a crash of each service that has to run: those that were brought to their configuration here, and SSH."""
    names = {os.path.basename(path)[: -len(".json")] for path in glob.glob("/var/lib/lemonstand/converge/*.service.json")} | {"ssh.service"}
    text = command("systemctl", "show", *sorted(names), "-p", "Id," + ",".join(AFTER_A_CRASH)) or ""
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    found = {block.pop("Id"): block for block in blocks if block.get("LoadState") == "loaded" and block["Type"] != "oneshot"}
    for block in found.values():
        # "T": stopped by a signal; systemd calls it active.
        block["MainState"] = ((read(f"/proc/{block['MainPID']}/stat") or "").rpartition(")")[2].split() or ["?"])[0]
    return found


def socket_units() -> list[dict[str, str]]:
    text = command("systemctl", "show", "*.socket", "-p", "Id,ActiveState,KeepAlive,KeepAliveTimeUSec,Listen") or ""
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n") if block.strip()]
    return [block for block in blocks if block.get("ActiveState") == "active"]


def scheduled() -> dict[str, str]:
    """Everything that runs by the clock: {name: commands}."""
    jobs = {}
    names = [
        line.split()[-1]
        for line in (command("systemctl", "list-timers", "--all", "--no-legend", "--plain") or "").splitlines()
        if line.split()
    ]
    for name in names:
        if name.endswith(".service"):
            jobs[name] = command("systemctl", "show", name, "-p", "ExecStart", "--value") or ""
    for pattern in ("/etc/crontab", "/etc/cron.*/*", "/var/spool/cron/crontabs/*"):
        for path in glob.glob(pattern):
            text = read(path) or ""
            jobs[path] = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return jobs


def packages() -> dict[str, str]:
    text = command("dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\t${Version}\n") or ""
    rows = [line.split("\t") for line in text.splitlines()]
    return {name: version for status, name, version in rows if status[1:2] == "i" and PACKAGES.match(name)}


def running() -> dict[str, Any]:
    """What each service really runs, and which of the files it runs were replaced since it started."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            text = read(f"/proc/{entry}/stat")
            if text:
                parents[int(entry)] = int(text.rpartition(")")[2].split()[1])
    found: dict[str, Any] = {}
    for name, way in RUNNING.items():
        if way.endswith(".service"):
            pid = (command("systemctl", "show", way, "-p", "MainPID", "--value") or "").strip()
        else:
            pid = (read(way) or "").strip() if way.startswith("/") else way
        if not pid.isdigit() or int(pid) not in parents:
            continue
        family = [int(pid)]
        if name != "systemd":  # everything descends from it
            for each in family:
                family += [child for child, parent in parents.items() if parent == each]
        program = link(f"/proc/{pid}/exe")
        old = {path for each in family for path in replaced(each)}
        if not program:  # another user's process, where root may not trace: its name, and whether the file is newer than the process
            program = os.path.realpath(shutil.which((read(f"/proc/{pid}/cmdline") or "").split("\0")[0]) or "")
            if program != "/" and os.path.exists(program) and os.stat(program).st_ctime > started(pid):
                old.add(program)
        found[name] = {"program": program.removesuffix(" (deleted)"), "outdated": sorted(old)}
    versions = owners(sorted({entry["program"] for entry in found.values()}))
    for entry in found.values():
        package, version = versions.get(entry["program"], ("", ""))
        entry["package"], entry["version"] = package, "" if entry["outdated"] else version
    return found


def started(pid: str) -> float:
    """When a process began, seconds since 1970, to the second."""
    boot = next(int(line.split()[1]) for line in (read("/proc/stat") or "").splitlines() if line.startswith("btime"))
    ticks = int((read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()[19])
    return boot + ticks / os.sysconf("SC_CLK_TCK") + 1


def link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def replaced(pid: int) -> set[str]:
    """Programs and libraries in a process's memory that are no longer what is on disk."""
    paths = {line.split(None, 5)[5].strip() for line in (read(f"/proc/{pid}/maps") or "").splitlines() if line.count("/")}
    return {path.removesuffix(" (deleted)") for path in paths if path.endswith(" (deleted)") and path.startswith(("/usr/", "/lib"))}


def owners(programs: list[str]) -> dict[str, tuple[str, str]]:
    """Package and version a program is from: {path: (package, version)}. Paths are tried with and without /usr."""
    asked = [path for program in programs for path in (program, program.removeprefix("/usr"))]
    try:
        done = subprocess.run(["dpkg-query", "-S", *asked], capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    packages: dict[str, str] = {}
    for line in done.stdout.splitlines():
        owner, _, path = line.partition(": ")
        if path and not owner.startswith("diversion"):
            packages["/usr" + path.removeprefix("/usr")] = owner.split(",")[0].split(":")[0]
    text = command("dpkg-query", "-W", "-f", "${Package}\t${Version}\n", *sorted(set(packages.values()))) if packages else ""
    versions = dict(line.split("\t") for line in (text or "").splitlines())
    found = {}
    for program in programs:
        package = packages.get("/usr" + program.removeprefix("/usr"), "")
        found[program] = (package, versions.get(package, ""))
    return found


def state() -> str:
    """A hash of the host's configuration and package versions: two readings with the same one are of the same host in the same state."""
    digest = hashlib.sha256()
    for place in STATE_PLACES:
        paths = [place] if os.path.isfile(place) else [os.path.join(at, name) for at, _, names in os.walk(place) for name in names]
        for path in sorted(paths):
            if STATE_LEFT_OUT.search(path):
                continue
            try:
                mode = os.lstat(path)
                if STATE_RENEWED.search(path):
                    content = b""
                else:
                    content = os.readlink(path).encode() if stat.S_ISLNK(mode.st_mode) else open(path, "rb").read()  # noqa: SIM115
            except OSError:
                continue
            digest.update(f"{path}\0{mode.st_mode:o}\0{mode.st_uid}\0{mode.st_gid}\0".encode() + hashlib.sha256(content).digest())
    text = command("dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\t${Version}\n") or ""
    digest.update("\n".join(sorted(text.splitlines())).encode())
    return digest.hexdigest()


def dovecot() -> dict[str, Any] | None:
    if command("doveconf", "-h", "protocols") is None:
        return None
    special = {}
    for scope, names in {
        "protocol=imap": ["imap_idle_notify_interval", "imap_hibernate_timeout", "mail_max_userip_connections", "imap_urlauth_host"],
        "protocol=imap-urlauth-worker": ["imap_urlauth_host"],
        "protocol=lmtp": ["mail_plugins", "ssl_server_request_client_cert"],
        "protocol=submission": ["submission_max_mail_size", "submission_relay_ssl"],
    }.items():
        for name in names:
            text = command("doveconf", "-h", "-f", scope, name)
            if text is not None:
                special[scope + "/" + name] = text.strip()
    return {"all": command("doveconf", "-a"), "special": special, "version": (command("dovecot", "--version") or "").strip()}


def postfix() -> dict[str, Any] | None:
    main = command("postconf")
    return None if main is None else {"main": main, "services": command("postconf", "-M"), "overrides": command("postconf", "-P")}


def pki() -> dict[str, Any]:
    found = {}
    for path in sorted(glob.glob("/etc/lemonstand/pki/*")):
        state = os.stat(path)
        entry: dict[str, Any] = {"mode": stat.S_IMODE(state.st_mode), "uid": state.st_uid, "gid": state.st_gid}
        if path.endswith(".crt"):
            entry["pem"] = read(path)
        elif path.endswith(".key"):
            entry["public"] = command("openssl", "pkey", "-in", path, "-pubout")
        found[os.path.basename(path)] = entry
    return found


def secrets() -> dict[str, Any]:
    """Files that hold something a thief would want: {path: [forms]}. Their contents stay here."""
    found = {}
    for place in SECRET_PLACES:
        for folder, folders, files in os.walk(place):
            folders[:] = [name for name in folders if not os.path.ismount(os.path.join(folder, name))]
            for name in files:
                path = os.path.join(folder, name)
                if path.startswith(SECRET_KNOWN):
                    continue
                try:
                    state = os.lstat(path)
                    if not stat.S_ISREG(state.st_mode) or state.st_size > 1 << 20:
                        continue
                    with open(path, "rb") as stream:
                        data = stream.read()
                except OSError:
                    continue
                forms = [form for form, pattern in SECRET_FORMS.items() if pattern.search(data)]
                if forms:
                    found[path] = {"forms": forms, "mode": stat.S_IMODE(state.st_mode), "owner": state.st_uid}
    return found


def mailboxes() -> list[str]:
    """Directories and files that look like mail: where Maildir, mbox or dbox data would be."""
    found = []
    for place in ("/srv", "/home", "/root", "/var/mail", "/var/vmail", "/var/spool/mail", "/var/lib/dovecot", "/opt"):
        for folder, folders, files in os.walk(place):
            if {"cur", "new", "tmp"} <= set(folders) or any(re.match(r"(dovecot\.index|mbox$|u\.\d+$|m\.\d+$)", name) for name in files):
                found.append(folder)
            if place in ("/var/mail", "/var/spool/mail"):
                found += [os.path.join(folder, name) for name in files]
    return sorted(set(found))


def mounts() -> list[dict[str, str]]:
    rows = [line.split() for line in (read("/proc/self/mounts") or "").splitlines()]
    return [{"target": row[1], "type": row[2], "source": row[0]} for row in rows]


def keys() -> dict[str, Any]:
    """Ticket keys by path: whether public or private, and who may read them."""
    found = {}
    for path in glob.glob("/etc/lemonstand/ticket*/**", recursive=True) + glob.glob("/run/ticket-issuer/*"):
        if os.path.isfile(path) and not os.path.islink(path):
            text, state = read(path) or "", os.stat(path)
            kind = "private" if "PRIVATE KEY" in text else "public" if "PUBLIC KEY" in text else "other"
            found[path] = {"kind": kind, "mode": stat.S_IMODE(state.st_mode), "owner": pwd.getpwuid(state.st_uid).pw_name}
    return found


def directory() -> dict[str, Any] | None:
    """What this host remembers of its directory: suffix, number of names, who may read it; None if nothing."""
    path = "/var/lib/lemonstand/directory.json"
    try:
        state, record = os.stat(path), json.loads(read(path) or "")
        return {"suffix": str(record["suffix"]), "names": len(record["names"]), "mode": stat.S_IMODE(state.st_mode),
                "owner": pwd.getpwuid(state.st_uid).pw_name}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sieve() -> dict[str, Any]:
    """Whether a script that needs every extension of the profile compiles: None, or the compiler's complaint."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "probe.sieve")
        with open(path, "w", encoding="ascii") as stream:
            stream.write(SIEVE)
        try:
            done = subprocess.run(["sievec", path, path + ".svbin"], capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as problem:
            return {"ok": False, "said": str(problem)}
        return {"ok": done.returncode == 0, "said": (done.stderr or done.stdout).strip()[-400:]}


def facts() -> dict[str, Any]:
    """All of it; `remote/facts.py` knows what is what."""
    rules = command("nft", "-j", "list", "ruleset")
    skipped = read("/run/lemonstand/sysctl-skipped.json")
    issuer = command("pgrep", "-f", "ticket_issuer:create_app")
    return {
        "now": time.time(),
        "kernel": os.uname().release,
        "virtualization": (command("systemd-detect-virt", "--container") or "none").strip(),
        "sysctl": sysctls(),
        "sysctl_skipped": json.loads(skipped) if skipped else [],
        "interfaces": interfaces(),
        "settings_of_boot": settings_of_boot(),
        "ssh": ssh_server(),
        "nft": json.loads(rules)["nftables"] if rules else None,
        "listen": sockets(),
        "units": units(),
        "services": services(),
        "socket_units": socket_units(),
        "scheduled": scheduled(),
        "packages": packages(),
        "running": running(),
        "state": state(),
        "tracking": command("chronyc", "-c", "tracking"),
        "dovecot": dovecot(),
        "postfix": postfix(),
        "pki": pki(),
        "ticket_keys": keys(),
        "directory": directory(),
        "secrets": secrets(),
        "mailboxes": mailboxes(),
        "mounts": mounts(),
        "sieve": sieve() if os.path.exists("/usr/bin/sievec") else None,
        "issuer_processes": len((issuer or "").split()),
        "texts": {path: text for path in TEXTS if (text := read(path)) is not None},
        "accounts": [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid >= 1000 and entry.pw_uid < 65534],
    }
