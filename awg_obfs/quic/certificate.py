"""A server certificate that lives in memory only.

QUIC's handshake demands one. Here it proves nothing: the session below has authenticated both ends by their static
keys, and the client does not look at it.
"""

from __future__ import annotations

import datetime as dt

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# Nobody checks the dates: a certificate that never expires needs no clock.
_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_FOREVER = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "session")])


@attrs.frozen
class ServerCertificate:
    """A self-signed certificate and its private key."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey = attrs.field(repr=False)

    def certificate_pem(self) -> bytes:
        """Return the certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def private_key_pem(self) -> bytes:
        """Return the private key as PEM (PKCS #8, not encrypted)."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def generate_certificate() -> ServerCertificate:
    """Return a fresh certificate for the curve P-256, which all QUIC implementations speak."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_EPOCH)
        .not_valid_after(_FOREVER)
        .sign(key, hashes.SHA256())
    )
    return ServerCertificate(certificate, key)
