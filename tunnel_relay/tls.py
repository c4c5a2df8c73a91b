"""TLS over Trio streams (`trio.SSLStream`), with reads that take all records which are there.

OpenSSL gives out a record at a time, 16 KiB at most, and each costs a pass through Trio's loop and through all that
lies above.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import attrs
import trio

from tunnel_relay.errors import WebSocketError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What one read takes: a long message of a relay, with what it is wrapped in.
READ = 272 * 1024

# What a record holds at most (RFC 8446, section 5.1).
RECORD = 16 * 1024

# OpenSSL's numbers for a certificate that nobody vouches for whom we know (X509_V_ERR_…).
UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)

# What OpenSSL says of what comes from who does not speak TLS.
NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE")


class RecordGatherer(ssl.SSLObject):
    """An `ssl.SSLObject` whose reads do not end with the first record."""

    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> bytes:  # noqa: A002
        """Return *len* bytes at most: as many as have arrived."""
        if buffer is not None:
            return super().read(len, buffer)  # type: ignore[arg-type]
        gathered = [super().read(min(len, RECORD))]
        left = len - gathered[0].__len__()
        try:
            while left > 0 and (piece := super().read(min(left, RECORD))):
                gathered.append(piece)
                left -= piece.__len__()
        except ssl.SSLError:
            # There is no more for now; what else it may be shows with the next read.
            pass
        return b"".join(gathered)


@attrs.define(eq=False)
class _LongReads(trio.abc.Stream):
    stream: trio.abc.Stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(READ if max_bytes is None else max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


def client_tls(
    stream: trio.abc.Stream, context: ssl.SSLContext | None, host: str
) -> trio.SSLStream[trio.abc.Stream]:
    """Return *stream* with TLS to *host*, which proves itself as *context* wants; None for the system's way."""
    context = context or ssl.create_default_context()
    context.sslobject_class = RecordGatherer
    return trio.SSLStream(_LongReads(stream), context, server_hostname=host, https_compatible=True)


async def shake_hands(tls: trio.SSLStream[trio.abc.Stream], host: str) -> None:
    """Begin to speak TLS with *host*.

    Raises:
      WebSocketError: that cannot be; says why. What is wrong with its certificate is the cause.

    """
    try:
        await tls.do_handshake()
    except trio.BrokenResourceError as exc:
        match exc.__cause__:
            case ssl.SSLCertVerificationError() as cause:
                known: int = cause.verify_code
                fix = (
                    "; where its authority is your own, name it with ca" if known in UNKNOWN_AUTHORITY else ""
                )
                said = f"{host}: its certificate is not believed: {cause.verify_message}{fix}"
                raise WebSocketError(said) from cause
            case ssl.SSLError(reason=str(reason)) as cause if reason and "EOF" not in reason:
                said = f"TLS failed: {reason.replace('_', ' ').lower()}"
                if any(part in reason for part in NOT_TLS):
                    said = "what listens there does not speak TLS; correct the port, or what is in between"
                raise WebSocketError(f"{host}: {said}") from cause
            case _:
                raise WebSocketError(f"{host} hung up during the TLS handshake") from None


def server_tls(stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.SSLStream[trio.abc.Stream]:
    """Return *stream* with TLS, where we prove ourselves as *context* does."""
    context.sslobject_class = RecordGatherer
    return trio.SSLStream(_LongReads(stream), context, server_side=True, https_compatible=True)
