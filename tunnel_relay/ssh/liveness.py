"""Whether the other side is still there, and whether its keys are still young."""

from __future__ import annotations

import trio

from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.ssh.connection import Connection
from tunnel_relay.ssh.settings import SshSettings
from tunnel_relay.ssh.transport import SshTransport


async def watch(transport: SshTransport, connection: Connection, settings: SshSettings) -> None:
    """End the connection to a peer that is dead, and exchange keys when they are old; returns when it has ended.

    A peer that has been silent for a while is asked for a sign of life. Any byte from it is one: an answer may
    be behind a lot of data.
    """
    # Logging in may wait for a person; how long that may take is up to whoever opens the session.
    await connection.started.wait()
    asked: float | None = None
    while transport.failure is None:
        now = trio.current_time()
        if asked is not None and transport.heard >= asked:
            asked = None
        if transport.exchanging_keys:
            deadline = transport.keys_since + settings.keepalive_timeout
            reason = "the server does not finish its key exchange"
        elif asked is not None:
            deadline = asked + settings.keepalive_timeout
            reason = f"the server has been silent for {now - transport.heard:.0f} seconds"
        else:
            deadline = transport.heard + settings.keepalive_interval
            reason = ""
        if now < deadline:
            await trio.sleep_until(min(deadline, now + settings.keepalive_interval))
        elif reason:
            transport.fail(SshDisconnectedError(reason))
        else:
            asked = now
            connection.ping()
        if now >= transport.keys_since + settings.rekey_seconds:
            transport.exchange_keys()
