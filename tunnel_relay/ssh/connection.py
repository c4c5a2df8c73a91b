"""The connection protocol (RFC 4254) as a machine: channels, their turns, and requests about the connection."""

from __future__ import annotations

import struct
from collections import deque

import trio

from tunnel_relay.errors import SshDisconnectedError, SshError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import FieldError, Fields, string, uint32
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.packets import Part
from tunnel_relay.ssh.settings import SshSettings
from tunnel_relay.ssh.transport import SshTransport
from tunnel_relay.ssh.window import ReceiveWindow, WindowBudget

# What may wait in the output before channels wait for it to drain: enough to keep a fast link busy during one
# pass of the scheduler, little enough that a keystroke behind a bulk transfer is not held up.
OUTPUT_LIMIT = 256 * 1024
# Requests are answered in order (RFC 4254, section 4); this many may be under way.
MAX_PINGS = 100

_COUNT = struct.Struct(">II")
_COUNT_AT = 2  # behind padding length and message number: channel, and how many bytes
_DATA_AT = 10
_NO_CHANNEL = "the server used a channel that does not exist"


class Connection:
    """What runs over an `SshTransport` once it is authenticated; `start` it then."""

    def __init__(self, transport: SshTransport, settings: SshSettings) -> None:
        self.channels: dict[int, SshChannel] = {}
        self.started = trio.Event()
        self.round_trip = 0.0
        """The shortest that was measured, in seconds; 0: none yet."""
        self._transport = transport
        self._settings = settings
        self._next_number = 0
        self._budget = WindowBudget(settings.window_budget)
        self._ready: deque[SshChannel] = deque()
        self._pings: deque[trio.Event] = deque()
        transport.on_end.append(self._on_end)

    # -- what a session calls

    def start(self) -> None:
        """Take the messages of the connection protocol from now on."""
        self.started.set()
        self._transport.on_data = self._on_data
        self._transport.handlers.update(
            {
                number.GLOBAL_REQUEST: self._on_global_request,
                number.REQUEST_SUCCESS: self._on_reply,
                number.REQUEST_FAILURE: self._on_reply,
                number.CHANNEL_OPEN: self._on_open,
                number.CHANNEL_OPEN_CONFIRMATION: self._on_confirmation,
                number.CHANNEL_OPEN_FAILURE: self._on_refusal,
                number.CHANNEL_WINDOW_ADJUST: self._on_window_adjust,
                number.CHANNEL_DATA: self._on_data,
                number.CHANNEL_EXTENDED_DATA: self._on_extended_data,
                number.CHANNEL_EOF: self._on_eof,
                number.CHANNEL_CLOSE: self._on_close,
                number.CHANNEL_REQUEST: self._on_request,
            }
        )

    @property
    def failure(self) -> SshError | None:
        """Why the connection ended, once it has."""
        return self._transport.failure

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return self._transport.writer.used + sum(channel.unsent for channel in self.channels.values())

    def open_direct_tcpip(self, host: str, port: int) -> SshChannel:
        """Ask the server to connect to *host* and *port* (RFC 4254, section 7.2)."""
        settings = self._settings
        window = ReceiveWindow(
            settings.window, settings.window_limit, self._budget, trio.current_time, lambda: self.round_trip
        )
        channel = SshChannel(self, self._free_number(), window)
        self.channels[channel.number] = channel
        self.send(
            bytes([number.CHANNEL_OPEN]),
            string(b"direct-tcpip"),
            uint32(channel.number) + uint32(settings.window) + uint32(settings.packet),
            string(host.encode("utf-8")) + uint32(port),
            # Who asks is a local matter, and none of the server's.
            string(b"127.0.0.1") + uint32(0),
        )
        return channel

    def ping(self) -> trio.Event:
        """Send a request that every server answers, if only by refusing it; the event is set when it has."""
        if len(self._pings) >= MAX_PINGS:
            return self._pings[-1]
        answered = trio.Event()
        self._pings.append(answered)
        self.send(bytes([number.GLOBAL_REQUEST]), string(b"keepalive@openssh.com"), b"\1")
        return answered

    def measured(self, round_trip: float) -> None:
        """Take note of how long an answer took."""
        self.round_trip = min(round_trip, self.round_trip or round_trip)

    def fill(self) -> bool:
        """Let channels that wait write, in turn, until the output is full; return whether it holds anything."""
        writer = self._transport.writer
        ready = self._ready
        while ready and writer.used < OUTPUT_LIMIT and not self._transport.exchanging_keys:
            channel = ready.popleft()
            channel.queued = False
            if channel.sendable:
                channel.write()
                self._enqueue(channel)
        return writer.used > 0

    # -- what its channels call

    def send(self, *parts: Part) -> None:
        """Send one message, as soon as no key exchange is in the way."""
        self._transport.send(*parts)
        self._transport.push()

    def write_data(self, recipient: int, data: memoryview, most: int) -> None:
        """Write channel data; whoever lets a channel write sends them."""
        self._transport.writer.write_data(recipient, data, most)
        self._transport.check_age()

    def offer(self, channel: SshChannel) -> None:
        """Send what *channel* has pending: at once where nobody waits, else in turn."""
        transport = self._transport
        room = OUTPUT_LIMIT - transport.writer.used
        if not self._ready and channel.sendable and room > 0 and not transport.exchanging_keys:
            channel.write(room)
        self._enqueue(channel)
        transport.push()

    def forget(self, channel: SshChannel) -> None:
        """Drop a channel that both sides have closed."""
        channel.window.release()
        self.channels.pop(channel.number, None)

    # -- internals

    def _free_number(self) -> int:
        while self._next_number in self.channels:
            self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        found = self._next_number
        self._next_number = (found + 1) & 0xFFFFFFFF
        return found

    def _enqueue(self, channel: SshChannel) -> None:
        if channel.sendable and not channel.queued:
            channel.queued = True
            self._ready.append(channel)

    def _on_end(self) -> None:
        for channel in list(self.channels.values()):
            channel.on_disconnected()
        for answered in self._pings:
            answered.set()
        self._ready.clear()

    # -- what arrives

    def _channel(self, name: int) -> SshChannel:
        channel = self.channels.get(name)
        if channel is None:
            raise SshDisconnectedError(_NO_CHANNEL)
        return channel

    def _on_data(self, body: bytes, end: int) -> None:
        name, length = _COUNT.unpack_from(body, _COUNT_AT)
        if _DATA_AT + length > end:
            raise FieldError("channel data end too early")
        channel = self.channels.get(name)
        if channel is None:
            raise SshDisconnectedError(_NO_CHANNEL)
        channel.on_data(memoryview(body)[_DATA_AT : _DATA_AT + length])

    def _on_extended_data(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        channel = self._channel(fields.uint32())
        fields.uint32()
        channel.on_extended_data(len(fields.string()))

    def _on_window_adjust(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        self._channel(fields.uint32()).on_window_adjust(fields.uint32())

    def _on_eof(self, body: bytes, end: int) -> None:
        self._channel(Fields(body[:end], 2).uint32()).on_eof()

    def _on_close(self, body: bytes, end: int) -> None:
        self._channel(Fields(body[:end], 2).uint32()).on_close()

    def _on_request(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        self._channel(fields.uint32()).on_request(fields)

    def _on_confirmation(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        self._channel(fields.uint32()).on_confirmation(fields)

    def _on_refusal(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        self._channel(fields.uint32()).on_refusal(fields)

    def _on_open(self, body: bytes, end: int) -> None:
        # A server has nothing to open towards us: we never asked it to listen for us.
        fields = Fields(body[:end], 2)
        fields.string()
        refusal = uint32(fields.uint32()) + uint32(1) + string(b"") + string(b"")
        self.send(bytes([number.CHANNEL_OPEN_FAILURE]), refusal)

    def _on_global_request(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        fields.string()
        if fields.boolean():
            self.send(bytes([number.REQUEST_FAILURE]))

    def _on_reply(self, body: bytes, end: int) -> None:
        del body, end
        if not self._pings:
            raise SshDisconnectedError("the server answered a request that nobody made")
        self._pings.popleft().set()
