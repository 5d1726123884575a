"""Certificates on hosts."""

from __future__ import annotations

import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def all_in(name: str, pem: str) -> list[Certificate]:
    """Every certificate of a file.

    Args:
        name: the file without `.crt`.
        pem: its text.

    Raises:
        ValueError: there is none in it.
    """
    form = serialization.Encoding.PEM
    return [Certificate(name, each.public_bytes(form).decode("ascii")) for each in x509.load_pem_x509_certificates(pem.encode())]


class Certificate:
    """A certificate on a host.

    Args:
        name: its file without `.crt`.
        pem: its text.
    """

    def __init__(self, name: str, pem: str) -> None:
        self.name = name
        self.x509 = x509.load_pem_x509_certificates(pem.encode())[0]

    @property
    def names(self) -> list[str]:
        """The DNS names it is good for (RFC 6125: the common name counts for nothing)."""
        try:
            found = self.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return []
        return found.value.get_values_for_type(x509.DNSName)

    @property
    def uses(self) -> list[str]:
        """`server`, `client`, or the number of another extended use."""
        known = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}
        try:
            found = self.x509.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        except x509.ExtensionNotFound:
            return []
        return sorted(known.get(use, use.dotted_string) for use in found.value)

    @property
    def public_key(self) -> str:
        """Its public key as PEM."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.x509.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def signed_by(self, authority: Certificate) -> bool:
        """Whether a CA signed it."""
        try:
            self.x509.verify_directly_issued_by(authority.x509)
        except Exception:  # any reason is a no; cryptography has several
            return False
        return True

    @property
    def sha256(self) -> str:
        """Its fingerprint, in hexadecimal digits."""
        return self.x509.fingerprint(hashes.SHA256()).hex()

    @property
    def signer(self) -> str:
        """The name of who signed it."""
        names = self.x509.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else self.x509.issuer.rfc4514_string()

    @property
    def life(self) -> float:
        """Days from its beginning to its end."""
        return (self.x509.not_valid_after_utc - self.x509.not_valid_before_utc).total_seconds() / 86400

    def days_left_now(self) -> float:
        """Days until it ends, by this machine's clock."""
        return self.days_left(time.time())

    def days_left(self, now: float) -> float:
        """Days until it ends."""
        return (self.x509.not_valid_after_utc.timestamp() - now) / 86400
