"""What signals ask of a service."""

from __future__ import annotations

import signal
from collections.abc import Callable

import trio

from session_proxy.supervision.lifecycle import Lifecycle


async def obey_signals(
    lifecycle: Lifecycle,
    dump_tasks: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Let SIGTERM, SIGINT and SIGHUP end the service, and SIGUSR1 show its tasks, until cancelled.

    A terminal that goes away ends its sessions with it, but not under nohup(1), which ignores SIGHUP.
    """
    watched = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        watched.append(signal.SIGHUP)
    with trio.open_signal_receiver(*watched) as signals:
        task_status.started()
        async for signum in signals:
            if signum == signal.SIGUSR1:
                dump_tasks()
            else:
                lifecycle.receive_signal(signum)
