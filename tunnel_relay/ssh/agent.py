"""Keys that an ssh-agent holds: it signs, we never see them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import trio

from tunnel_relay.errors import SshKeyError
from tunnel_relay.protocol.ssh_agent_messages import (
    LENGTH,
    RSA_SHA2_256,
    RSA_SHA2_512,
    framed,
    identities_request,
    message_length,
    parse_identities,
    parse_signature,
    sign_request,
)
from tunnel_relay.protocol.ssh_fields import FieldError
from tunnel_relay.ssh.algorithms import CERTIFICATE
from tunnel_relay.ssh.hostkeys import HostKey

_FLAGS = {"rsa-sha2-256": RSA_SHA2_256, "rsa-sha2-512": RSA_SHA2_512}


@attrs.frozen
class AgentIdentity:
    """A key in the agent that listens on *socket*. Get them with `agent_identities`."""

    name: str
    blob: bytes = attrs.field(repr=False)
    socket: Path

    async def sign(self, data: bytes, algorithm: str) -> bytes:
        """See `tunnel_relay.ssh.keys.Identity.sign`; waits as long as the agent does, for a person perhaps."""
        flags = _FLAGS.get(algorithm.removesuffix(CERTIFICATE), 0)
        answer = await ask_agent(self.socket, sign_request(self.blob, data, flags))
        try:
            signature = parse_signature(answer)
        except FieldError as exc:
            raise _nonsense(self.socket, exc) from exc
        if signature is None:
            raise SshKeyError("ssh-agent would not sign; is the key locked, or was the request denied?")
        return signature


async def agent_identities(socket: Path) -> list[AgentIdentity]:
    """Return the keys of the agent that listens on *socket* (``SSH_AUTH_SOCK``), in its order.

    Raises:
      SshKeyError: no agent answers there.

    """
    answer = await ask_agent(socket, identities_request())
    try:
        keys = parse_identities(answer)
    except FieldError as exc:
        raise _nonsense(socket, exc) from exc
    return [
        AgentIdentity(f"ssh-agent: {key.comment or HostKey(key.blob).kind}", key.blob, socket) for key in keys
    ]


def find_agent(environ: Mapping[str, str], home: Path) -> Path | None:
    """Return where an agent listens: what SSH_AUTH_SOCK says, else gpg-agent's socket for SSH; None without either."""
    if said := environ.get("SSH_AUTH_SOCK"):
        return Path(said)
    # gpgconf(1), agent-ssh-socket: below /run where there is such a folder, else beside the keys.
    folders = [Path(environ.get("GNUPGHOME") or home / ".gnupg")]
    if "GNUPGHOME" not in environ and (runtime := environ.get("XDG_RUNTIME_DIR")):
        folders.insert(0, Path(runtime) / "gnupg")
    sockets = (folder / "S.gpg-agent.ssh" for folder in folders)
    return next((socket for socket in sockets if socket.is_socket()), None)


async def ask_agent(socket: Path, request: bytes) -> bytes:
    """Return what the agent that listens on *socket* answers to *request*, both without their lengths.

    Raises:
      SshKeyError: no agent answers there.

    """
    # One connection per question: nothing to keep open between them, and agents do not mind.
    try:
        async with await trio.open_unix_socket(socket) as stream:
            await stream.send_all(framed(request))
            head = await _receive_exactly(stream, LENGTH)
            return await _receive_exactly(stream, message_length(head))
    except FieldError as exc:
        raise _nonsense(socket, exc) from exc
    except (OSError, trio.BrokenResourceError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else None
        raise SshKeyError(f"no ssh-agent answers on {socket}: {reason or 'the connection broke'}") from exc


async def _receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise FieldError("it closed the connection in the middle of an answer")
        data += more
    return bytes(data)


def _nonsense(socket: Path, exc: FieldError) -> SshKeyError:
    return SshKeyError(f"what listens on {socket} is not an ssh-agent: {exc}")
