"""What `Dialing` keeps linked: `FarEnd` and `Reaching` are such ends."""

from __future__ import annotations

from typing import Protocol

from tunnel_relay.link import Link
from tunnel_relay.protocol.frames import Frame


class Remains(Protocol):
    """What goes on over a link that is not used any more."""

    def heed(self, frame: Frame) -> None:
        """Heed what came over the link."""
        ...

    def detach(self) -> None:
        """The link is lost."""
        ...

    async def wait_over(self) -> None:
        """Wait until the link is not needed."""
        ...


class End(Protocol):
    """What uses a link: `Offering` or `Reaching`."""

    @property
    def wanted(self) -> bool:
        """Whether something waits for a link: streams that would go on."""
        ...

    @property
    def stays(self) -> bool:
        """Whether there are streams that end with the server, which is about to end, so that it is stayed with."""
        ...

    async def wait_free(self) -> None:
        """Wait until nothing `stays`."""
        ...

    def attach(self, link: Link) -> None:
        """Use *link* from now on."""
        ...

    def leave(self) -> Remains | None:
        """Leave a server that is about to end; return what goes on over its link, until that is over; None for nothing.

        Where something does, that link is not ours to `detach` any more.
        """
        ...

    def detach(self) -> None:
        """The link is lost."""
        ...

    def heed(self, frame: Frame) -> None:
        """Heed what came over the link."""
        ...
