"""The last stage: a connection through the tunnel, and what is heard on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from session_proxy.errors import DialError, RefusedError
from session_proxy.target import Target
from tunnel_relay.stages import Course, Step, Trouble, TroubleError
from tunnel_relay.websocket import printable

# Seconds within which a destination that speaks first has spoken.
GREETING = 1.5
LONGEST_GREETING = 128

HINT = "--target HOST:PORT tries a destination of your own"


async def check_echo(
    course: Course,
    connect: Callable[[Target], Awaitable[trio.abc.Stream]],
    target: Target | None,
    otherwise: Target,
    *,
    harmless: tuple[type[DialError], ...] = (RefusedError,),
) -> None:
    """Make the step ECHO: have the far end *connect* to *target*, or else *otherwise*.

    Of the latter nobody knows whether anything listens there: the far end's answer, even where it is one of the
    *harmless* errors, shows that the way leads there and back.
    """
    with course.stage(Step.ECHO) as notes:
        wanted, began = target or otherwise, trio.current_time()
        notes.advice = "see whether something listens there, and whether the far end may reach it"
        try:
            stream = await connect(wanted)
        except DialError as exc:
            if target is not None or not isinstance(exc, harmless):
                trouble = course.explain(exc)
                raise TroubleError(attrs.evolve(trouble, cause=f"{wanted}: {trouble.cause}")) from exc
            notes.find(f"the far end answers for {wanted}: {exc}; {HINT}")
            return
        try:
            took = trio.current_time() - began
            heard: bytes | None = None
            with trio.move_on_after(GREETING):
                heard = bytes(await stream.receive_some(LONGEST_GREETING))
        finally:
            await trio.aclose_forcefully(stream)
        if heard == b"" and target is not None:
            raise TroubleError(
                Trouble(
                    f"{wanted} was closed at once", "see whether something listens there, and what it expects"
                )
            )
        notes.find(f"{wanted} opened in {took * 1e3:.0f} ms" + _told(heard))


def _told(heard: bytes | None) -> str:
    if heard is None:
        return ""
    if not heard:
        return f", and closed at once: nothing may listen there; {HINT}"
    return f' and says "{printable(heard.decode("utf-8", "replace").splitlines()[0].strip())}"'
