"""The transport protocol (RFC 4253) as a machine: versions, packets, keys, and who gets which message.

It does no I/O and starts no task. Bytes are put into its `reader` and taken from its `writer`; the layers above
register a handler for each message that may come, and send with `SshTransport.send`.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

import trio

from tunnel_relay.errors import SshDisconnectedError, SshError, SshHandshakeError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import FieldError, Fields, clean_text, string, uint32
from tunnel_relay.protocol.ssh_numbers import CHANNEL_DATA
from tunnel_relay.ssh.algorithms import HOST_KEYS
from tunnel_relay.ssh.negotiation import LOCAL_VERSION, Negotiation
from tunnel_relay.ssh.pace import Pace
from tunnel_relay.ssh.packets import Part

# A line before the version is for people, and shorter (RFC 4253, section 4.2 has 255 bytes for the version).
MAX_LINE = 8192
MAX_LINES = 100
# A first key exchange takes five messages of the server's; whoever sends this many is up to something.
MAX_EARLY_PACKETS = 100
# Messages kept back during a key exchange. Nobody who makes us answer more than this is asking in earnest.
MAX_HELD = 20_000
# A server announces two or three extensions (RFC 8308).
MAX_EXTENSIONS = 64

Handler = Callable[[memoryview], None]
"""Takes a message, its number first. The message is gone when the handler returns: it copies what is to stay."""


def nothing(message: memoryview) -> None:
    """Be a `Handler` that does nothing."""


class SshTransport:
    """The client's side of one connection, as far as RFC 4253 goes.

    *rekey_bytes* in one direction call for new keys. *push* is called whenever something was written.
    """

    def __init__(
        self, rekey_bytes: int, host_keys: tuple[str, ...] = HOST_KEYS, *, compression: bool = False
    ) -> None:
        self.negotiation = Negotiation(host_keys, compression=compression)
        self.reader = self.negotiation.reader
        self.writer = self.negotiation.writer
        self.push: Callable[[], None] = lambda: None
        self.failure: SshError | None = None
        """Why the connection ended, once it has."""
        self.ended = trio.Event()
        self.keys_agreed = trio.Event()
        self.key_exchanges = 0
        """How many have been finished."""
        self.exchanging_keys = True
        """Whether nothing but a key exchange may be sent; so it is until the first one is done."""
        self.keys_since = trio.current_time()
        """When the key exchange under way began, else when the last one ended."""
        self.arriving = Pace(trio.current_time())
        """How fast bytes arrive, those of the protocol included."""
        self.signature_algorithms: tuple[str, ...] = ()
        """Those that the server takes, where it says so (RFC 8308, section 3.1)."""
        self.on_end: list[Callable[[], None]] = []
        """Called once when the connection has ended."""
        self.handlers: dict[int, Handler] = {
            number.DISCONNECT: self._on_disconnect,
            number.IGNORE: nothing,
            number.UNIMPLEMENTED: nothing,
            number.DEBUG: nothing,
            number.EXT_INFO: self._on_ext_info,
            number.KEXINIT: self._on_key_exchange,
            number.NEWKEYS: self._on_key_exchange,
            **dict.fromkeys(range(number.KEX_FIRST, number.KEX_LAST + 1), self._on_key_exchange),
        }
        self.on_data: Handler = self._on_unknown
        """Takes channel data while no keys are exchanged; `handlers` has it too."""
        self.on_batch_end: Callable[[], None] = lambda: None
        """Called when everything that had arrived has been handled."""
        self._rekey_bytes = rekey_bytes
        self._said = b""
        self._line_count = 0
        self._early_packets = 0
        self._held: deque[bytes] = deque()
        self.writer.write_raw(f"{LOCAL_VERSION}\r\n".encode("ascii"))

    @property
    def heard(self) -> float:
        """When the last bytes arrived."""
        return self.arriving.at

    def fail(self, reason: SshError) -> None:
        """End the connection; the first reason stands."""
        if self.failure is not None:
            return
        self.failure = reason
        self._held.clear()
        self.keys_agreed.set()
        self.ended.set()
        for callback in self.on_end:
            callback()

    def check(self) -> None:
        """Raise why the connection ended, if it has."""
        if self.failure is not None:
            raise self.failure

    def received(self, size: int) -> None:
        """Handle *size* bytes that were put into the reader; 0: the peer will send no more.

        Raises:
          SshError: the peer broke the protocol, or ended the connection.

        """
        if not size:
            raise SshDisconnectedError(self._describe_end())
        self.arriving.count(size, trio.current_time())
        reader = self.reader
        reader.filled(size)
        if not self.negotiation.remote_version and not self._read_version():
            return
        try:
            next_packet = reader.packet
            while (message := next_packet()) is not None:
                # Nearly every message is channel data, and nearly never do keys change.
                if message[0] != CHANNEL_DATA or self.exchanging_keys:
                    self._dispatch(message)
                else:
                    self.on_data(message)
        except (FieldError, struct.error) as exc:
            raise SshDisconnectedError("the server sent a malformed message") from exc
        self.on_batch_end()
        self.check_age()

    def send(self, *parts: Part) -> None:
        """Send one message; it is kept back while keys are exchanged (RFC 4253, section 7.1)."""
        if self.failure is not None:
            return
        if self.exchanging_keys:
            if len(self._held) < MAX_HELD:
                self._held.append(b"".join(parts))
            else:
                self.fail(
                    SshDisconnectedError("the server makes us answer, but does not finish its key exchange")
                )
            return
        try:
            self.writer.write(*parts)
        except SshError as exc:
            # Whoever sends this message is not to blame, and learns of it like everybody else.
            self.fail(exc)
        self.check_age()

    def check_age(self) -> None:
        """Ask for new keys where the present ones have served for enough bytes."""
        if self.writer.sealed_bytes > self._rekey_bytes or self.reader.opened_bytes > self._rekey_bytes:
            self.exchange_keys()

    def exchange_keys(self) -> None:
        """Ask for new keys, unless that is under way."""
        if not self.exchanging_keys and self.failure is None:
            self.keys_since = trio.current_time()
            self.exchanging_keys = True
            self.negotiation.begin()
            self.push()

    def disconnect(self) -> None:
        """Tell the peer that we are going (SSH_MSG_DISCONNECT); during a key exchange we go without."""
        if not self.exchanging_keys:
            reason = uint32(number.DISCONNECT_BY_APPLICATION) + string(b"disconnected by user") + string(b"")
            self.send(bytes([number.DISCONNECT]), reason)
            self.push()

    def _describe_end(self) -> str:
        if self.negotiation.remote_version:
            return "the server closed the connection"
        said = clean_text(self._said or self.reader.unread(), 80)
        if said:
            return f"the server does not speak SSH: it says {said!r}"
        return "the server closed the connection before it said anything; is it an SSH server, and does it let us in?"

    def _read_version(self) -> bool:
        while (line := self.reader.line(MAX_LINE)) is not None:
            if line.startswith(b"SSH-"):
                self._accept_version(line)
                return True
            self._said = self._said or line
            self._line_count += 1
            if self._line_count > MAX_LINES:
                raise SshHandshakeError(self._describe_end())
        return False

    def _accept_version(self, line: bytes) -> None:
        if not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            raise SshHandshakeError(f"the server speaks another SSH than version 2: {clean_text(line, 80)!r}")
        # The exchange hash is over the same bytes: paramiko encodes what it is given as UTF-8.
        try:
            self.negotiation.remote_version = line.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise SshHandshakeError("the server's version line is not text") from exc
        self.negotiation.begin()
        self.push()

    def _dispatch(self, message: memoryview) -> None:
        self.negotiation.admit(message[0])
        self.handlers.get(message[0], self._on_unknown)(message)
        if not self.keys_agreed.is_set():
            self._early_packets += 1
            if self._early_packets > MAX_EARLY_PACKETS:
                raise SshHandshakeError("the server does not finish its key exchange")

    def _sequence(self) -> int:
        """Return the number of the packet being handled."""
        return (self.reader.sequence - 1) & 0xFFFFFFFF

    def _on_unknown(self, message: memoryview) -> None:
        del message
        # RFC 4253, section 11.4.
        self.send(bytes([number.UNIMPLEMENTED]), uint32(self._sequence()))
        self.push()

    def _on_key_exchange(self, message: memoryview) -> None:
        kind = message[0]
        if kind == number.KEXINIT and not self.exchanging_keys:
            self.keys_since = trio.current_time()
            self.exchanging_keys = True
        self.negotiation.handle(kind, bytes(message), self._sequence())
        if kind == number.NEWKEYS:
            self.keys_since = trio.current_time()
            self.exchanging_keys = False
            self.key_exchanges += 1
            self.keys_agreed.set()
            held, self._held = self._held, deque()
            for kept in held:
                self.send(kept)
        self.push()

    def _on_disconnect(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        code = fields.uint32()
        said = fields.text()
        raise SshDisconnectedError(f"the server ended the connection: {said or f'reason {code}'}")

    def _on_ext_info(self, message: memoryview) -> None:
        fields = Fields(bytes(message), 1)
        for _ in range(min(fields.uint32(), MAX_EXTENSIONS)):
            name, value = fields.string(), fields.string()
            if name == b"server-sig-algs":
                self.signature_algorithms = tuple(value.decode("ascii", "replace").split(","))
