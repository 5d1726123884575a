"""Compares what was read from a host with what explains it. One kind has one rule, a function that yields discrepancies."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lemonstand.integrity.discrepancies import APPLY, KINDS, Discrepancy
from lemonstand.integrity.known import Known, policy_after_a_crash
from lemonstand.policy.debian import Made, matches
from lemonstand.remote.certificates import Certificate

Reading = Mapping[str, Any]
"""What `probes/hosts/integrity.py` read from one host."""
Rule = Callable[[Reading, Known], Iterator[Discrepancy]]
UNIT_PLACES = (
    "/etc/systemd/system/",
    "/etc/systemd/user/",
    "/run/systemd/system/",
    "/run/systemd/transient/",
    "/run/systemd/system.control/",
)
NO_SHELLS = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false", "/bin/sync")
LINK_KINDS = ("veth", "vlan", "bond", "bond_slave", "bridge_slave", "")
"""Links of the kernel that a host of ours may have; cards have no kind."""
PEM = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
STRANGE_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.", "nsfs")
"""Of other machines, of somebody's programs, and networks of their own (`ip netns`), which no rule of ours reaches."""
KERNEL_ROUTES = ("kernel", "boot")
JOURNAL_WRONG = {"Storage": ("none",), "MaxLevelStore": ("emerg", "alert", "crit", "err", "warning", "0", "1", "2", "3", "4")}


def judge(reading: Reading, known: Known) -> tuple[dict[str, list[Discrepancy]], list[str]]:
    """All discrepancies of a host by kind, and apart what would be one if the site did not declare it, as `kind item`."""
    found: dict[str, list[Discrepancy]] = {kind: [] for kind in KINDS}
    declared = []
    for kind, rule in RULES.items():
        for each in rule(reading, known):
            if known.is_declared(kind, each.item):
                declared.append(f"{kind} {each.item}")
            else:
                found[kind].append(each)
    return found, declared


def _by_path(reading: Reading) -> dict[str, Mapping[str, Any]]:
    """Every file that was described, by path."""
    return {each["path"]: each for part in ("altered", "kept", "files") for each in reading[part]}


def own_files(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Text, owner, group and mode of all that the manifest names; files too many where a directory holds nothing else."""
    there = _by_path(reading)
    for path, entry in known.entries.items():
        found = there.get(path)
        if entry["state"] == "absent":
            if found:
                yield Discrepancy(path, "is there", "nothing there", APPLY)
            continue
        if found is None:
            if path.startswith(("/etc/", "/usr/", "/run/")):
                yield Discrepancy(path, "is gone", f"{entry['state']} of {entry['owner']}, {entry['mode']}", APPLY)
            continue
        if "link" in found or found.get("state") == "special" or (found.get("state") == "directory") != (entry["state"] == "directory"):
            kind = f"a link to {found['link']}" if "link" in found else found.get("state", "a file")
            yield Discrepancy(path, f"is {kind}", f"a {entry['state']}", f"rm -r {shlex.quote(path)}  # then: {APPLY}")
            continue
        wrong = [f"{key} {found[key]}" for key in ("owner", "group", "mode") if found[key] != entry[key]]
        right = ", ".join(f"{key} {entry[key]}" for key in ("owner", "group", "mode"))
        if wrong:
            yield Discrepancy(path, ", ".join(wrong), right, APPLY)
        if entry.get("sha256") and found.get("sha256") != entry["sha256"]:
            seen = f"another text (SHA-256 {found.get('sha256', '')[:16]}…)"
            yield Discrepancy(path, seen, f"what apply would write (SHA-256 {entry['sha256'][:16]}…)", APPLY)
        if found.get("capabilities"):
            yield Discrepancy(path, "has file capabilities", "none", _without_capabilities(path))


def packages(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Files of packages against their hashes, what dpkg remembers against other hosts, packages half installed or held."""
    for each in reading["altered"]:
        path, package = each["path"], each["package"].partition(":")[0]
        if path in known.entries:
            continue
        if each["what"] == "owner or mode":
            seen = f"{each['owner']}, mode {each['mode']}"
            yield Discrepancy(path, f"{seen} (of {package})", "root's, and nobody else may write it", _reinstall(package))
        elif each["what"] == "conffile":
            yield Discrepancy(path, f"another text than {package} has", "the package's text", _reinstall(package, settings=True))
        else:
            seen = f"another content than {package} has" if each["what"] == "content" else f"can't be read (of {package})"
            yield Discrepancy(path, seen, "the package's content", _reinstall(package))
    for path in reading["missing"]:
        if path not in known.entries:
            yield Discrepancy(
                path,
                "is gone",
                "a file of a package",
                _reinstall(f"$(dpkg -S {shlex.quote(path)} | cut -d: -f1)", settings=True),
            )
    yield from _databases(reading, known)


def _databases(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    for package, digest in reading["databases"].items():
        version = reading["packages"].get(package, ["?"])[0]
        common = known.databases.get(f"{package}={version}")
        if common and common != digest:
            remedy = _reinstall(package.partition(":")[0])
            yield Discrepancy(package, "dpkg remembers other files or hashes than on other hosts", "the same for one version", remedy)
    for line in reading["archives"]:
        yield Discrepancy(
            line.partition(": ")[0],
            line.partition(": ")[2],
            "signed archives alone",
            f"sed -i {shlex.quote(_line_away(line.partition(': ')[2]))} {line.partition(': ')[0]}",
        )
    for package, (version, state) in reading["packages"].items():
        wanted, _, present = state.partition(" ")
        if wanted == "hold":
            yield Discrepancy(package, f"is held at {version}, so no update comes", "no hold", f"apt-mark unhold {package}")
        if present not in {"installed", "config-files", "not-installed"}:
            yield Discrepancy(package, f"is {present}", "installed", "dpkg --configure -a")


def _reinstall(package: str, settings: bool = False) -> str:
    """Nobody but the operator knows whether the host can be trusted after that."""
    asked = "UCF_FORCE_CONFFNEW=1 " if settings else ""
    options = " -o Dpkg::Options::=--force-confask,confnew,confmiss" if settings else ""
    return f"{asked}apt-get install -y --reinstall{options} {package}  # nobody knows why it changed? rebuild the host"


def _without_capabilities(path: str) -> str:
    return f'python3 -c \'import os; os.removexattr("{path}", "security.capability")\''


def files(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Files nobody brought, and programs that run with others' rights."""
    judged_elsewhere = {each["path"] for each in reading["keys"]}
    templates = {each["path"]: each.get("sha256") for each in reading.get("templates", [])}
    for each in reading["files"]:
        path, state = each["path"], each.get("state", "")
        if state == "unread":
            yield Discrepancy(path, "holds more files than are looked through", "fewer", f"du --inodes -d 3 {path} | sort -n | tail")
            continue
        if each.get("capabilities") and not (each.get("package") and path in known.debian.capabilities):
            yield Discrepancy(path, "has file capabilities", "none", _without_capabilities(path))
        if each.get("package"):
            wanted = known.debian.programs_that_run_with_rights.get(path)
            if int(each["mode"], 8) & 0o6000 and each["mode"] != wanted:
                seen = f"mode {each['mode']}: it runs with the rights of {each['owner']}:{each['group']}"
                yield Discrepancy(path, seen, wanted or "no such right", f"chmod ug-s {shlex.quote(path)}")
            continue
        if path in known.entries or path in reading["tickets"] or path in judged_elsewhere or path.startswith("/run/systemd/transient/"):
            continue
        if path.startswith(UNIT_PLACES) and ("link" in each or state == "directory"):
            continue  # `units` judges these
        if state == "directory":
            if int(each["mode"], 8) & 0o1002 == 0o002:  # an empty one does nothing; what lies in it is looked at
                seen = f"a directory in which anybody may put what programs read ({each['mode']})"
                yield Discrepancy(path, seen, "nobody else may write it", f"chmod o-w {shlex.quote(path)}")
            continue
        made = known.debian.made(path)
        wrong = _wrong(each, made, templates) if made else "a file that nobody brought"
        if wrong:
            what = f"{wrong} ({each['owner']}:{each['group']}, {each['mode']}" + (f", to {each['link']})" if "link" in each else ")")
            yield Discrepancy(path, what, _wanted(made), _removal(path, made))


def _wrong(each: Mapping[str, Any], made: Made, templates: Mapping[str, str | None]) -> str:
    """What is wrong with a file that something on the host makes; empty: nothing."""
    if "link" in each:
        return "" if made.link and matches(each["link"], made.link) else f"does not point to {made.link}" if made.link else "a link"
    if made.link and not made.mode:
        return "is no link"
    digest = each.get("sha256")
    wrong = {
        f"belongs to {each['owner']}": made.owner and each["owner"] != made.owner,
        f"has more rights than {made.mode}": made.mode and int(each["mode"], 8) & ~int(made.mode, 8),
        f"is not empty ({each['size']} B)": made.empty and each["size"],
        f"differs from {made.like}": made.like and templates.get(made.like) not in {None, digest},
        f"is not what {made.made_by} writes": made.made_by and digest != policy_after_a_crash(),
    }
    return next((what for what, is_so in wrong.items() if is_so), "")


def _wanted(made: Made | None) -> str:
    if made is None:
        return "nothing there, or declared in lemonstand_expected"
    if made.like:
        return f"as {made.like}"
    return "empty" if made.empty else f"a link to {made.link}" if made.link else f"{made.owner or 'root'}'s, at most {made.mode}"


def _removal(path: str, made: Made | None) -> str:
    quoted = shlex.quote(path)
    if made is None:
        return f"rm {quoted}" + ("; systemctl daemon-reload" if "/systemd/" in path else "")
    if made.like:
        return f"cp {made.like} {quoted}"
    if made.made_by:
        return f"rm {quoted}  # then: {APPLY}"
    if made.empty:
        return f": >{quoted}"
    return f"rm {quoted}" if made.link else f"chown root: {quoted}; chmod {made.mode} {quoted}"


def _line_away(line: str) -> str:
    """The word for sed that removes one line."""
    return "\\|^[[:space:]]*" + re.sub(r"([\\.*^$|\[\]])", r"\\\1", line) + "|d"


def units(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """What starts by itself, what was started from nowhere, what of ours does not start, and what is barred."""
    debian = known.debian
    for each in reading["files"]:
        path = each["path"]
        if not path.startswith(UNIT_PLACES) or "link" not in each or each.get("package"):
            continue
        name, folder = path.rpartition("/")[2], path.rpartition("/")[0]
        if each["link"] == "/dev/null":
            if name not in debian.masked:
                yield Discrepancy(name, "is masked: it can't start", "not masked", f"systemctl unmask {name}")
            continue
        if name == "default.target":
            continue  # by what `systemctl get-default` says of it
        if (
            each["target"] in known.entries
            or each.get("recorded")
            or (each.get("target_package") and name in (*known.units, *debian.enabled))
        ):
            continue
        if folder.endswith((".wants", ".requires", ".upholds")):
            seen = f"starts with {folder.rpartition('/')[2].rpartition('.')[0]} ({each['target']})"
            yield Discrepancy(name, seen, "not enabled", f"systemctl disable --now {name}; rm -f {shlex.quote(path)}")
        else:
            yield Discrepancy(
                name, f"is another name for {each['target']}", "no such link", f"rm {shlex.quote(path)}; systemctl daemon-reload"
            )
    yield from _running_units(reading, known)
    for name, value in reading["environment"].items():
        seen = f"given to each service that starts: {value[:120]}"
        yield Discrepancy(name, seen, "not in systemd's environment", f"systemctl unset-environment {name}")
    yield from _own_units(reading, known)
    if (target := reading["enabled"].get("default.target")) not in {"graphical.target", "multi-user.target"}:
        yield Discrepancy("default.target", f"is {target}", "multi-user.target", "systemctl set-default multi-user.target")


def _own_units(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    runs = {unit.get("Id", ""): unit.get("ActiveState", "") for unit in reading["units"]}
    for name in known.units:
        if runs.get(name, "failed") == "failed":
            yield Discrepancy(name, "has failed" if name in runs else "is stopped", "at work", APPLY)
        state = reading["enabled"].get(name, "not there")
        if state not in {"enabled", "alias", "static", "indirect", "generated"}:
            yield Discrepancy(name, f"is {state}: it does not start when the host does", "enabled", APPLY)


def _running_units(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    for unit in reading["units"]:
        name, source = unit.get("Id", ""), unit.get("FragmentPath", "")
        if unit.get("Transient") == "yes" and not matches(name, *known.debian.transient):
            seen = f"runs, and was started by hand: {_command(unit)}"
            yield Discrepancy(name, seen, "no such unit", f"systemctl stop {name}")
        elif (
            name.endswith((".service", ".timer", ".path", ".socket"))
            and not source
            and not unit.get("SourcePath")
            and unit.get("Transient") != "yes"
        ):
            yield Discrepancy(name, "runs, and its file is gone", "a unit with its file", f"systemctl stop {name}")
        if name in known.units and unit.get("NeedDaemonReload") == "yes":
            yield Discrepancy(name, "its files changed since systemd read them", "read", f"systemctl daemon-reload; then {APPLY}")


def _command(unit: Mapping[str, str]) -> str:
    words = unit.get("ExecStart", "").partition("argv[]=")[2].partition(" ;")[0]
    return words[:120] or "no command is told"


def accounts(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Names, numbers, shells, passwords, groups, keys and PAM."""
    names = {*known.debian.accounts, *known.accounts, known.login}
    seen_numbers: dict[int, str] = {}
    for each in reading["accounts"]:
        name, number = each["name"], each["uid"]
        may_log_in = name in {"root", known.login}
        if name not in names:
            seen = f"number {number}, shell {each['shell']}, password {each['password']}"
            yield Discrepancy(name, seen, "no such account", _userdel(name))
        elif number == 0 and name != "root":
            yield Discrepancy(name, "is root by number", "a number of its own", _userdel(name))
        elif not may_log_in and each["shell"] not in NO_SHELLS:
            yield Discrepancy(name, f"may log in: {each['shell']}", "no shell", f"usermod -s /usr/sbin/nologin {name}")
        if number in seen_numbers:
            yield Discrepancy(name, f"has the number of {seen_numbers[number]}", "one of its own", _userdel(name))
        seen_numbers.setdefault(number, name)
        wanted = name == known.login and known.asked
        if each["password"] in {"none", "broken"} or (each["password"] == "set" and name in names and not wanted):  # noqa: S105
            word = {"none": "needs no password", "broken": "a line that no program understands"}.get(each["password"], "has a password")
            yield Discrepancy(name, word, "no password that opens it", f"usermod -p '!' {shlex.quote(name)}")
    for group, members in reading["groups"].items():
        for member in members:
            if not (member == known.login and group in known.debian.login_groups) and member != group:
                yield Discrepancy(f"{member} in {group}", f"{member} is a member of {group}", "no member", f"gpasswd -d {member} {group}")
    yield from _ways_in(reading, known)


def _ways_in(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    # One file may open all accounts there are: then which of them have a shell is what counts.
    shared = {key["path"] for key in reading["keys"] if key["user"] == known.login}
    for key in reading["keys"]:
        if key["fingerprint"] in known.keys and key["path"] in shared:
            continue
        if key["fingerprint"] not in known.keys or key["user"] not in {"root", known.login}:
            seen = f"{key['type']} {key['fingerprint']} {key['options']}".strip()
            path = shlex.quote(key["path"])
            remedy = f"sed -i {shlex.quote(_line_with(key['tail']))} {path}; test -s {path} || rm {path}"
            what = f"opens {key['user']} ({key['path']}): {seen}"
            yield Discrepancy(f"{key['user']} {key['fingerprint']}", what, "keys of the controller alone", remedy)
    for line in reading["pam"]:
        yield Discrepancy(
            line.partition(":")[0],
            line,
            "lines of the profiles of packages",
            f"sed -i {shlex.quote(_line_away(line.partition(': ')[2]))} {line.partition(': ')[0]}",
        )


def _line_with(text: str) -> str:
    """The word for sed that removes the lines in which a text stands."""
    return f"\\|{text}|d"


def _userdel(name: str) -> str:
    """Out of the two files: userdel spares accounts whose number somebody's processes have."""
    return f"sed -i {shlex.quote(_line_away(name + ':').replace(':|d', ':.*|d'))} /etc/passwd /etc/shadow"


def keys(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Ticket keys against those of the issuers; CAs of the system against their packages."""
    known_public = {_squeezed(each) for each in known.tickets}
    described = _by_path(reading)
    owned = {_squeezed(each["private"]) for each in reading["tickets"].values() if "private" in each}
    for path, each in reading["tickets"].items():
        if "private" in each and (described[path]["mode"], described[path]["owner"]) != ("0600", "root"):
            seen = f"a private key with mode {described[path]['mode']}, of {described[path]['owner']}"
            yield Discrepancy(path, seen, "0600, root", f"chown root: {path}; chmod 0600 {path}")
        if "link" in each:
            if path.rpartition("/")[2] not in {"active.pem", "next.pem"} or "/" in each["link"]:
                yield Discrepancy(path, f"a link to {each['link']}", "no such link", f"rm {shlex.quote(path)}")
        elif path.startswith("/etc/lemonstand/ticket-keys/"):
            if "private" in each or _squeezed(each.get("public", "")) not in known_public:
                what = "a private key" if "private" in each else "a key that no issuer of the site has"
                yield Discrepancy(path, what, "the public keys of the site's issuers", f"rm {shlex.quote(path)}  # then: {APPLY}")
        elif "public" in each and _squeezed(each["public"]) not in owned:
            yield Discrepancy(path, "a public key without its private half here", "pairs", f"rm {shlex.quote(path)}  # then: {APPLY}")
    yield from _certificates(reading, known)
    for digest in reading["trusted"]:
        yield Discrepancy(f"CA {digest[:16]}", f"the system trusts a CA that no package brought (SHA-256 {digest[:16]}…)",
                      "CAs of the package ca-certificates alone",
                      "rm -f /usr/local/share/ca-certificates/*.crt; update-ca-certificates --fresh")  # fmt: skip


def _certificates(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Certificates against the site's CAs, and the CAs that services trust against those the controller has."""
    own = {_squeezed(each) for text in known.authorities for each in PEM.findall(text)}
    signers = [Certificate("", text) for text in known.authorities]
    elsewhere = known.site.settings.public_certificate.source != "private_ca"
    for path, text in reading["certificates"].items():
        name = path.rpartition("/")[2].removesuffix(".crt")
        remedy = f"rm {shlex.quote(path)}  # then: {APPLY}"
        found = PEM.findall(text)
        if name.startswith("ca-"):
            strange = [each for each in found if _squeezed(each) not in own]
            if strange or not found:
                seen = f"{len(strange)} of {len(found)} certificates in it are of no CA of the site"
                yield Discrepancy(path, seen, "the site's CAs alone", remedy)
        elif not (elsewhere and name == "public"):
            try:
                certificate = Certificate(name, text)
            except ValueError:
                yield Discrepancy(path, "is no certificate", "a certificate of the site", remedy)
                continue
            if not any(certificate.signed_by(each) for each in signers):
                yield Discrepancy(path, f"no CA of the site signed it ({certificate.sha256[:16]}…)", "the site's own", remedy)


def _squeezed(pem: str) -> str:
    return "".join(pem.split())


def sockets(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Every listening, raw and packet socket belongs to a unit of the site or of Debian that is meant to have it."""
    owners = {each["program"]: each["package"] for each in reading["processes"]}
    for each in reading["sockets"]:
        unit, place = each["unit"], f"{each['protocol']} {each['address']}:{each['port']}"
        word = each["protocol"] if each["protocol"] == "packet" else f"{each['protocol']}/{each['port']}"
        allowed = next((known.debian.listening[name] for name in known.debian.listening if fnmatch.fnmatch(unit, name)), None)
        strange = [program for program in each["programs"] if not owners.get(program, "?")]
        who = ", ".join(each["programs"]) or unit or "nobody that can be told"
        if each["protocol"] in {"tcp", "udp"} and unit in known.units and not strange:
            continue
        if allowed is not None and (word in allowed or each["protocol"] in allowed) and not strange:
            continue
        yield Discrepancy(
            place,
            f"held by {who}" + (f" of {unit}" if unit else ""),
            "no such socket",
            f"systemctl stop {unit}" if unit else f"kill {' '.join(map(str, each['pids']))}",
        )


def filters(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Tables beside ours, old tables of iptables, and what decides about packets before and after them."""
    declared_tables = set(known.site.hosts[known.host].settings.foreign_tables)
    for each in reading["tables"]:
        name = f"{each['family']} {each['name']}"
        if name in known.tables or name in declared_tables or name.startswith(("inet lemonstand_probe", "netdev lemonstand_probe")):
            continue
        yield Discrepancy(name, "a table that is not ours", "none, or declared in lemonstand_foreign_tables", f"nft delete table {name}")
    for line in reading["traffic"]:
        yield Discrepancy(
            line,
            "looks at packets beside the packet filter",
            "nothing",
            _off_the_card(line),
        )


def _off_the_card(line: str) -> str:
    """Ends what looks at packets: a line of `tc qdisc show`, or `xdp at DEVICE`."""
    words = line.split()
    if words[0] == "xdp":
        return f"ip link set dev {words[-1]} xdp off"
    return f"tc qdisc del dev {words[words.index('dev') + 1]} {words[1]}"


def routes(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Rules, routes, links, addresses and neighbours."""
    found = reading["routes"]
    for version, rules in found["rules"].items():
        for rule in rules or []:
            mark = rule.get("priority")
            if version == "6" and mark in known.handed_on and (rule.get("fwmark"), rule.get("table")) == (hex(mark), str(mark)):
                continue
            if (rule.get("priority"), rule.get("table")) not in {(0, "local"), (32766, "main"), (32767, "default")} or rule.get(
                "src"
            ) != "all":
                text = " ".join(f"{key} {value}" for key, value in rule.items())
                remedy = f"ip -{version} rule del priority {rule.get('priority')}"
                yield Discrepancy(f"rule {rule.get('priority')} IPv{version}", text, "the kernel's own rules", remedy)
    for version, listed in found["routes"].items():
        for route in listed or []:
            if (route.get("protocol") in KERNEL_ROUTES and (route.get("table") in {None, "local"})) or (
                route.get("dev") == "lo" and not route.get("gateway")
            ):
                continue
            yield from _route(version, route, known)
    yield from _links(reading, known)
    for each in found["neighbours"]:
        item = f"neighbour {each['dst']}"
        remedy = f"ip neigh del {each['dst']} dev {each.get('dev')}"
        yield Discrepancy(item, f"written down as {each.get('lladdr')}", "asked for", remedy)
    if not found["xfrm"].endswith(" 0") and found["xfrm"]:
        yield Discrepancy("IPsec", found["xfrm"], "none", "ip xfrm state flush; ip xfrm policy flush")


def _links(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    found = reading["routes"]
    for link in found["links"] or []:
        name, kind = link["ifname"], link.get("linkinfo", {}).get("info_kind", "")
        if name in known.debian.links_of_the_kernel and "UP" not in link["flags"]:
            continue
        if kind not in LINK_KINDS:
            yield Discrepancy(f"link {name}", f"a link of kind {kind}", "cards alone", f"ip link del {name}")
        if "PROMISC" in link["flags"] or link.get("promiscuity"):
            yield Discrepancy(f"link {name}", "hears what is meant for others", "not promiscuous", f"ip link set dev {name} promisc off")
    for link in found["addresses"] or []:
        for address in link.get("addr_info", []):
            own = address.get("scope") == "host" or address.get("scope") == "link" or address["local"] in known.addresses
            if not own:
                item = f"address {address['local']}"
                yield Discrepancy(item, f"on {link['ifname']}, in no inventory", "the inventory's addresses",
                              f"ip addr del {address['local']}/{address.get('prefixlen')} dev {link['ifname']}")  # fmt: skip


def _route(version: str, route: Mapping[str, Any], known: Known) -> Iterator[Discrepancy]:
    target, gateway, table = route.get("dst", ""), route.get("gateway", ""), route.get("table", "main")
    text = f"{target} via {gateway or 'nobody'} dev {route.get('dev', '-')} table {table}" + (
        f" ({route['type']})" if "type" in route else ""
    )
    remedy = f"ip -{version} route del {target}" + (f" via {gateway}" if gateway else "") + (f" table {table}" if table != "main" else "")
    if table == "local" or route.get("type") in {"multicast", "anycast", "local", "broadcast"}:
        if not (route.get("type") in {"local", "anycast", "multicast", "broadcast"} or route.get("protocol") in KERNEL_ROUTES) or (
            route.get("type") == "local" and route.get("protocol") not in (*KERNEL_ROUTES, None)
        ):
            yield Discrepancy(f"route {target}", text, "the kernel's own", remedy)
        return
    if version == "6" and target == "default" and gateway and known.handed_on.get(int(table) if table.isdigit() else 0) == gateway:
        return
    zones = {str(net) for zone in known.site.settings.zones.values() for net in zone.networks}
    towards_site = target in zones
    if route.get("protocol") == "ra":
        yield Discrepancy(f"route {target}", f"{text}, as a router on the link said", "routes somebody decided on", remedy)
    elif (known.is_router and target == "default") or (gateway in known.gateways and (target == "default" or towards_site)):
        return
    elif not known.gateways and gateway and (target == "default" or towards_site):
        return  # the site's border is an appliance, whose addresses no inventory names
    elif str(target).startswith("fe80:") or (not gateway and towards_site and not route.get("type")):
        return
    else:
        yield Discrepancy(f"route {target}", text, "the default route to the edge", remedy)


MACHINE_WIDE = {"net.netfilter.nf_conntrack_buckets", "net.netfilter.nf_conntrack_max"}
"""Settings of the role that are the whole machine's: in a container, whoever shares the machine may have set them last."""


def kernel(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Each setting that the role writes, in force as written; others that make a host do more, for each interface; foreign modules."""
    values, skipped = reading["sysctl"], set(reading["sysctl_skipped"])
    wanted = _wanted_settings(known.texts.get("/etc/sysctl.d/60-lemonstand.conf", ""), values)
    if reading["container"] != "none":
        skipped |= MACHINE_WIDE
    for name, value in wanted.items():
        if name not in skipped and values[name] != value:
            yield Discrepancy(name, values[name], value, APPLY)
    router = known.is_router
    for rule in known.debian.kernel:
        if rule.machine and reading["container"] != "none":
            continue
        right = rule.router if router and rule.router else rule.values
        for name in fnmatch.filter(values, rule.name):
            if name not in wanted and not matches(values[name], *right) and ".lo." not in name:
                yield Discrepancy(name, values[name], " or ".join(right), f"sysctl -w {name}={right[0]}")
    for module, flags in reading["modules"].items():
        yield Discrepancy(
            f"module {module}", f"from outside the kernel's tree {flags}", "modules of the kernel's package", f"rmmod {module}"
        )


def _wanted_settings(text: str, names: Iterable[str]) -> dict[str, str]:
    """What a file of sysctl.d(5) says of each of these settings: `*` is every interface, a name that is written out goes before it."""
    said: dict[str, str] = {}
    for line in text.splitlines():
        key, mark, value = (word.strip() for word in line.partition("="))
        if mark and not key.startswith(("#", ";")):
            said[key.removeprefix("-").replace("/", ".")] = " ".join(value.split())
    patterns = {key: value for key, value in said.items() if "*" in key}
    spread = {name: value for key, value in patterns.items() for name in fnmatch.filter(names, key)}
    return spread | {key: value for key, value in said.items() if key in set(names)}


def mounts(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """What is mounted over files that were compared: then the comparison saw the wrong ones, or services do."""
    for each in reading["mounts"]:
        target, source, kind = each["target"], each["source"], each["type"]
        if matches(target, *known.debian.mounts) and not kind.startswith(STRANGE_FILE_SYSTEMS):
            continue
        seen = f"{kind} of {source}" + (f" ({each['root']})" if each["root"] != "/" else "")
        yield Discrepancy(target, seen, "no such mount", f"umount {shlex.quote(target)}")


def processes(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Programs that no package brought, libraries slipped in, and what a login session left behind."""
    for each in reading["processes"]:
        program, item = each["program"], f"{each['program']} {each['command'][:60]}".strip()
        gone = program.endswith(" (deleted)")
        if not each["package"] and program not in known.entries:
            seen = f"no package brought {program}" + (", and it was removed since" if gone else "")
            yield Discrepancy(
                item,
                f"{seen} (unit {_unit(each)}, user {each['user']})",
                "programs of packages",
                f"kill {each['pid']}; rm -f {shlex.quote(program.removesuffix(' (deleted)'))}",
            )
        if each["preload"]:
            yield Discrepancy(item, f"{each['preload']} (unit {_unit(each)})", "nothing slipped in", f"systemctl restart {_unit(each)}")
        for library in each["odd"]:
            if library.endswith(" (deleted)"):
                continue  # replaced by an update: what still runs on the old one is told with the host's versions
            yield Discrepancy(
                item,
                f"runs code of {library}, which no package brought",
                "code of packages",
                f"rm {shlex.quote(library)}; systemctl restart {_unit(each)}",
            )
        if each.get("orphan"):
            seen = f"left behind by a login session ({each['user']})"
            yield Discrepancy(item, seen, "nothing outlives its session", f"kill {each['pid']}")


def _unit(process: Mapping[str, Any]) -> str:
    return str(process["unit"]).rpartition("/")[2] or "none"


def copies(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Secrets, mail and programs with others' rights where data lies."""
    for each in reading["loose"]:
        path, mode = each["path"], int(each["mode"], 8)
        allowed = next((made for made in known.debian.exposed if matches(path, made.path)), None)
        if allowed and not mode & ~int(allowed.mode, 8) and not mode & 0o6000:
            continue
        seen = f"{each['why']} ({each['owner']}:{each['group']}, {each['mode']})"
        yield Discrepancy(
            path,
            seen,
            "nothing there that others can read or run",
            f"rm {shlex.quote(path)}  # or where it belongs there: chmod ug-s,go=",
        )


def logs(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """The journal keeps what services say, and none of ours was told to be silent."""
    settings: dict[str, str] = {}
    for line in reading["journal"]["settings"].splitlines():
        name, mark, value = line.partition("=")
        if mark and not name.startswith(("#", ";")):
            settings[name.strip()] = value.strip()
    for name, wrong in JOURNAL_WRONG.items():
        if settings.get(name) in wrong:
            yield Discrepancy(
                name,
                f"journald: {name}={settings[name]}",
                "what services say is kept",
                f"{_out_of_settings(f'{name}={settings[name]}')}; systemctl restart systemd-journald",
            )
    for unit in reading["units"]:
        if unit.get("LogLevelMax", "-1") not in {"-1", "7", "6", ""}:
            name = unit.get("Id", "")
            yield Discrepancy(
                name,
                f"is silenced above level {unit['LogLevelMax']}",
                "all it says is kept",
                f"{_out_of_settings('LogLevelMax=')}; systemctl daemon-reload",
            )
    if (level := reading["journal"]["level"]) not in {"info", "debug", ""}:
        yield Discrepancy("systemd", f"tells no more than {level}", "info", "systemctl log-level info")
    names = {unit.get("Id"): unit.get("ActiveState") for unit in reading["units"]}
    if names.get("systemd-journald.service") not in {"active", "reloading"}:
        yield Discrepancy("systemd-journald.service", "does not run", "running", "systemctl start systemd-journald")


def _out_of_settings(line: str) -> str:
    """Takes a line out of all settings of systemd that somebody wrote."""
    quoted = shlex.quote(f"^{line}")
    return f"grep -rl {quoted} /etc/systemd /run/systemd --include='*.conf' | xargs -r sed -i {shlex.quote(f'/^{line}/d')}"


def clock(reading: Reading, known: Known) -> Iterator[Discrepancy]:
    """Whom the clock asks."""
    wanted = known.time_servers
    if not wanted or reading["time"] is None:
        return
    asked = {line.split(",")[2] for line in reading["time"].splitlines() if line.count(",") > 3}
    for name in sorted(asked - wanted):
        yield Discrepancy(name, f"chrony asks {name}", ", ".join(sorted(wanted)), f"chronyc delete {name}")
    for name in sorted(wanted - asked) if asked else []:
        if not any(line.startswith("pool") for line in known.texts.get("/etc/chrony/chrony.conf", "").splitlines()):
            yield Discrepancy(name, f"chrony does not ask {name}", ", ".join(sorted(wanted)), "systemctl restart chrony")


RULES: dict[str, Rule] = {
    "own-files": own_files,
    "packages": packages,
    "files": files,
    "units": units,
    "accounts": accounts,
    "keys": keys,
    "sockets": sockets,
    "filters": filters,
    "routes": routes,
    "kernel": kernel,
    "mounts": mounts,
    "processes": processes,
    "copies": copies,
    "logs": logs,
    "clock": clock,
}
