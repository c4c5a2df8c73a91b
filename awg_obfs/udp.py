"""A UDP socket that moves many datagrams per system call where the system can.

On Linux the kernel cuts one buffer into equal datagrams (GSO), and puts equal datagrams of one sender together (GRO):
0.8 µs per datagram instead of 3.6. Elsewhere, and where a feature test fails, the same calls move them one by one.

Nothing that the network does raises: a datagram that cannot be sent is dropped and counted, as the network would.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Sequence

import attrs
import trio

from awg_obfs.addresses import SocketAddress, family_of, from_socket, shown, to_socket
from awg_obfs.errors import BindError
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.messages import Buffer
from awg_obfs.socket_options import (
    UDP_GRO,
    UDP_SEGMENT,
    allow_fragments,
    enable_coalescing,
    enable_segmentation,
    enlarge_buffers,
    speak_both_families,
)
from awg_obfs.sources import ANCILLARY_SPACE, Ancillary, Sources

# The largest datagram there is, and the most that GRO puts together.
MAX_DATAGRAM = 65535

# What fits an IPv4 packet beside its headers; IPv6 takes 20 bytes more, which nobody needs.
MAX_PAYLOAD = 65507

# What older kernels cut at most out of one buffer.
MAX_SEGMENTS = 64

# Datagrams taken at once before other tasks have their turn: some milliseconds of work.
BATCH = 64

# The reference's wish. A receiver that sleeps for 10 ms while 500 MB/s come in needs 5 MB.
BUFFER_SIZE = 7 << 20

# Addresses remembered in the other form. Strangers choose how many there are, so all are forgotten then.
MAX_KNOWN = 4096

# The interface cannot segment (it does not compute checksums, say), though the kernel knows the option.
_NO_SEGMENTATION = frozenset({errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT})
# Nothing gets to this address for now: the rest of a batch need not try.
_NO_WAY = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EINVAL,
        errno.EACCES,
        errno.ENODEV,
    }
)

_segment_size = struct.Struct("=H")
_ANCILLARY_SPACE = socket.CMSG_SPACE(4) + ANCILLARY_SPACE

OnFault = Callable[[Address, OSError], None]
"""Told of datagrams that could not be sent there, and why."""

OnNarrow = Callable[[Address, int], None]
"""Told of the first datagram, of so many bytes, that does not get there in one piece."""


@attrs.define(eq=False)
class Traffic:
    """What went through a socket; several in turn may count in one of these. *dropped* is by the error's name."""

    datagrams_sent: int = 0
    bytes_sent: int = 0
    send_calls: int = 0
    datagrams_received: int = 0
    bytes_received: int = 0
    receive_calls: int = 0
    dropped: Counter[str] = attrs.field(factory=Counter[str])
    receive_faults: Counter[str] = attrs.field(factory=Counter[str])


def error_name(error: OSError) -> str:
    """Return the name of *error*, such as ``ENETUNREACH``."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


class UdpSocket:
    """A UDP socket bound to *address*, never blocking.

    With *offload* it uses what the kernel has for many datagrams at once. It does not let datagrams be fragmented
    until one does not fit: from then on it does, since slow is better than not at all. A *server* answers from the
    address that was written to; a client's datagrams take the way that leads there now.
    """

    def __init__(
        self,
        address: Address,
        *,
        offload: bool = True,
        server: bool = False,
        buffer_size: int = BUFFER_SIZE,
        traffic: Traffic | None = None,
        on_fault: OnFault = lambda _address, _error: None,
        on_narrow: OnNarrow = lambda _address, _size: None,
    ) -> None:
        """Bind to *address*; port 0 is any free one. ``::`` takes IPv4 as well, where the system lets it.

        Raises:
          BindError: the system does not let us.

        """
        self.traffic = traffic or Traffic()
        self.fragments = False
        self._on_fault = on_fault
        self._on_narrow = on_narrow
        self._known: dict[Address, SocketAddress] = {}
        self._seen: dict[SocketAddress, Address] = {}
        self._largest_segment = math.inf
        self._family = family_of(address)
        self._closed = False
        try:
            self._socket = socket.socket(self._family, socket.SOCK_DGRAM)
        except OSError as exc:
            raise BindError(shown(address), exc) from exc
        try:
            self._bind(address)
        except OSError as exc:
            self._socket.close()
            raise BindError(shown(address), exc) from exc
        enlarge_buffers(self._socket, buffer_size)
        allow_fragments(self._socket, allow=False)
        self.segments = offload and enable_segmentation(self._socket)
        self.coalesces = offload and enable_coalescing(self._socket)
        self._sources = Sources.of(self._socket, address) if server else None
        self.address = from_socket(self._socket.getsockname())

    def _bind(self, address: Address) -> None:
        target = to_socket(address, self._family)
        if target is None:
            raise OSError(errno.EADDRNOTAVAIL, "no such interface")
        self._socket.setblocking(False)
        if address[0] == "::":
            speak_both_families(self._socket)
        self._socket.bind(target)

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    @property
    def buffer_sizes(self) -> tuple[int, int]:
        """The bytes that the kernel keeps for us: of received datagrams, of those to be sent."""
        return (
            self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
            self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        )

    async def wait_readable(self) -> None:
        """Wait until there is something to receive.

        Raises:
          trio.ClosedResourceError: it was closed.

        """
        if self._closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._socket)

    async def wait_writable(self) -> None:
        """Wait until there is room for something to send.

        Raises:
          trio.ClosedResourceError: it was closed.

        """
        if self._closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_writable(self._socket)

    def close(self) -> None:
        """Close it; those who wait are told."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    # -- receiving

    def receive_batch(self) -> list[tuple[Address, list[Buffer]]]:
        """Return what has come, in order, each run of datagrams with its sender: about `BATCH` at most.

        Datagrams that came together are views of one buffer.
        """
        batch: list[tuple[Address, list[Buffer]]] = []
        datagrams: list[Buffer] = []
        sender: SocketAddress | None = None
        traffic, sources = self.traffic, self._sources
        wants_ancillary = self.coalesces or sources is not None
        room = BATCH
        while room > 0 and not self._closed:
            ancillary: Sequence[Ancillary] = ()
            try:
                if wants_ancillary:
                    data, ancillary, _, source = self._socket.recvmsg(MAX_DATAGRAM, _ANCILLARY_SPACE)
                else:
                    data, source = self._socket.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                break
            except OSError as error:
                # What became of a datagram we sent (ICMP), or an interface that has gone: no news, and no end.
                traffic.receive_faults[error_name(error)] += 1
                room -= 1
                continue
            if source != sender:
                sender = source
                datagrams = []
                batch.append((self._as_seen(source), datagrams))
            traffic.receive_calls += 1
            traffic.bytes_received += len(data)
            size = 0
            for item in ancillary:
                if item[1] == UDP_GRO and item[0] == socket.IPPROTO_UDP:
                    size = int.from_bytes(item[2], sys.byteorder)
                elif sources is not None:
                    sources.note(batch[-1][0], item)
            if 0 < size < len(data):
                view = memoryview(data)
                segments = [view[start : start + size] for start in range(0, len(data), size)]
                datagrams += segments
                traffic.datagrams_received += len(segments)
                room -= len(segments)
            else:
                datagrams.append(data)
                traffic.datagrams_received += 1
                room -= 1
        return batch

    def _as_seen(self, source: SocketAddress) -> Address:
        if len(source) == 2:
            return source
        address = self._seen.get(source)
        if address is None:
            if len(self._seen) >= MAX_KNOWN:
                self._seen.clear()
            address = self._seen[source] = from_socket(source)
        return address

    # -- sending

    def send(self, address: Address, datagrams: Sequence[bytes]) -> int:
        """Send *datagrams* in order, and return for how many there was room: the others may be sent later.

        What cannot be sent at all counts as sent, and as dropped.
        """
        target = self._target(address)
        if target is None or self._closed:
            fault = OSError(errno.EAFNOSUPPORT if target is None else errno.EBADF, "no way there from here")
            self._drop(address, fault, len(datagrams))
            return len(datagrams)
        sizes = list(map(len, datagrams))
        start, total = 0, len(sizes)
        # Up to there one by one, after segmentation has failed.
        single_until = 0
        ancillary = self._sources and self._sources.answer(address)
        beside = [ancillary] if ancillary else []
        try:
            while start < total:
                end = self._end_of_run(sizes, start) if start >= single_until else start + 1
                if end - start == 1:
                    error = self._send_one(datagrams[start], address, target, beside)
                    if error is not None and error.errno in _NO_WAY:
                        self._known.pop(address, None)
                        self._drop(address, error, total - end)
                        return total
                elif not self._send_run(datagrams[start:end], sizes[start], target, beside):
                    single_until = end
                    continue
                start = end
        except BlockingIOError:
            pass
        return start

    def _target(self, address: Address) -> SocketAddress | None:
        if self._family == socket.AF_INET and ":" not in address[0]:
            return address
        target = self._known.get(address)
        if target is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            target = to_socket(address, self._family)
            if target is not None:
                self._known[address] = target
        return target

    def _end_of_run(self, sizes: list[int], start: int) -> int:
        """Return the end of what can be sent at once: equal sizes, of which the last may be smaller."""
        size = sizes[start]
        end = start + 1
        if not self.segments or not 0 < size <= self._largest_segment:
            return end
        limit = min(len(sizes), start + MAX_SEGMENTS, start + MAX_PAYLOAD // size)
        while end < limit:
            if sizes[end] != size:
                return end + 1 if 0 < sizes[end] < size else end
            end += 1
        return end

    def _send_run(
        self, datagrams: Sequence[bytes], size: int, target: SocketAddress, beside: Sequence[Ancillary]
    ) -> bool:
        """Send equal datagrams with one call; tells whether that has worked."""
        ancillary = [(socket.IPPROTO_UDP, UDP_SEGMENT, _segment_size.pack(size)), *beside]
        try:
            sent = self._socket.sendmsg(datagrams, ancillary, 0, target)
        except BlockingIOError:
            raise
        except OSError as error:
            # Unless it is about segmentation, it will show again with single datagrams.
            if error.errno in _NO_SEGMENTATION:
                self.segments = False
            elif error.errno == errno.EMSGSIZE:
                self._largest_segment = size - 1
            return False
        traffic = self.traffic
        traffic.send_calls += 1
        traffic.datagrams_sent += len(datagrams)
        traffic.bytes_sent += sent
        return True

    def _send_one(
        self, datagram: bytes, address: Address, target: SocketAddress, beside: list[Ancillary]
    ) -> OSError | None:
        """Send a datagram; where that is impossible drop it, and return why."""
        traffic = self.traffic
        for last_try in (False, True):
            try:
                if beside:
                    sent = self._socket.sendmsg((datagram,), beside, 0, target)
                else:
                    sent = self._socket.sendto(datagram, target)
            except BlockingIOError:
                raise
            except OSError as error:
                if last_try or not self._mend(error, address, len(datagram), beside):
                    self._drop(address, error, 1)
                    return error
            else:
                traffic.send_calls += 1
                traffic.datagrams_sent += 1
                traffic.bytes_sent += sent
                return None
        raise AssertionError("the last try is the last")

    def _mend(self, error: OSError, address: Address, size: int, beside: list[Ancillary]) -> bool:
        """Tell whether trying again may help, and see to it that it does."""
        if error.errno == errno.EMSGSIZE and not self.fragments and size <= MAX_PAYLOAD:
            self.fragments = True
            allow_fragments(self._socket, allow=True)
            self._on_narrow(address, size)
            return True
        if beside and self._sources is not None and error.errno in _NO_WAY:
            # The address that was written to may have gone.
            self._sources.forget(address)
            beside.clear()
            return True
        # The answer to an earlier datagram (ICMP). This one has not been sent.
        return error.errno == errno.ECONNREFUSED

    def _drop(self, address: Address, error: OSError, count: int) -> None:
        if count:
            self.traffic.dropped[error_name(error)] += count
            self._on_fault(address, error)
