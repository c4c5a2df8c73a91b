"""pproxy as a QUIC server: ``python -m benchmarks.pproxy_quic`` takes pproxy's own arguments.

pproxy says at its start where it listens, and asks aioquic's server for its sockets, which has no such attribute
any more. Nothing else is changed.
"""

from __future__ import annotations

import runpy

from aioquic.asyncio import server


class Server(server.QuicServer):
    """A server that names its sockets."""

    @property
    def sockets(self) -> list[object]:
        """The one that it listens on."""
        assert self._transport is not None
        return [self._transport.get_extra_info("socket")]


if __name__ == "__main__":
    setattr(server, "QuicServer", Server)  # noqa: B010 - a class of theirs gives way to ours
    runpy.run_module("pproxy", run_name="__main__")
