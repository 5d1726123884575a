"""Files of a host that need an explanation: no package brought them, or they are not as the package had them.

A file that a package brought and that is as the package has it needs no word. Texts of secrets stay on the host.
"""

# Thousands of files are looked at: os is three times as fast as pathlib.
# ruff: noqa: PTH112, PTH114, PTH115, PTH116, PTH123

from __future__ import annotations

import base64
import fnmatch
import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lemonstand.probes.hosts.shared import HASH, KEY, below, command, group_name, owner_name, text

PLACES = (
    "/etc", "/usr", "/opt", "/root", "/home", "/boot", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/var/spool/cron",
    "/var/lib/systemd/linger",
    "/run/systemd/system", "/run/systemd/transient", "/run/systemd/system.control", "/run/systemd/journald.conf.d", "/run/systemd/network",
    "/run/sysctl.d", "/run/modprobe.d", "/run/modules-load.d", "/run/tmpfiles.d", "/run/udev/rules.d", "/run/lemonstand",
)  # fmt: skip
"""Where programs, units and settings are read from."""
CHOSEN = ("/etc/alternatives/", "/etc/ssl/certs/", "/etc/rc")
"""Where maintainer scripts put links to what packages brought: such a link needs no word."""
LITTERED = ("/var", "/var/tmp", "/tmp", "/dev/shm", "/run", "/srv")  # noqa: S108
"""Where copies are put and setuid programs are hidden: looked through for those alone."""
MOST_OCTETS = 64 * 2**20
"""Of a file that is hashed."""
MOST_FILES = 400_000
SECRET_OCTETS = 2**20
DPKG = Path("/var/lib/dpkg")
MAIL = re.compile(rb"\A(?:From [^\n]+\n|(?:Return-Path|Received|Delivered-To): [^\n]+\n)")


def canonical(path: str) -> str:
    """A path below /usr for those that were there before /usr was one."""
    first, _, rest = path[1:].partition("/")
    return f"/usr/{first}/{rest}" if rest and first in {"bin", "sbin", "lib", "lib32", "lib64", "libx32"} else path


class Packages:
    """What dpkg knows of files: who brought them and what they held.

    `altered` fills while files are compared.
    """

    def __init__(self) -> None:
        self.owner: dict[str, str] = {}
        self.sums: dict[str, str] = {}
        self.altered: list[dict[str, Any]] = []
        self.kept: list[dict[str, Any]] = []
        self._seen: set[str] = set()
        self.overrides = {line.split()[3] for line in text(DPKG / "statoverride").splitlines() if len(line.split()) == 4}
        diverted = text(DPKG / "diversions").splitlines()
        self.diverted = {canonical(diverted[i]): canonical(diverted[i + 1]) for i in range(0, len(diverted) - 2, 3)}
        for path in sorted((DPKG / "info").glob("*.list")):
            for line in text(path).splitlines():
                self.owner.setdefault(self._where(line, path.stem), path.stem)
        for path in sorted((DPKG / "info").glob("*.md5sums")):
            for line in text(path).splitlines():
                digest, _, name = line.partition("  ")
                self.sums[self._where(f"/{name}", path.stem)] = digest
        self.conffiles: dict[str, str] = {}
        for block in text(DPKG / "status").split("\n\n"):
            _, _, rest = block.partition("\nConffiles:\n")
            for line in rest.splitlines():
                if not line.startswith(" "):
                    break
                words = line.split()
                if "obsolete" not in words and "remove-on-upgrade" not in words:
                    self.conffiles[canonical(words[0])] = words[1]
        # Maintainer scripts that ask before they replace a file (ucf) note what the package had.
        registered = [line.split(None, 1) for line in text("/var/lib/ucf/hashfile").splitlines() if " " in line]
        asked = {canonical(path.strip()): digest for digest, path in registered}
        owners = dict(line.split(None, 1)[::-1] for line in text("/var/lib/ucf/registry").splitlines() if " " in line)
        for name in asked:
            self.owner.setdefault(name, owners.get(name, "ucf").strip())
        self.conffiles |= asked
        self.sums |= self.conffiles
        lines = [line for path in [*Path("/etc/dpkg/dpkg.cfg.d").glob("*"), Path("/etc/dpkg/dpkg.cfg")] for line in text(path).splitlines()]
        self._excluded = [line.partition("=")[2].strip() for line in lines if line.startswith("path-exclude")]

    def _where(self, path: str, package: str) -> str:
        """Where a package's file lies: as it says, or diverted by another package."""
        found = canonical(path)
        other = self.diverted.get(found)
        return other if other and self.owner.get(found, package) != package else found

    def holds(self, path: str, info: os.stat_result) -> bool:
        """Whether a package brought it; what is no longer as the package had it is remembered."""
        if path not in self.owner:
            return False
        self._seen.add(path)
        wanted = self.sums.get(path)
        if wanted is None or not stat.S_ISREG(info.st_mode) or info.st_size > MOST_OCTETS:
            if stat.S_ISREG(info.st_mode) and info.st_mode & 0o022:
                self._note(path, info, "owner or mode")
            return True
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with open(path, "rb") as stream:
                while piece := stream.read(2**20):
                    digest.update(piece)
        except OSError:
            self._note(path, info, "unreadable")
            return True
        if path in self.conffiles:
            self.kept.append({**described(path, info), "package": self.owner[path]})
        if digest.hexdigest() != wanted:
            self._note(path, info, "conffile" if path in self.conffiles else "content")
        elif (info.st_mode & 0o022 or info.st_uid != 0) and not path.startswith("/var/") and path not in self.overrides:
            self._note(path, info, "owner or mode")
        return True

    def _note(self, path: str, info: os.stat_result, what: str) -> None:
        self.altered.append({**described(path, info), "package": self.owner[path], "what": what})

    def missing(self) -> list[str]:
        """Files packages brought and nobody has any more, below the places that were looked at."""
        gone = []
        for path in self.sums:
            if path not in self._seen and path.startswith(PLACES) and not os.path.lexists(path) and not self._is_excluded(path):
                gone.append(path)
        return sorted(gone)

    def _is_excluded(self, path: str) -> bool:
        return path.startswith(
            ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/", "/usr/share/lintian/")
        ) or any(fnmatch.fnmatch(path, pattern) for pattern in self._excluded)

    def databases(self) -> dict[str, str]:
        """What dpkg remembers of each package, hashed: the same version of a package has the same everywhere. {package: hash}."""
        found = {}
        for path in sorted((DPKG / "info").glob("*.md5sums")):
            lists = path.read_bytes() + path.with_suffix(".list").read_bytes()
            found[path.stem] = hashlib.sha256(lists).hexdigest()[:32]
        return found


def described(path: str, info: os.stat_result) -> dict[str, Any]:
    """A file as the controller wants it."""
    found: dict[str, Any] = {
        "path": path,
        "owner": owner_name(info.st_uid),
        "group": group_name(info.st_gid),
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
        "size": info.st_size,
    }
    if stat.S_ISLNK(info.st_mode):
        found["link"] = os.readlink(path)
    elif stat.S_ISREG(info.st_mode):
        found["sha256"] = _sha256(path) if info.st_size <= MOST_OCTETS else ""
    elif stat.S_ISDIR(info.st_mode):
        found["state"] = "directory"
    else:
        found["state"] = "special"
    if caps := _capabilities(path):
        found["capabilities"] = caps
    return found


def _sha256(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def _capabilities(path: str) -> str:
    """What a program may do whoever runs it, as the file system has it (xattr security.capability)."""
    try:
        return base64.b64encode(os.getxattr(path, "security.capability", follow_symlinks=False)).decode()
    except OSError:
        return ""


def unexplained(packages: Packages) -> Iterator[dict[str, Any]]:
    """Files no package brought. Directories no package brought as well, since an empty one can switch something on."""
    left = MOST_FILES
    mail = _mail_locations()
    if mail:
        yield described(mail[0].rstrip("/"), os.lstat(mail[0].rstrip("/")))
    for place in PLACES:
        if os.path.islink(place):
            continue
        for path, entry in below(place):
            left -= 1
            if left < 0:
                yield {"path": place, "state": "unread"}
                return
            if path.startswith(mail):
                continue
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if (found := _unexplained(path, info, packages)) is not None:
                yield found


def _unexplained(path: str, info: os.stat_result, packages: Packages) -> dict[str, Any] | None:
    """One file, if it needs an explanation."""
    is_file = stat.S_ISREG(info.st_mode)
    if packages.holds(path, info):
        if is_file and (info.st_mode & (stat.S_ISUID | stat.S_ISGID) or (info.st_mode & 0o111 and _capabilities(path))):
            return {**described(path, info), "package": packages.owner[path]}
        if stat.S_ISDIR(info.st_mode) and path.startswith("/etc/"):
            packages.kept.append(described(path, info))  # a role may name it as well
        return None
    if path.endswith("/__pycache__") or ("/__pycache__/" in path and _is_cache(path, packages)):
        return None
    found = described(path, info)
    if "link" in found:
        found["target"] = os.path.realpath(path)
        found["target_package"] = packages.owner.get(canonical(found["target"]), "")
        if found["target_package"] and (path.startswith(CHOSEN) or found["link"].startswith(CHOSEN[0])):
            return None
        if "/systemd/" in path:
            found["recorded"] = _is_recorded(path)
    return found


def _is_cache(path: str, packages: Packages) -> bool:
    """Whether it is what Python keeps of a package's module: of that file, with its time and size (PEP 552), by no number of days."""
    folder, _, name = path.rpartition("/__pycache__/")
    source = f"{folder}/{name.partition('.')[0]}.py"
    if canonical(source) not in packages.owner and not source.startswith("/usr/local/lib/lemonstand/"):
        return False
    try:
        with open(path, "rb") as stream:
            head = stream.read(16)
        info = os.stat(source)
    except OSError:
        return False
    flags, written, size = struct.unpack("<4xIII", head)
    # Debian's have time and size. One with a hash in their place may be run without a look at the source.
    return not flags and written == int(info.st_mtime) & 0xFFFFFFFF and size == info.st_size & 0xFFFFFFFF


def _is_recorded(path: str) -> bool:
    """Whether a maintainer script enabled the unit, by what Debian's helper wrote down."""
    whose, _, rest = path.partition("/systemd/")[2].partition("/")
    helper = "deb-systemd-user-helper-enabled" if whose == "user" else "deb-systemd-helper-enabled"
    return Path("/var/lib/systemd", helper, rest).exists()


@cache
def _mail_locations() -> tuple[str, ...]:
    """Where mailboxes are: too many files, and no program reads them."""
    home = command("doveconf", "-h", "mail_home") or ""
    first = home.strip().partition("%")[0].rstrip("/")
    return (f"{first}/",) if first.count("/") > 1 else ()


def loose() -> Iterator[dict[str, Any]]:
    """Setuid and setgid programs, devices and file capabilities where no program should be; and secrets and mail that others can read."""
    mail = _mail_locations()
    seen = 0
    devices: dict[int, str] = {}
    for place in LITTERED:
        device = os.lstat(place).st_dev if os.path.isdir(place) and not os.path.islink(place) else None
        if device is None or place.startswith(f"{devices.setdefault(device, place)}/"):
            continue  # looked through with the place above it
        for path, entry in below(place, device):
            seen += 1
            if seen > MOST_FILES:
                return
            if path.startswith((*mail, "/var/lib/dpkg/", "/var/lib/apt/", "/var/cache/", "/run/systemd/", "/run/udev/")):
                continue
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if not stat.S_ISREG(info.st_mode):
                if stat.S_ISBLK(info.st_mode) or (stat.S_ISCHR(info.st_mode) and info.st_rdev):
                    yield {**described(path, info), "why": "a device"}
                continue
            if info.st_mode & (stat.S_ISUID | stat.S_ISGID) or _capabilities(path):
                yield {**described(path, info), "why": "runs with others' rights"}
            elif 0 < info.st_size <= 64 * SECRET_OCTETS and (why := _exposed(path, info)):
                yield {**described(path, info), "why": why}


def _exposed(path: str, info: os.stat_result) -> str:
    """What a file holds that nobody beside its service should read; empty where it is nothing, or nobody can."""
    outside = not path.startswith(("/var/lib/", "/var/spool/", "/srv/", "/var/log/"))
    if not info.st_mode & 0o044 and not outside:
        return ""
    try:
        with open(path, "rb") as stream:
            head = stream.read(SECRET_OCTETS)
    except OSError:
        return ""
    is_directory = head[16:24] == b"\xde\xc0\xef\xbe\x01\0\0\0" or (b"\ndn: " in head[:65536] and b"userPassword" in head)
    is_mail = MAIL.match(head) and b"\nSubject:" in head[:16384] and not path.startswith("/var/spool/postfix/")
    holds = {
        "a private key": KEY.search(head),
        "a copy of a directory": is_directory,
        "password hashes": HASH.search(head),
        "mail": is_mail,
    }
    return next((what for what, found in holds.items() if found), "")
