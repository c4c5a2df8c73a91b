"""One of the processes of ``sproxy relay-server``: ``python -m session_proxy.cli.relay_worker FOLDER NUMBER``.

`session_proxy.supervision.relay_fleet` runs it, and nobody else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from functools import partial
from pathlib import Path

import trio

from session_proxy.cli.daemons import Composition, run_daemon
from session_proxy.errors import ExitCode, SessionProxyError
from session_proxy.observability.logging import Log
from session_proxy.observability.sink import LineSink
from session_proxy.profile.loading import Warn
from session_proxy.profile.relay_model import RelayServer
from session_proxy.profile.relay_shares import share_of
from session_proxy.supervision.lifecycle import Lifecycle, Phase
from session_proxy.supervision.relay_server import RelayServerDaemon
from session_proxy.supervision.relay_worker import Orders, Post, outlive_nobody
from session_proxy.supervision.service import ServiceSettings
from session_proxy.supervision.worker_process import Report
from tunnel_relay.errors import TunnelRelayError

STDIN = 0
STDOUT = 1


def run_worker(post: Post) -> ExitCode:
    """Serve at *post* until it is over; returns what to exit with. What goes wrong is said on stdout."""
    try:
        orders = trio.run(post.orders)
        return run_daemon(partial(compose, post, orders), orders.log, {"worker": post.number})
    except (SessionProxyError, TunnelRelayError, OSError) as exc:
        code = exc.exit_code if isinstance(exc, SessionProxyError) else ExitCode.FAILURE
        say(Report(problems=str(exc).splitlines(), exit_code=code))
        return code


def compose(post: Post, orders: Orders, log: Log, sink: LineSink) -> Composition:
    """Return the server of the worker at *post*, ready to run."""
    server = share_of(orders.server, post.number)
    lifecycle = Lifecycle()

    def is_ready() -> bool:
        return lifecycle.phase is Phase.READY and not daemon.obstacles()

    def load(_warn: Warn) -> RelayServer:
        # It was told already what was probably not meant.
        return share_of(trio.from_thread.run(post.orders).server, post.number)

    daemon = RelayServerDaemon(
        server,
        log,
        lambda: sink.dropped,
        is_ready,
        load,
        sockets=[socket.socket(fileno=descriptor) for descriptor in orders.sockets],
        post=post,
    )
    return Composition(
        daemon=daemon,
        settings=ServiceSettings(name=server.name, drain=server.limits.drain, control=post.control),
        lifecycle=lifecycle,
        beside=partial(outlive_nobody, STDIN, lifecycle, log),
        on_ready=lambda: say(Report(ready=True)),
    )


def say(report: Report) -> None:
    """Tell it to who has started us, if that is there."""
    with contextlib.suppress(OSError):
        os.write(STDOUT, report.encode().encode())


if __name__ == "__main__":
    sys.exit(run_worker(Post(Path(sys.argv[1]), int(sys.argv[2]))))
