"""Make the issuer's Unix user and signing key on its host if there are none, name the public keys, and change the key step by step.

Runs on the auth host as root from standard input (`python3 -`) with the standard library and `openssl`. A private key is made
here, stays here and is never printed:

    /etc/lemonstand/ticket/private/KID.pem   0600 root; `active.pem` is a link to the one that signs
    /etc/lemonstand/ticket/public/KID.pem    what those who check tickets need; every key in it is accepted by them

A change of the signing key, so that no ticket is ever refused for it:

    prepare   make a second pair, named by the link `next.pem`; then hand all public keys to those who check tickets
    switch    rename `next.pem` to `active.pem`: one step, done or not; then reload the issuer and wait until the last old ticket has ended
    drop      remove the public halves of the pairs no link names; then hand out the public keys again
    purge     remove their private halves

Each step looks at what is there, so that a change that was cut off is finished, not begun anew, by the next one.
"""

import base64
import hashlib
import json
import os
import pwd
import subprocess
import tempfile
from collections.abc import Callable
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


def make_key(root: Path, bits: int, link: str = "active.pem") -> str:
    """Make a key pair, let a link name it, and return its id."""
    for folder, mode in ((root.parent, 0o755), (root, 0o755), (root / "public", 0o755), (root / "private", 0o700)):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
    private = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}")
    kid = key_id(openssl("pkey", "-pubout", "-outform", "DER", data=private))
    write(root / "private" / f"{kid}.pem", private, 0o600)
    write(root / "public" / f"{kid}.pem", openssl("pkey", "-pubout", data=private), 0o644)
    made = root / "private" / f".{link}.new"
    made.unlink(missing_ok=True)
    made.symlink_to(f"{kid}.pem")
    made.replace(root / "private" / link)
    return kid


def states(root: Path) -> dict[str, str]:
    """Return what each key is: `signs`, `next`, or `old`."""
    named = {name: (root / "private" / link).resolve().stem for name, link in (("next", "next.pem"), ("signs", "active.pem"))}
    kids = {path.stem for path in [*(root / "public").glob("[!.]*.pem"), *(root / "private").glob("[!.]*.pem")]} - {"active", "next"}
    return {kid: next((name for name in ("signs", "next") if named[name] == kid), "old") for kid in sorted(kids)}


def prepare(root: Path, bits: int) -> list[str]:
    """Make the next pair, unless a change is under way."""
    if "next" in states(root).values():
        return []
    if "old" in states(root).values():
        return []  # the change before this one was cut off after its switch: it is finished first
    return [f"signing key {make_key(root, bits, 'next.pem')} made"]


def switch(root: Path) -> list[str]:
    """Let the next pair sign."""
    if "next" not in states(root).values():
        return []
    (root / "private" / "next.pem").replace(root / "private" / "active.pem")
    return [f"signing key {(root / 'private' / 'active.pem').resolve().stem} signs"]


def remove(root: Path, half: str) -> list[str]:
    """Remove one half of the pairs that sign no more. The private half goes last: it tells that a change is not finished."""
    old = [root / half / f"{kid}.pem" for kid, state in states(root).items() if state == "old"]
    changed = [f"{half} half of signing key {path.stem} removed" for path in old if path.exists()]
    for path in old:
        path.unlink(missing_ok=True)
    return changed


def report(root: Path, changed: list[str]) -> None:
    """Print what was done, what each key is and since when, and all public keys as JSON."""
    keys = {
        kid: {
            "state": state,
            "made": int((root / "public" / f"{kid}.pem").stat().st_mtime) if (root / "public" / f"{kid}.pem").exists() else 0,
        }
        for kid, state in states(root).items()
    }
    public_keys = {path.stem: path.read_text(encoding="ascii") for path in sorted((root / "public").glob("[!.]*.pem"))}
    print(json.dumps({"changed": changed, "keys": keys, "public_keys": public_keys}))


def rotate(step: str, *, bits: int, root: Path = ROOT) -> int:
    """Take one step of a change of the signing key."""
    os.umask(0o077)
    steps: dict[str, Callable[[], list[str]]] = {
        "prepare": lambda: prepare(root, bits),
        "switch": lambda: switch(root),
        "drop": lambda: remove(root, "public"),
        "purge": lambda: remove(root, "private"),
        "list": list,
    }
    report(root, steps[step]())
    return 0


def rotate_encoded(text: str) -> int:
    """Entry point of the role for a step: base64 of JSON, `step` and `bits`; with `check` the keys are only listed."""
    order = json.loads(base64.b64decode(text))
    return rotate("list" if order["check"] else order["step"], bits=order["bits"])


def main_encoded(text: str) -> int:
    """Entry point of the role: base64 of JSON, `bits` and `check`."""
    order = json.loads(base64.b64decode(text))
    return main(bits=order["bits"], check=order["check"])


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
    report(root, changed)
    return 0
