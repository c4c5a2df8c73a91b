"""Which addresses are the machine's own: to those, services answer that are meant for the machine alone."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from awg_obfs.network import local_address
from awg_obfs.policy import IPAddress
from awg_obfs.protocol.address import Address

# Asking takes about 13 µs, which is much for each datagram of an association; an address that comes is noticed after
# as much time as it takes to bring it up.
MEMORY = 1.0
MOST_REMEMBERED = 4096

# Any will do: nothing is sent there.
_PORT = 9


@attrs.define(eq=False)
class OwnAddresses:
    """The machine's own addresses, as they are now: networks come and go while a server runs.

    The system is asked about one address at a time, by the way that it would take there: whoever writes to an
    address of his own does so from that same address. So nobody lists interfaces, or watches them change. Of a
    public address that only a NAT before the machine has, the machine knows nothing.
    """

    _find_local: Callable[[Address], str | None] = local_address
    _known: dict[IPAddress, bool] = attrs.field(factory=dict[IPAddress, bool], init=False, repr=False)
    _until: float = attrs.field(default=0.0, init=False, repr=False)

    def holds(self, address: IPAddress) -> bool:
        """Return whether *address* is one of them."""
        now = trio.current_time()
        if now >= self._until or len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
            self._until = now + MEMORY
        own = self._known.get(address)
        if own is None:
            own = self._known[address] = self._find_local((str(address), _PORT)) == str(address)
        return own
