"""Logging in with keys (RFC 4252): one after another, until the server takes one or has had enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

import attrs
import trio

from tunnel_relay.errors import SshAuthenticationError, SshDisconnectedError, SshHandshakeError, SshKeyError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import FieldError, Fields, clean_text, string
from tunnel_relay.ssh.algorithms import CERTIFICATE, RSA_ALGORITHMS, RSA_KEY
from tunnel_relay.ssh.hostkeys import HostKey
from tunnel_relay.ssh.keys import Identity
from tunnel_relay.ssh.transport import SshTransport

_PUBLICKEY = "publickey"


# An authentication is question and answer; a server that sends more than this unasked is up to something.
MAX_UNREAD = 64
_NUMBERS = (
    number.SERVICE_ACCEPT,
    number.USERAUTH_FAILURE,
    number.USERAUTH_SUCCESS,
    number.USERAUTH_BANNER,
    number.USERAUTH_PK_OK,
)


async def authenticate(
    transport: SshTransport, user: str, identities: Sequence[Identity], *, on_success: Callable[[], None]
) -> str:
    """Log in as *user* with the first of *identities* that the server takes; return its words to people.

    With several keys the server is asked first whether it would take a key: a signature may cost a touch on a
    token, or a question to a person. *on_success* is called before the message after the success is handled.

    Raises:
      SshAuthenticationError: it takes none; the message names those that were tried.
      SshError: the connection ended.

    """
    with _Mailbox(transport, on_success) as mailbox:
        attempt = _Attempt(transport, mailbox, user, ask_first=len(identities) > 1)
        await attempt.request_service()
        for identity in identities:
            if await attempt.log_in(identity):
                return attempt.banner
            if _PUBLICKEY not in attempt.methods:
                break
        if not identities:
            await attempt.ask_methods()
    raise SshAuthenticationError(attempt.explain())


class _Mailbox:
    """Keeps the messages of an authentication until they are looked at."""

    def __init__(self, transport: SshTransport, on_success: Callable[[], None]) -> None:
        self._transport = transport
        self._on_success = on_success
        self._unread: deque[bytes] = deque()
        self._changed = trio.Event()

    def __enter__(self) -> Self:
        self._transport.handlers.update(dict.fromkeys(_NUMBERS, self._on_message))
        self._transport.on_end.append(self._on_end)
        return self

    def __exit__(self, *_: object) -> None:
        for kind in _NUMBERS:
            del self._transport.handlers[kind]
        self._transport.on_end.remove(self._on_end)

    async def next(self) -> bytes:
        """Return the next message; raises why the connection ended, if it has."""
        while not self._unread:
            self._transport.check()
            self._changed = trio.Event()
            await self._changed.wait()
        return self._unread.popleft()

    def _on_message(self, message: memoryview) -> None:
        if len(self._unread) >= MAX_UNREAD:
            raise SshDisconnectedError("the server sends more than an authentication needs")
        self._unread.append(bytes(message))
        self._changed.set()
        if message[0] == number.USERAUTH_SUCCESS:
            self._on_success()

    def _on_end(self) -> None:
        self._changed.set()


@attrs.define(eq=False)
class _Attempt:
    transport: SshTransport
    mailbox: _Mailbox
    user: str
    ask_first: bool
    banner: str = ""
    methods: tuple[str, ...] = (_PUBLICKEY,)
    partial: bool = False
    tried: list[str] = attrs.field(factory=list[str])

    async def request_service(self) -> None:
        """Ask for the service that logs people in (RFC 4253, section 10)."""
        self._send(bytes([number.SERVICE_REQUEST]), string(b"ssh-userauth"))
        if await self._answer() != number.SERVICE_ACCEPT:
            raise SshHandshakeError("the server does not offer to log in")

    async def log_in(self, identity: Identity) -> bool:
        """Try one key; return whether we are in."""
        key = HostKey(identity.blob)
        algorithm = self._algorithm(key.kind)
        self.tried.append(f"{identity.name} ({key.kind} {key.fingerprint})")
        if key.weakness:
            self.tried[-1] += (
                f", which was not offered: it is {key.weakness}, make one with: ssh-keygen -t ed25519"
            )
            return False
        try:
            if self.ask_first:
                self._send(self._request(identity, algorithm, signed=False))
                kind = await self._answer()
                if kind != number.USERAUTH_PK_OK:
                    return kind == number.USERAUTH_SUCCESS
            request = self._request(identity, algorithm, signed=True)
            session = self.transport.negotiation.session_id
            assert session is not None
            signature = await identity.sign(string(session) + request, algorithm)
            self._send(request, string(signature))
            return await self._answer() == number.USERAUTH_SUCCESS
        except SshKeyError as exc:
            self.tried[-1] += f", which failed: {exc}"
            return False
        except SshDisconnectedError as exc:
            # Servers hang up after a few keys: which ones were tried is what one needs to know.
            raise SshAuthenticationError(f"{exc}; {self.explain()}") from exc

    async def ask_methods(self) -> None:
        """Find out what the server would take, where we have nothing to give (RFC 4252, section 5.2)."""
        self._send(self._head(b"none"))
        await self._answer()

    def explain(self) -> str:
        """Return why nobody is logged in."""
        allowed = ", ".join(self.methods) or "nothing"
        if not self.tried:
            return f"there is no key to log in with as {self.user!r}; the server takes: {allowed}"
        reason = "took a key and wants more than that" if self.partial else "took none of the keys"
        return (
            f"the server {reason} for user {self.user!r}; tried: {'; '.join(self.tried)}; it takes: {allowed}"
        )

    def _send(self, *parts: bytes) -> None:
        self.transport.send(*parts)
        self.transport.push()

    def _head(self, method: bytes) -> bytes:
        user = string(self.user.encode("utf-8"))
        return bytes([number.USERAUTH_REQUEST]) + user + string(b"ssh-connection") + string(method)

    def _request(self, identity: Identity, algorithm: str, *, signed: bool) -> bytes:
        name = string(algorithm.encode("ascii"))
        return self._head(_PUBLICKEY.encode()) + (b"\1" if signed else b"\0") + name + string(identity.blob)

    def _algorithm(self, kind: str) -> str:
        if not kind.startswith(RSA_KEY):
            return kind
        # RFC 8332, section 3.3: the server may have said which hashes it takes.
        takes = self.transport.signature_algorithms
        suffix = CERTIFICATE if kind.endswith(CERTIFICATE) else ""
        return next((name for name in RSA_ALGORITHMS if name in takes), RSA_ALGORITHMS[0]) + suffix

    async def _answer(self) -> int:
        """Return the number of the server's answer; banners are kept, failures read."""
        while True:
            message = await self.mailbox.next()
            fields = Fields(message, 1)
            try:
                if message[0] == number.USERAUTH_BANNER:
                    self.banner = fields.text()
                    continue
                if message[0] == number.USERAUTH_FAILURE:
                    self.methods = tuple(clean_text(name.encode(), 64) for name in fields.names())
                    self.partial = fields.boolean()
            except FieldError as exc:
                raise SshDisconnectedError("the server sent a malformed message") from exc
            return message[0]
