"""Run one QUIC connection under Trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from awg_obfs.background import open_background
from awg_obfs.paths import DatagramPath
from awg_obfs.quic.certificate import ServerCertificate, generate_certificate
from awg_obfs.quic.connection import QuicConnection
from awg_obfs.quic.engine import Role
from awg_obfs.quic.engines import create_engine
from awg_obfs.quic.settings import QuicSettings

__all__ = ["QuicConnection", "open_quic"]


@asynccontextmanager
async def open_quic(
    role: Role,
    path: DatagramPath,
    *,
    settings: QuicSettings | None = None,
    certificate: ServerCertificate | None = None,
    on_silence: Callable[[bool], None] = lambda _: None,
) -> AsyncGenerator[QuicConnection]:
    """Run a QUIC connection over *path* while the block lasts; leaving it closes the connection.

    The block begins at once: hand what comes to `QuicConnection.received`, then `QuicConnection.wait_ready`.

    Args:
      role: Which end to be. A server waits for a client.
      path: The way to the peer, authenticated and encrypted by what carries it.
      settings: Limits and intervals.
      certificate: A server's, when it has one to use for several connections.
      on_silence: Called with True when the path counts as dead, and with False once the peer is heard again.

    Raises:
      NarrowPathError: the path carries less than QUIC needs.

    """
    settings = settings or QuicSettings()
    if role is Role.SERVER and certificate is None:
        certificate = generate_certificate()
    engine = create_engine(settings, path, certificate if role is Role.SERVER else None)
    connection = QuicConnection(role, path, engine, settings, on_silence)
    async with open_background() as nursery:
        nursery.start_soon(connection.run)
        try:
            yield connection
        finally:
            connection.close()
