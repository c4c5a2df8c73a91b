"""What each user has of the relay at a time: the sessions of clients, and the streams in them.

The relay owns no stream, but sees the frames by which they begin and end. A client that comes back with a session
brings its streams along: they are still counted, as long as a session may be without a connection. Frames that come
twice, since a connection was lost between them and their acknowledgement, are known by their numbers.
"""

from __future__ import annotations

import enum

import attrs

from tunnel_relay.policy.access import Access, Denial, Held
from tunnel_relay.protocol.multiplexer import Reason

# What ends give a session that is without a connection (`SessionSettings.grace`), unless they are told otherwise.
GRACE = 120.0


class Side(enum.Enum):
    """Who sends no more on a stream."""

    CLIENT = enum.auto()
    FAR = enum.auto()


@attrs.define(eq=False)
class Counted:
    """A session.

    Attributes:
      user: Whose it is.
      token: What it is called between its ends.
      client_number: The highest number that the client has given a frame.
      far_number: The highest that the other end has.
      asked: When requests that are not answered were made, by their number.

    """

    user: str
    token: str = attrs.field(repr=False)
    client_number: int = 0
    far_number: int = 0
    asked: dict[int, float] = attrs.field(factory=dict[int, float], init=False)
    # When each stream was asked for.
    streams: dict[int, float] = attrs.field(factory=dict[int, float], init=False)
    _ended: dict[int, Side] = attrs.field(factory=dict[int, Side], init=False)
    links: int = attrs.field(default=0, init=False)
    left_at: float = attrs.field(default=0.0, init=False)

    def half_closed(self, stream: int, side: Side) -> bool:
        """Note that *side* sends no more on *stream*; return whether that was its end."""
        return stream in self.streams and self._ended.setdefault(stream, side) is not side

    def forget(self, stream: int) -> bool:
        """Note that *stream* is over; return whether it was there."""
        self._ended.pop(stream, None)
        return self.streams.pop(stream, None) is not None


@attrs.define(eq=False)
class Census:
    """The sessions and streams of all users.

    Attributes:
      access: What each may have.
      grace: Seconds that a session is remembered for after its connection was lost.

    """

    access: Access
    grace: float = GRACE
    _sessions: dict[tuple[str, str], Counted] = attrs.field(
        factory=dict[tuple[str, str], Counted], init=False
    )
    # Those without a connection; whoever lost it first comes first.
    _left: dict[tuple[str, str], Counted] = attrs.field(factory=dict[tuple[str, str], Counted], init=False)

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return sum(len(counted.streams) for counted in self._sessions.values())

    def enter(self, user: str, tier: str, token: str, now: float) -> Counted | Denial:
        """Count a connection more of the session *token* of *user*, or say why there may be none."""
        self._expire(now)
        key = user, token
        counted = self._sessions.get(key)
        if counted is None or not counted.links:
            denial = self.access.take(user, tier, Held.SESSIONS)
            if denial is not None:
                return denial
        if counted is None:
            counted = self._sessions[key] = Counted(user, token)
        self._left.pop(key, None)
        counted.links += 1
        return counted

    def leave(self, counted: Counted, now: float, *, lost: bool = False) -> None:
        """Count a connection less; the session is not waited for where it is *lost*."""
        key = counted.user, counted.token
        counted.links -= 1
        if counted.links:
            return
        self.access.give_back(counted.user, Held.SESSIONS)
        if lost:
            self._end(key)
        else:
            counted.left_at = now
            self._left[key] = counted

    def open(self, counted: Counted, stream: int, tier: str, now: float) -> Denial | None:
        """Count a stream more; return why there may be none."""
        if stream in counted.streams:
            # The far end will not have it, either; and it would be given back once only.
            return Denial(Reason.NOT_ALLOWED, f"there is a stream {stream} already")
        denial = self.access.take(counted.user, tier, Held.STREAMS)
        if denial is None:
            counted.streams[stream] = now
        return denial

    def half_close(self, counted: Counted, stream: int, side: Side) -> None:
        """Count a stream less where the other side had ended its half before."""
        if counted.half_closed(stream, side):
            self.close(counted, stream)

    def close(self, counted: Counted, stream: int) -> None:
        """Count a stream less, if it was counted."""
        if counted.forget(stream):
            self.access.give_back(counted.user, Held.STREAMS)

    def _expire(self, now: float) -> None:
        while self._left:
            key, counted = next(iter(self._left.items()))
            if now < counted.left_at + self.grace:
                return
            self._end(key)

    def _end(self, key: tuple[str, str]) -> None:
        self._left.pop(key, None)
        counted = self._sessions.pop(key)
        for stream in list(counted.streams):
            self.close(counted, stream)
