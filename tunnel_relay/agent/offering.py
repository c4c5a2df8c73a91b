"""What an agent does over a link: it joins its clients' streams to its services."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from tunnel_relay.asking import AskedRequest
from tunnel_relay.far_end import FarEnd
from tunnel_relay.link import FrameCarrier
from tunnel_relay.performing import not_reached, open_tcp
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.greetings import GoAway, write
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import StreamRefusedError


class Offering(FarEnd):
    """The far end of the sessions of an agent's clients; *services* are host and port by name, and may be replaced.

    Nothing else can be reached.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        services: Mapping[str, tuple[str, int]],
        instance: str,
        settings: SessionSettings,
        asked: Callable[[AskedRequest], None] | None = None,
    ) -> None:
        super().__init__(nursery, self._connect, instance, settings, asked)
        self.services = services
        self.unreached: Callable[[str, str], None] = lambda _service, _reason: None
        """Called with a service that cannot be reached, and why: once, until it is or the reason is another."""
        self._told: dict[str, str] = {}

    def drain(self, detail: str) -> None:
        """Begin nothing new, for the reason *detail*, and have the relay look for other agents."""
        self.draining = detail
        self._say_draining()

    def attach(self, link: FrameCarrier) -> None:
        """Use *link* from now on."""
        super().attach(link)
        self._say_draining()

    def _say_draining(self) -> None:
        if self._attached is not None and self.draining:
            word = GoAway(lost=False, detail=self.draining)
            self._attached.link.send(Frame(FrameType.GOAWAY, payload=write(word)))

    async def _connect(self, name: str) -> trio.abc.HalfCloseableStream:
        service = self.services.get(name)
        if service is None:
            raise StreamRefusedError(Reason.NO_SUCH_SERVICE, f"no service {name!r} is offered")
        try:
            # It runs beside us.
            stream = await open_tcp(*service)
        except OSError as exc:
            host, port = service
            reason = f"{host}, port {port}: {not_reached(exc)}"
            if self._told.get(name) != reason:
                self._told[name] = reason
                self.unreached(name, reason)
            raise StreamRefusedError(Reason.REFUSED, reason) from exc
        self._told.pop(name, None)
        return stream
