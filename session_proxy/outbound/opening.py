"""Open the upstreams of a profile: one transport per kind.

What only some kinds need (SSH, WebSockets, QUIC) takes about 0.15 s to import, and 20 MB; so it is imported where an
upstream of the kind is opened.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from session_proxy.outbound.transport import Services, Transport
from session_proxy.profile.model import (
    AwgUpstream,
    RelayUpstream,
    SshUpstream,
    SsmPortUpstream,
    SsmUpstream,
    Upstream,
)


def open_transport(
    name: str, upstream: Upstream, services: Services
) -> AbstractAsyncContextManager[Transport]:
    """Open *upstream*, which the profile calls *name*, for the length of a block.

    Yields when the transport is usable, or at once where ``startup`` is ``"background"``.

    Raises:
      SessionProxyError: it does not work, and ``startup`` is not ``"background"``.

    """
    match upstream:
        case SshUpstream():
            from session_proxy.outbound.ssh import open_ssh_transport

            return open_ssh_transport(name, upstream, services)
        case SsmUpstream():
            from session_proxy.outbound.ssm import open_ssm_transport

            return open_ssm_transport(name, upstream, services)
        case SsmPortUpstream():
            from session_proxy.outbound.ssm_port import open_ssm_port_transport

            return open_ssm_port_transport(name, upstream, services)
        case AwgUpstream():
            from session_proxy.outbound.awg import open_awg_transport

            return open_awg_transport(name, upstream, services)
        case RelayUpstream():
            from session_proxy.outbound.relay import open_relay_transport

            return open_relay_transport(name, upstream, services)
