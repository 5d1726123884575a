"""Have the certificates one host needs signed, on the controller, by private CAs kept there or by a signer elsewhere (docs/decisions/0053).

Reads an order as JSON from standard input and prints the certificates as JSON. Names, usage and CA come from the play alone: of
a signing request only the public key and the proof that its owner holds the private key are used. A CA is made when it is first
named. Needs the `cryptography` package, which ansible-core brings. Several hosts may ask at once; a lock keeps them in line.
"""

import contextlib
import datetime
import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
ROTATION = "rotation.json"
"""Beside the CAs while they are changed."""
# Clocks of controller and hosts differ a little; a certificate is valid from this long ago.
BACKDATE = datetime.timedelta(minutes=5)


class SignError(Exception):
    """Something an operator has to mend; the text says what and where."""


class Authority:
    """One private CA: its certificate and, where it is kept here, the key that signs."""

    def __init__(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.name = name
        self.certificate = certificate
        self.key = key

    @property
    def pem(self) -> str:
        """Return the CA certificate as PEM."""
        return to_pem(self.certificate)

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """Return the key.

        Raises:
            SignError: a signer has it.
        """
        if self.key is None:
            raise SignError(f"the key of the CA {self.name} is not here; see lemonstand_signer")
        return self.key


class Due(NamedTuple):
    """A certificate that is to be signed: whose name it has to have, the signing request (PEM), and by which CA."""

    request: dict[str, Any]
    csr: str
    ca: Authority


def to_pem(certificate: x509.Certificate) -> str:
    """Return a certificate as PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def public_bytes(key: Any) -> bytes:
    """Return a public key in its one canonical form, for comparison."""
    data: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return data


def now() -> datetime.datetime:
    """Return the time in UTC, whole seconds, as certificates hold it."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def write(path: Path, data: bytes, mode: int) -> None:
    """Put a file in place in one step."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "wb") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    Path(temporary).replace(path)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: hosts are served in parallel and two of them may name a new CA at the same moment."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / ".lock").open("w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def make_authority(folder: Path, order: dict[str, Any], name: str = "") -> Authority:
    """Make a CA: for leaves only (path length 0), allowed to sign certificates and revocation lists (RFC 5280 4.2.1.3, 4.2.1.9)."""
    name = name or folder.name
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{order['ca_label']} {name} CA")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - BACKDATE)
        .not_valid_after(now() + datetime.timedelta(days=order["ca_days"]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    suffixes = order["ca_name_constraints"].get(name, [])
    if suffixes:
        permitted = [x509.DNSName(suffix) for suffix in suffixes]
        builder = builder.add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    folder.mkdir(mode=0o700, exist_ok=True)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write(folder / "ca.key", private, 0o600)
    write(folder / "ca.crt", to_pem(certificate).encode("ascii"), 0o644)
    return Authority(name, certificate, key)


def certificate_of(folder: Path) -> Path:
    """The certificate of the CA that signs: if its change was cut off between two files (rotate_authorities.py), the next one's."""
    key, coming = folder / "ca.key", folder / "next"
    switched = (coming / "ca.crt").exists() and key.exists() and (coming / "ca.key").exists()
    return coming / "ca.crt" if switched and key.read_bytes() == (coming / "ca.key").read_bytes() else folder / "ca.crt"


def load_authority(folder: Path) -> Authority | None:
    """Load a CA, or None if there is none yet; refuse one whose parts do not fit or whose time is up."""
    certificate_file, key_file = certificate_of(folder), folder / "ca.key"
    if not certificate_file.exists():
        if key_file.exists():
            raise SignError(f"{key_file} is there but {certificate_file} is not; restore it, or move the CA away to have a new one made")
        return None
    if not key_file.exists():
        raise SignError(f"{certificate_file} is there but {key_file} is not; restore the key, or move the CA away to have a new one made")
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or public_bytes(key.public_key()) != public_bytes(certificate.public_key()):
        raise SignError(f"{key_file} is not the elliptic-curve key of {certificate_file}")
    if certificate.not_valid_after_utc <= now():
        raise SignError(f"{certificate_file} ended {certificate.not_valid_after_utc:%Y-%m-%d}; move the CA away to have a new one made")
    return Authority(folder.name, certificate, key)


def trusted(directory: Path, ca: Authority) -> list[x509.Certificate]:
    """What hosts trust for a CA's purpose: the CA, and while it is changed the one that comes or went (rotate_authorities.py)."""
    files = [directory / ca.name / PARTS[part] for part in beside(read_rotation(directory))]
    more = [x509.load_pem_x509_certificate(path.read_bytes()) for path in files if path.exists()]
    return list(dict.fromkeys([ca.certificate, *more]))


PARTS = {"signs": "ca.crt", "next": "next/ca.crt", "old": "old/ca.crt"}
"""The certificates of a CA, in a signer's words, and where each lies below the CA's folder."""


def beside(rotation: dict[str, Any]) -> tuple[str, ...]:
    """Which of a CA's certificates hosts trust beside the one that signs, while it is changed."""
    return ("next",) if rotation.get("step") == "drop" else ("next", "old")


def seal(key: ec.EllipticCurvePrivateKey, text: str) -> str:
    """Return a signature under a text, in hexadecimal digits, as stores look at it (mail_standby.py)."""
    return key.sign(text.encode(), ec.ECDSA(hashes.SHA256())).hex()


def read_rotation(directory: Path) -> dict[str, Any]:
    """What is known of a change of CAs that is under way: `begun`, `step` (trust, sign, drop) and `authorities`; empty without one."""
    try:
        found: dict[str, Any] = json.loads((directory / ROTATION).read_text(encoding="ascii"))
    except FileNotFoundError:
        return {}
    return found


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return the key usage of a CA or of a leaf."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def why_reissue(
    pem: str | None,
    csr: x509.CertificateSigningRequest,
    request: dict[str, Any],
    ca: Authority,
    order: dict[str, Any],
) -> str | None:
    """Say why the host's certificate has to be replaced, or None to keep it."""
    if not pem:
        return "there is none"
    here = request["name"] in order["renewed_on_host"]
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
        certificate.verify_directly_issued_by(ca.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
        usages = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        # What the host itself gets from elsewhere is the host's to renew.
        return None if here else "it is not of this CA"
    # A CA near its own end can't give more; signing again would not help.
    enough = min(now() + datetime.timedelta(days=order["renew_days"]), ca.certificate.not_valid_after_utc)
    reasons = {
        "it was asked for": bool(order["renew_now"]),
        "it is for another key": public_bytes(certificate.public_key()) != public_bytes(csr.public_key()),
        "its names differ": sorted(names) != sorted(set(request["names"])),
        "its usage differs": usages != [USAGES[request["usage"]]],
        f"it ends {certificate.not_valid_after_utc:%Y-%m-%d}": certificate.not_valid_after_utc < enough,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def sign(csr: x509.CertificateSigningRequest, request: dict[str, Any], ca: Authority, days: float) -> x509.Certificate:
    """Sign a leaf for exactly one use. Names come from the play, the key from the request."""
    key = csr.public_key()
    if not csr.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise SignError(f"the signing request for {request['name']} has no valid signature by an elliptic-curve key")
    names = sorted(set(request["names"]))
    authority_id = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, request["names"][0][:64])]))
        .issuer_name(ca.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now() - BACKDATE, ca.certificate.not_valid_before_utc))
        .not_valid_after(min(now() + datetime.timedelta(days=days), ca.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([USAGES[request["usage"]]]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False)
        .sign(ca.private, hashes.SHA256())
    )


def check_order(order: dict[str, Any]) -> None:
    """Refuse what would make a bad file name or a bad certificate."""
    names = [request["name"] for request in order["requests"]]
    for name in [*names, *[request["ca"] for request in order["requests"]], *order["trusted_cas"]]:
        if not SAFE_NAME.fullmatch(name):
            raise SignError(f"{name!r} can't be the name of a certificate or CA; use a-z, 0-9, dot, dash, underscore")
    if len(names) != len(set(names)):
        raise SignError(f"two requests have the same name: {', '.join(names)}; see certificates_requests")
    for request in order["requests"]:
        if not request["names"] or request["usage"] not in USAGES:
            raise SignError(f"request {request['name']} needs at least one name and a usage of {' or '.join(USAGES)}")


class Keeper(Protocol):
    """Who has the CAs: this machine, or a signer elsewhere."""

    place: str
    """Said in messages: where they are."""

    def held(self) -> contextlib.AbstractContextManager[object]:
        """Nobody else changes them meanwhile."""

    def authorities(self, names: Iterable[str]) -> tuple[dict[str, Authority], list[str]]:
        """The CAs of these names, and those that had to be made, or would have to be."""

    def known(self, name: str) -> Authority | None:
        """A CA that is there; none is made."""

    def trusted(self, ca: Authority) -> list[x509.Certificate]:
        """What hosts trust for a CA's purpose."""

    def sign(self, due: list[Due]) -> list[x509.Certificate]:
        """Signs, and writes down what was signed."""


class Directory:
    """CAs in a directory of this machine: `NAME/ca.crt` and `NAME/ca.key`."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.directory = Path(order["directory"]).expanduser()
        self.place = str(self.directory)

    def held(self) -> contextlib.AbstractContextManager[object]:
        """Hold the directory's lock; a check holds nothing."""
        return contextlib.nullcontext() if self.order["check"] else locked(self.directory)

    def authorities(self, names: Iterable[str]) -> tuple[dict[str, Authority], list[str]]:
        """Load CAs, and make those that are missing."""
        found: dict[str, Authority] = {}
        made = []
        for name in names:
            authority = self.known(name)
            if authority is None:
                made.append(name)
                if not self.order["check"]:
                    authority = make_authority(self.directory / name, self.order)
            if authority is not None:
                found[name] = authority
        return found, made

    def known(self, name: str) -> Authority | None:
        """Load a CA that is there."""
        return load_authority(self.directory / name)

    def trusted(self, ca: Authority) -> list[x509.Certificate]:
        """The CA, and while it is changed the one that comes or went."""
        return trusted(self.directory, ca)

    def sign(self, due: list[Due]) -> list[x509.Certificate]:
        """Sign with the keys here, all or none."""
        signed = [sign(x509.load_pem_x509_csr(csr.encode("ascii")), request, ca, self.order["days"]) for request, csr, ca in due]
        for (request, _, ca), certificate in zip(due, signed, strict=True):
            record(self.directory / ca.name, self.order["host"], request, certificate)
        return signed


VERSION = 1
"""Of the questions a signer is asked (docs/decisions/0053)."""
SIGNER_SECONDS = 60.0


class Signer:
    """CAs whose keys a signer has; it is asked by a command. Copies of their certificates lie in the directory here."""

    def __init__(self, command: list[str], directory: Path, *, check: bool, host: str = "", days: float = 0) -> None:
        self.command = command
        self.directory = directory
        self.check = check
        self.host = host
        self.days = days
        self.place = f"the signer ({' '.join(command)})"
        self.told: dict[str, Any] = {}

    def ask(self, question: str, **given: Any) -> dict[str, Any]:
        """Ask one question; the copies here follow what the answer says of the CAs.

        Raises:
            SignError: there is no answer, or the signer refuses; then it has done nothing.
        """
        asked = json.dumps({"version": VERSION, "question": question, "check": self.check, **given})
        see = "see lemonstand_signer, and that the signer answers this command"
        try:
            # A session of its own: nothing it runs asks anybody at a terminal.
            done = subprocess.run(
                self.command, input=asked, capture_output=True, text=True, timeout=SIGNER_SECONDS, check=False, start_new_session=True
            )
            # A machine may say something of its own to whoever comes in.
            answer: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
            if "error" in answer:
                raise SignError(f"{self.place} refuses: {answer['error']}")
            self.told = {key: answer[key] for key in ("authorities", "retired", "rotation")}
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise SignError(f"{self.place} can't be asked: {fault}; {see}") from None
        except (ValueError, KeyError, TypeError):
            said = " ".join(f"{done.stdout} {done.stderr}".split())[-500:] or f"exit status {done.returncode}"
            raise SignError(f"{self.place} gives no answer: {said}; {see}") from None
        if not self.check:
            with locked(self.directory):
                self._copy()
        return answer

    def _copy(self) -> None:
        """Bring the copies here to what the signer said. Refuse CAs that hosts know nothing of.

        Raises:
            SignError: it has another CA than the one hosts trust.
        """
        authorities = {name: said for name, said in self.told["authorities"].items() if SAFE_NAME.fullmatch(name)}
        for name, said in authorities.items():
            here = self.directory / name / PARTS["signs"]
            has = fingerprint(here.read_text(encoding="ascii")) if here.exists() else None
            if has is not None and has not in {*map(fingerprint, said.values()), *self.told["retired"].get(name, ())}:
                raise SignError(
                    f"{self.place} has another CA {name} than the one hosts trust ({here}): all would refuse one another; move that one"
                    " with its key to the signer, or take the signer's on purpose: `lemonstand certificates renew --new-authorities`"
                )
        for name, said in authorities.items():
            for part, file in PARTS.items():
                path = self.directory / name / file
                if part in said and not (path.exists() and path.read_text(encoding="ascii") == said[part]):
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    write(path, said[part].encode("ascii"), 0o644)
                elif part not in said:
                    path.unlink(missing_ok=True)
                    if part != "signs" and path.parent.is_dir() and not any(path.parent.iterdir()):
                        path.parent.rmdir()
        rotation = self.directory / ROTATION
        if self.told["rotation"]:
            write(rotation, (json.dumps(self.told["rotation"]) + "\n").encode("ascii"), 0o600)
        else:
            rotation.unlink(missing_ok=True)

    def held(self) -> contextlib.AbstractContextManager[object]:
        """The signer keeps its own order."""
        return contextlib.nullcontext()

    def authorities(self, names: Iterable[str]) -> tuple[dict[str, Authority], list[str]]:
        """Ask for CAs; the signer makes those its policy has."""
        wanted = list(names)
        answer = self.ask("authorities", names=wanted)
        return {name: ca for name in wanted if (ca := self.known(name)) is not None}, list(answer.get("made", ()))

    def known(self, name: str) -> Authority | None:
        """A CA as the last answer had it."""
        if not self.told:
            self.ask("authorities", names=[])
        said = self.told["authorities"].get(name)
        return Authority(name, x509.load_pem_x509_certificate(said["signs"].encode("ascii"))) if said else None

    def trusted(self, ca: Authority) -> list[x509.Certificate]:
        """The CA, and while it is changed the one that comes or went."""
        said = self.told["authorities"][ca.name]
        parts = beside(self.told["rotation"])
        more = [x509.load_pem_x509_certificate(said[part].encode("ascii")) for part in parts if part in said]
        return list(dict.fromkeys([ca.certificate, *more]))

    def sign(self, due: list[Due]) -> list[x509.Certificate]:
        """Have all of them signed by one question; what comes back is looked at before any host is given it."""
        if not due:
            return []
        requests = [
            {
                "ca": each.ca.name, "usage": each.request["usage"], "names": sorted(set(each.request["names"])), "csr": each.csr,
                "days": self.days, "host": self.host, "name": each.request["name"],
            }
            for each in due
        ]  # fmt: skip
        answer = self.ask("sign", requests=requests)
        if self.check:
            return []
        signed = [x509.load_pem_x509_certificate(pem.encode("ascii")) for pem in answer["certificates"]]
        if len(signed) != len(due):
            raise SignError(f"{self.place} signed {len(signed)} certificates of {len(due)}; nothing of it is used")
        for certificate, each in zip(signed, due, strict=True):
            self._fits(certificate, each)
        return signed

    def _fits(self, certificate: x509.Certificate, due: Due) -> None:
        csr = x509.load_pem_x509_csr(due.csr.encode("ascii"))
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = sorted(alternative.get_values_for_type(x509.DNSName))
        # The CA may have been changed since it was asked about.
        ca = self.known(due.ca.name) or due.ca
        right = public_bytes(certificate.public_key()) == public_bytes(csr.public_key()) and names == sorted(set(due.request["names"]))
        if not right or not issued(certificate, ca.certificate):
            raise SignError(f"{self.place} signed something else than {due.request['name']}; nothing of it is used")

    def rotate(self, step: str, authorities: list[str]) -> list[str]:
        """Have one step of a change of CAs done; a line for each thing that changed."""
        return [str(line) for line in self.ask("rotate", step=step, authorities=authorities)["changed"]]

    def seal(self, text: str) -> str:
        """The signature of the CA of hosts under a text that says who serves, in hexadecimal digits (docs/decisions/0036)."""
        return str(self.ask("seal", text=text)["signature"])


def fingerprint(pem: str) -> str:
    """The SHA-256 of a certificate, in hexadecimal digits."""
    return x509.load_pem_x509_certificate(pem.encode("ascii")).fingerprint(hashes.SHA256()).hex()


def keeper_of(order: dict[str, Any]) -> Keeper:
    """Who has the CAs, by an order: `signer` (a command) or `directory`."""
    if order.get("signer"):
        directory = Path(order["directory"]).expanduser()
        return Signer(list(order["signer"]), directory, check=order["check"], host=order["host"], days=order["days"])
    return Directory(order)


def work(order: dict[str, Any]) -> dict[str, Any]:
    """Do the order; with `check` say what would be done and touch nothing."""
    check_order(order)
    check: bool = order["check"]
    keeper = keeper_of(order)
    with keeper.held():
        wanted = dict.fromkeys([*[request["ca"] for request in order["requests"]], *order["trusted_cas"]])
        authorities, made = keeper.authorities(wanted)
        changed = [f"CA {name} in {keeper.place}" for name in made]
        certificates: dict[str, str] = {}
        due: list[Due] = []
        for request in order["requests"]:
            prepared = order["prepared"].get(request["name"], {})
            ca = authorities.get(request["ca"])
            if ca is None or not prepared.get("csr"):
                if not check:
                    raise SignError(f"the host sent no signing request for {request['name']}")
                changed.append(f"certificate {request['name']}: there is none")
                continue
            csr = x509.load_pem_x509_csr(prepared["csr"].encode("ascii"))
            reason = why_reissue(prepared.get("certificate"), csr, request, ca, order)
            if reason is None:
                certificates[request["name"]] = prepared["certificate"]
                continue
            changed.append(f"certificate {request['name']}: {reason}")
            due.append(Due(request, prepared["csr"], ca))
        if not check:
            certificates |= {each.request["name"]: to_pem(new) for each, new in zip(due, keeper.sign(due), strict=True)}
        known = {name: keeper.trusted(authorities[name]) for name in order["trusted_cas"] if name in authorities}
    return {"changed": changed, "certificates": certificates, "cas": {name: "".join(map(to_pem, each)) for name, each in known.items()}}


def renew_due(order: dict[str, Any]) -> dict[str, Any]:
    """Sign anew what ends soon, of CAs that are there and for keys that are there; with `check` say what would be signed."""
    check_order(order)
    keeper = keeper_of(order)
    problems: list[str] = []
    ends: list[datetime.datetime] = []
    due: list[Due] = []
    soon = now() + datetime.timedelta(days=order["renew_days"])
    with keeper.held():
        for request in order["requests"]:
            prepared = order["prepared"].get(request["name"], {})
            if request["name"] in order["renewed_on_host"] or not prepared.get("csr") or not prepared.get("certificate"):
                continue
            certificate = x509.load_pem_x509_certificate(prepared["certificate"].encode("ascii"))
            end = certificate.not_valid_after_utc
            if end >= soon:
                continue
            ca = keeper.known(request["ca"])
            what = f"certificate {request['name']} ends {end:%Y-%m-%d %H:%M}"
            if ca is None or not any(issued(certificate, each) for each in keeper.trusted(ca)):
                problems.append(
                    f"{what}, and none of the CAs {request['ca']} in {keeper.place} signed it: is that another site's directory?"
                )
            elif ca.certificate.not_valid_after_utc <= max(end, soon):
                problems.append(f"{what}, and so does its CA {ca.name}: make another one with `lemonstand certificates rotate`")
            else:
                due.append(Due(request, prepared["csr"], ca))
                ends.append(end)
        signed = [] if order["check"] else keeper.sign(due)
    changed = [f"certificate {each.request['name']}: it ends {end:%Y-%m-%d %H:%M}" for each, end in zip(due, ends, strict=True)]
    if not order["check"]:
        changed = [f"{line}, the new one {new.not_valid_after_utc:%Y-%m-%d %H:%M}" for line, new in zip(changed, signed, strict=True)]
    certificates = {each.request["name"]: to_pem(new) for each, new in zip(due, signed, strict=False)}
    return {"changed": changed, "certificates": certificates, "cas": {}, "problems": problems}


def issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether a CA signed a certificate."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def record(folder: Path, host: str, request: dict[str, Any], certificate: x509.Certificate) -> None:
    """Keep a line on every certificate a CA has signed: what an audit or a revocation list starts from."""
    line = {
        "signed": now().isoformat(),
        "host": host,
        "name": request["name"],
        "usage": request["usage"],
        "names": sorted(set(request["names"])),
        "serial": f"{certificate.serial_number:x}",
        "ends": certificate.not_valid_after_utc.isoformat(),
    }
    with (folder / "issued.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def main() -> int:
    """Read the order from standard input, print the answer."""
    os.umask(0o077)
    try:
        print(json.dumps(work(json.load(sys.stdin))))
    except SignError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
