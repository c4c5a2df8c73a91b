"""Large transfers by curl through each transport, compared by SHA-256."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from tests.support.curl import needs_curl
from tests.support.programs import Lab, Sproxy

pytestmark = needs_curl

MIB = 1 << 20
GIB = 1 << 30
BLOCK = bytes(range(256)) * (MIB // 256)

# What a machine with two busy cores needs for 1 GiB, several times over.
PATIENCE = 600


def digest_of_pattern(length: int) -> str:
    digest = hashlib.sha256()
    for _ in range(length // MIB):
        digest.update(BLOCK)
    digest.update(BLOCK[: length % MIB])
    return digest.hexdigest()


def download(proxy: Sproxy, url: str) -> str:
    """Return the SHA-256 of what curl brings; nothing is kept, so that size is no matter."""
    argv = ["curl", "-q", "-sS", "--max-time", str(PATIENCE), "-x", f"socks5h://{proxy.address}", url]
    digest = hashlib.sha256()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0) as curl:
        assert curl.stdout is not None
        while piece := curl.stdout.read(MIB):
            digest.update(piece)
    assert curl.returncode == 0
    return digest.hexdigest()


@pytest.mark.parametrize("transport", ["direct", "ssh", "ssm", "ssm-port"])
def test_sixteen_mebibytes_arrive_whole(lab: Lab, proxy: Sproxy, transport: str) -> None:
    length = 16 * MIB + 12345

    assert download(proxy, f"http://{lab.target(transport).http}/bytes/{length}") == digest_of_pattern(length)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["direct", "ssh", "ssm"])
def test_a_gibibyte_arrives_whole(lab: Lab, proxy: Sproxy, transport: str) -> None:
    assert download(proxy, f"http://{lab.target(transport).http}/bytes/{GIB}") == digest_of_pattern(GIB)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["direct", "ssh", "ssm", "ssm-port"])
def test_an_upload_arrives_whole(lab: Lab, proxy: Sproxy, transport: str) -> None:
    length = 256 * MIB
    argv = [
        *("curl", "-q", "-sS", "--max-time", str(PATIENCE), "-x", f"socks5h://{proxy.address}"),
        *("--upload-file", "-", f"http://{lab.target(transport).http}/up"),
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as curl:
        assert curl.stdin is not None
        assert curl.stdout is not None
        for _ in range(length // MIB):
            curl.stdin.write(BLOCK)
        curl.stdin.close()
        answer = curl.stdout.read().decode()

    assert answer == digest_of_pattern(length)
