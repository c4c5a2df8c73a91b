"""The connection protocol (RFC 4254) as a machine: channels, their turns, and requests about the connection."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

import trio

from tunnel_relay.errors import SshDisconnectedError, SshError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import FieldError, Fields, string, uint32
from tunnel_relay.ssh.carrier import Flusher, Sender
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.command import SshCommand
from tunnel_relay.ssh.packets import Part, Read
from tunnel_relay.ssh.settings import SshSettings
from tunnel_relay.ssh.transport import SshTransport
from tunnel_relay.ssh.window import ReceiveWindow, WindowBudget

# What may wait in the output before channels wait for it to drain: enough to keep a fast link busy during one
# pass of the scheduler, little enough that a keystroke behind a bulk transfer is not held up.
OUTPUT_LIMIT = 256 * 1024
# Requests are answered in order (RFC 4254, section 4); this many may be under way.
MAX_PINGS = 100

# OpenSSH's PROTOCOL.agent.
AGENT_CHANNEL = b"auth-agent@openssh.com"

_COUNT = struct.Struct(">II")
_COUNT_AT = 1  # behind the message's number: channel, and how many bytes
_DATA_AT = 9
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
        self.on_agent: Callable[[SshChannel], None] | None = None
        """Takes the channels over which the server asks for our ssh-agent; without it, they are refused."""
        self.agent_offered = False
        """Whether the server has taken the offer of an agent: OpenSSH takes one per connection."""
        self._next_number = 0
        self._budget = WindowBudget(settings.window_budget)
        self._ready: deque[Sender] = deque()
        self._flushers: dict[Flusher, None] = {}
        self._pings: deque[trio.Event] = deque()
        transport.on_end.append(self._on_end)

    # -- what a session calls

    def start(self) -> None:
        """Take the messages of the connection protocol from now on."""
        self.started.set()
        self._transport.on_data = self._on_data
        self._transport.on_batch_end = self._flush
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
                number.CHANNEL_SUCCESS: self._on_channel_reply,
                number.CHANNEL_FAILURE: self._on_channel_reply,
            }
        )

    @property
    def failure(self) -> SshError | None:
        """Why the connection ended, once it has."""
        return self._transport.failure

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return self._transport.writer.used + sum(channel.sending.unsent for channel in self.channels.values())

    def open_direct_tcpip(self, host: str, port: int) -> SshChannel:
        """Ask the server to connect to *host* and *port* (RFC 4254, section 7.2)."""
        channel = SshChannel(self, self._free_number(), self._window())
        # Who asks is a local matter, and none of the server's.
        origin = string(b"127.0.0.1") + uint32(0)
        self._open(channel, b"direct-tcpip", string(host.encode("utf-8")) + uint32(port) + origin)
        return channel

    def open_session(self) -> SshCommand:
        """Ask the server for a channel to run a command over (RFC 4254, section 6.1)."""
        channel = SshCommand(self, self._free_number(), self._window())
        self._open(channel, b"session")
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
        transport = self._transport
        writer = transport.writer
        while self._ready and writer.used < OUTPUT_LIMIT and not transport.exchanging_keys:
            sender = self._ready.popleft()
            sender.queued = False
            if sender.sendable:
                sender.write()
                self._enqueue(sender)
        return writer.used > 0

    # -- what its channels call

    def send(self, *parts: Part) -> None:
        """Send one message, as soon as no key exchange is in the way."""
        self._transport.send(*parts)
        self._transport.push()

    def room(self) -> int:
        """Return how many bytes of data may be written now; 0: there are others before."""
        transport = self._transport
        if self._ready or transport.exchanging_keys:
            return 0
        return max(0, OUTPUT_LIMIT - transport.writer.used)

    def offer(self, sender: Sender) -> None:
        """Send what *sender* has pending: at once where nobody waits, else in turn."""
        room = self.room()
        if room and sender.sendable:
            sender.write(room)
        self._enqueue(sender)
        self._transport.push()

    def write_data(self, recipient: int, data: memoryview, most: int) -> None:
        """Write *data*; whoever lets a channel write sends what it has written."""
        self._transport.writer.write_data(recipient, data, most)
        self._transport.check_age()

    def read_data(self, recipient: int, read: Read, most: int, limit: int) -> int:
        """Send what *read* reads, up to *limit* bytes and never more than `room`; return how many."""
        count = self._transport.writer.read_data(recipient, read, most, limit)
        self._transport.check_age()
        self._transport.push()
        return count

    def flush_later(self, flusher: Flusher) -> None:
        """Call *flusher* when everything that has arrived has been handed out."""
        self._flushers[flusher] = None

    # -- internals

    def _window(self) -> ReceiveWindow:
        settings = self._settings
        return ReceiveWindow(
            settings.window, settings.window_limit, self._budget, trio.current_time, lambda: self.round_trip
        )

    def _open(self, channel: SshChannel, kind: bytes, about: bytes = b"") -> None:
        settings = self._settings
        self.channels[channel.number] = channel
        numbers = uint32(channel.number) + uint32(settings.window) + uint32(settings.packet)
        self.send(bytes([number.CHANNEL_OPEN]), string(kind), numbers, about)

    def _free_number(self) -> int:
        while self._next_number in self.channels:
            self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        found = self._next_number
        self._next_number = (found + 1) & 0xFFFFFFFF
        return found

    def _enqueue(self, sender: Sender) -> None:
        if sender.sendable and not sender.queued:
            sender.queued = True
            self._ready.append(sender)

    def _forget(self, channel: SshChannel) -> None:
        """Drop a channel that is closed on both sides: its number is free."""
        channel.receiving.window.release()
        del self.channels[channel.number]

    def _flush(self) -> None:
        flushers, self._flushers = self._flushers, {}
        for flusher in flushers:
            flusher.flush()

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

    def _on_data(self, message: memoryview) -> None:
        name, length = _COUNT.unpack_from(message, _COUNT_AT)
        data = message[_DATA_AT : _DATA_AT + length]
        if len(data) < length:
            raise FieldError("channel data end too early")
        channel = self.channels.get(name)
        if channel is None:
            raise SshDisconnectedError(_NO_CHANNEL)
        channel.receiving.on_data(data)

    def _on_extended_data(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        channel = self._channel(fields.uint32())
        fields.uint32()
        channel.receiving.on_dropped(len(fields.string()))

    def _on_window_adjust(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        self._channel(fields.uint32()).sending.on_window_adjust(fields.uint32())

    def _on_eof(self, message: memoryview) -> None:
        self._channel(Fields(bytes(message), 1).uint32()).receiving.on_eof()

    def _on_close(self, message: memoryview) -> None:
        channel = self._channel(Fields(bytes(message), 1).uint32())
        channel.on_close()
        self._forget(channel)

    def _on_request(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        self._channel(fields.uint32()).on_request(fields)

    def _on_confirmation(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        self._channel(fields.uint32()).on_confirmation(fields)

    def _on_refusal(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        channel = self._channel(fields.uint32())
        channel.on_refusal(fields)
        self._forget(channel)

    def _on_open(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        if fields.string() == AGENT_CHANNEL and self.on_agent is not None:
            self._accept(fields, self.on_agent)
            return
        # A server has nothing else to open towards us: we never asked it to listen for us.
        refusal = uint32(fields.uint32()) + uint32(1) + string(b"") + string(b"")
        self.send(bytes([number.CHANNEL_OPEN_FAILURE]), refusal)

    def _accept(self, fields: Fields, take: Callable[[SshChannel], None]) -> None:
        settings = self._settings
        channel = SshChannel(self, self._free_number(), self._window())
        remote = fields.uint32()
        channel.on_opening(remote, fields.uint32(), fields.uint32())
        self.channels[channel.number] = channel
        numbers = uint32(remote) + uint32(channel.number) + uint32(settings.window) + uint32(settings.packet)
        self.send(bytes([number.CHANNEL_OPEN_CONFIRMATION]), numbers)
        take(channel)

    def _on_channel_reply(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        self._channel(fields.uint32()).on_reply(success=message[0] == number.CHANNEL_SUCCESS)

    def _on_global_request(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        fields.string()
        if fields.boolean():
            self.send(bytes([number.REQUEST_FAILURE]))

    def _on_reply(self, message: memoryview) -> None:
        del message
        if not self._pings:
            raise SshDisconnectedError("the server answered a request that nobody made")
        self._pings.popleft().set()
