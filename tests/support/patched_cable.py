"""A way to a TCP port for tests that run programs: it can be cut, or let nothing through for a while."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import attrs

_READ = 65536


@attrs.define(eq=False)
class PatchedCable:
    """Forwards connections from *port* to the port *far*, both of 127.0.0.1."""

    far: int
    listener: socket.socket
    _open: set[socket.socket] = attrs.field(factory=set[socket.socket])
    _flows: threading.Event = attrs.field(factory=threading.Event)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

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

    def stall(self) -> None:
        """Let nothing through, and close nothing."""
        self._flows.clear()

    def flow(self) -> None:
        """Let everything through (again)."""
        self._flows.set()

    def accept(self) -> None:
        """Forward connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.far), timeout=5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                with self._lock:
                    self._open |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()  # noqa: TID251

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_READ):
                self._flows.wait()
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
        cable.flow()
        cable.cut()
        accepting.join(5)
