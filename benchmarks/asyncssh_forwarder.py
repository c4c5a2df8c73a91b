"""asyncssh as a peer: ``python -m benchmarks.asyncssh_forwarder PORT SSHD_PORT USER KEY CIPHER``."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the peer is an asyncio program
import sys

import asyncssh


async def forward(port: int, sshd_port: int, user: str, key: str, cipher: str) -> None:
    """Listen as a SOCKS server on *port*, through the sshd on *sshd_port*, until killed."""
    async with asyncssh.connect(
        "127.0.0.1",
        sshd_port,
        username=user,
        client_keys=[key],
        known_hosts=None,
        encryption_algs=[cipher],
        config=None,
    ) as connection:
        listener = await connection.forward_socks("127.0.0.1", port)
        await listener.wait_closed()


if __name__ == "__main__":
    asyncio.run(forward(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]))
