"""What signals ask of a service."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import trio

from session_proxy.supervision.lifecycle import Lifecycle

TERMINAL = "/dev/tty"


async def obey_signals(
    lifecycle: Lifecycle,
    dump_tasks: Callable[[], None],
    reload: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Let SIGTERM and SIGINT end the service, SIGHUP *reload* it, and SIGUSR1 show its tasks, until cancelled.

    SIGHUP is also how a terminal says that it goes away. That ends what was started there, but not under nohup(1),
    which ignores it.
    """
    watched = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        watched.append(signal.SIGHUP)
    had_terminal = has_terminal()
    with trio.open_signal_receiver(*watched) as signals:
        task_status.started()
        async for signum in signals:
            if signum == signal.SIGUSR1:
                dump_tasks()
            elif signum == signal.SIGHUP and has_terminal() == had_terminal:
                reload()
            else:
                lifecycle.receive_signal(signum)


def has_terminal() -> bool:
    """Return whether this process belongs to a terminal that is still there (tty(4))."""
    try:
        descriptor = os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(descriptor)
    return True
