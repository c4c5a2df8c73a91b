"""The keys that prove who we are: read from files, or made on the spot."""

from __future__ import annotations

import base64
import binascii
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import attrs
import trio
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from tunnel_relay.errors import SshKeyError
from tunnel_relay.protocol.ssh_fields import string
from tunnel_relay.ssh.algorithms import CERTIFICATE, MIN_RSA_BITS
from tunnel_relay.ssh.hostkeys import HostKey

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# No private key is larger.
MAX_FILE = 256 * 1024
_CURVE_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


class Identity(Protocol):
    """A key that can log in."""

    @property
    def name(self) -> str:
        """Where the key comes from, for people: a file's path, or an agent and the key's comment."""
        ...

    @property
    def blob(self) -> bytes:
        """The public key, or its certificate, as it stands in the protocol."""
        ...

    async def sign(self, data: bytes, algorithm: str) -> bytes:
        """Return the signature of *data*, in the format of RFC 4253, section 6.6.

        *algorithm* is a name of RFC 8332 where the key is an RSA key, else the key's own.

        Raises:
          SshKeyError: the key cannot be used after all.

        """
        ...


@attrs.frozen
class KeyIdentity:
    """A private key in our memory. Make one with `load_key_file` or `generate_identity`."""

    name: str
    blob: bytes = attrs.field(repr=False)
    _key: PrivateKey = attrs.field(repr=False)

    @property
    def public_line(self) -> str:
        """The public key as it stands in authorized_keys."""
        return HostKey(self.blob).line

    async def sign(self, data: bytes, algorithm: str) -> bytes:
        """See `Identity.sign`; works in a thread, because RSA takes milliseconds."""
        return await trio.to_thread.run_sync(_sign, self._key, data, algorithm)


def _sign(key: PrivateKey, data: bytes, algorithm: str) -> bytes:
    algorithm = algorithm.removesuffix(CERTIFICATE)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(data)
    elif isinstance(key, rsa.RSAPrivateKey):
        digest = hashes.SHA512() if algorithm == "rsa-sha2-512" else hashes.SHA256()
        signature = key.sign(data, padding.PKCS1v15(), digest)
    else:
        # RFC 5656, section 3.1.2: the two numbers as mpints.
        numbers = decode_dss_signature(key.sign(data, ec.ECDSA(_CURVE_HASHES[key.curve.name])))
        signature = b"".join(string(n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers)
    return string(algorithm.encode("ascii")) + string(signature)


def generate_identity(name: str = "ephemeral key") -> KeyIdentity:
    """Return a new Ed25519 key that lives in memory only."""
    key = ed25519.Ed25519PrivateKey.generate()
    return KeyIdentity(name, _public_blob(key), key)


async def load_key_file(path: Path, passphrase: Callable[[], str] | None = None) -> tuple[KeyIdentity, ...]:
    """Return the identities in the file *path*: its certificate (``PATH-cert.pub``) if there is one, and the key.

    OpenSSH's own format, PEM and PKCS #8 are read; Ed25519, ECDSA and RSA keys. *passphrase* is called, in a
    thread, only where the key is encrypted.

    Raises:
      SshKeyError: there is no usable key; the message says what is wrong and what to do.

    """
    return await trio.to_thread.run_sync(partial(_load, path, passphrase))


def key_file_warning(path: Path) -> str | None:
    """Return what is wrong with the permissions of *path*, if anything; ssh(1) would refuse such a key."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    if mode & 0o077:
        return f"{path} can be read by others (mode {mode:04o}); run: chmod 600 {path}"
    return None


def _load(path: Path, passphrase: Callable[[], str] | None) -> tuple[KeyIdentity, ...]:
    data = _read(path)
    try:
        key = _parse(data, None)
    except TypeError:
        # cryptography's way to say that the key is encrypted.
        if passphrase is None:
            raise SshKeyError(f"{path} is encrypted; give its passphrase, or add it to ssh-agent") from None
        key = _decrypt(path, data, passphrase())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise _unusable(path, data, exc) from exc
    if not isinstance(key, PrivateKey):
        raise SshKeyError(
            f"{path} is of a type that SSH no longer uses; make one with: ssh-keygen -t ed25519"
        )
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < MIN_RSA_BITS:
        raise SshKeyError(
            f"{path} is too short to be safe ({key.key_size} bits); make one with: ssh-keygen -t ed25519"
        )
    plain = KeyIdentity(str(path), _public_blob(key), key)
    certificate = _certificate(path.with_name(path.name + "-cert.pub"))
    if certificate is None:
        return (plain,)
    return KeyIdentity(f"{path}-cert.pub", certificate, key), plain


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError as exc:
        raise SshKeyError(f"{path} does not exist; give the path of a private key") from exc
    except OSError as exc:
        raise SshKeyError(f"{path} cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_FILE:
        raise SshKeyError(f"{path} is too large for a private key")
    return data


def _parse(data: bytes, passphrase: bytes | None) -> object:
    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    return load(data, passphrase)


def _decrypt(path: Path, data: bytes, passphrase: str) -> object:
    try:
        return _parse(data, passphrase.encode("utf-8"))
    except (ValueError, TypeError, InvalidTag) as exc:
        raise SshKeyError(f"the passphrase of {path} is wrong") from exc
    except UnsupportedAlgorithm as exc:
        raise _unusable(path, data, exc) from exc


def _unusable(path: Path, data: bytes, exc: Exception) -> SshKeyError:
    if data.startswith((b"ssh-", b"ecdsa-", b"sk-", b"---- BEGIN SSH2 PUBLIC KEY", b"-----BEGIN PUBLIC KEY")):
        return SshKeyError(f"{path} is a public key; give the private one, which has no .pub at its end")
    if data.startswith(b"PuTTY-User-Key-File"):
        return SshKeyError(f"{path} is in PuTTY's format; export it as OpenSSH key with puttygen")
    if isinstance(exc, UnsupportedAlgorithm):
        return SshKeyError(f"{path} is of a kind that cannot be read here ({exc}); add it to ssh-agent")
    if b"PRIVATE KEY-----" in data:
        return SshKeyError(f"{path} is a damaged private key")
    return SshKeyError(f"{path} is not a private key")


def _public_blob(key: PrivateKey) -> bytes:
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


def _certificate(path: Path) -> bytes | None:
    try:
        fields = path.read_bytes().split()
    except OSError:
        return None
    try:
        blob = base64.b64decode(fields[1], validate=True)
    except (IndexError, binascii.Error) as exc:
        raise SshKeyError(f"{path} is not a certificate; remove it or make a new one") from exc
    if not HostKey(blob).kind.endswith(CERTIFICATE):
        raise SshKeyError(f"{path} is not a certificate; remove it or make a new one")
    return blob
