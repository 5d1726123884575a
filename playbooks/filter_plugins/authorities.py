"""What is in the directory with the private CAs, on the controller. Reads only; names every way in which it can't be used."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.util
import json
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

ROLE = Path(__file__).resolve().parents[2] / "roles" / "certificates"
"""The role that signs, or has it done."""
RETIRED = "retired"
"""The folder below it with CAs that are no longer used."""


def authorities(directory: object, signer: Sequence[str] = ()) -> dict[str, dict[str, list[str]]]:
    """The CAs in a directory that can be read: fingerprints (SHA-256) and key identifiers (RFC 5280 4.2.1.2), in hexadecimal.

    Of each the one that signs comes first; while it is changed the next and the old one follow.

    Args:
        signer: the command that asks who has their keys: a controller that has no copies yet hears of them there.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name, texts in (_copies(Path(str(directory)).expanduser()) or _heard(list(signer), str(directory))).items():
        for text in texts:
            try:
                certificate = x509.load_pem_x509_certificate(text)
                identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
            except (ValueError, x509.ExtensionNotFound):
                continue
            fingerprint = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
            known = found.setdefault(name, {"fingerprints": [], "key_ids": []})
            known["fingerprints"].append(fingerprint)
            known["key_ids"].append(identifier.hex())
    return found


def _copies(root: Path) -> dict[str, list[bytes]]:
    """The certificates in a directory, by CA."""
    found: dict[str, list[bytes]] = {}
    for folder in _folders(root):
        for path in certificate_files(folder):
            with contextlib.suppress(OSError):
                found.setdefault(folder.name, []).append(path.read_bytes())
    return found


def _heard(signer: list[str], directory: str) -> dict[str, list[bytes]]:
    """The certificates a signer names, by CA."""
    if not signer:
        return {}
    spec = importlib.util.spec_from_file_location("lemonstand_sign_certificates_heard", ROLE / "files" / "sign_certificates.py")
    if spec is None or spec.loader is None:
        return {}
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    try:
        told = program.Signer(signer, Path(directory), check=True).ask("authorities", names=[])["authorities"]
    except program.SignError as fault:
        raise ValueError(str(fault)) from None
    return {name: [said[part].encode() for part in program.PARTS if part in said] for name, said in told.items()}


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


def authority_faults(directory: object, signer: object = None) -> list[str]:
    """Sentences on what is wrong with the directory and each CA in it, with the remedy; none if there is no directory yet.

    Args:
        signer: who has the keys instead, if somebody has (docs/decisions/0053): then none may lie here.
    """
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
        faults += _keys_here(root) if signer else [fault for folder in _folders(root) for fault in _faults(folder)]
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


def _keys_here(root: Path) -> list[str]:
    """What is left behind once a signer has the keys; a retired CA's still opens what remembers it."""
    keys = sorted({*root.glob("*/ca.key"), *root.glob("*/*/ca.key"), *root.glob(f"{RETIRED}/*/*/ca.key")})
    return [
        f"{key} is here, though lemonstand_signer has the keys of CAs; move it there, or remove it if the signer has it" for key in keys
    ]


def _faults(folder: Path) -> list[str]:
    certificate_file, key_file = folder / "ca.crt", folder / "ca.key"
    anew = f"move {folder} away and give all hosts new ones: `lemonstand certificates renew --new-authorities`"
    for path, other in ((certificate_file, key_file), (key_file, certificate_file)):
        if not path.exists():
            signer = "" if path == certificate_file else ", say in lemonstand_signer who has it,"
            return [f"{other} is there, but {path} is not; restore it from its backup{signer} or {anew}"]
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


def signing_policy(hostvars: Any, names: list[str]) -> dict[str, Any]:
    """What a signer is asked to sign for a site (docs/decisions/0053): no name, use, CA or day more.

    Args:
        names: of the hosts that have certificates.
    """
    authorities: dict[str, dict[str, set[str]]] = {}
    # The role's own defaults are none of a host's variables before it is played.
    settings: dict[str, Any] = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    for name in names:
        host = hostvars[name]
        settings |= {key: host[key] for key in settings if key in host}
        for ca in host.get("certificates_trusted_cas") or ():
            authorities.setdefault(str(ca), {"usages": set(), "names": set()})
        for request in host.get("certificates_requests") or ():
            one = authorities.setdefault(str(request["ca"]), {"usages": set(), "names": set()})
            one["usages"].add(str(request["usage"]))
            one["names"].update(map(str, request["names"]))
    suffixes = settings["certificates_ca_name_constraints"]
    return {
        "label": settings["certificates_ca_label"],
        "days": settings["certificates_days"],
        "ca_days": settings["certificates_ca_days"],
        "rotate": True,
        "seal": True,
        "authorities": {
            name: {"usages": sorted(one["usages"]), "names": sorted(one["names"]), "suffixes": list(suffixes.get(name, ()))}
            for name, one in sorted(authorities.items())
        },
    }


class FilterModule:
    """Announces the filters to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {
            "lemonstand_authorities": authorities,
            "lemonstand_authority_faults": authority_faults,
            "lemonstand_signing_policy": signing_policy,
        }
