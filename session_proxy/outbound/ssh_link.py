"""An SSH session as a link of a pool, and what a server's refusal of a channel means."""

from __future__ import annotations

from typing import Protocol

import attrs
import trio

from session_proxy.errors import (
    DialError,
    DialTimeoutError,
    NotAllowedError,
    RefusedError,
    ResolutionError,
    TransportDownError,
    UnreachableError,
)
from session_proxy.outbound.links import LinkLostError
from session_proxy.target import Target
from tunnel_relay.errors import ChannelOpenFailure, ChannelRefusedError, SshDisconnectedError
from tunnel_relay.ssh.session import SshSession

# From how many bytes per second on a session counts as one that flows: a tenth of what AWS's agent makes of a
# session, and more than people at a terminal cause.
FLOW = 64 * 1024

# What servers write into the description of "connect failed", which RFC 4254, section 5.1 leaves to them:
# OpenSSH the C library's text for the error, in the server's language, which is English as a rule.
_CAUSES: tuple[tuple[tuple[str, ...], type[DialError]], ...] = (
    (("refused",), RefusedError),
    (("not known", "resolve", "name resolution", "no address", "nodename", "unknown host"), ResolutionError),
    (("timed out", "timeout"), DialTimeoutError),
    (("no route", "unreachable"), UnreachableError),
    (("prohibited", "not permitted", "permission denied"), NotAllowedError),
)


def refused_channel(exc: ChannelRefusedError) -> DialError:
    """Return what it means for the destination that the server would not open a channel to it."""
    told = exc.description or f"code {exc.code}"
    match exc.code:
        case ChannelOpenFailure.ADMINISTRATIVELY_PROHIBITED:
            return NotAllowedError(
                f"the SSH server forbids forwarding ({told}); check AllowTcpForwarding and PermitOpen in its"
                " sshd_config"
            )
        case ChannelOpenFailure.UNKNOWN_CHANNEL_TYPE:
            return NotAllowedError(
                f"the SSH server cannot forward ({told}); use one that can, such as OpenSSH"
            )
        case ChannelOpenFailure.RESOURCE_SHORTAGE:
            return TransportDownError(f"the SSH server has no room for another channel ({told})")
        case _:
            lower = told.lower()
            for texts, kind in _CAUSES:
                if any(text in lower for text in texts):
                    return kind(f"the SSH server could not connect: {told}")
            # sshd says no more than "Connection failed" where all addresses of a name failed.
            return UnreachableError(f"the SSH server could not connect: {told}")


class Carrier(Protocol):
    """What carries an SSH session, may lose its way for a while, and then goes on."""

    @property
    def away(self) -> str:
        """See `StripedLink.away`."""
        ...

    async def wait_away_changed(self) -> None:
        """See `StripedLink.wait_away_changed`."""
        ...


@attrs.frozen(eq=False)
class SshLink:
    """A `StripedLink` over an SSH session that is logged in."""

    session: SshSession
    carrier: Carrier | None = None
    """What carries the session, where that can be away."""

    @property
    def streams(self) -> int:
        """See `Link.streams`."""
        return self.session.channels

    @property
    def away(self) -> str:
        """See `StripedLink.away`."""
        return self.carrier.away if self.carrier is not None else ""

    async def wait_away_changed(self) -> None:
        """See `StripedLink.wait_away_changed`."""
        if self.carrier is None:
            await trio.sleep_forever()
        else:
            await self.carrier.wait_away_changed()

    @property
    def flowing(self) -> bool:
        """See `StripedLink.flowing`."""
        return self.session.arriving > FLOW

    async def open(self, target: Target) -> trio.abc.Stream:
        """See `Link.open`."""
        try:
            return await self.session.open_direct_tcpip(target.host, target.port)
        except ChannelRefusedError as exc:
            raise refused_channel(exc) from exc
        except SshDisconnectedError as exc:
            raise LinkLostError(str(exc)) from exc

    async def probe(self) -> float:
        """See `Link.probe`."""
        try:
            return await self.session.ping()
        except SshDisconnectedError as exc:
            raise LinkLostError(str(exc)) from exc

    async def wait_lost(self) -> str:
        """See `Link.wait_lost`; the session asks a silent server for a sign of life by itself."""
        await self.session.wait_closed()
        return str(self.session.close_reason)
