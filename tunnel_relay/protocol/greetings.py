"""What the two ends of a session, and the ends of a link, tell each other first: JSON, in frames of their own.

A client names the agent that it wants and the session, by a token that nobody can guess: whoever knows it may go on
with the session. A *fence* counts the connections that have carried it; only a higher one takes it over, so that what
is left of an old connection cannot disturb the new one.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable

import attrs

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import Buffer

# A token in characters, and what a name may have.
TOKEN_LENGTH = 32
MAX_NAME = 64
MAX_DETAIL = 255
MAX_GREETING = 4096

_LARGEST = (1 << 63) - 1


class Mode(enum.Enum):
    """Who speaks SSH with the agent's side."""

    END_TO_END = "end-to-end"
    """The client: the session is with the agent, and the relay sees ciphertext only."""
    RELAY_SSH = "relay-ssh"
    """The relay, with a pool of connections: the session is with the relay."""


@attrs.frozen(kw_only=True)
class Hello:
    """A client begins a session with the agent of that name; any of them where there are several.

    Without a name, it is the only agent of the user that is meant. A client says so again, with a higher fence, while
    no answer has come.
    """

    agent: str
    token: str = attrs.field(repr=False)
    fence: int
    mode: Mode = Mode.END_TO_END


@attrs.frozen(kw_only=True)
class Resume:
    """A client goes on with a session, at the agent that is one *instance* of its name, or at that relay."""

    agent: str
    instance: str
    token: str = attrs.field(repr=False)
    fence: int
    received: int
    mode: Mode = Mode.END_TO_END


@attrs.frozen(kw_only=True)
class Welcome:
    """An agent has the session, and *received* so many of the client's frames.

    What it does with requests is in the *record* of that id, which outlives the *instance*; "" where it does none.
    """

    instance: str
    received: int
    record: str = ""


@attrs.frozen(kw_only=True)
class GoAway:
    """A session, or a link, is of no use any more.

    Attributes:
      lost: Whether that is for good; else try again.
      detail: Why, for people.
      denied: Whether it is not allowed: until somebody changes that, there is no use in trying again.

    """

    lost: bool
    detail: str
    denied: bool = False


def write(greeting: Hello | Resume | Welcome | GoAway) -> bytes:
    """Return the payload that says *greeting*."""
    fields = attrs.asdict(greeting)
    mode = fields.pop("mode", Mode.END_TO_END)
    if mode is not Mode.END_TO_END:
        # Agents know nothing of modes: what reaches them is end to end.
        fields["mode"] = mode.value
    if not fields.get("denied", True):
        del fields["denied"]
    return json.dumps(fields, separators=(",", ":")).encode()


def read_hello(payload: Buffer) -> Hello:
    """Return what *payload* says; raises `RelayProtocolError` where it says nothing of the kind."""
    fields = _Fields.of(payload)
    return Hello(
        agent=fields.name("agent", or_none=True),
        token=fields.token(),
        fence=fields.number("fence"),
        mode=fields.mode(),
    )


def read_resume(payload: Buffer) -> Resume:
    """Return what *payload* says; raises `RelayProtocolError` where it says nothing of the kind."""
    fields = _Fields.of(payload)
    return Resume(
        agent=fields.name("agent", or_none=True),
        instance=fields.name("instance"),
        token=fields.token(),
        fence=fields.number("fence"),
        received=fields.number("received"),
        mode=fields.mode(),
    )


def read_welcome(payload: Buffer) -> Welcome:
    """Return what *payload* says; raises `RelayProtocolError` where it says nothing of the kind."""
    fields = _Fields.of(payload)
    return Welcome(
        instance=fields.name("instance"),
        received=fields.number("received"),
        record=fields.name("record", or_none=True) if "record" in fields.values else "",
    )


def read_go_away(payload: Buffer) -> GoAway:
    """Return what *payload* says; raises `RelayProtocolError` where it says nothing of the kind."""
    fields = _Fields.of(payload)
    lost = fields.get("lost", lambda value: isinstance(value, bool))
    detail = fields.get("detail", lambda value: isinstance(value, str))
    shown = "".join(char if char.isprintable() else "?" for char in str(detail)[:MAX_DETAIL])
    return GoAway(lost=bool(lost), detail=shown, denied=fields.values.get("denied") is True)


@attrs.frozen
class _Fields:
    values: dict[str, object]

    @classmethod
    def of(cls, payload: Buffer) -> _Fields:
        if len(payload) > MAX_GREETING:
            raise RelayProtocolError("a greeting is too long")
        try:
            values: object = json.loads(bytes(payload))
        except (ValueError, RecursionError) as exc:
            raise RelayProtocolError("a greeting is no JSON") from exc
        if not isinstance(values, dict):
            raise RelayProtocolError("a greeting is no JSON object")
        return cls({str(key): value for key, value in values.items()})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]

    def get(self, key: str, fits: Callable[[object], bool]) -> object:
        value = self.values.get(key)
        if not fits(value):
            raise RelayProtocolError(f"a greeting's {key!r} does not fit")
        return value

    def name(self, key: str, *, or_none: bool = False) -> str:
        return str(self.get(key, lambda value: _is_name(value) or (or_none and value == "")))

    def token(self) -> str:
        return str(self.get("token", lambda value: isinstance(value, str) and len(value) == TOKEN_LENGTH))

    def mode(self) -> Mode:
        if "mode" not in self.values:
            return Mode.END_TO_END
        return Mode(self.get("mode", _MODES.__contains__))

    def number(self, key: str) -> int:
        value = self.get(key, lambda value: type(value) is int and 0 <= value <= _LARGEST)
        assert isinstance(value, int)
        return value


# A list: what is no string may not be hashable.
_MODES: list[object] = [mode.value for mode in Mode]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()
