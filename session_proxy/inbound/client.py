"""One client of the front door, from its first byte to the event that tells how it went."""

from __future__ import annotations

import trio

from session_proxy.errors import BadAnswerError, ClientProtocolError
from session_proxy.events import ConnectionOpened
from session_proxy.inbound.carrying import part
from session_proxy.inbound.front_door import FrontDoor, Visit
from session_proxy.inbound.http import serve_http
from session_proxy.inbound.socks import HANDSHAKE_READ, serve_socks4, serve_socks5
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.protocol.sniff import TLS_REFUSAL, ClientProtocol, sniff, ssh_refusal

# Outcomes that end a connection in flight: the client gets a reset, so that it does not take part for all.
ABRUPT = frozenset({"reset", "idle-timeout", "drained"})


async def serve_client(door: FrontDoor, near: PlainSocketStream, client: str) -> None:
    """Serve the client at *client* (``HOST:PORT``) on *near*, and close that; the door has counted it already.

    What a client or a destination can do to us ends here, so that it never takes the front door down.
    Anything else is a bug, and propagates.
    """
    visit = Visit(door.next_id(), client, trio.current_time())
    door.notify(ConnectionOpened(visit.id, client))
    try:
        await _serve(door, visit, near)
    except ClientProtocolError as exc:
        visit.ended("protocol-error", str(exc))
    except BadAnswerError as exc:
        visit.ended("bad-answer", str(exc))
    except trio.TooSlowError:
        visit.ended("handshake-timeout", f"no complete request within {door.limits.handshake:g} s")
    except trio.BrokenResourceError:
        missed = "its connection was there" if visit.connect_duration is None else "its answer was complete"
        visit.ended("reset", f"the client left before {missed}")
    finally:
        if visit.outcome in ABRUPT:
            near.reset_on_close()
        # No other task uses it, so nobody needs to be told, as `near.close` would.
        near.socket.close()
        door.open_connections -= 1
        door.notify(visit.closed(trio.current_time()))


async def _serve(door: FrontDoor, visit: Visit, near: PlainSocketStream) -> None:
    # Mostly the first bytes are there before we hear of the client: then it takes no time limit to read them.
    first = near.receive_nowait(HANDSHAKE_READ) or b""
    while (protocol := sniff(first)) is None:
        piece = await _wait_for_word(door, near)
        if not piece:
            visit.ended("ok", "the client left without a word")
            return
        first += piece
    visit.protocol = protocol.value
    match protocol:
        case ClientProtocol.SOCKS5:
            await serve_socks5(door, visit, near, first)
        case ClientProtocol.SOCKS4:
            await serve_socks4(door, visit, near, first)
        case ClientProtocol.HTTP:
            await serve_http(door, visit, near, first)
        case ClientProtocol.TLS:
            await part(near, TLS_REFUSAL)
            raise ClientProtocolError("the client speaks TLS; give it the proxy as http:// or socks5h://")
        case ClientProtocol.SSH:
            await part(
                near, ssh_refusal("this is a SOCKS and HTTP proxy, and no SSH server: use ProxyCommand")
            )
            raise ClientProtocolError(
                "the client speaks SSH; it reaches SSH servers through us by ProxyCommand"
            )
        case ClientProtocol.UNKNOWN:
            raise ClientProtocolError("the client speaks neither SOCKS nor HTTP")


async def _wait_for_word(door: FrontDoor, near: PlainSocketStream) -> bytes:
    """Return a client's first bytes; none where it has left, or it is time to stop before it has said any."""
    with trio.fail_after(door.limits.handshake), door.pause():
        return await near.receive_eagerly(HANDSHAKE_READ)
    return b""
