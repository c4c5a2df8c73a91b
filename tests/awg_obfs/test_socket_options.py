from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from awg_obfs import socket_options
from awg_obfs.socket_options import (
    allow_fragments,
    enable_coalescing,
    enable_segmentation,
    enlarge_buffers,
    speak_both_families,
)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param, socket.SOCK_DGRAM) as opened:
        yield opened


def test_elsewhere_there_is_nothing_but_buffers(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not enable_segmentation(sock)
    assert not enable_coalescing(sock)
    assert not allow_fragments(sock, allow=False)
    before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    enlarge_buffers(sock, 1 << 20)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > before


def test_an_option_that_the_kernel_does_not_know_is_not_there() -> None:
    with socket.socket() as tcp:
        assert not enable_segmentation(tcp)
        assert not speak_both_families(tcp)


def test_a_refused_size_is_halved(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(_sock: socket.socket, _level: int, _option: int, value: int) -> bool:
        asked.append(value)
        return value < 1 << 19

    monkeypatch.setattr(socket_options, "_set", refuse)
    monkeypatch.setattr(sys, "platform", "darwin")
    enlarge_buffers(sock, 1 << 20)
    assert asked == [1 << 20, 1 << 19, 1 << 18] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="the option has another number elsewhere")
@pytest.mark.parametrize("allow", [True, False])
def test_fragments(sock: socket.socket, allow: bool) -> None:
    assert allow_fragments(sock, allow=allow)
    assert sock.getsockopt(socket.IPPROTO_IP, 10) == (1 if allow else 2)
