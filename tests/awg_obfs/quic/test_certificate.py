"""The certificate that nobody looks at."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from awg_obfs.quic.certificate import generate_certificate


def test_it_signs_itself_and_is_new_every_time() -> None:
    made = generate_certificate()
    made.certificate.verify_directly_issued_by(made.certificate)
    assert made.certificate.serial_number != generate_certificate().certificate.serial_number


def test_it_comes_as_pem_too() -> None:
    made = generate_certificate()
    assert x509.load_pem_x509_certificate(made.certificate_pem()) == made.certificate
    key = serialization.load_pem_private_key(made.private_key_pem(), None)
    assert key.public_key() == made.private_key.public_key()


def test_the_key_is_not_shown() -> None:
    assert "private_key" not in repr(generate_certificate())
