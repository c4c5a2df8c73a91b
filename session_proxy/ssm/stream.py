"""SSH bytes through AWS Session Manager: document ``AWS-StartSSHSession``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from session_proxy.profile.model import DataChannel as DataChannelSettings
from session_proxy.protocol.ssm_channel import FIRST_DATA_HOLD
from session_proxy.ssm.carrying import open_data_channel
from session_proxy.ssm.data_channel import DataChannel, Dialing
from session_proxy.ssm.errors import PortUnreachableError, SsmError
from session_proxy.ssm.session import SessionControl, StartedSession
from tunnel_relay.background import open_background
from tunnel_relay.streams import OneAtATime

# An SSH server speaks first, at once. Where nothing listens, the agent's worker dies without a word, and AWS
# notices after a minute; the reference waits for ever.
FIRST_BYTE_LIMIT = 10.0


@attrs.define(eq=False)
class SsmStream(trio.abc.Stream):
    """The bytes of one port on an instance. It cannot be half-closed: the agent knows no such thing.

    What breaks it is its `failure`.
    """

    _data_channel: DataChannel
    _closed: bool = attrs.field(default=False, init=False)
    _one_sender: OneAtATime = attrs.field(factory=lambda: OneAtATime("sending on"), init=False)
    _one_receiver: OneAtATime = attrs.field(factory=lambda: OneAtATime("receiving from"), init=False)

    @property
    def failure(self) -> SsmError | None:
        """Why the session ended, where it did not end normally."""
        return self._data_channel.failure

    @property
    def away(self) -> str:
        """Why the instance cannot be reached for now, though the session has not ended; "" where it can."""
        return self._data_channel.away

    async def wait_away_changed(self) -> None:
        """Wait until `away` is another."""
        await self._data_channel.wait_away_changed()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, or ``b""`` where the session ended."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        self._check_open()
        with self._one_receiver, self._breaking():
            data = await self._data_channel.receive_some(max_bytes)
        if not data:
            self._check_open()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*; where this is cancelled, any part of it may have been sent."""
        self._check_open()
        with self._one_sender, self._breaking():
            await self._data_channel.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        with self._one_sender, self._breaking():
            await self._data_channel.wait_writable()

    async def aclose(self) -> None:
        """Close the stream; the session ends with the block that opened it."""
        self._closed = True
        self._data_channel.close()
        await trio.lowlevel.checkpoint()

    @contextmanager
    def _breaking(self) -> Generator[None, None, None]:
        """Let what ends the session break the stream."""
        try:
            yield
        except SsmError as exc:
            self._check_open()
            raise trio.BrokenResourceError(str(exc)) from exc

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")


@asynccontextmanager
async def open_ssm_stream(
    session: StartedSession,
    control: SessionControl,
    settings: DataChannelSettings,
    dialing: Dialing = Dialing(),  # noqa: B008  # a frozen value
    *,
    port: int = 22,
) -> AsyncGenerator[SsmStream, None]:
    """Open the stream of a session that was started with ``AWS-StartSSHSession``; the block's end ends the session.

    *port* is the one that the session was started for, to be named in errors.

    Raises:
      SsmError: the data channel could not be opened.

    """
    async with (
        open_data_channel(session, control, settings, dialing, hold=FIRST_DATA_HOLD) as data_channel,
        open_background() as nursery,
    ):
        nursery.start_soon(_expect_first_byte, data_channel, port)
        yield SsmStream(data_channel)


async def _expect_first_byte(data_channel: DataChannel, port: int) -> None:
    with trio.move_on_after(FIRST_BYTE_LIMIT):
        await data_channel.heard_data.wait()
        return
    data_channel.fail(
        PortUnreachableError(
            f"the agent could not reach port {port} of the instance: nothing came within "
            f"{FIRST_BYTE_LIMIT:.0f} s; is sshd running there, on that port?"
        )
    )
