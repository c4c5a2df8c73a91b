"""Logging in with keys (RFC 4252): one after another, until the server takes one or has had enough."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tunnel_relay.errors import SshAuthenticationError, SshDisconnectedError, SshHandshakeError, SshKeyError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import FieldError, Fields, clean_text, string
from tunnel_relay.ssh.algorithms import RSA_ALGORITHMS, RSA_KEY
from tunnel_relay.ssh.connection import Connection
from tunnel_relay.ssh.hostkeys import HostKey
from tunnel_relay.ssh.keys import CERTIFICATE, Identity

_PUBLICKEY = "publickey"


async def authenticate(connection: Connection, user: str, identities: Sequence[Identity]) -> str:
    """Log in as *user* with the first of *identities* that the server takes; return what the server said to people.

    With several keys the server is asked first whether it would take a key: a signature may cost a touch on a
    token, or a question to a person.

    Raises:
      SshAuthenticationError: it takes none; the message names those that were tried.
      SshError: the connection ended.

    """
    attempt = _Attempt(connection, user, ask_first=len(identities) > 1)
    await attempt.request_service()
    for identity in identities:
        if await attempt.log_in(identity):
            return attempt.banner
        if _PUBLICKEY not in attempt.methods:
            break
    if not identities:
        await attempt.ask_methods()
    raise SshAuthenticationError(attempt.explain())


@attrs.define(eq=False)
class _Attempt:
    connection: Connection
    user: str
    ask_first: bool
    banner: str = ""
    methods: tuple[str, ...] = (_PUBLICKEY,)
    partial: bool = False
    tried: list[str] = attrs.field(factory=list[str])

    async def request_service(self) -> None:
        self.connection.send(bytes([number.SERVICE_REQUEST]), string(b"ssh-userauth"))
        if await self._answer() != number.SERVICE_ACCEPT:
            raise SshHandshakeError("the server does not offer to log in")

    async def log_in(self, identity: Identity) -> bool:
        """Try one key; return whether we are in."""
        key = HostKey(identity.blob)
        algorithm = self._algorithm(key.kind)
        self.tried.append(f"{identity.name} ({key.kind} {key.fingerprint})")
        try:
            if self.ask_first:
                self.connection.send(self._request(identity, algorithm, signed=False))
                kind = await self._answer()
                if kind != number.USERAUTH_PK_OK:
                    return kind == number.USERAUTH_SUCCESS
            request = self._request(identity, algorithm, signed=True)
            session = self.connection.negotiation.session_id
            assert session is not None
            signature = await identity.sign(string(session) + request, algorithm)
            self.connection.send(request, string(signature))
            return await self._answer() == number.USERAUTH_SUCCESS
        except SshKeyError as exc:
            self.tried[-1] += f", which failed: {exc}"
            return False
        except SshDisconnectedError as exc:
            # Servers hang up after a few keys: which ones were tried is what one needs to know.
            raise SshAuthenticationError(f"{exc}; {self.explain()}") from exc

    async def ask_methods(self) -> None:
        """Find out what the server would take, where we have nothing to give (RFC 4252, section 5.2)."""
        self.connection.send(self._head(b"none"))
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
        takes = self.connection.server_algorithms
        suffix = CERTIFICATE if kind.endswith(CERTIFICATE) else ""
        return next((name for name in RSA_ALGORITHMS if name in takes), RSA_ALGORITHMS[0]) + suffix

    async def _answer(self) -> int:
        """Return the number of the server's answer; banners are kept, failures read."""
        while True:
            message = await self.connection.next_mail()
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
