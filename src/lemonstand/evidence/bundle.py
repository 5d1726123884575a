"""Bundles: evidence in one file that can be handed on, with a hash of each part and, if wanted, a signature over the hashes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemonstand.errors import InputError, LemonstandError
from lemonstand.evidence.write import SCHEMA, check_form

MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
NAMESPACE = "lemonstand-evidence"
"""What ssh-keygen binds a signature to, so that one made for another purpose is none here."""
FORM = 1
LARGEST = 64 * 1024 * 1024
"""Bytes of all parts that are read: more is no evidence."""
MOST_PARTS = 32
SIGN_SECONDS = 120


@dataclass(frozen=True)
class Verdict:
    """What a bundle turned out to be.

    Args:
        evidence: its evidence.
        signer: who signed it; empty if nobody did, or nobody was asked about.
        signed: whether it carries a signature at all.
        parts: names of its parts.
    """

    evidence: dict[str, Any]
    signer: str
    signed: bool
    parts: tuple[str, ...]


def write_bundle(path: Path, parts: Mapping[str, bytes], evidence: Mapping[str, Any], key: Path | None = None) -> None:
    """Writes a bundle in one step, readable by its owner only.

    Args:
        path: the file.
        parts: contents by name; the schema and the manifest are added.
        evidence: the document, which the manifest tells about.
        key: an SSH key to sign with (`ssh-keygen -Y sign`): a private key's file, or a public one whose private key an agent holds.

    Raises:
        LemonstandError: it can't be signed; nothing is written then.
    """
    every = {**parts, "evidence.schema.json": SCHEMA.read_bytes()}
    manifest = {
        "form": FORM,
        "site": evidence["site"],
        "lemonstand": evidence["lemonstand"],
        "ended": evidence["ended"],
        "complete": evidence["complete"],
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(every.items())},
    }
    text = (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
    tail = {MANIFEST: text} | ({SIGNATURE: _sign(text, key)} if key else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, content in {**tail, **every}.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o600
                archive.addfile(entry, io.BytesIO(content))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_bundle(path: Path, signers: Path | None = None) -> Verdict:
    """Checks a bundle: its parts against their hashes, the evidence against its schema, the signature against who may sign.

    Nothing is unpacked to disk.

    Args:
        path: the bundle.
        signers: who may sign, in ssh-keygen's format ALLOWED SIGNERS; without it a signature is not looked at.

    Raises:
        InputError: it is no bundle.
        LemonstandError: it was changed, or nobody of the signers signed it.
    """
    parts = _read(path)
    told = parts.pop(MANIFEST, b"")
    try:
        manifest = json.loads(told)
        hashes = dict(manifest["sha256"])
        if manifest["form"] != FORM:
            raise InputError(f"a bundle of form {manifest['form']}", str(path), "read it with the lemonstand that wrote it")
    except (KeyError, TypeError, ValueError):
        raise InputError("this is no bundle of evidence", str(path), "write one with `lemonstand evidence bundle`") from None
    signature = parts.pop(SIGNATURE, None)
    for name in sorted({*hashes, *parts}):
        if name not in parts or name not in hashes or hashlib.sha256(parts[name]).hexdigest() != hashes[name]:
            word = "is missing" if name not in parts else "is not in the manifest" if name not in hashes else "was changed"
            raise LemonstandError(f"'{name}' {word}", str(path), "don't trust it; ask for the bundle again")
    signer = ""
    if signers is not None:
        if signature is None:
            raise LemonstandError("nobody signed it", str(path), "ask for a bundle written with --sign, or leave --signers out")
        signer = _signer(told, signature, signers, path)
    try:
        evidence = json.loads(parts["evidence.json"])
    except (KeyError, ValueError):
        raise InputError("the bundle holds no evidence", str(path), "write one with `lemonstand evidence bundle`") from None
    check_form(evidence)
    return Verdict(evidence, signer, signature is not None, tuple(sorted(parts)))


def _read(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            for entry in archive:
                plain = entry.isfile() and "/" not in entry.name and entry.name not in found
                if not plain or entry.size + sum(map(len, found.values())) > LARGEST or len(found) >= MOST_PARTS:
                    raise InputError(f"a bundle has no part such as '{entry.name[:80]}'", str(path), "don't trust it; ask for it again")
                stream = archive.extractfile(entry)
                found[entry.name] = stream.read() if stream is not None else b""
    except (OSError, EOFError, tarfile.TarError) as problem:
        raise InputError(f"the bundle can't be read: {problem}", str(path), "name a file that `lemonstand evidence bundle` wrote") from None
    return found


def _sign(text: bytes, key: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="lemonstand-sign-") as folder:
        manifest = Path(folder) / MANIFEST
        manifest.write_bytes(text)
        # It asks for a passphrase or a touch on the terminal, whatever its standard input is.
        _keygen("-Y", "sign", "-n", NAMESPACE, "-f", str(key), str(manifest), where=str(key))
        return manifest.with_name(SIGNATURE).read_bytes()


def _signer(text: bytes, signature: bytes, signers: Path, path: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="lemonstand-sign-") as folder:
        file = Path(folder) / SIGNATURE
        file.write_bytes(signature)
        found = subprocess.run(
            ["ssh-keygen", "-Y", "find-principals", "-s", str(file), "-f", str(signers)],
            input=text, capture_output=True, check=False, timeout=SIGN_SECONDS,
        )  # fmt: skip
        for name in found.stdout.decode(errors="replace").splitlines():
            done = subprocess.run(
                ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", name.strip(), "-s", str(file), "-f", str(signers)],
                input=text, capture_output=True, check=False, timeout=SIGN_SECONDS,
            )  # fmt: skip
            if done.returncode == 0:
                return name.strip()
    raise LemonstandError(
        "the signature is of none of the signers, or not of this bundle", str(path), f"don't trust it, or add who signed it to {signers}"
    )


def _keygen(*words: str, where: str) -> None:
    try:
        done = subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=False, timeout=SIGN_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise LemonstandError(f"ssh-keygen can't be run: {problem}", where, "install OpenSSH 8.2 or later") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LemonstandError(f"the bundle can't be signed: {said}", where, "name an SSH key that is yours, with --sign")
