"""Fetch a page through a profile's routes: python fetch.py PROFILE HOST PORT [PATH]."""

from __future__ import annotations

import sys

import trio

import session_proxy

DEADLINE = 30.0


async def fetch(profile: str, host: str, port: int, path: str) -> bytes:
    """Return the whole HTTP answer to a GET of *path*."""
    answer = b""
    async with session_proxy.open(profile) as dial:
        with trio.fail_after(DEADLINE):
            async with await dial(host, port) as stream:
                head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
                await stream.send_all(head.encode())
                while piece := await stream.receive_some():
                    answer += piece
    return answer


if __name__ == "__main__":
    profile, host, port, *path = sys.argv[1:]
    try:
        sys.stdout.buffer.write(trio.run(fetch, profile, host, int(port), *(path or ["/"])))
    except session_proxy.SessionProxyError as exc:
        sys.exit(str(exc))
