"""Keys by which relays sign what users send (DKIM, RFC 6376). The controller makes them; relays have copies (docs/decisions/0042).

`PKI_DIR/dkim/keys.json` says which keys there are, `PKI_DIR/dkim/SELECTOR.key` is the private half of one. A key is `next` (made, to be
published in DNS), `signs`, or `old` (it signs no more and stays published until what it signed has arrived).
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

BITS = 2048
"""RFC 8301 section 3.2: at least 1024, and should be 2048. More does not fit into one answer of DNS over UDP everywhere."""
OVERLAP_DAYS = 7
"""Days an old key stays published: mail may wait five in a queue (Postfix' maximal_queue_lifetime), and some to be looked at."""

Key = dict[str, str]
"""`selector`, `state`, `made` and `since` (UTC, when it came into its state), `public` (what stands behind `p=`)."""


class KeyFault(Exception):
    """What is wrong with the keys; the text says where and what to do."""


def folder_of(pki: object) -> Path:
    """Where the keys of a site lie, below its `lemonstand_pki_dir`."""
    return Path(str(pki)).expanduser() / "dkim"


def known(pki: object) -> list[Key]:
    """The keys there are, in the order they were made; none where none was made yet. Private halves are not read.

    Raises:
        KeyFault: the list can't be read.
    """
    path = folder_of(pki) / "keys.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        keys = [{name: str(each[name]) for name in ("selector", "state", "made", "since", "public")} for each in found["keys"]]
    except FileNotFoundError:
        if any(folder_of(pki).glob("*.key")):
            raise KeyFault(f"{path} is gone, and keys it named are there; restore it from the backup of lemonstand_pki_dir") from None
        return []
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise KeyFault(f"{path} can't be read ({fault}); restore it from the backup of lemonstand_pki_dir") from None
    if [each["state"] for each in keys].count("signs") != 1:
        raise KeyFault(f"{path}: exactly one key signs; restore it from the backup of lemonstand_pki_dir")
    return keys


def keys(pki: object) -> list[Key]:
    """The keys for a relay, with `private`, the PEM text; the first one is made here.

    Where the controller has no directory for keys yet, which each apply makes before it comes to this, one is made up and kept nowhere: a
    plan shows that there will be one.

    Raises:
        AnsibleFilterError: keys are there and can't be used.
    """
    if not folder_of(pki).parent.is_dir():
        made, pem = _fresh("s00000000", "signs")
        return [{**made, "private": pem.decode("ascii")}]
    try:
        with _held(pki):
            found = known(pki) or _begun(pki)
        return [{**each, "private": _private(pki, each)} for each in found]
    except (KeyFault, OSError) as fault:
        raise AnsibleFilterError(f"keys for DKIM: {fault}") from None


def prepare(pki: object) -> Key:
    """The key that will sign next; made unless there is one.

    Raises:
        KeyFault: keys are there and can't be read.
    """
    with _held(pki):
        found = known(pki) or _begun(pki)
        for each in found:
            if each["state"] == "next":
                return each
        made = _made(pki, found, "next")
        _write(pki, [*found, made])
        return made


def switch(pki: object) -> Key:
    """Lets the next key sign; the one that did is old from now on.

    Raises:
        KeyFault: there is no next key.
    """
    with _held(pki):
        found = known(pki)
        if not any(each["state"] == "next" for each in found):
            raise KeyFault(f"{folder_of(pki)} has no next key; make one first: `lemonstand dkim rotate`")
        since = _now()
        for each in found:
            if each["state"] != "old":
                each.update(state="signs" if each["state"] == "next" else "old", since=since)
        _write(pki, found)
        return next(each for each in found if each["state"] == "signs")


def retire(pki: object, selectors: list[str]) -> None:
    """Forgets old keys, private halves first of all.

    Raises:
        KeyFault: one of them is no old key.
    """
    with _held(pki):
        found = known(pki)
        wrong = [each for each in selectors if not any((key["selector"], key["state"]) == (each, "old") for key in found)]
        if wrong:
            raise KeyFault(f"{', '.join(wrong)}: no old key of {folder_of(pki)}; `lemonstand dkim list` names them")
        _write(pki, [each for each in found if each["selector"] not in selectors])
        for each in selectors:
            (folder_of(pki) / f"{each}.key").unlink(missing_ok=True)


def record(key: Key) -> str:
    """What DNS says of a key, at `SELECTOR._domainkey.DOMAIN` (RFC 6376 section 3.6.1)."""
    return f"v=DKIM1; k=rsa; p={key['public']}"


def age_days(key: Key, now: datetime.datetime | None = None) -> float:
    """Days since a key came into its state."""
    since = datetime.datetime.fromisoformat(key["since"])
    return ((now or datetime.datetime.now(datetime.UTC)) - since).total_seconds() / 86400


def _begun(pki: object) -> list[Key]:
    made = [_made(pki, [], "signs")]
    _write(pki, made)
    return made


def _made(pki: object, others: list[Key], state: str) -> Key:
    today = datetime.datetime.now(datetime.UTC).strftime("s%Y%m%d")
    taken = {each["selector"] for each in others} | {path.stem for path in folder_of(pki).glob("*.key")}
    selector = next(name for number in range(1, 100) if (name := today if number == 1 else f"{today}-{number}") not in taken)
    made, pem = _fresh(selector, state)
    _put(folder_of(pki) / f"{selector}.key", pem)
    return made


def _fresh(selector: str, state: str) -> tuple[Key, bytes]:
    """A new key, and its private half in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"selector": selector, "state": state, "made": _now(), "since": _now(), "public": _public(key)}, pem


def _public(key: rsa.RSAPrivateKey) -> str:
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode("ascii")


def _private(pki: object, key: Key) -> str:
    path = folder_of(pki) / f"{key['selector']}.key"
    again = f"restore it from the backup of lemonstand_pki_dir, or move {folder_of(pki)} away: then a new key is made, to be published"
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFault(f"others may read {path}; `chmod 600 {path}`, and think of who has read it")
        text = path.read_text(encoding="ascii")
        loaded = serialization.load_pem_private_key(text.encode(), password=None)
    except (OSError, ValueError, TypeError) as fault:
        raise KeyFault(f"{path} holds no key that can be read ({fault.__class__.__name__}); {again}") from None
    if not isinstance(loaded, rsa.RSAPrivateKey) or _public(loaded) != key["public"]:
        raise KeyFault(f"{path} is not the key that {folder_of(pki)}/keys.json names; {again}")
    return text


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()


@contextlib.contextmanager
def _held(pki: object) -> Iterator[None]:
    """Hosts are served in parallel, and two of them may ask for the first key at the same moment."""
    folder_of(pki).mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder_of(pki) / ".lock").open("w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write(pki: object, found: list[Key]) -> None:
    _put(folder_of(pki) / "keys.json", json.dumps({"keys": found}, indent=1).encode() + b"\n")


def _put(path: Path, data: bytes) -> None:
    """A file in one step, readable by its owner alone."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    Path(temporary).replace(path)


class FilterModule:
    """Announces the filters to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"lemonstand_signing_keys": keys}


def main(words: list[str]) -> int:
    """One step of a change of keys: directory of the CAs, `prepare`, `switch` or `retire`, and of `retire` the selectors."""
    pki, step, *selectors = words
    try:
        if step == "prepare":
            print(f"changed: {prepare(pki)['selector']} is the next key")
        elif step == "switch":
            print(f"changed: {switch(pki)['selector']} signs")
        elif step == "retire":
            retire(pki, selectors)
            print(f"changed: {' '.join(selectors)} forgotten")
        else:
            sys.exit(f"dkim_step '{step}': give prepare, switch or retire")
    except KeyFault as fault:
        sys.exit(str(fault))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
