"""A lab's mirror: a signed repository of all its packages, and of newer ones that were made of them.

The repository lies in the directory that machines outside the site see of the driver's (`hosts/NAME/mirror`), where `lab_mirror` serves it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from lemonstand.errors import InputError
from lemonstand.files import write_text
from lemonstand.lab import images
from lemonstand.lab.shell import run
from lemonstand.lab.state import Say, lock, read_state, require, topology_of
from lemonstand.paths import cache_dir, lab_dir

KEY, PUBLIC = "secrets/mirror.key", "secrets/mirror.asc"
MARK = re.compile(r"\+lemon(\d+)$")
FAILS = "#!/bin/sh\necho 'this version does not start' >&2\nexit 1\n"


def offer(name: str, sources: Sequence[str], progress: Say = print, *, broken: bool = False, valid_days: int = 7) -> list[str]:
    """Publishes the lab's packages, and newer versions of those of some sources; what was offered before is no longer.

    Args:
        name: the lab's name.
        sources: source packages, such as dovecot; all binary packages of theirs that the lab has get a higher version.
        progress: told what is going on, a line at a time.
        broken: their programs in /usr/sbin fail at once.
        valid_days: for how many days the index says it is good; less than 0: it is over.

    Returns:
        The packages that are newer, as NAME VERSION.

    Raises:
        InputError: the lab is not up, or has no package of a source.
        LemonstandError: a tool failed.
    """
    require(name)
    with lock(name):
        folder = lab_dir(name)
        pool = cache_dir() / "base" / str(read_state(name)["key"]) / "packages"
        with tempfile.TemporaryDirectory(prefix="lemonstand-offer-") as text:
            work = Path(text)
            newer = work / "newer"
            newer.mkdir()
            serial = _serial(folder)
            made = [each for source in sources for each in _rebuilt(pool, source, newer, serial, broken=broken)]
            index = re.sub(r"^Filename: \./", "Filename: ./pool/", (pool / "Packages").read_text(encoding="utf-8"), flags=re.MULTILINE)
            added = re.sub(r"^Filename: \./", "Filename: ./newer/", images.index(newer), flags=re.MULTILINE)
            (work / "Packages").write_text(f"{index}\n{added}", encoding="utf-8")
            _sign(folder, work, valid_days)
            for item in topology_of(name).machines:
                if not item.managed:
                    _publish(work, folder / "hosts" / item.name / "mirror", str(images.PACKAGE_MOUNT))
            write_text(folder / "secrets" / "mirror.serial", f"{serial}\n")
        for each in made:
            progress(f"offered: {each}")
        progress(f"the index is {'over' if valid_days < 0 else f'good for {valid_days} days'}")
        return made


def _serial(folder: Path) -> int:
    path = folder / "secrets" / "mirror.serial"
    return int(path.read_text(encoding="ascii")) + 1 if path.exists() else 1


def _rebuilt(pool: Path, source: str, newer: Path, serial: int, *, broken: bool) -> Iterator[str]:
    """Packages of a source with a higher version, those that depend on exactly this one as well."""
    control = {deb: _fields(deb) for deb in sorted(pool.glob("*.deb"))}
    mine = {deb: fields for deb, fields in control.items() if fields.get("Source", fields["Package"]).split()[0] == source}
    if not mine:
        raise InputError(
            f"the lab has no package of the source '{source}'", "SOURCE", f"see the fields Source and Package in {pool}/Packages"
        )
    for deb, fields in mine.items():
        version = f"{fields['Version']}+lemon{serial}"
        root = newer / "root"
        run(["dpkg-deb", "--raw-extract", deb, root])
        path = root / "DEBIAN" / "control"
        text = path.read_text(encoding="utf-8").replace(f"(= {fields['Version']})", f"(= {version})")
        path.write_text(re.sub(r"^Version: .*$", f"Version: {version}", text, flags=re.MULTILINE), encoding="utf-8")
        for program in [each for each in (root / "usr" / "sbin").glob("*") if each.is_file() and not each.is_symlink()] if broken else ():
            program.write_text(FAILS, encoding="ascii")
        run(["dpkg-deb", "--build", "--root-owner-group", "-Zgzip", "-z1", root, newer / f"{fields['Package']}_{serial}.deb"])
        shutil.rmtree(root)
        yield f"{fields['Package']} {version}"


def _fields(deb: Path) -> dict[str, str]:
    out = run(["dpkg-deb", "--field", deb, "Package", "Version", "Source"]).stdout
    return dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)


def _sign(folder: Path, work: Path, valid_days: int) -> None:
    """Writes Release and InRelease; makes the lab's key if there is none."""
    now = datetime.now(UTC)
    # One that is over was good once.
    date, until = now - timedelta(days=1 if valid_days >= 0 else 1 - valid_days), now + timedelta(days=valid_days)
    data = (work / "Packages").read_bytes()
    lines = [
        "Origin: lemonstand", "Label: lemonstand lab", "Suite: lab", "Codename: lab", "Architectures: amd64 arm64 all",
        f"Date: {format_datetime(date, usegmt=True)}", f"Valid-Until: {format_datetime(until, usegmt=True)}",
        "SHA256:", f" {hashlib.sha256(data).hexdigest()} {len(data)} Packages",
    ]  # fmt: skip
    (work / "Release").write_text("\n".join(lines) + "\n", encoding="ascii")
    with tempfile.TemporaryDirectory(prefix="lemonstand-gpg-") as home:  # a short path, as sockets want it
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        key, public = folder / KEY, folder / PUBLIC
        try:
            if not key.exists():
                name = f"lemonstand lab {secrets.token_hex(4)} <mirror@lab.invalid>"
                run([*gpg, "--quick-generate-key", name, "ed25519", "sign", "1y"])
                write_text(public, run([*gpg, "--armor", "--export"]).stdout)
                write_text(key, run([*gpg, "--armor", "--export-secret-keys"]).stdout)
            else:
                run([*gpg, "--import", key])
            run([*gpg, "--clearsign", "--digest-algo", "SHA256", "--output", work / "InRelease", work / "Release"])
        finally:
            run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=False)


def _publish(work: Path, target: Path, packages: str) -> None:
    """Puts a repository in the place of another one: what an index names is there before the index."""
    target.mkdir(mode=0o755, exist_ok=True)
    pool = target / "pool"
    if not pool.is_symlink():
        pool.symlink_to(packages)
    (target / "newer").mkdir(mode=0o755, exist_ok=True)
    names = {deb.name for deb in (work / "newer").glob("*.deb")}
    for deb in (work / "newer").glob("*.deb"):
        shutil.copyfile(deb, target / "newer" / deb.name)
    for part in ("Packages", "Release", "InRelease"):
        shutil.copyfile(work / part, target / f"{part}.part")
    for part in ("Packages", "Release", "InRelease"):
        (target / f"{part}.part").rename(target / part)
    for old in (target / "newer").glob("*.deb"):
        if old.name not in names:
            old.unlink()
