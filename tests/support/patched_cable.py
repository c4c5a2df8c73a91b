"""A way to a TCP port for tests that run programs: it can be cut, moved, or let nothing through for a while."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import attrs

_READ = 65536
PATIENCE = 60.0


@attrs.define(eq=False)
class PatchedCable:
    """Forwards connections from *port* to the port *far*, both of 127.0.0.1."""

    far: int
    listener: socket.socket
    _open: set[socket.socket] = attrs.field(factory=set[socket.socket])
    _flows: threading.Event = attrs.field(factory=threading.Event)
    # What the connections that were left behind wait for.
    _left: list[threading.Event] = attrs.field(factory=list[threading.Event])
    _source: str = "127.0.0.1"
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _joined: threading.Condition = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._joined = threading.Condition(self._lock)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def wait_joined(self) -> None:
        """Wait until there is a connection."""
        with self._joined:
            assert self._joined.wait_for(lambda: self._open, PATIENCE), "nobody came"

    def cut(self) -> int:
        """Reset all connections; return how many there were. New ones are let through."""
        with self._lock:
            cut, self._open = self._open, set()
        for each in cut:
            # Whoever reads it wakes up.
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        return len(cut) // 2

    def move(self, source: str) -> None:
        """Come from the address *source* from now on; nothing passes over what there is, and nothing is closed."""
        with self._lock:
            self._flows.clear()
            self._left.append(self._flows)
            self._flows, self._source = threading.Event(), source
            self._flows.set()

    def stall(self) -> None:
        """Let nothing through, and close nothing."""
        self._flows.clear()

    def flow(self) -> None:
        """Let everything through (again), but for what was left behind."""
        self._flows.set()

    def end(self) -> None:
        """Forward nothing any more."""
        for flows in (self._flows, *self._left):
            flows.set()
        self.cut()

    def accept(self) -> None:
        """Forward connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                try:
                    far = socket.create_connection(
                        ("127.0.0.1", self.far), timeout=5, source_address=(self._source, 0)
                    )
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                with self._lock:
                    self._open |= {near, far}
                    flows = self._flows
                    self._joined.notify_all()
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(*ends, flows), daemon=True).start()  # noqa: TID251

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, flows: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_READ):
                flows.wait()
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def open_cable(far: int) -> Generator[PatchedCable]:
    """Lay a cable to the port *far* for the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    cable = PatchedCable(far, listener)
    cable.flow()
    accepting = threading.Thread(target=cable.accept, daemon=True)  # noqa: TID251
    accepting.start()
    try:
        yield cable
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        cable.end()
        accepting.join(5)
