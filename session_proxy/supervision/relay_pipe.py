"""One stream to a service of an agent, on this process's standard input and output."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

import trio

from session_proxy.errors import DialError, ExitCode, TransportDownError
from session_proxy.outbound.relay_dialing import ERRORS
from session_proxy.outbound.relay_tunnel import RelayTunnel, open_relay_tunnel
from session_proxy.profile.relay_choice import RelayChoice
from tunnel_relay.background import open_background
from tunnel_relay.client.joining import join, open_end
from tunnel_relay.client.service import TunnelEvent
from tunnel_relay.dial_events import AuthenticationNeeded
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.relay_stream import RelayStream, StreamRefusedError, StreamResetError

STDIN, STDOUT = 0, 1

# Seconds in which the rest goes to and fro once we were told to end: ssh(1) says so as soon as it has said goodbye.
PARTING = 2.0


async def run_relay_pipe(
    choice: RelayChoice, environ: Mapping[str, str], warn: Callable[[str], None]
) -> ExitCode:
    """Join the service of *choice* to standard input and output until both directions have ended.

    *warn* gets what a person has to do something about, that it can go on. SIGHUP, which ssh(1) sends its
    ProxyCommand, SIGTERM and SIGINT end it.

    Raises:
      UpstreamStartError: there is no way to the agent.
      DialError: the service cannot be reached, or there was no way to the agent for too long.

    """
    code = ExitCode.OK
    talking = trio.CancelScope()
    with trio.CancelScope() as connecting:
        async with open_background() as nursery:

            async def heed_signals(*, task_status: trio.TaskStatus[None]) -> None:
                nonlocal code
                with trio.open_signal_receiver(signal.SIGHUP, signal.SIGINT, signal.SIGTERM) as signals:
                    task_status.started()
                    async for signum in signals:
                        if signum == signal.SIGINT:
                            code = ExitCode.INTERRUPTED
                        if scope is connecting:
                            scope.cancel()
                        scope.deadline = min(scope.deadline, trio.current_time() + PARTING)

            def happened(event: TunnelEvent) -> None:
                # Before that it is an error.
                if isinstance(event, AuthenticationNeeded) and scope is talking:
                    warn(f"upstream {choice.name}: a new token is needed: {event.reason}")

            scope = connecting
            await nursery.start(heed_signals)
            mode = Mode.END_TO_END
            async with open_relay_tunnel(choice, environ, mode=mode, notify=happened) as tunnel:
                await tunnel.connect()
                stream = await _open(tunnel, choice.upstream.service)
                scope = talking
                # Within the tunnel, so that the agent hears that it is over.
                with talking:
                    await _join(stream)
    return code


async def _open(tunnel: RelayTunnel, service: str) -> RelayStream:
    try:
        return await tunnel.service.open_stream(service)
    except StreamRefusedError as exc:
        error = ERRORS.get(exc.reason, TransportDownError)
        raise error(f"upstream {tunnel.name}: the agent's service {service!r}: {exc}") from exc
    except StreamResetError as exc:
        raise TransportDownError(f"upstream {tunnel.name}: {exc}") from exc


async def _join(stream: RelayStream) -> None:
    source, sink = open_end(_take(STDIN)), open_end(_take(STDOUT))
    async with stream:
        try:
            await join(stream, source, sink)
        except trio.BrokenResourceError as exc:
            raise DialError(f"the connection is lost: {exc}") from exc


def _take(descriptor: int) -> int:
    """Return another name of an open file, its only one in this process: so that closing it ends it."""
    taken = os.dup(descriptor)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)
    return taken
