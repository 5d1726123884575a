"""Make the issuer's Unix user and signing key on its host if there are none, and name the public keys.

Runs on the auth host as root from standard input (`python3 -`) with the standard library and `openssl`. A private key is made
here, stays here and is never printed:

    /etc/lemonstand/ticket/private/KID.pem   0600 root; `active.pem` is a link to the one that signs
    /etc/lemonstand/ticket/public/KID.pem    what those who check tickets need; every key in it is accepted by them

Rotation needs no other layout: add a second pair, hand out the public keys, move the link, wait a ticket's life, drop the old pair.
"""

import hashlib
import json
import os
import pwd
import subprocess
import tempfile
from pathlib import Path

ROOT = Path("/etc/lemonstand/ticket")
USER = "ticket-issuer"


def openssl(*arguments: str, data: bytes | None = None) -> bytes:
    """Run openssl and return what it printed."""
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout


def write(path: Path, data: bytes, mode: int) -> None:
    """Put a file in place in one step."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "wb") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    Path(temporary).replace(path)


def key_id(public_der: bytes) -> str:
    """Return the key's short fingerprint: 64 bits of SHA-256 over its SubjectPublicKeyInfo, in hexadecimal digits."""
    return hashlib.sha256(public_der).hexdigest()[:16]


def user_exists() -> bool:
    """Tell whether the issuer's user is there."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def make_user() -> None:
    """Make the user the issuer runs as. He owns nothing and can't log in."""
    options = ["--system", "--user-group", "--home-dir", "/nonexistent", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    subprocess.run(["useradd", *options, USER], check=True, capture_output=True)


def make_key(root: Path, bits: int) -> str:
    """Make a key pair, let it be the one that signs, and return its id."""
    for folder, mode in ((root.parent, 0o755), (root, 0o755), (root / "public", 0o755), (root / "private", 0o700)):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
    private = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}")
    kid = key_id(openssl("pkey", "-pubout", "-outform", "DER", data=private))
    write(root / "private" / f"{kid}.pem", private, 0o600)
    write(root / "public" / f"{kid}.pem", openssl("pkey", "-pubout", data=private), 0o644)
    link = root / "private" / ".active.new"
    link.unlink(missing_ok=True)
    link.symlink_to(f"{kid}.pem")
    link.replace(root / "private" / "active.pem")
    return kid


def main(*, bits: int, check: bool, root: Path = ROOT) -> int:
    """Make what is missing; print what was made and all public keys as JSON."""
    os.umask(0o077)
    changed: list[str] = []
    if not user_exists():
        changed.append(f"user {USER}")
        if not check:
            make_user()
    # The link comes last when a key is made, so a run that was cut off is made good by the next.
    if not (root / "private" / "active.pem").exists():
        changed.append("signing key" if check else f"signing key {make_key(root, bits)}")
    public_keys = {path.stem: path.read_text(encoding="ascii") for path in sorted((root / "public").glob("[!.]*.pem"))}
    print(json.dumps({"changed": changed, "public_keys": public_keys}))
    return 0
