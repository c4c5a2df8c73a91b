from __future__ import annotations

import pytest
import trio

from session_proxy.lab.documents import PORT_FORWARDING, SSH
from session_proxy.lab.smux_server import Command, SmuxFrame
from session_proxy.lab.targets import echo_stream
from tests.support.lab import open_gateway, open_port, start
from tests.support.ssm_client import PlainClient


@pytest.mark.parametrize(
    ("document", "version", "multiplexed"),
    [
        (SSH, "1.2.650.0", False),
        (PORT_FORWARDING, "1.1.69.0", False),
        (PORT_FORWARDING, "1.1.70.0", True),
        (PORT_FORWARDING, "1.2.650.0", True),
    ],
)
async def test_the_document_and_the_clients_version_decide(
    document: str, version: str, multiplexed: bool
) -> None:
    sent = SmuxFrame(Command.SYN, 3).encode() + SmuxFrame(Command.PSH, 3, b"hello").encode()
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway() as gateway:
            client = PlainClient(version=version)
            async with client.connect(start(gateway, port, document)):
                await client.wait_complete()
                await client.send(sent)
                await client.wait_for(b"hello")

    assert client.data.endswith(sent[8:] if multiplexed else sent)
    assert (client.data == sent) is not multiplexed
