"""What a client may ask for over its link: seen to frame by frame, as they pass.

The frames of a session are numbered, and none may be missing: a stream that may not be is refused by the agent, in our
words (`protocol.refusal`). Who asks too often is not heard for as long as that takes to pay back; what it sends waits
with it. So it has the damage, and nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.policy.access import Denial, Feature
from tunnel_relay.policy.rate import Act, Pace, RateLimits
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.greetings import GoAway, read_go_away, read_hello, read_resume, read_welcome, write
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.refusal import write_refusal
from tunnel_relay.protocol.requests import begins
from tunnel_relay.server.census import Census, Counted, Side
from tunnel_relay.server.events import (
    Answered,
    Kind,
    LimitReached,
    Origin,
    RateExceeded,
    RelayEvent,
    SessionRefused,
)

# An OPEN begins with what its sender grants the stream.
CREDIT = 4

# Where a RESPONSE says what has become of the request, and that it was done.
STATUS = 5
DONE = 0

# Sessions over one link: an end has one, and another before it may not be over.
MOST_LABELS = 64

# Seconds in which the like of what was told is only counted.
QUIET = 1.0


class Policed(Protocol):
    """The link of a client."""

    def send(self, frame: Frame) -> None:
        """Send a frame."""
        ...

    def hold(self, seconds: float) -> None:
        """Hear nothing for so long."""
        ...


class Part(Protocol):
    """See `Port.part`."""

    def __call__(self, label: int, detail: str, *, lost: bool = False) -> None:
        """Tell the other end of session *label* that it leads nowhere."""
        ...


@attrs.define(eq=False)
class _Entered:
    counted: Counted
    # The number of the client's next frame, from when it is welcomed.
    next_number: int | None = None


@attrs.define(eq=False)
class _Repeated:
    told_at: float
    event: RateExceeded | LimitReached
    times: int = 0


@attrs.define(eq=False)
class Policing:
    """Sees to what passes over one link of a client.

    Attributes:
      origin: Where the link comes from.
      user: Whose it is.
      tier: Returns the tier that the user's token has now.
      holds: Returns whether that token still holds; where it does not, sees to the end of the link.
      link: The link.
      part: Called with the label of a session that is to lead nowhere, and why, to tell its other end; and whether
        that is for good.
      census: Counts what users have.
      rates: Counts what they ask for.
      notify: Called with what happens.

    """

    origin: Origin
    user: str
    tier: Callable[[], str]
    holds: Callable[[], bool]
    link: Policed
    part: Part
    census: Census
    rates: RateLimits
    notify: Callable[[RelayEvent], None]
    _entered: dict[int, _Entered] = attrs.field(factory=dict[int, _Entered], init=False)
    _repeated: dict[object, _Repeated] = attrs.field(factory=dict[object, _Repeated], init=False)

    def coming(self, frame: Frame) -> Frame | None:
        """Return what to pass on in the place of *frame*, which the client has sent; None for nothing.

        Raises:
          RelayProtocolError: it is nonsense.

        """
        # Most frames are numbered DATA: they are through first.
        if not frame.number:
            return self._greeted(frame)
        entered = self._entered.get(frame.session)
        if entered is None:
            # Nobody waits for that.
            return None
        if frame.type is FrameType.ACK:
            return frame
        due = entered.next_number
        if due is None:
            # Before a WELCOME nobody does.
            return None
        if frame.number != due:
            raise RelayProtocolError(f"frame {frame.number} came where {due} was due")
        entered.next_number = due + 1
        counted = entered.counted
        repeated = frame.number <= counted.client_number
        counted.client_number = max(counted.client_number, frame.number)
        if frame.type is FrameType.DATA:
            return frame
        match frame.type:
            case FrameType.OPEN:
                # It may have been lost with another connection, and then it is here for the second time.
                return frame if repeated and frame.stream in counted.streams else self._open(counted, frame)
            case FrameType.REQUEST if begins(frame.payload):
                return frame if repeated and frame.stream in counted.asked else self._request(counted, frame)
            case FrameType.EOF:
                self.census.half_close(counted, frame.stream, Side.CLIENT)
            case FrameType.RESET:
                self.census.close(counted, frame.stream)
            case _:
                pass
        return frame

    def going(self, label: int, frame: Frame) -> None:
        """Take note of what the other end of session *label* sends the client."""
        entered = self._entered.get(label)
        if entered is None:
            return
        counted = entered.counted
        if not frame.number:
            if frame.type is FrameType.GOAWAY:
                self._gone(label, entered, frame)
            elif frame.type is FrameType.WELCOME:
                entered.next_number = read_welcome(frame.payload).received + 1
        elif frame.type is not FrameType.ACK and frame.number > counted.far_number:
            counted.far_number = frame.number
            if frame.type is not FrameType.DATA:
                self._answer(counted, frame)

    def end(self) -> None:
        """Take note that the link is lost."""
        now = trio.current_time()
        for entered in self._entered.values():
            self.census.leave(entered.counted, now)
        self._entered.clear()
        for repeated in self._repeated.values():
            self._tell_rest(repeated)

    def _greeted(self, frame: Frame) -> Frame | None:
        if frame.type is FrameType.HELLO:
            return frame if self._enter(frame.session, read_hello(frame.payload).token) else None
        if frame.type is FrameType.RESUME:
            return frame if self._enter(frame.session, read_resume(frame.payload).token) else None
        if frame.session not in self._entered:
            return None
        if frame.type is FrameType.GOAWAY:
            self._leave(frame.session, lost=read_go_away(frame.payload).lost)
        return frame

    def _enter(self, label: int, token: str) -> bool:
        now = trio.current_time()
        pace = self._paced(Act.OPEN, self.rates.pace_session(self.user, self.tier(), now))
        if pace.refused:
            self._refuse(label, f"sessions were begun too often of late; try again in {pace.wait:.1f} s")
            return False
        before = self._entered.get(label)
        if before is not None and before.counted.token == token:
            before.next_number = None
            return True
        if before is not None:
            self._leave(label, lost=True)
        elsewhere = [each for each, entered in self._entered.items() if entered.counted.token == token]
        for each in elsewhere:
            self._give_up(each, "a later connection has the session", lost=False)
        if len(self._entered) >= MOST_LABELS:
            counted = Denial(Reason.LIMIT, f"{MOST_LABELS} sessions are the most that one connection carries")
        else:
            counted = self.census.enter(self.user, self.tier(), token, now)
        if isinstance(counted, Denial):
            self._deny(counted)
            self._refuse(label, counted.detail)
            return False
        self._entered[label] = _Entered(counted)
        return True

    def _refuse(self, label: int, detail: str) -> None:
        """Refuse what is to begin in the place of session *label*; that one may come back."""
        if label in self._entered:
            self._leave(label, lost=False)
        self.part(label, detail)
        self.link.send(Frame(FrameType.GOAWAY, label, payload=write(GoAway(lost=False, detail=detail))))

    def _give_up(self, label: int, detail: str, *, lost: bool) -> None:
        """End a session over this link for the client, and where it is *lost*, for its other end, too."""
        self._leave(label, lost=lost)
        self.part(label, detail, lost=lost)
        self.link.send(Frame(FrameType.GOAWAY, label, payload=write(GoAway(lost=True, detail=detail))))

    def _leave(self, label: int, *, lost: bool) -> None:
        self.census.leave(self._entered.pop(label).counted, trio.current_time(), lost=lost)

    def _open(self, counted: Counted, frame: Frame) -> Frame | None:
        if not self.holds():
            return None
        if len(frame.payload) < CREDIT:
            raise RelayProtocolError("an OPEN is cut off")
        now = trio.current_time()
        pace = self._paced(Act.OPEN, self.rates.pace_open(self.user, self.tier(), now))
        if pace.refused:
            detail = f"too many streams were opened of late; try again in {pace.wait:.1f} s"
            return _refused(frame, Reason.LIMIT, detail)
        denial = self.census.open(counted, frame.stream, self.tier(), now)
        if denial is not None:
            self._deny(denial)
            return _refused(frame, denial.reason, denial.detail)
        return frame

    def _request(self, counted: Counted, frame: Frame) -> Frame | None:
        if not self.holds():
            return None
        now = trio.current_time()
        denial = self.census.access.tier(self.tier()).refuse_feature(Feature.REQUESTS)
        if denial is not None:
            # Nobody could answer it in the agent's place, and without it the agent takes nothing more.
            self._deny(denial)
            self._give_up(frame.session, denial.detail, lost=True)
            return None
        self._paced(Act.REQUEST, self.rates.pace_request(self.user, self.tier(), now))
        counted.asked[frame.stream] = now
        return frame

    def _answer(self, counted: Counted, frame: Frame) -> None:
        match frame.type:
            case FrameType.OPENED | FrameType.REFUSED:
                since = counted.streams.get(frame.stream)
                ok = frame.type is FrameType.OPENED
                if since is not None:
                    self._answered(Kind.OPEN, frame.stream, since, ok=ok)
                if not ok:
                    self.census.close(counted, frame.stream)
            case FrameType.RESPONSE if begins(frame.payload):
                since = counted.asked.pop(frame.stream, None)
                if since is not None:
                    self._answered(
                        Kind.REQUEST,
                        frame.stream,
                        since,
                        ok=frame.payload[STATUS : STATUS + 1] == bytes((DONE,)),
                    )
            case FrameType.EOF:
                self.census.half_close(counted, frame.stream, Side.FAR)
            case FrameType.RESET:
                self.census.close(counted, frame.stream)
            case _:
                pass

    def _answered(self, kind: Kind, number: int, since: float, *, ok: bool) -> None:
        seconds = trio.current_time() - since
        self.notify(
            Answered(origin=self.origin, user=self.user, kind=kind, ok=ok, seconds=seconds, number=number)
        )

    def _gone(self, label: int, entered: _Entered, frame: Frame) -> None:
        away = read_go_away(frame.payload)
        if not away.lost:
            return
        self._leave(label, lost=True)
        # Where another connection of the client has the session, that is as it should be.
        if entered.next_number is None or not entered.counted.links:
            self.notify(SessionRefused(origin=self.origin, user=self.user, detail=away.detail))

    def _paced(self, act: Act, pace: Pace) -> Pace:
        if not pace.wait:
            return pace
        if not pace.refused:
            self.link.hold(pace.wait)
        self._tell(
            RateExceeded(origin=self.origin, user=self.user, act=act, wait=pace.wait, refused=pace.refused)
        )
        return pace

    def _deny(self, denial: Denial) -> None:
        self._tell(LimitReached(origin=self.origin, user=self.user, detail=denial.detail))

    def _tell(self, event: RateExceeded | LimitReached) -> None:
        """Tell of *event*, and only count what is like it and comes at once."""
        key = (event.act, event.refused) if isinstance(event, RateExceeded) else event.detail
        now = trio.current_time()
        repeated = self._repeated.get(key)
        if repeated is not None and now < repeated.told_at + QUIET:
            repeated.event = event
            repeated.times += 1
            return
        more = 0 if repeated is None else repeated.times
        self._repeated[key] = _Repeated(now, event)
        self.notify(attrs.evolve(event, times=more + 1))

    def _tell_rest(self, repeated: _Repeated) -> None:
        if repeated.times:
            self.notify(attrs.evolve(repeated.event, times=repeated.times))


def _refused(frame: Frame, reason: Reason, detail: str) -> Frame:
    payload = bytes(frame.payload[:CREDIT]) + write_refusal(reason, detail)
    return attrs.evolve(frame, payload=payload)
