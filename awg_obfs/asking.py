"""Ask the server of a tunnel for something, on a stream of its own."""

from __future__ import annotations

from awg_obfs.errors import DialFault, TunnelDialError, WireError
from awg_obfs.protocol.tunnel_wire import FAULTS, Reply, ReplyCode, ResetCode, decode_reply
from awg_obfs.quic.driver import QuicConnection
from awg_obfs.quic.errors import StreamResetError
from awg_obfs.quic.stream import QuicStream

# What a person reads where the server says no more.
_WORDS = {
    DialFault.REFUSED: "connection refused",
    DialFault.UNREACHABLE: "the server has no route to it",
    DialFault.RESOLUTION: "the name has no address at the server",
    DialFault.NOT_ALLOWED: "the server's policy forbids it",
    DialFault.TIMEOUT: "no answer",
    DialFault.LIMIT: "the server allows no more connections",
    DialFault.DOWN: "the server cannot",
}


async def ask(connection: QuicConnection, request: bytes) -> QuicStream:
    """Return a stream on which the server has agreed to *request*; what follows is between the two far ends.

    Raises:
      TunnelDialError: it has not; the fault says why.
      ConnectionLostError: the connection ended before there was an answer.

    """
    stream = connection.open_stream()
    try:
        await stream.send_all(request)
        reply = await read_reply(stream)
    except StreamResetError as exc:
        raise TunnelDialError(DialFault.DOWN, "the server gave the request up", uncertain=True) from exc
    except WireError as exc:
        raise TunnelDialError(DialFault.DOWN, str(exc), uncertain=True) from exc
    except BaseException:
        stream.reset(ResetCode.CANCELLED)
        raise
    if reply.code != ReplyCode.SUCCEEDED:
        stream.close()
        raise dial_error_of(reply)
    return stream


async def read_reply(stream: QuicStream) -> Reply:
    """Read a reply, and nothing that comes after it.

    Raises:
      WireError: it is none.
      StreamResetError, ConnectionLostError: the stream broke before.

    """
    data = b""
    while (decoded := decode_reply(data)) is None:
        # Code and length, then so many bytes as that says.
        end = 2 if len(data) < 2 else 2 + data[1]
        more = await stream.receive_some(end - len(data))
        if not more:
            raise WireError("the server ended the stream within its reply")
        data += more
    return decoded[0]


def dial_error_of(reply: Reply) -> TunnelDialError:
    """Return what a *reply* that is no success means."""
    fault = FAULTS.get(reply.code, DialFault.DOWN)
    return TunnelDialError(fault, reply.detail or _WORDS[fault])
