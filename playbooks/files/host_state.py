"""Says what on this host would make a deployment fail, or what would undo it later. Reads only; runs on Python's standard library.

Argument: an order as JSON, in base64 (what the play wants of this host; see `judge`); the text itself comes over standard input.
Prints what was found as JSON, `{"faults": [...]}`; with faults they also go to standard error, a line each, and the exit status is 1.
`look` asks the host; `judge` is a pure function of the answer.
"""
# A text of a few hundred lines travels to each host; what is asked there is plain files.
# ruff: noqa: PTH102, PTH112, PTH113, PTH118, PTH123, PTH208, UP031

import base64
import hashlib
import ipaddress
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

RELEASE = "13"
"""The release of Debian the roles are written for."""
CLOCK_SECONDS = 240
"""A clock may be off by so much: certificates are good from five minutes before they are signed (role certificates)."""
END = "-----END CERTIFICATE-----\n"
ROOM_MIB = 100
INODES = 1000
PLACES = ["/", "/etc", "/usr", "/var"]
FIREWALLS = {
    "ufw.service": "ufw", "firewalld.service": "firewalld", "netfilter-persistent.service": "iptables-persistent", "ferm.service": "ferm",
    "shorewall.service": "Shorewall", "shorewall6.service": "Shorewall6", "arno-iptables-firewall.service": "arno-iptables-firewall",
    "fwbuilder.service": "Firewall Builder",
}  # fmt: skip
DEBIANS = "nftables.service"
OUR_TABLES = {"inet lemonstand", "inet lemonstand_closed", "inet lemonstand_spread"}
# A process's name as the kernel has it: 15 letters at most.
OURS = {
    "dovecot", "imap-login", "submission-logi", "managesieve-log", "lmtp", "master", "gunicorn", "sshd", "sshd-session", "systemd", "slapd",
    "smtpd", "certbot", "mail-standby",
}  # fmt: skip
PAGE = "/etc/nginx/lemonstand.conf"
DROPS = {"drop": "drops", "reject": "rejects", "queue": "queues", "synproxy": "intercepts", "notrack": "takes out of conntrack"}
TRANSLATES = {"dnat": "translates", "snat": "translates", "masquerade": "translates", "redirect": "redirects", "tproxy": "diverts"}
VERDICTS = {**DROPS, **TRANSLATES, "fwd": "diverts"}
# Targets of iptables, native or through nft's xt expression.
TARGETS = {
    "DROP": "drop", "REJECT": "reject", "NFQUEUE": "queue", "QUEUE": "queue", "SYNPROXY": "synproxy", "NOTRACK": "notrack", "DNAT": "dnat",
    "SNAT": "snat", "MASQUERADE": "masquerade", "REDIRECT": "redirect", "TPROXY": "tproxy", "NETMAP": "dnat", "TARPIT": "drop",
}  # fmt: skip
MAKERS = {
    r"^DOCKER": "Docker", r"^f2b-|f2b": "fail2ban", r"^ufw6?-": "ufw", r"firewalld": "firewalld", r"^LIBVIRT|libvirt": "libvirt",
    r"^NETAVARK|netavark": "Podman", r"^KUBE-": "Kubernetes", r"crowdsec": "CrowdSec", r"io\.systemd\.nat": "systemd-networkd",
}  # fmt: skip
HOOKS = {"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "POSTROUTING": "postrouting"}
PLAIN_CONF = re.compile(
    r"(flush ruleset|table \w+ \w+ \{|chain \w+ \{|type filter hook \w+ priority [\w -]+;?( *policy accept;?)?|policy accept;?|\}|\{)*"
)
"""What Debian's /etc/nftables.conf says when nobody changed it: tables and chains that let everything through."""


def run(*words):
    """What a command printed, or None if it isn't here, fails or takes too long."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def read(path):
    """A file's text, empty if it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


# --- asking the host ---


def look(order):
    """What the judge wants to know of this host."""
    facts = {"filters": look_at_filters(), "units": look_at_units(), "nftables_conf": read("/etc/nftables.conf")}
    if order.get("only") == "filters":
        return facts
    release = dict(line.split("=", 1) for line in read("/etc/os-release").splitlines() if "=" in line)
    sockets = run("ss", "-Hltnp") or ""
    return {
        **facts,
        "own": own_settings(order.get("own") or {}, order.get("programs") or {}),
        "drop_ins": {unit: unit_warnings(text) for unit, text in (order.get("drop_ins") or {}).items()},
        "placement": placement() if order.get("places") else None,
        "idle": order.get("answers") is not None and is_idle(order["answers"], sockets),
        "release": {key: release.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID", "PRETTY_NAME")},
        "programs": programs(order.get("programs") or {}),
        "systemd": os.path.isdir("/run/systemd/system"),
        "connection": connection(),
        "login": login(),
        "ra_devices": ra_devices(),
        "addresses": addresses(),
        "ipv6": has_ipv6(),
        "page": os.path.isfile(PAGE),
        "listeners": listeners(sockets),
        "places": places(),
        "time": time.time(),
        "authorities": authorities(),
        "certificates": certificates(),
    }


def look_at_filters():
    """All packet filters of this host as nft and iptables show them."""
    listing = run("nft", "-j", "list", "ruleset")
    found = {"nft": json.loads(listing)["nftables"] if listing else None, "texts": {}, "saved": {}, "unread": []}
    if listing is None and shutil.which("nft"):
        found["unread"].append("nft list ruleset fails")
    tables = {table_of(entry["table"], "name") for entry in found["nft"] or [] if "table" in entry}
    if tables - OUR_TABLES:
        found["texts"] = rule_texts(run("nft", "-a", "list", "ruleset") or "")
    for family, names in (("ip", "/proc/net/ip_tables_names"), ("ip6", "/proc/net/ip6_tables_names")):
        tool = "iptables" if family == "ip" else "ip6tables"
        if read(names).split():
            saved = run(tool + "-legacy-save")
            if saved is None:
                found["unread"].append(f"there are legacy {tool} rules, and no {tool}-legacy-save to read them with")
            else:
                found["saved"]["legacy-" + family] = saved
        # Before the first installation of nft: what iptables put into nftables.
        if listing is None and not shutil.which("nft") and (saved := run(tool + "-save")):
            found["saved"].setdefault(family, saved)
    return found


def table_of(entry, key="table"):
    return "{} {}".format(entry["family"], entry[key])


def rule_texts(listing):
    """Each rule as nft writes it: {"family table handle": text}."""
    texts, table = {}, ""
    for line in listing.splitlines():
        head = re.match(r"table (\S+) (\S+) \{", line)
        if head:
            table = " ".join(head.groups())
        rule = re.match(r"\s+(.*) # handle (\d+)$", line)
        if rule and not rule.group(1).endswith("{"):
            texts[f"{table} {rule.group(2)}"] = rule.group(1)
    return texts


def is_idle(ports, sockets, folder="/var/lib/lemonstand/converge"):
    """Whether this host is not at work: a unit of its roles does not run, or there was none yet, or nobody listens on one of `ports`.

    Args:
        sockets: TCP sockets that listen, as ss prints them; empty: that can't be said.
    """
    units = [name[: -len(".json")] for name in sorted(os.listdir(folder)) if name.endswith(".json")] if os.path.isdir(folder) else []
    if not units:
        return True
    states = (run("systemctl", "show", "--value", "-p", "ActiveState", *units) or "").split()
    wanted = {str(port) for port in ports}
    heard = {line.split()[3].rpartition(":")[2] for line in sockets.splitlines()} if sockets else wanted
    return any(state not in ("active", "reloading", "refreshing") for state in states) or not wanted <= heard


def look_at_units():
    """States of units that load packet filters: {unit: {UnitFileState, ActiveState}}."""
    text = run("systemctl", "show", DEBIANS, *FIREWALLS, "-p", "Id,UnitFileState,ActiveState") or ""
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n")]
    return {block["Id"]: block for block in blocks if block.get("Id")}


def programs(wanted):
    """The version of each package that is here, or that would be installed: {package: [version, whether it is here]}."""
    found = {}
    for package in wanted:
        version = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package) or ""
        if version.startswith("installed "):
            found[package] = [version.split()[1], True]
            continue
        candidate = re.search(r"^\s*Candidate: (\d\S*)", run("apt-cache", "policy", package) or "", re.MULTILINE)
        if candidate:  # without package lists nothing can be said yet
            found[package] = [candidate.group(1), False]
    return found


def connection():
    """The connection this program came by, as this host sees it: [client, its port, own address, own port]; None if it is no SSH."""
    process = os.getpid()
    while process > 1:
        try:
            with open("/proc/%d/environ" % process, "rb") as stream:
                found = [entry for entry in stream.read().split(b"\0") if entry.startswith(b"SSH_CONNECTION=")]
        except OSError:
            found = []
        # sudo takes it out of the environment; the shell before it still has it.
        if found:
            return found[0].decode("ascii", "replace").partition("=")[2].split()
        parent = re.search(r"^PPid:\s*(\d+)", read("/proc/%d/status" % process), re.MULTILINE)
        process = int(parent.group(1)) if parent else 0
    return None


def login():
    """The account this program came in as, and whether there is a key for it: [name, has a key]; None if it is no SSH."""
    process, account = os.getpid(), ""
    while process > 1 and not account:
        pairs = dict(pair.partition("=")[::2] for pair in read("/proc/%d/environ" % process).split("\0"))
        # sudo has an environment of its own; the shell before it still has the account's.
        if pairs.get("SSH_CONNECTION") and not pairs.get("SUDO_USER"):
            account = pairs.get("USER", "")
        parent = re.search(r"^PPid:\s*(\d+)", read("/proc/%d/status" % process), re.MULTILINE)
        process = int(parent.group(1)) if parent else 0
    if not account:
        return None
    told = run("/usr/sbin/sshd", "-T", "-C", f"user={account},host=localhost,addr=127.0.0.1")
    settings = dict(line.partition(" ")[::2] for line in (told or "").splitlines())
    if told is None or settings.get("authorizedkeyscommand", "none") != "none" or settings.get("trustedusercakeys", "none") != "none":
        return [account, True]  # where keys come from is not for us to know
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        return [account, True]
    files = settings.get("authorizedkeysfile", "").replace("%h", entry.pw_dir).replace("%u", account).replace("%U", str(entry.pw_uid))
    texts = [read(os.path.join(entry.pw_dir, path)) for path in files.split()]
    return [account, any(line.strip() and not line.startswith("#") for text in texts for line in text.splitlines())]


def ra_devices():
    """The devices by which this host has a default route from router advertisements."""
    routes = json.loads(run("ip", "-6", "-j", "route", "show", "default") or "[]")
    hops = [(route, hop) for route in routes for hop in route.get("nexthops") or [route]]
    return sorted({hop["dev"] for route, hop in hops if route.get("protocol") == "ra" and "dev" in hop})


def addresses():
    """Addresses by device, None if they can't be read."""
    text = run("ip", "-j", "address")
    if text is None:
        return None
    found = {}
    for entry in json.loads(text):
        if entry.get("ifname"):
            found[entry["ifname"]] = [one["local"] for one in entry.get("addr_info", []) if "local" in one]
    return found


def has_ipv6():
    """Whether the kernel can make IPv6 sockets; with ipv6.disable=1 it can't (EAFNOSUPPORT)."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def listeners(sockets):
    """TCP sockets that listen and whose process is known: [address, port, process, number, unit]."""
    found = []
    for line in sockets.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        # Where ss names nobody (a process of another user, seen from a container), nothing can be said.
        holder = re.search(r'users:\(\("([^"]+)",pid=(\d+)', line)
        if holder and port.isdigit():
            unit = re.search(r"/([^/]+\.(?:service|scope))\s*$", read(f"/proc/{holder.group(2)}/cgroup"), re.MULTILINE)
            found.append([address, int(port), holder.group(1), int(holder.group(2)), unit.group(1) if unit else ""])
    return found


def places():
    """Room where packages and configuration go: {place: {readonly, mib, inodes}}; inodes is None where a file system doesn't count them."""
    found = {}
    for place in PLACES:
        try:
            state = os.statvfs(place)
        except OSError:
            continue
        found[place] = {
            "readonly": bool(state.f_flag & os.ST_RDONLY),
            "mib": state.f_bavail * state.f_frsize // 2**20,
            "inodes": state.f_favail if state.f_files else None,
        }
    return found


def authorities(folder="/etc/lemonstand/pki"):
    """Fingerprints of the CAs this host trusts, by purpose: SHA-256 of the certificates, in hexadecimal digits."""
    found = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.startswith("ca-") and name.endswith(".crt"):
            try:
                ders = [ssl.PEM_cert_to_DER_cert(text + END) for text in read(os.path.join(folder, name)).split(END)[:-1]]
            except ValueError:
                continue
            if ders:
                found[name[3:-4]] = [hashlib.sha256(der).hexdigest() for der in ders]
    return found


def certificates(folder="/etc/lemonstand/pki"):
    """The key that signed each of this host's certificates, by name: the authority key identifier, in hexadecimal digits."""
    found = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.endswith(".crt") and not name.startswith("ca-"):
            text = run("openssl", "x509", "-in", os.path.join(folder, name), "-noout", "-ext", "authorityKeyIdentifier") or ""
            identifier = re.search(r"(?:[0-9A-F]{2}:){7,}[0-9A-F]{2}", text)
            if identifier:
                found[name[:-4]] = identifier.group(0).replace(":", "").lower()
    return found


def own_settings(wanted, programs):
    """What the program that reads them says of a site's own settings; nothing where it is not here yet.

    Args:
        wanted: `program` (dovecot, postfix), `settings`, and of Dovecot `text`.
        programs: {package: the version of its authors that roles are written for}.
    """
    settings = {name: {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
                for name, value in (wanted.get("settings") or {}).items()}  # fmt: skip
    tool = shutil.which({"dovecot": "doveconf", "postfix": "postconf"}.get(wanted.get("program"), ""))
    text = wanted.get("text") or ""
    if not (settings or text.strip()) or not tool:
        return []
    lines = [f"{name} = {value}" for name, value in settings.items()]
    with tempfile.TemporaryDirectory() as folder:
        if wanted["program"] == "dovecot":
            version = programs.get("dovecot-core", "")
            version += ".0" * (2 - version.count("."))
            lines = [f"dovecot_config_version = {version}", f"dovecot_storage_version = {version}", *lines]
            lines.append("!include {}".format(os.path.join(folder, "text")))  # so that its lines have its own numbers
            with open(os.path.join(folder, "text"), "w", encoding="utf-8") as stream:
                stream.write(text + "\n")
            path, words = os.path.join(folder, "dovecot.conf"), [tool, "-c", os.path.join(folder, "dovecot.conf"), "-n"]
        else:
            path, words = os.path.join(folder, "main.cf"), [tool, "-c", folder, "-n"]
            with open(os.path.join(folder, "master.cf"), "w", encoding="utf-8"):
                pass
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=15, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return []
    told = done.stderr.replace(os.path.join(folder, "text"), "lemonstand_drop_ins").replace(folder, "")
    said = [line.strip() for line in told.splitlines() if line.strip()]
    # Postfix warns of what it does not know and goes on.
    if done.returncode or not text.strip():
        return said[:5] if done.returncode or wanted["program"] == "postfix" else []
    # The inventory's judge read the text line by line. What the program finds in it beside that was judged by nobody.
    judged = first_words("\n".join([*lines, text]))
    return [f"{name}: the program reads it in text that does not say it by itself" for name in sorted(first_words(done.stdout) - judged)]


def first_words(text):
    """The names that lines begin with."""
    return set(re.findall(r"^\s*(\w+)", text, re.MULTILINE))


def unit_warnings(text):
    """What systemd has against a drop-in of a service, on a unit made for that: the real one may not be here yet."""
    with tempfile.TemporaryDirectory() as folder:
        unit = os.path.join(folder, "site.service")
        os.mkdir(unit + ".d")
        for path, content in ((unit, "[Service]\nExecStart=/bin/true\n"), (unit + ".d/text.conf", text + "\n")):
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(content)
        try:
            words = ["systemd-analyze", "verify", "--man=no", unit]
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=15, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return []
    # It warns of what it does not know and goes on; of other units here it may warn as well.
    lines = [line for line in done.stderr.splitlines() if folder in line]
    return [re.sub(r"^\S*/text.conf:(\d+)", r"line \1", line).replace(folder + "/", "") for line in lines[:5]]


def summary(told):
    """How far this host was told, without naming all users."""
    return {"generation": told["generation"], "edition": told.get("edition", -1)}


def placement(path="/var/lib/lemonstand/placement.json"):
    """Which store has which user, as this host was told last; None if it was not, a text if it can't be read."""
    text = read(path)
    try:
        return json.loads(text) if text else None
    except ValueError:
        return "cut off"


# --- judging, without asking anybody ---


def judge(facts, order):
    """Sentences about what has to be mended, each with its remedy.

    The order's keys: `ports` (TCP ports that are to be ours), `management` (rules that let controllers in: ports, ipv4, ipv6), `legs`
    ({zone: {device, ipv4, ipv6}}), `programs` ({package: the version of its authors that roles are written for}), `routes` (whether this
    host forwards), `ssh` (whom SSH is to let in: users, root), `routers` (devices on which routers are to be heard), `foreign_tables`
    (looked at by the operator), `authorities` (the controller's CAs: {name: {fingerprints, key_ids}}), `pki_dir`, `trusted` and `requests`
    (which CA should be trusted, which should have signed what), `places` ({user: store} of the inventory), `own` (the site's
    own settings of a program), `drop_ins` (its own text for units), `new_authorities`, `now`
    (seconds since 1970), `settled` (this host is configured: what a run would mend is a fault).
    """
    faults = []
    if order.get("only") != "filters":
        faults += judge_system(facts)
        faults += judge_programs(facts, order)
        faults += judge_clock(facts, order)
        faults += judge_connection(facts, order)
        faults += judge_login(facts, order)
        faults += judge_routes(facts, order)
        faults += judge_legs(facts, order)
        faults += judge_listeners(facts, order)
        faults += judge_authorities(facts, order)
        faults += judge_places(facts, order)
        faults += judge_own(facts, order)
    faults += judge_units(facts, order)
    faults += judge_filters(facts, order)
    return list(dict.fromkeys(faults))


def judge_own(facts, order):
    wanted = order.get("own") or {}
    for said in facts.get("own") or ():
        where = "lemonstand_{}_extra{}".format(wanted["program"], " or lemonstand_drop_ins" if wanted.get("text") else "")
        yield f"{wanted['program']} does not take the site's own settings: {said}; correct {where}"
    for unit, warnings in (facts.get("drop_ins") or {}).items():
        for said in warnings:
            yield f"systemd does not take the site's own text for {unit}: {said}; correct lemonstand_drop_ins"


def judge_places(facts, order):
    told = facts.get("placement")
    if isinstance(told, str):
        yield "/var/lib/lemonstand/placement.json is cut off: copy it from another store or relay of this site"
        return
    for name, store in (order.get("places") or {}).items() if told else ():
        there = told["users"].get(name)
        # What the inventory said when it was last heard is no news, whoever moved him since.
        if there and store not in {there, told["said"].get(name)}:
            yield (
                f"{name} is on {there}, and the inventory says {store} now: his mail would stay behind. Move him "
                f"(`lemonstand user move {name} --to {store}`), or write {there} again"
            )


def judge_system(facts):
    release = facts["release"]
    if release["ID"] != "debian" or release["VERSION_ID"].split(".")[0] not in {RELEASE, ""}:
        name = release["PRETTY_NAME"] or "something without /etc/os-release"
        yield f"this host runs {name}: the roles are written for Debian {RELEASE}; install or upgrade to that"
    if not facts["systemd"]:
        yield "systemd is not running here: services could not be started; boot this host with systemd (package systemd-sysv)"
    for place, state in facts["places"].items():
        if state["readonly"]:
            yield f"{place} is read-only: nothing could be written; see `dmesg` for why, then `mount -o remount,rw {place}`"
        elif state["mib"] < ROOM_MIB:
            yield "%s has %d MiB left: an installation could stop half way; make room for %d" % (place, state["mib"], ROOM_MIB)
        elif state["inodes"] is not None and state["inodes"] < INODES:
            yield "%s has room for %d more files only: remove what isn't needed (`df -i %s`)" % (place, state["inodes"], place)


def judge_programs(facts, order):
    for package, wanted in (order.get("programs") or {}).items():
        version, here = facts["programs"].get(package, ["", False])
        upstream = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
        if upstream and not (upstream.group(1) + ".").startswith(wanted + "."):
            yield (
                "this host {} {} {}: the roles are written for {} {}; take it from Debian {}, see `apt-cache policy {}`".format(
                    "has" if here else "would get", package, version, package, wanted, RELEASE, package
                )
            )


def judge_clock(facts, order):
    off = facts["time"] - order.get("now", facts["time"])
    if abs(off) > CLOCK_SECONDS:
        yield (
            "the clock is %d s %s the controller's: certificates and tickets would not be good here; set it "
            "(`timedatectl set-time`), or the controller's" % (abs(off), "ahead of" if off > 0 else "behind")
        )


def within(address, networks):
    """Whether an address is in a list of addresses and networks; None is any."""
    if networks is None:
        return True
    return any(
        address.version == net.version and address in net for net in (ipaddress.ip_network(str(each), strict=False) for each in networks)
    )


def plain(text):
    """An address without what names a device; an IPv4 address in IPv6's clothes as itself."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def judge_connection(facts, order):
    """The connection of now must be one that the rules to come let in, or this run is the last."""
    rules = order.get("management")
    if not facts["connection"] or len(facts["connection"]) != 4 or rules is None:
        return
    client, own, port = plain(facts["connection"][0]), plain(facts["connection"][2]), int(facts["connection"][3])
    fitting = [rule for rule in rules if within(client, rule["ipv%d" % client.version])]
    if not fitting:
        known = sorted({str(each) for rule in rules for key in ("ipv4", "ipv6") for each in rule[key] or ()})
        yield (
            "the controller comes from {}, and no flow lets that address in (those in: {}): nobody could come in after this run; "
            "add it to lemonstand_controllers".format(client, ", ".join(known) or "none")
        )
    elif not any(port in rule["ports"] for rule in fitting):
        ports = sorted({each for rule in fitting for each in rule["ports"]})
        yield (
            "no flow lets the controllers in on %d (only on %s): nobody could come in after this run; add a flow to "
            "lemonstand_flows_extra: {name: management-ssh-%d, from: controllers, to: management, protocol: tcp, "
            "ports: [%d], reason: …}, or come "
            "in by another port" % (port, ", ".join(map(str, ports)), port, port)
        )
    leg = (order.get("legs") or {}).get("management")
    if leg and facts["addresses"] is not None and facts["addresses"].get(leg["device"]):
        there = [plain(each) for each in facts["addresses"][leg["device"]]]
        if own not in there:
            yield (
                "the controller comes in at {}, and flows let it in by {} alone ({}): set ansible_host to an address there".format(
                    own, leg["device"], ", ".join(map(str, there))
                )
            )


def judge_login(facts, order):
    """SSH will let in listed accounts alone, and by key alone: the account of now must be one of them."""
    ssh = order.get("ssh")
    if not ssh or not facts["login"]:
        return
    account, has_key = facts["login"]
    if ssh["users"] and account not in ssh["users"]:
        yield (
            "SSH will let in {} alone, and Ansible came in as {}: nobody could come in after this run; set ansible_user to {}, "
            "or add it to lemonstand_ssh_users".format(", ".join(ssh["users"]), account, account)
        )
    if account == "root" and ssh["root"] == "no":
        yield "SSH will not let root in, and Ansible came in as root: come in as another account, or take sshd_permit_root_login back"
    if not has_key:
        yield (
            f"SSH will take keys alone, and there is none for {account}, as whom Ansible came in: nobody could come in after this run; "
            "`ssh-copy-id` the controller's"
        )


def judge_routes(facts, order):
    """Router advertisements are not listened to any more where the site does not say so."""
    for device in facts["ra_devices"]:
        if "routers" in order and device not in order["routers"]:
            zone = next((zone for zone, leg in (order.get("legs") or {}).items() if leg["device"] == device), "")
            remedy = f"add '{zone}' to lemonstand_accept_ra of this host, or give" if zone else "give"
            yield (
                f"this host has its IPv6 route from a router's advertisements on {device}, which will be heard no more: {remedy} "
                "it a route of its own (/etc/network/interfaces: gateway)"
            )


def judge_legs(facts, order):
    legs = order.get("legs") or {}
    if not facts["ipv6"]:
        wanted = sorted(str(leg["ipv6"]) for leg in legs.values() if leg.get("ipv6"))
        if wanted:
            yield (
                "the kernel has no IPv6, and the site gives this host {}: take ipv6.disable=1 from the kernel's command line "
                "(/etc/default/grub, then update-grub and a boot), or take ipv6 from lemonstand_zones and lemonstand_interfaces".format(
                    ", ".join(wanted)
                )
            )
    if facts["addresses"] is None:
        return
    for zone, leg in sorted(legs.items()):
        if leg["device"] not in facts["addresses"]:
            others = ", ".join(sorted(set(facts["addresses"]) - {"lo"})) or "none"
            yield "there is no device {} for the zone '{}' (there are: {}): correct lemonstand_interfaces".format(
                leg["device"], zone, others
            )
            continue
        there = [plain(each) for each in facts["addresses"][leg["device"]]]
        for family in ("ipv4", "ipv6") if facts["ipv6"] else ("ipv4",):
            if leg.get(family) and plain(str(leg[family])) not in there:
                yield "{} is not on {} ({} is): give it to the device, or correct lemonstand_interfaces".format(
                    leg[family], leg["device"], ", ".join(map(str, there)) or "nothing",
                )  # fmt: skip


def judge_listeners(facts, order):
    ports = set(order.get("ports") or ())
    for _, port, name, process, unit in facts["listeners"]:
        # A web server of somebody else's is not taken over: ours has its configuration here.
        if port in ports and name not in OURS and not (name == "nginx" and facts["page"]):
            how = f"`systemctl disable --now {unit}`" if unit.endswith(".service") else "stop that"
            yield "port %d is taken by %s (process %d): %s, or give it another port" % (port, name, process, how)


def judge_authorities(facts, order):
    """The CAs this host knows are those of the controller, unless new ones are wanted."""
    if order.get("new_authorities") or "authorities" not in order:
        return
    known, folder = order["authorities"], order.get("pki_dir", "")
    wanted = "restore it from its backup; if new CAs are wanted for all hosts: `lemonstand certificates renew --new-authorities`"
    told = set()
    for name in order.get("trusted") or ():
        held = facts["authorities"].get(name)
        if held is None:
            continue
        if name not in known:
            yield f"this host trusts the CA '{name}' (SHA-256 {held[0][:16]}…), and there is none in {folder}: {wanted}"
            told.add(name)
        elif not set(known[name]["fingerprints"]) & set(held):
            yield "this host trusts another CA '{}' (SHA-256 {}…) than the one in {} ({}…): is that another site's directory? {}".format(
                name, held[0][:16], folder, known[name]["fingerprints"][0][:16], wanted,
            )  # fmt: skip
            told.add(name)
    for certificate, name in sorted((order.get("requests") or {}).items()):
        signer = facts["certificates"].get(certificate)
        if signer is None or name in told:
            continue
        if name not in known:
            yield f"this host's certificate '{certificate}' was signed by the CA '{name}', and there is none in {folder}: {wanted}"
            told.add(name)
        elif signer not in known[name]["key_ids"]:
            yield (
                f"this host's certificate '{certificate}' was signed by another CA '{name}' than the one in {folder}: "
                f"is that another site's directory? {wanted}"
            )
            told.add(name)


def judge_units(facts, order):
    for unit, name in FIREWALLS.items():
        state = facts["units"].get(unit, {})
        if state.get("UnitFileState") == "enabled" or state.get("ActiveState") == "active":
            yield "{} is {}, and loads rules of its own beside ours or in their place: `systemctl disable --now {}`".format(
                name, "on" if state.get("ActiveState") == "active" else "enabled", unit,
            )  # fmt: skip
    state = facts["units"].get(DEBIANS, {}).get("UnitFileState", "")
    # Escaped line ends and comments aside, statement by statement.
    statements = [line.partition("#")[0].strip() for line in facts["nftables_conf"].replace("\\\n", " ").splitlines()]
    if state == "enabled" and not all(PLAIN_CONF.fullmatch(" ".join(line.split())) for line in statements):
        yield (
            f"{DEBIANS} is enabled and loads rules of your own from /etc/nftables.conf, after it has flushed all others: move them to a "
            "unit of yours "
            f"that does not flush, then `systemctl disable {DEBIANS}`"
        )
    if order.get("settled") and state != "masked":
        yield (
            "{} is not masked ({}): its start, stop and restart flush all rules, ours too; `lemonstand apply` masks it".format(
                DEBIANS, state or "not there"
            )
        )


def judge_filters(facts, order):
    """Chains of others that stop or translate packets our rules let through."""
    accepted = {str(each) for each in order.get("foreign_tables") or ()} | OUR_TABLES
    filters = facts["filters"]
    for text in filters["unread"]:
        yield f"the packet filters can't be read ({text}): mend that, so that chains of others are found before they stop mail"
    chains = nft_chains(filters["nft"] or [], filters["texts"])
    for family, text in filters["saved"].items():
        chains.update(saved_chains(text, family))
    for (table, name), chain in sorted(chains.items()):
        if table in accepted or not chain["hook"] or (chain["hook"] == "forward" and not order.get("routes")):
            continue
        worst = [(chain["policy"], "", name)] if chain["policy"] in {"drop", "reject"} else []
        worst += reached(chains, table, name)
        if not worst:
            continue
        where = "chain {} (hook {}{})".format(
            name, chain["hook"], ", priority {}".format(chain["prio"]) if chain["prio"] is not None else ""
        )
        verdict, rule, at = worst[0]
        deed = (
            f"{VERDICTS[verdict]} what it does not accept"
            if not rule
            else "{}: {}{}".format(VERDICTS[verdict], rule, "" if at == name else f" (in chain {at})")
        )
        more = " and %d more" % (len(worst) - 1) if len(worst) > 1 else ""
        maker = next((who for form, who in MAKERS.items() if any(re.search(form, each) for each in (table, name, at, *chain["jumps"]))), "")
        yield (
            "the packet filter has a table '{}' of {}: {} {}{}; take it away ({}), or list '{}' in lemonstand_foreign_tables if all flows "
            "pass it"
        ).format(
            table, maker or "somebody else", where, deed, more, removal(table, maker), table,
        )  # fmt: skip


def removal(table, maker):
    first = f"stop {maker}, then " if maker else ""
    if table.startswith("legacy-"):
        family, name = table[7:].split()
        return "{}`{}-legacy -t {} -F` and `-P CHAIN ACCEPT`".format(first, "iptables" if family == "ip" else "ip6tables", name)
    return f"{first}`nft delete table {table}`"


def reached(chains, table, start):
    """What rules do that a packet can meet from a chain on: [(verdict, rule's text, chain)]."""
    found, seen, waiting = [], {start}, [start]
    while waiting:
        name = waiting.pop(0)
        chain = chains.get((table, name))
        if chain is None:
            continue
        found += [(verdict, text, name) for verdict, text in chain["rules"]]
        waiting += [each for each in chain["jumps"] if each not in seen]
        seen.update(chain["jumps"])
    return found


def nft_chains(entries, texts):
    """Chains as nft's JSON has them: {(table, chain): {hook, prio, policy, rules: [(verdict, text)], jumps}}."""
    dormant = {table_of(entry["table"], "name") for entry in entries if "dormant" in (entry.get("table") or {}).get("flags", ())}
    maps = {(table_of(entry["map"]), entry["map"]["name"]): entry["map"].get("elem") or [] for entry in entries if "map" in entry}
    chains = {}
    for entry in entries:
        if "chain" in entry:
            chain = entry["chain"]
            table = table_of(chain)
            if chain["family"] != "bridge" and table not in dormant:
                chains[table, chain["name"]] = {
                    "hook": chain.get("hook"), "prio": chain.get("prio"), "policy": chain.get("policy"), "rules": [], "jumps": [],
                }  # fmt: skip
    for entry in entries:
        rule = entry.get("rule")
        chain = chains.get((table_of(rule), rule["chain"])) if rule else None
        if chain is None:
            continue
        table = table_of(rule)
        text = texts.get("{} {}".format(table, rule.get("handle")), "rule {}".format(rule.get("handle")))
        for verdict, target in verdicts(rule.get("expr") or [], table, maps):
            if verdict in {"jump", "goto"}:
                chain["jumps"].append(target)
            else:
                chain["rules"].append((verdict, text))
    return chains


def verdicts(expressions, table, maps):
    """What a rule may do with a packet: pairs of a verdict and, for jumps, the chain."""
    for expression in expressions:
        if not isinstance(expression, dict):
            continue
        for key, value in expression.items():
            if key in {"jump", "goto"}:
                yield key, value["target"]
            elif key in VERDICTS:
                yield key, ""
            elif key == "xt" and isinstance(value, dict) and value.get("type") == "target" and value.get("name") in TARGETS:
                yield TARGETS[value["name"]], ""
            elif key == "vmap":
                data = value.get("data")
                pairs = maps.get((table, data[1:]), []) if isinstance(data, str) else data.get("set", []) if isinstance(data, dict) else []
                for pair in pairs:
                    yield from verdicts([pair[1]] if isinstance(pair, list) else [], table, maps)


def saved_chains(text, family):
    """Chains as iptables-save prints them, in the form of `nft_chains`."""
    chains, table = {}, ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = f"{family} {line[1:].strip()}"
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            hook = HOOKS.get(name) if policy != "-" else None
            chains[table, name] = {"hook": hook, "prio": None, "policy": policy.lower(), "rules": [], "jumps": []}
        elif line.startswith("-A "):
            name = line.split()[1]
            target = re.search(r"\s(?:-j|--jump|-g|--goto)\s+(\S+)", line)
            chain = chains.get((table, name))
            if chain is None or not target:
                continue
            if target.group(1) in TARGETS:
                chain["rules"].append((TARGETS[target.group(1)], line))
            elif target.group(1) == "CT" and "--notrack" in line:
                chain["rules"].append(("notrack", line))
            else:
                chain["jumps"].append(target.group(1))
    return chains


def derived(order):
    """An order with what follows from the rules that are to come (`input`): `ports` and `management`."""
    tcp = [rule for rule in order.get("input") or () if rule["protocol"] == "tcp"]
    if not tcp:
        return order
    ports = sorted({port for rule in tcp for port in rule["ports"]})
    return {"ports": ports, "management": [rule for rule in tcp if rule.get("management")], **order}


def main_encoded(text):
    """Answers an order in base64, as plays send it; returns the exit status."""
    return main(base64.b64decode(text).decode())


def main(text):
    """Answers an order; returns the exit status."""
    order = derived(json.loads(text))
    facts = look(order)
    faults = judge(facts, order)
    said = {"placement": summary(facts["placement"])} if facts.get("placement") and not faults else {}
    print(json.dumps({"faults": faults, "idle": facts.get("idle", False), **said}))
    if faults:
        print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__" and len(sys.argv) == 2:  # plays append a call instead
    sys.exit(main_encoded(sys.argv[1]))
