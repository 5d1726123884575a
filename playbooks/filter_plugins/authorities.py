"""What is in the directory with the private CAs, on the controller. Reads only; names every way in which it can't be used."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

RETIRED = "retired"
"""The folder below it with CAs that are no longer used."""


def authorities(directory: object) -> dict[str, dict[str, list[str]]]:
    """The CAs in a directory that can be read: fingerprints (SHA-256) and key identifiers (RFC 5280 4.2.1.2), in hexadecimal.

    Of each the one that signs comes first; while it is changed the next and the old one follow.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for folder in _folders(Path(str(directory)).expanduser()):
        for path in certificate_files(folder):
            try:
                certificate = x509.load_pem_x509_certificate(path.read_bytes())
                identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
            except (OSError, ValueError, x509.ExtensionNotFound):
                continue
            fingerprint = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
            known = found.setdefault(folder.name, {"fingerprints": [], "key_ids": []})
            known["fingerprints"].append(fingerprint)
            known["key_ids"].append(identifier.hex())
    return found


def certificate_files(folder: Path) -> list[Path]:
    """The certificates of a CA: the one that signs, and while it is changed the next and the old one (docs/decisions/0044)."""
    return [path for path in (folder / "ca.crt", folder / "next" / "ca.crt", folder / "old" / "ca.crt") if path.is_file()]


def rotation(directory: object) -> dict[str, Any]:
    """A change of CAs that is not finished: `begun`, `step`, `authorities`; empty without one (role certificates)."""
    try:
        found: dict[str, Any] = json.loads((Path(str(directory)).expanduser() / "rotation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def authority_faults(directory: object) -> list[str]:
    """Sentences on what is wrong with the directory and each CA in it, with the remedy; none if there is no directory yet."""
    root = Path(str(directory)).expanduser()
    try:
        if not root.exists():
            return []
        if not root.is_dir():
            return [f"{root} is no directory; move it away, or correct lemonstand_pki_dir"]
        if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
            return [f"{root} can't be read and written by you; give it to you: `chown -R $USER {root}`"]
        mode = stat.S_IMODE(root.stat().st_mode)
        faults = [f"others may write in {root}, which holds the CAs; `chmod go-w {root}`"] if mode & 0o022 else []
        for folder in _folders(root):
            faults += _faults(folder)
    except OSError as fault:
        return [f"{root} can't be read: {fault.strerror}; see lemonstand_pki_dir"]
    return faults


def _folders(root: Path) -> list[Path]:
    """The folders of a directory that hold a CA, or a part of one."""
    try:
        folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name != RETIRED]
    except OSError:
        return []
    return [path for path in folders if (path / "ca.crt").exists() or (path / "ca.key").exists()]


def _faults(folder: Path) -> list[str]:
    certificate_file, key_file = folder / "ca.crt", folder / "ca.key"
    anew = f"move {folder} away and give all hosts new ones: `lemonstand certificates renew --new-authorities`"
    for path, other in ((certificate_file, key_file), (key_file, certificate_file)):
        if not path.exists():
            return [f"{other} is there, but {path} is not; restore it from its backup, or {anew}"]
        if not path.is_file() or not os.access(path, os.R_OK):
            return [f"{path} can't be read by you; `chown $USER {path}`"]
    faults = []
    if stat.S_IMODE(key_file.stat().st_mode) & 0o077:
        faults.append(f"others may read the key {key_file}; `chmod 600 {key_file}`, and think of who has read it")
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except ValueError:
        return [*faults, f"{certificate_file} holds no certificate; restore it from its backup, or {anew}"]
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError):
        return [*faults, f"{key_file} holds no key that can be read without a password; restore it from its backup, or {anew}"]
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    coming = folder / "next" / "ca.key"
    if coming.is_file() and coming.read_bytes() == key_file.read_bytes():
        return faults  # a change of CAs was cut off between two files; whoever signs knows, and the next run of it puts that right
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        faults.append(f"{key_file} is not the key of {certificate_file}; restore both from one backup, or {anew}")
    if certificate.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        faults.append(f"{certificate_file} ended on {certificate.not_valid_after_utc:%Y-%m-%d}; {anew}")
    return faults


class FilterModule:
    """Announces the filters to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"lemonstand_authorities": authorities, "lemonstand_authority_faults": authority_faults}
