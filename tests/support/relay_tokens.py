"""Tokens and certificates of a relay of our own."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
import time
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tunnel_relay.protocol.tokens import Claims, Scope, issue, read_keys

SECRET = "a secret that nobody guesses, for it is long"
KEYS = read_keys(SECRET, ["HS256"])
AUDIENCE = "session-proxy"


def make_token(
    user: str,
    *scopes: Scope,
    seconds: float = 600,
    token_id: str = "id",
    tier: str = "",
    now: float | None = None,
    secret: str = SECRET,
    audience: str | None = AUDIENCE,
) -> str:
    """Return a token of *user*, for both scopes unless it is said, that holds for so long from *now* on."""
    now = time.time() if now is None else now
    claims = Claims(user, now + seconds, tier, frozenset(scopes or Scope), token_id)
    return issue(claims, read_keys(secret, ["HS256"])[""], audience=audience, now=now)


@attrs.frozen
class Certificate:
    """A certificate of 127.0.0.1 that signs itself, and its key, in PEM."""

    certificate: str
    key: str = attrs.field(repr=False)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both to files and return them."""
        certificate, key = folder / "cert.pem", folder / "key.pem"
        certificate.write_text(self.certificate)
        key.write_text(self.key)
        key.chmod(0o600)
        return certificate, key

    def server_context(self) -> ssl.SSLContext:
        """Return how to be whoever has it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        with tempfile.TemporaryDirectory() as folder:
            context.load_cert_chain(*self.write(Path(folder)))
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return how to talk to whoever has it."""
        return ssl.create_default_context(cadata=self.certificate)


def make_certificate(*names: str, since: float = -1, until: float = 30, issuer: str = "relay") -> Certificate:
    """Return a certificate of 127.0.0.1 and localhost, or of *names*, that is valid from and to so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    today = dt.datetime.now(dt.UTC)
    addresses: list[x509.GeneralName] = [x509.DNSName(each) for each in names]
    if not names:
        addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today + dt.timedelta(days=since))
        .not_valid_after(today + dt.timedelta(days=until))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(made.public_bytes(serialization.Encoding.PEM).decode(), private.decode())
