"""Files that are read again when they change."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from session_proxy.profile.relay_keys import read_revoked
from session_proxy.supervision import relay_files
from session_proxy.supervision.relay_files import follow, read_tls
from tests.support.relay_tokens import make_certificate


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_files, "LOOK", 0.001)
    path = tmp_path / "revoked.txt"
    path.write_text("one\n")
    taken_send, taken = trio.open_memory_channel[frozenset[str]](10)
    failed_send, failed = trio.open_memory_channel[str](10)
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            await nursery.start(
                follow, [path], lambda: read_revoked(path), taken_send.send_nowait, failed_send.send_nowait
            )
            assert await taken.receive() == {"one"}
            path.write_text("one\ntwo # stolen\n\n# three\n")
            assert await taken.receive() == {"one", "two"}
            path.unlink()
            assert (
                await failed.receive() == f"what was read before holds on: {path}: no such file or directory"
            )
            fresh = tmp_path / "fresh"
            fresh.write_text("four\n")
            fresh.rename(path)
            assert await taken.receive() == {"four"}
            nursery.cancel_scope.cancel()


async def test_a_file_must_be_there_at_first(tmp_path: Path) -> None:
    path = tmp_path / "revoked.txt"
    with pytest.raises(FileNotFoundError):
        await follow([path], lambda: read_revoked(path), lambda _: None, lambda _: None)


def test_a_certificate(tmp_path: Path) -> None:
    context = read_tls(*make_certificate().write(tmp_path))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_a_key_of_somebody_else(tmp_path: Path) -> None:
    certificate, key = make_certificate().write(tmp_path)
    key.write_text(make_certificate().key)
    with pytest.raises(ssl.SSLError) as caught:
        read_tls(certificate, key)
    assert relay_files._told(caught.value) == "no certificate and key that fit: KEY_VALUES_MISMATCH"


def test_a_key_with_a_passphrase(tmp_path: Path) -> None:
    certificate, key = make_certificate().write(tmp_path)
    private = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ValueError, match="passphrase"):
        read_tls(certificate, key)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        os.stat(tmp_path / "none")  # noqa: PTH116
    assert relay_files._told(caught.value) == f"{tmp_path / 'none'}: no such file or directory"
