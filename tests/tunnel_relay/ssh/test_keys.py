from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest
import trio

from tests.support.sshd import generate_key
from tunnel_relay.errors import SshKeyError
from tunnel_relay.protocol.ssh_fields import Fields, string, uint32
from tunnel_relay.ssh.hostkeys import HostKey
from tunnel_relay.ssh.keys import KeyIdentity, generate_identity, key_file_warning, load_key_file

KINDS = {
    "ed25519": ("ed25519", ()),
    "ecdsa256": ("ecdsa", ("-b", "256")),
    "ecdsa384": ("ecdsa", ("-b", "384")),
    "ecdsa521": ("ecdsa", ("-b", "521")),
    "rsa": ("rsa", ("-b", "2048")),
    "rsa-pem": ("rsa", ("-b", "2048", "-m", "PEM")),
    "ecdsa-pkcs8": ("ecdsa", ("-m", "PKCS8")),
}
# Few rounds: how slow bcrypt can be is not what is tested.
FAST = ("-a", "1")


def verify_with_ssh_keygen(tmp_path: Path, public: str, data: bytes, signature: bytes) -> bool:
    """Let OpenSSH judge a signature, in the file format of its ``-Y`` (PROTOCOL.sshsig)."""
    blob = base64.b64decode(public.split()[1])
    body = (
        b"SSHSIG"
        + uint32(1)
        + string(blob)
        + string(b"test")
        + string(b"")
        + string(b"sha512")
        + string(signature)
    )
    armored = base64.b64encode(body).decode()
    (tmp_path / "sig").write_text(f"-----BEGIN SSH SIGNATURE-----\n{armored}\n-----END SSH SIGNATURE-----\n")
    (tmp_path / "signers").write_text(f"me {public}\n")
    command = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "signers"), "-I", "me", "-n", "test"]
    done = subprocess.run(
        [*command, "-s", str(tmp_path / "sig")], input=data, capture_output=True, check=False
    )
    return done.returncode == 0


def signed_data(data: bytes) -> bytes:
    return (
        b"SSHSIG" + string(b"test") + string(b"") + string(b"sha512") + string(hashlib.sha512(data).digest())
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_keys_of_every_kind_sign_so_that_openssh_agrees(kind: str, tmp_path: Path) -> None:
    name, extra = KINDS[kind]
    public = generate_key(tmp_path / "key", name, extra=extra)
    (identity,) = await load_key_file(tmp_path / "key")
    assert identity.public_line == " ".join(public.split()[:2])
    algorithm = "rsa-sha2-512" if name == "rsa" else HostKey(identity.blob).kind
    signature = await identity.sign(signed_data(b"message"), algorithm)
    assert Fields(signature).string().decode() == algorithm
    assert verify_with_ssh_keygen(tmp_path, public, b"message", signature)
    assert not verify_with_ssh_keygen(tmp_path, public, b"other", signature)


async def test_an_rsa_key_signs_with_the_hash_that_is_asked_for(tmp_path: Path) -> None:
    generate_key(tmp_path / "key", "rsa", extra=("-b", "2048"))
    (identity,) = await load_key_file(tmp_path / "key")
    for algorithm in ("rsa-sha2-256", "rsa-sha2-512", "rsa-sha2-256-cert-v01@openssh.com"):
        signature = await identity.sign(b"x", algorithm)
        assert Fields(signature).string().decode() == algorithm.removesuffix("-cert-v01@openssh.com")


@pytest.mark.parametrize(
    "extra", [FAST, (*FAST, "-m", "PEM"), (*FAST, "-m", "PKCS8"), (*FAST, "-Z", "aes256-gcm@openssh.com")]
)
async def test_encrypted_keys_ask_for_their_passphrase_once(extra: tuple[str, ...], tmp_path: Path) -> None:
    generate_key(tmp_path / "key", "ecdsa", passphrase="sesame", extra=extra)
    asked: list[str] = []

    def answer() -> str:
        asked.append("passphrase")
        return "sesame"

    assert await load_key_file(tmp_path / "key", answer)
    assert asked == ["passphrase"]
    with pytest.raises(SshKeyError, match=r"passphrase of .* is wrong"):
        await load_key_file(tmp_path / "key", lambda: "wrong")
    with pytest.raises(SshKeyError, match="is encrypted; give"):
        await load_key_file(tmp_path / "key")


async def test_a_plain_key_asks_for_nothing(tmp_path: Path) -> None:
    generate_key(tmp_path / "key")

    def refuse() -> str:
        raise AssertionError("nobody should be asked")

    assert await load_key_file(tmp_path / "key", refuse)


async def test_a_certificate_beside_the_key_is_offered_first(tmp_path: Path) -> None:
    generate_key(tmp_path / "ca")
    generate_key(tmp_path / "key")
    sign = ["ssh-keygen", "-q", "-s", str(tmp_path / "ca"), "-I", "id", "-n", "me", str(tmp_path / "key.pub")]
    await trio.run_process(sign, capture_stderr=True)
    certificate, plain = await load_key_file(tmp_path / "key")
    assert HostKey(certificate.blob).kind == "ssh-ed25519-cert-v01@openssh.com"
    assert certificate.name.endswith("key-cert.pub")
    assert HostKey(plain.blob).kind == "ssh-ed25519"


@pytest.mark.parametrize("content", ["", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-ed25519 AAAA"])
async def test_a_broken_certificate_is_named(content: str, tmp_path: Path) -> None:
    generate_key(tmp_path / "key")
    (tmp_path / "key-cert.pub").write_text(content)
    with pytest.raises(SshKeyError, match=r"key-cert\.pub is not a certificate"):
        await load_key_file(tmp_path / "key")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not a private key"),
        ("hello", "is not a private key"),
        ("ssh-ed25519 AAAAC3 me", "is a public key; give the private one"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "is a public key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "puttygen"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "damaged"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----", "damaged"),
        ("x" * 300_000, "too large"),
    ],
)
async def test_what_is_no_private_key_is_told_apart(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(SshKeyError) as caught:
        await load_key_file(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SshKeyError, match="does not exist"):
        await load_key_file(tmp_path / "none")
    with pytest.raises(SshKeyError, match="cannot be read"):
        await load_key_file(tmp_path)


async def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    generate_key(tmp_path / "key", "rsa", extra=("-b", "1024"))
    with pytest.raises(SshKeyError, match="1024 bits"):
        await load_key_file(tmp_path / "key")


async def test_a_kind_of_key_that_ssh_gave_up_is_refused(tmp_path: Path) -> None:
    command = ["openssl", "genpkey", "-algorithm", "x25519", "-out", str(tmp_path / "key")]
    await trio.run_process(command, capture_stderr=True)
    with pytest.raises(SshKeyError, match="ssh-keygen -t ed25519"):
        await load_key_file(tmp_path / "key")


async def test_a_cipher_that_is_not_known_here_points_to_the_agent(tmp_path: Path) -> None:
    generate_key(tmp_path / "key", passphrase="sesame", extra=(*FAST, "-Z", "chacha20-poly1305@openssh.com"))
    with pytest.raises(SshKeyError, match="add it to ssh-agent"):
        await load_key_file(tmp_path / "key", lambda: "sesame")


def test_permissions_are_only_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("x")
    path.chmod(0o644)
    assert "chmod 600" in (key_file_warning(path) or "")
    path.chmod(0o600)
    assert key_file_warning(path) is None
    assert key_file_warning(tmp_path / "none") is None


def test_secrets_do_not_show() -> None:
    identity = generate_identity()
    assert isinstance(identity, KeyIdentity)
    assert repr(identity) == "KeyIdentity(name='ephemeral key')"
    assert generate_identity().public_line != identity.public_line
