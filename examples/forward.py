"""Forward a local port to one destination: python forward.py PROFILE LISTEN_PORT HOST PORT."""

from __future__ import annotations

import sys
from functools import partial

import trio

import session_proxy

DEADLINE = 30.0


async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
    """Copy until *source* ends, then pass the end on where *sink* can."""
    while data := await source.receive_some():
        await sink.send_all(data)
    if isinstance(sink, trio.abc.HalfCloseableStream):
        await sink.send_eof()


async def serve(dial: session_proxy.Dial, host: str, port: int, client: trio.SocketStream) -> None:
    """Connect one *client* with *host*:*port*."""
    try:
        with trio.fail_after(DEADLINE):
            far = await dial(host, port)
        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(copy, client, far)
            nursery.start_soon(copy, far, client)
    except* (session_proxy.SessionProxyError, trio.TooSlowError, trio.BrokenResourceError) as group:
        print(*(exc or type(exc).__name__ for exc in group.exceptions), file=sys.stderr)


async def main(profile: str, listen: str, host: str, port: str) -> None:
    """Open the profile and forward until interrupted."""
    async with session_proxy.open(profile) as dial:
        handler = partial(serve, dial, host, int(port))
        await trio.serve_tcp(handler, int(listen), host="127.0.0.1")


if __name__ == "__main__":
    profile, listen, host, port = sys.argv[1:]
    try:
        trio.run(main, profile, listen, host, port)
    except (session_proxy.SessionProxyError, OSError) as exc:
        sys.exit(str(exc))
