"""The base image and the package cache: both filled by one mmdebstrap run, cached by the content of what was asked for.

The image holds the base system only. The packages that roles install come from a directory of .deb files the hosts see read-only,
so a rebuilt lab downloads nothing; those of the base system lie there too, for who has to install one anew. Versions are compared with
the lock (`packages.lock`) and every difference is named.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from lemonstand.errors import LemonstandError
from lemonstand.lab.shell import run
from lemonstand.paths import cache_dir, data_dir

SUITE = "trixie"
BASE_PACKAGES = ("ca-certificates", "dbus", "iproute2", "openssh-server", "procps", "python3", "python3-apt", "systemd-sysv", "tzdata")
DRIVERS_PACKAGES = ("sudo",)
"""What the driver itself installs, on hosts whose inventory has the controller come as another than root."""
SEED_MOUNT = "/etc/lemonstand-lab"
PACKAGE_MOUNT = "/srv/lemonstand-packages"
LOCK = Path(__file__).with_name("packages.lock")

_SSHD = f"""# The lab's controller logs in with the lab's key; the host key is this lab's own.
HostKey {SEED_MOUNT}/ssh_host_ed25519_key
AuthorizedKeysFile {SEED_MOUNT}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
MaxStartups 100:30:200
MaxSessions 100
"""
_SOURCES = f"deb [trusted=yes] file:{PACKAGE_MOUNT} ./\n"

_BUILD = f"""set -eu
root="$1"
mkdir -p "$root{SEED_MOUNT}" "$root{PACKAGE_MOUNT}" "$root/etc/ssh/sshd_config.d"
# Services start when a role says so, never because a package was unpacked (the first start would run the stock configuration).
printf '#!/bin/sh\\nexit 101\\n' > "$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
# A lab is made again, never repaired: packages needn't wait for the disk, and nobody reads manuals there.
printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/doc/*' > "$root/etc/dpkg/dpkg.cfg.d/lemonstand-lab"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id"
: > "$root/etc/machine-id"
cp "$LEMONSTAND_WORK/sshd.conf" "$root/etc/ssh/sshd_config.d/lemonstand-lab.conf"
chroot "$root" dpkg-query -W -f '${{Package}} ${{Version}}\\n' > "$LEMONSTAND_WORK/base.list"
rm -f "$root"/var/cache/apt/archives/*.deb
chroot "$root" apt-get -q -y --no-install-recommends -o APT::Keep-Downloaded-Packages=true --download-only install $LEMONSTAND_PACKAGES
cut -d ' ' -f 1 "$LEMONSTAND_WORK/base.list" |
  chroot "$root" sh -c "cd /var/cache/apt/archives && xargs apt-get -q -o APT::Sandbox::User=root download"
mkdir -p "$LEMONSTAND_WORK/packages"
cp "$root"/var/cache/apt/archives/*.deb "$LEMONSTAND_WORK/packages/"
rm -f "$root"/var/cache/apt/archives/*.deb
# No resolver but the one a role writes: the machine's own is out of reach, and who asks for it waits a minute (Postfix' installation does).
rm -f "$root/etc/resolv.conf"
: > "$root/etc/resolv.conf"
cp "$LEMONSTAND_WORK/sources.list" "$root/etc/apt/sources.list"
rm -rf "$root"/etc/apt/sources.list.d/*
for unit in systemd-networkd systemd-resolved systemd-timesyncd apt-daily.timer apt-daily-upgrade.timer \\
  getty@tty1 console-getty e2scrub_all.timer; do
  chroot "$root" systemctl mask "$unit" >/dev/null 2>&1 || true
done
"""


@dataclass(frozen=True)
class Base:
    """A usable image and the directory of packages that belongs to it."""

    image: str
    packages: Path
    drift: list[str]
    built: bool


def wanted_packages() -> list[str]:
    """The Debian packages the driver and all roles ask for: `__ROLE_packages` and `__ROLE_…_packages` in their `vars/main.yml` name them.

    Raises:
        LemonstandError: a role names packages by a template, which could not be known before a run.
    """
    wanted: set[str] = set(DRIVERS_PACKAGES)
    for path in sorted(data_dir("roles").glob("*/vars/main.yml")):
        role = path.parents[1].name
        # A text is a template that chooses among the role's other lists.
        said = yaml.safe_load(path.read_text(encoding="utf-8")).items()
        lists = {key: names for key, names in said if key.endswith("_packages") and isinstance(names, list)}
        for name in (name for key, names in lists.items() if key.startswith(f"__{role}_") for name in names):
            if "{" in name:
                raise LemonstandError(f"the package '{name}' is not known before a run", str(path), "write package names as they are")
            wanted.add(name)
    return sorted(wanted)


def content_key() -> str:
    """A digest of all that goes into the image and the package cache."""
    text = "\n".join([SUITE, *BASE_PACKAGES, "--", *wanted_packages(), _BUILD, _SSHD, _SOURCES])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prepare(say: Callable[[str], None], log: Path) -> Base:
    """Makes sure the image and the packages are there.

    Args:
        say: told what is going on, a line at a time.
        log: file for the output of the tools.

    Raises:
        LemonstandError: the archive can't be reached, or a tool failed.
    """
    key = content_key()
    folder = cache_dir() / "base" / key
    image = f"localhost/lemonstand-base:{key}"
    built = False
    # Labs that come up side by side share what the first one makes.
    with (cache_dir() / "base.lock").open("a", encoding="ascii") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            say("base system and packages are not in the cache: fetching them (once)")
            _build(folder, log)
            built = True
        if run(["podman", "image", "exists", image], check=False).returncode:
            say("importing the base image")
            run(["podman", "import", "--change", 'CMD ["/sbin/init"]', folder / "base.tar", image], log=log, timeout=600)
    return Base(image, folder / "packages", drift(folder / "versions"), built)


def supply(key: str, base: Base) -> bool:
    """Puts what today's roles install beside the packages of hosts that were made of an older image; nothing of theirs goes.

    Args:
        key: of the older image.
        base: today's.

    Returns:
        Whether there was anything to add: hosts have to read the list of packages again.
    """
    folder = cache_dir() / "base" / key / "packages"
    new = [path for path in base.packages.glob("*.deb") if folder.is_dir() and not (folder / path.name).exists()]
    for path in new:
        shutil.copy2(path, folder / f"{path.name}.part")
        (folder / f"{path.name}.part").rename(folder / path.name)
    if new:
        (folder / "Packages.part").write_text(index(folder), encoding="utf-8")
        (folder / "Packages.part").rename(folder / "Packages")
    return bool(new)


def _build(folder: Path, log: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as text:
        work = Path(text)
        work.chmod(0o755)
        (work / "sshd.conf").write_text(_SSHD, encoding="ascii")
        (work / "sources.list").write_text(_SOURCES, encoding="ascii")
        (work / "hook").write_text("#!/bin/sh\n" + _BUILD, encoding="utf-8")
        (work / "hook").chmod(0o755)
        try:
            run(
                [
                    "mmdebstrap",
                    "--variant=apt",
                    f"--include={','.join(BASE_PACKAGES)}",
                    f'--customize-hook={work}/hook "$1"',
                    SUITE,
                    work / "base.tar",
                ],
                env={"LEMONSTAND_WORK": str(work), "LEMONSTAND_PACKAGES": " ".join(wanted_packages())},
                timeout=1500,
                log=log,
            )
        except LemonstandError as error:
            raise LemonstandError(
                error.what, f"mmdebstrap; its output is in {log}", "is the Debian archive within reach? see the log"
            ) from None
        versions = (work / "base.list").read_text(encoding="ascii").splitlines()
        (work / "packages" / "Packages").write_text(index(work / "packages"), encoding="utf-8")
        for paragraph in (work / "packages" / "Packages").read_text(encoding="utf-8").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
            if fields:
                versions.append(f"{fields['Package']} {fields['Version']}")
        (work / "versions").write_text("\n".join(sorted(set(versions))) + "\n", encoding="ascii")
        for name in ("hook", "sshd.conf", "sources.list", "base.list"):
            (work / name).unlink()
        (work / "complete").touch()
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(work, folder)


def index(folder: Path) -> str:
    """The index of a flat archive (deb822, as apt reads it)."""
    paragraphs = []
    for deb in sorted(folder.glob("*.deb")):
        control = run(["dpkg-deb", "--field", deb]).stdout.rstrip("\n")
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        paragraphs.append(f"{control}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n")
    return "\n".join(paragraphs)


def _versions(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def drift(versions: Path) -> list[str]:
    """Differences between what the cache holds and what the lock says, one line each."""
    locked, held = _versions(LOCK), _versions(versions)
    lines = []
    for name in sorted(locked.keys() | held.keys()):
        if locked.get(name) != held.get(name):
            lines.append(f"{name}: locked {locked.get(name, 'nothing')}, cached {held.get(name, 'nothing')}")
    return lines


def write_lock() -> Path:
    """Makes the versions in the cache the locked ones."""
    versions = cache_dir() / "base" / content_key() / "versions"
    if not versions.exists():
        raise LemonstandError("the package cache is empty", str(versions), "run `lemonstand lab up` first")
    head = f"# Versions of a lab's Debian packages ({SUITE}). Written by `lemonstand lab lock`.\n"
    LOCK.write_text(head + versions.read_text(encoding="ascii"), encoding="ascii")
    return LOCK


def forget() -> None:
    """Removes the base images and the package cache; running labs keep what they use."""
    for image in run(["podman", "images", "--format", "{{.Repository}}:{{.Tag}}"], check=False).stdout.split():
        if image.startswith(("localhost/lemonstand-base:", "localhost/lemonstand-render:")):
            run(["podman", "rmi", image], check=False)
    shutil.rmtree(cache_dir() / "base", ignore_errors=True)
