"""Be a client that queues so many urgent requests, and says so; run as a program.

python -m tests.support.many_requests PROFILE-LIKE: URL TOKEN-FILE FOLDER NUMBER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from session_proxy.outbound.relay_tunnel import open_relay_tunnel
from session_proxy.profile.relay_choice import relay_of_options
from session_proxy.supervision.relay_request import outbox_file
from tunnel_relay.policy.outbox import Priority
from tunnel_relay.protocol.greetings import Mode


async def main(url: str, token: Path, number: int) -> None:
    choice = relay_of_options([url], token, None, os.environ)
    file = outbox_file(choice, os.environ)
    left = number
    accepted = trio.Event()

    def one_more() -> None:
        nonlocal left
        left -= 1
        if not left:
            accepted.set()

    async with (
        open_relay_tunnel(choice, os.environ, mode=Mode.END_TO_END, file=file) as tunnel,
        trio.open_nursery() as nursery,
    ):

        async def ask(index: int) -> None:
            await tunnel.service.forward_request(
                "target", b"%d" % index, priority=Priority.HIGH, accepted=one_more
            )

        for index in range(number):
            nursery.start_soon(ask, index)
        await accepted.wait()
        sys.stdout.write("queued\n")
        sys.stdout.flush()
        await tunnel.connect(patient=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
