from __future__ import annotations

import os

import pytest
import trio
from trio.testing import MockClock

from awg_obfs.devices import make_device
from awg_obfs.protocol.keys import new_private_key, public_key_of
from awg_obfs.protocol.parameters import DEFAULT


async def test_devices_are_made_for_quic(autojump_clock: MockClock) -> None:
    """What is not a multiple of 16 bytes comes out as it went in."""
    keys = [new_private_key(os.urandom) for _ in range(2)]
    client, server = (make_device(key, DEFAULT, keepalive_padding=True) for key in keys)
    to_server = client.add_peer(public_key_of(keys[1]), endpoint=("192.0.2.1", 1))
    server.add_peer(public_key_of(keys[0]))
    client.send(to_server, [b"\x40seven!"], trio.current_time())

    for _ in range(3):
        for sender, receiver, source in (
            (client, server, ("192.0.2.2", 2)),
            (server, client, ("192.0.2.1", 1)),
        ):
            for outgoing in sender.take_outgoing():
                receiver.receive(outgoing.datagrams, source, trio.current_time())

    assert [incoming.plaintexts for incoming in server.take_incoming()] == [[b"\x40seven!"]]


async def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32"):
        make_device(b"short", DEFAULT, keepalive_padding=False)
