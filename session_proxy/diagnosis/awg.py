"""The stages of ``kind = "awg"``, and of the file of an awg client."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import AsyncExitStack

import trio

from awg_obfs.client import open_tunnel
from awg_obfs.events import DatagramRejected, TunnelEvent
from awg_obfs.protocol.noise import NoiseError
from session_proxy.diagnosis.course import Setting, check_secret_file
from session_proxy.diagnosis.echo import check_echo
from session_proxy.errors import NotAllowedError, RefusedError
from session_proxy.outbound.awg import AwgTransport, Reporter, tunnel_settings
from session_proxy.outbound.links import LinkFailedError
from session_proxy.profile.model import AwgUpstream
from session_proxy.target import Target
from tunnel_relay.approach import look_up
from tunnel_relay.category import Category
from tunnel_relay.stages import Course, Step, Trouble, TroubleError, split_advice

STEPS = (
    Step.CONFIGURATION,
    Step.CREDENTIALS,
    Step.NAMES,
    Step.REACH,
    Step.HANDSHAKE,
    Step.ECHO,
)

# Seconds within which a machine would say that nothing listens on the port. Servers of this kind say nothing.
REFUSAL = 0.5

# Nothing listens there as a rule, and most servers let nobody in: but they answer.
PROBE = Target("127.0.0.1", 9)


async def examine(
    setting: Setting, name: str, upstream: AwgUpstream, target: Target | None, carried: str = ""
) -> None:
    """Make the steps to the server, and through it.

    A server has one session with each key: where a running sproxy has it, that is *carried*, in words, and no other
    one is begun, which would take it over.
    """
    course, endpoint = setting.course, upstream.endpoint
    with course.stage(Step.CREDENTIALS) as notes:
        for key, secret in (
            ("private_key", upstream.private_key),
            ("preshared_key", upstream.preshared_key),
        ):
            check_secret_file(notes, key, secret, setting)
        notes.find("private_key" + (" and preshared_key" if upstream.preshared_key is not None else ""))
    await look_up(course, endpoint.host, endpoint.port, kind=socket.SOCK_DGRAM)
    await _reach(course, upstream)
    if carried:
        with course.stage(Step.HANDSHAKE) as notes:
            notes.find(carried)
        course.skip(Step.ECHO, "a session of our own would take over that one; stop it to try")
        return
    async with AsyncExitStack() as stack:
        with course.stage(Step.HANDSHAKE) as notes:
            transport, hints = await _open(stack, setting, name, upstream)
            try:
                await transport.wait_settled()
            except LinkFailedError as exc:
                raise TroubleError(_silence(str(exc), hints)) from exc
            figures = transport.health().details
            notes.find(f"session with {endpoint}")
            notes.find(", ".join(f"{label} {value}" for label, value in figures if label == "round trip"))
        await check_echo(
            course, transport.connect_tcp, target, PROBE, harmless=(RefusedError, NotAllowedError)
        )


async def _reach(course: Course, upstream: AwgUpstream) -> None:
    """Make the step REACH: see whether somebody says that nothing listens there."""
    endpoint, port = upstream.endpoint, upstream.endpoint.port
    with course.stage(Step.REACH) as notes:
        [(family, kind, protocol, _, address), *_] = await trio.socket.getaddrinfo(
            endpoint.host, port, type=socket.SOCK_DGRAM
        )
        with trio.socket.socket(family, kind, protocol) as sock:
            try:
                await sock.connect(address)
                # As long as the junk that goes ahead of a handshake.
                await sock.send(os.urandom(max(upstream.awg.jmin, 64)))
                with trio.move_on_after(REFUSAL):
                    await sock.recv(1)
            except ConnectionRefusedError as exc:
                raise TroubleError(
                    Trouble(
                        f"nothing listens on UDP port {port} of {endpoint.host}",
                        "start awg-server there, or correct the port",
                    )
                ) from exc
            except OSError as exc:
                said = os.strerror(exc.errno or errno.EIO).lower()
                raise TroubleError(
                    Trouble(f"UDP to {endpoint}: {said}", "check this machine's network and firewall")
                ) from exc
        notes.find(f"UDP to {endpoint}: nobody refuses")


async def _open(
    stack: AsyncExitStack, setting: Setting, name: str, upstream: AwgUpstream
) -> tuple[AwgTransport, list[str]]:
    """Return the transport, which *stack* closes, and the hints at what may be wrong that will have come by then."""
    hints: list[str] = []

    def heed(event: TunnelEvent) -> None:
        if isinstance(event, DatagramRejected) and event.hint:
            hints.append(event.hint)

    try:
        tunnel = await stack.enter_async_context(open_tunnel(tunnel_settings(name, upstream), heed))
    except NoiseError as exc:
        raise TroubleError(
            Trouble(f"public_key: {exc}", "copy the server's anew", Category.CONFIGURATION)
        ) from exc
    return AwgTransport(name, tunnel, Reporter(name, upstream.endpoint, setting.services.notify)), hints


def _silence(said: str, hints: list[str]) -> Trouble:
    cause, fix = split_advice(said)
    return Trouble(cause, "; ".join(dict.fromkeys(filter(None, (*hints, fix)))))
