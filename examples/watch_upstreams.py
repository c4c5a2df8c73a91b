"""Print what becomes of a profile's upstreams: python watch_upstreams.py PROFILE [SECONDS]."""

from __future__ import annotations

import sys

import trio

import session_proxy
from session_proxy.events import Event, LinksChanged, Notice, UpstreamDown, UpstreamUp


def show(event: Event) -> None:
    """Print the events that are about upstreams."""
    match event:
        case UpstreamUp(upstream, via, setup):
            print(f"{upstream} is up through {via} after {setup:.2f} s", flush=True)
        case UpstreamDown(upstream, via, reason):
            print(f"{upstream} is down ({via}): {reason}", flush=True)
        case LinksChanged(upstream, links):
            print(f"{upstream} has {links} connections", flush=True)
        case Notice(upstream, message):
            print(f"{upstream}: {message}", flush=True)
        case _:
            pass


async def watch(profile: str, seconds: float) -> None:
    """Keep the upstreams open for *seconds*."""
    async with session_proxy.open(profile, notify=show):
        await trio.sleep(seconds)


if __name__ == "__main__":
    try:
        trio.run(watch, sys.argv[1], float((sys.argv[2:] or ["inf"])[0]))
    except session_proxy.SessionProxyError as exc:
        sys.exit(str(exc))
