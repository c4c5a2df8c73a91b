"""One SSH connection as a machine (RFC 4253, RFC 4254): bytes are put into its reader and taken from its writer.

It holds the channels, hands out what arrives, decides who sends next, and exchanges keys when it is time. It
does no I/O and starts no task; the tasks that wait for it are woken by it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

import trio

from tunnel_relay.errors import SshDisconnectedError, SshError, SshHandshakeError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import FieldError, Fields, clean_text, string, uint32
from tunnel_relay.ssh.algorithms import HOST_KEYS
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.negotiation import LOCAL_VERSION, Negotiation
from tunnel_relay.ssh.packets import Part
from tunnel_relay.ssh.settings import SshSettings
from tunnel_relay.ssh.window import ReceiveWindow, WindowBudget

# What may wait in the output before channels wait for it to drain: enough to keep a fast link busy during one
# pass of the scheduler, little enough that a keystroke behind a bulk transfer is not held up.
OUTPUT_LIMIT = 256 * 1024
# Messages kept back during a key exchange. A peer that makes us answer more than this is not asking in earnest.
MAX_HELD = 20_000
# RFC 4253, section 4.2: a version line has 255 bytes at most; lines before it are for people.
MAX_LINE = 8192
MAX_LINES = 100
# A first key exchange takes five messages; whoever sends more is counting on something.
MAX_EARLY_PACKETS = 100
# Messages of an authentication that nobody has looked at yet.
MAX_UNREAD = 64
# RFC 4254, section 4 lets requests be answered in order; this many may be under way.
MAX_PINGS = 100

_DATA = struct.Struct(">II")
_DATA_AT = 10  # padding length, message number, channel, length: then the data
_Handler = Callable[[bytes, int], None]


class Connection:
    """The client's side of an SSH connection, without the wire."""

    def __init__(self, settings: SshSettings, host_keys: tuple[str, ...] = HOST_KEYS) -> None:
        self.settings = settings
        self.negotiation = Negotiation(host_keys)
        self.reader = self.negotiation.reader
        self.writer = self.negotiation.writer
        self.channels: dict[int, SshChannel] = {}
        self.ended = trio.Event()
        self.keys_agreed = trio.Event()
        self.wake = trio.Event()
        """Set when there is something to send; whoever sends puts a fresh one in its place."""
        self.round_trip = 0.0
        """The shortest that was measured, in seconds; 0: none yet."""
        self.server_algorithms: tuple[str, ...] = ()
        """The signature algorithms that the server takes, where it says so (RFC 8308, section 3.1)."""
        self.heard = trio.current_time()
        """When the last bytes arrived."""
        self.keys_since = trio.current_time()
        """When the last key exchange ended, or the one under way began."""
        self._failure: SshError | None = None
        self._lines = 0
        self._early_packets = 0
        self._next_number = 0
        self._budget = WindowBudget(settings.window_budget)
        self._ready: deque[SshChannel] = deque()
        self._held: deque[bytes] = deque()
        self._pings: deque[trio.Event] = deque()
        self._unread: deque[bytes] = deque()
        self._mail = trio.Event()
        self._authenticating = False
        self._handlers: dict[int, _Handler] = {
            number.DISCONNECT: self._on_disconnect,
            number.IGNORE: self._on_nothing,
            number.UNIMPLEMENTED: self._on_nothing,
            number.DEBUG: self._on_nothing,
            number.EXT_INFO: self._on_ext_info,
        }
        self.writer.write_raw(f"{LOCAL_VERSION}\r\n".encode("ascii"))

    # -- what the tasks around it call

    @property
    def failure(self) -> SshError | None:
        """Why the connection ended, once it has."""
        return self._failure

    def fail(self, reason: SshError) -> None:
        """End the connection; the first reason stands."""
        if self._failure is not None:
            return
        self._failure = reason
        for channel in list(self.channels.values()):
            channel.on_disconnected()
        for event in (*self._pings, self.keys_agreed, self._mail, self.wake, self.ended):
            event.set()
        self._ready.clear()
        self._held.clear()

    def check(self) -> None:
        """Raise why the connection ended, if it has."""
        if self._failure is not None:
            raise self._failure

    def received(self, size: int) -> None:
        """Handle *size* bytes that were put into the reader.

        Raises:
          SshError: the peer broke the protocol, or ended the connection.

        """
        reader = self.reader
        reader.filled(size)
        if not self.negotiation.remote_version and not self._read_version():
            return
        try:
            while (packet := reader.packet()) is not None:
                self._dispatch(*packet)
        except (FieldError, struct.error) as exc:
            raise SshDisconnectedError("the server sent a malformed message") from exc
        if reader.opened_bytes > self.settings.rekey_bytes:
            self.exchange_keys()

    def fill(self) -> bool:
        """Let the channels write, in turn, until the output is full; return whether it holds anything."""
        writer = self.writer
        ready = self._ready
        while ready and writer.used < OUTPUT_LIMIT and not self.negotiation.running:
            channel = ready.popleft()
            channel.queued = False
            if channel.sendable:
                channel.write_packet()
                self._enqueue(channel)
        return writer.used > 0

    def exchange_keys(self) -> None:
        """Ask for new keys, unless that is under way."""
        if not self.negotiation.running:
            self.keys_since = trio.current_time()
            self.negotiation.begin()
            self.wake.set()

    def start_authentication(self) -> None:
        """Take the messages of an authentication from now on."""
        for kind in (
            number.SERVICE_ACCEPT,
            number.USERAUTH_FAILURE,
            number.USERAUTH_SUCCESS,
            number.USERAUTH_BANNER,
            number.USERAUTH_PK_OK,
        ):
            self._handlers[kind] = self._on_mail

    async def next_mail(self) -> bytes:
        """Return the next message of the authentication; raises why the connection ended, if it has."""
        while not self._unread:
            self.check()
            self._mail = trio.Event()
            await self._mail.wait()
        return self._unread.popleft()

    def start_connection(self) -> None:
        """Take the messages of the connection protocol from now on, and none of authentication."""
        self._handlers = {
            **{kind: handler for kind, handler in self._handlers.items() if handler != self._on_mail},
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

    def open_direct_tcpip(self, host: str, port: int) -> SshChannel:
        """Ask the server to connect to *host* and *port* (RFC 4254, section 7.2)."""
        settings = self.settings
        window = ReceiveWindow(
            settings.window, settings.window_limit, self._budget, trio.current_time, lambda: self.round_trip
        )
        while self._next_number in self.channels:
            self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        channel = SshChannel(self, self._next_number, window)
        self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        self.channels[channel.number] = channel
        self.send(
            bytes([number.CHANNEL_OPEN]),
            string(b"direct-tcpip"),
            uint32(channel.number) + uint32(settings.window) + uint32(settings.packet),
            string(host.encode("utf-8")) + uint32(port),
            # Who asks: a local matter, and none of the server's.
            string(b"127.0.0.1") + uint32(0),
        )
        return channel

    def ping(self) -> trio.Event:
        """Send a request that every server answers, by a refusal or not; the event is set when it has."""
        if len(self._pings) >= MAX_PINGS:
            return self._pings[-1]
        answered = trio.Event()
        self._pings.append(answered)
        self.send(bytes([number.GLOBAL_REQUEST]), string(b"keepalive@openssh.com"), b"\1")
        return answered

    def measured(self, round_trip: float) -> None:
        """Take note of how long an answer took."""
        self.round_trip = min(round_trip, self.round_trip or round_trip)

    def goodbye(self) -> None:
        """Tell the peer that we are going (SSH_MSG_DISCONNECT)."""
        if not self.negotiation.running:
            self.writer.write(
                bytes([number.DISCONNECT]),
                uint32(number.DISCONNECT_BY_APPLICATION),
                string(b"disconnected by user") + string(b""),
            )
            self.wake.set()

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return self.writer.used + sum(channel.unsent for channel in self.channels.values())

    # -- what its channels call

    def send(self, *parts: Part) -> None:
        """Send one message; kept back while keys are exchanged (RFC 4253, section 7.1)."""
        if self._failure is not None:
            return
        if self.negotiation.running:
            if len(self._held) >= MAX_HELD:
                raise SshDisconnectedError("the server makes us answer, but does not finish its key exchange")
            self._held.append(b"".join(parts))
        else:
            self.writer.write(*parts)
            self.wake.set()

    def offer(self, channel: SshChannel) -> None:
        """Send what *channel* has pending: at once where nobody waits, else in turn."""
        if not self._ready and not channel.queued and not self.negotiation.running:
            while channel.sendable and self.writer.used < OUTPUT_LIMIT:
                channel.write_packet()
        self._enqueue(channel)
        self.wake.set()

    def seal_data(self, header: bytes, data: memoryview) -> None:
        """Send channel data now."""
        self.writer.write(header, data)
        if self.writer.sealed_bytes > self.settings.rekey_bytes:
            self.exchange_keys()

    def forget(self, channel: SshChannel) -> None:
        """Drop a channel that both sides have closed."""
        channel.window.release()
        self.channels.pop(channel.number, None)

    # -- what arrives

    def _enqueue(self, channel: SshChannel) -> None:
        if channel.sendable and not channel.queued:
            channel.queued = True
            self._ready.append(channel)

    def _read_version(self) -> bool:
        while (line := self.reader.line(MAX_LINE)) is not None:
            if not line.startswith(b"SSH-"):
                self._lines += 1
                if self._lines == 1:
                    self._first_line = line
                if self._lines > MAX_LINES:
                    raise SshHandshakeError(
                        f"the server does not speak SSH: it says {clean_text(line, 80)!r}"
                    )
                continue
            if not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
                raise SshHandshakeError(f"the server speaks another SSH: {clean_text(line, 80)!r}")
            # What goes into the exchange hash must be the same bytes: paramiko encodes this as UTF-8.
            try:
                self.negotiation.remote_version = line.decode("utf-8")
            except UnicodeDecodeError as exc:
                raise SshHandshakeError("the server's version line is not text") from exc
            self.negotiation.begin()
            self.wake.set()
            return True
        return False

    def _dispatch(self, body: bytes, end: int) -> None:
        kind = body[1]
        negotiation = self.negotiation
        negotiation.admit(kind)
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(body, end)
        elif kind in (number.KEXINIT, number.NEWKEYS) or number.KEX_FIRST <= kind <= number.KEX_LAST:
            self._on_key_exchange(body, end)
        else:
            self.send(bytes([number.UNIMPLEMENTED]), uint32((self.reader.sequence - 1) & 0xFFFFFFFF))
        if not self.keys_agreed.is_set():
            self._early_packets += 1
            if self._early_packets > MAX_EARLY_PACKETS:
                raise SshHandshakeError("the server does not finish its key exchange")

    def _on_key_exchange(self, body: bytes, end: int) -> None:
        if body[1] == number.KEXINIT and not self.negotiation.running:
            self.keys_since = trio.current_time()
        sequence = (self.reader.sequence - 1) & 0xFFFFFFFF
        self.negotiation.handle(body[1], body[1:end], sequence)
        self.wake.set()
        if body[1] == number.NEWKEYS:
            self.keys_since = trio.current_time()
            self.keys_agreed.set()
            held, self._held = self._held, deque()
            for message in held:
                self.writer.write(message)

    def _on_nothing(self, body: bytes, end: int) -> None:
        pass

    def _on_disconnect(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        code = fields.uint32()
        said = fields.text()
        raise SshDisconnectedError(f"the server ended the connection: {said or f'reason {code}'}")

    def _on_ext_info(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        for _ in range(min(fields.uint32(), MAX_UNREAD)):
            name, value = fields.string(), fields.string()
            if name == b"server-sig-algs":
                self.server_algorithms = tuple(value.decode("ascii", "replace").split(","))

    def _on_mail(self, body: bytes, end: int) -> None:
        if len(self._unread) >= MAX_UNREAD:
            raise SshDisconnectedError("the server sends more than an authentication needs")
        self._unread.append(body[1:end])
        self._mail.set()

    def _on_global_request(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        fields.string()
        if fields.boolean():
            self.send(bytes([number.REQUEST_FAILURE]))

    def _on_reply(self, body: bytes, end: int) -> None:
        if not self._pings:
            raise SshDisconnectedError("the server answered a request that nobody made")
        self._pings.popleft().set()

    def _on_open(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        fields.string()
        refusal = uint32(fields.uint32()) + uint32(1) + string(b"") + string(b"")
        self.send(bytes([number.CHANNEL_OPEN_FAILURE]), refusal)

    def _on_confirmation(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        self._channel(fields.uint32()).on_confirmation(fields)

    def _on_refusal(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        self._channel(fields.uint32()).on_refusal(fields)

    def _on_data(self, body: bytes, end: int) -> None:
        name, length = _DATA.unpack_from(body, 2)
        if _DATA_AT + length > end:
            raise FieldError("channel data end too early")
        self._channel(name).on_data(memoryview(body)[_DATA_AT : _DATA_AT + length])

    def _on_extended_data(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        channel = self._channel(fields.uint32())
        fields.uint32()
        channel.on_extended_data(len(fields.string()))

    def _on_window_adjust(self, body: bytes, end: int) -> None:
        name, more = _DATA.unpack_from(body, 2)
        self._channel(name).on_window_adjust(more)

    def _on_eof(self, body: bytes, end: int) -> None:
        self._channel(Fields(body[:end], 2).uint32()).on_eof()

    def _on_close(self, body: bytes, end: int) -> None:
        self._channel(Fields(body[:end], 2).uint32()).on_close()

    def _on_request(self, body: bytes, end: int) -> None:
        fields = Fields(body[:end], 2)
        self._channel(fields.uint32()).on_request(fields)

    def _channel(self, name: int) -> SshChannel:
        channel = self.channels.get(name)
        if channel is None:
            raise SshDisconnectedError("the server used a channel that does not exist")
        return channel
