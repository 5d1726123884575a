"""False certificates for checks of labs: right key, wrong name or wrong CA."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lemonstand.outcomes import Invalid

LIFE = datetime.timedelta(hours=1)
BACKDATE = datetime.timedelta(minutes=5)


def counterfeit(folder: Path, true: str, names: list[str]) -> str:
    """A certificate for the key of a true one, like it in all but names and signer.

    Args:
        folder: the CA's, with `ca.crt` and `ca.key`.
        true: PEM of the one it stands for.
        names: the DNS names it holds.

    Returns:
        PEM.

    Raises:
        Invalid: the CA's key can't be read.
    """
    model = x509.load_pem_x509_certificate(true.encode("ascii"))
    try:
        ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except FileNotFoundError as fault:
        raise Invalid(f"{fault.filename} is not on this controller: is it with a signer?") from None
    except OSError as fault:
        raise Invalid(f"the CA can't be read: {fault}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid(f"{folder}/ca.key is no elliptic-curve key")
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])]))
        .issuer_name(ca.subject)
        .public_key(model.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LIFE)
    )
    replaced = (x509.SubjectAlternativeName, x509.AuthorityKeyIdentifier)
    for extension in model.extensions:
        if not isinstance(extension.value, replaced):
            builder = builder.add_extension(extension.value, extension.critical)
    signer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")
