"""Which host keys are accepted: known_hosts files as OpenSSH keeps them (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""

from __future__ import annotations

import base64
import binascii
import fcntl
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import attrs
import trio

from tunnel_relay.errors import HostKeyError, KnownHostsError
from tunnel_relay.protocol.ssh_fields import FieldError, Fields
from tunnel_relay.ssh.algorithms import CERTIFICATE, MIN_RSA_BITS, RSA_KEY

SSH_PORT = 22
# A known_hosts file larger than this is not one.
MAX_FILE = 16 * 1024 * 1024

_REVOKED = "@revoked"
_HASHED = "|1|"


@attrs.frozen
class HostKey:
    """A host's public key as it stands in the protocol (RFC 4253, section 6.6)."""

    blob: bytes = attrs.field(repr=False)

    @property
    def kind(self) -> str:
        """The type, ``ssh-ed25519`` for one."""
        try:
            return Fields(self.blob).string().decode("ascii", "replace")
        except FieldError:
            return ""

    @property
    def fingerprint(self) -> str:
        """The fingerprint as OpenSSH shows it: ``SHA256:…``."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    @property
    def weakness(self) -> str:
        """What makes the key unsafe; empty where nothing does."""
        if self.kind not in (RSA_KEY, RSA_KEY + CERTIFICATE):
            return ""
        fields = Fields(self.blob)
        try:
            fields.string()
            if self.kind != RSA_KEY:
                fields.string()  # a certificate's nonce
            fields.string()
            bits = int.from_bytes(fields.string(), "big").bit_length()
        except FieldError:
            return "a malformed RSA key"
        if bits >= MIN_RSA_BITS:
            return ""
        return f"an RSA key of {bits} bits; fewer than {MIN_RSA_BITS} are not safe"

    @property
    def line(self) -> str:
        """Type and key as they stand in known_hosts and authorized_keys."""
        return f"{self.kind} {base64.b64encode(self.blob).decode('ascii')}"


class HostKeyPolicy(Protocol):
    """Decides which key a host may have."""

    async def known_types(self, host: str) -> Sequence[str]:
        """Return the types of the keys known for *host*, so that it is asked for one of these."""
        ...

    async def verify(self, host: str, key: HostKey) -> bool:
        """Accept *key*, which *host* has proven to own; return whether it is new, and was recorded.

        Raises:
          HostKeyError: the key is not acceptable; the message says why and what to do.
          KnownHostsError: what is known cannot be read, or not be added to.

        """
        ...


def known_host_name(host: str, port: int = SSH_PORT) -> str:
    """Return what *host* at *port* is called in known_hosts."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


@attrs.frozen
class KnownHosts:
    """A known_hosts file. In the mode ``accept-new`` the key of a host seen for the first time is recorded.

    *mode* ``strict`` demands that the key is there already. A key that changed, and a revoked one, is refused
    in both.
    """

    path: Path
    mode: Literal["accept-new", "strict"] = "accept-new"

    async def known_types(self, host: str) -> Sequence[str]:
        """See `HostKeyPolicy.known_types`."""
        entries = await trio.to_thread.run_sync(self._entries, host)
        return [entry.key.kind for entry in entries if not entry.revoked]

    async def verify(self, host: str, key: HostKey) -> bool:
        """See `HostKeyPolicy.verify`."""
        return await trio.to_thread.run_sync(self._verify, host, key)

    def _verify(self, host: str, key: HostKey) -> bool:
        if self._is_known(host, key, self._entries(host)):
            return False
        if self.mode == "strict":
            raise HostKeyError(
                f"{host} has the {key.kind} key {key.fingerprint}, which is not in {self.path}; check the fingerprint "
                f'and add the key, or set host_keys = "accept-new"'
            )
        return self._record(host, key)

    def _is_known(self, host: str, key: HostKey, entries: Sequence[KnownHost]) -> bool:
        for entry in entries:
            if entry.revoked and entry.key == key:
                raise HostKeyError(
                    f"the {key.kind} key of {host} is revoked ({self.path}:{entry.line}); do not connect to it"
                )
        valid = [entry for entry in entries if not entry.revoked]
        if any(entry.key == key for entry in valid):
            return True
        if valid:
            # The same type if there is one: that is the line to look at.
            entry = next((entry for entry in valid if entry.key.kind == key.kind), valid[0])
            raise HostKeyError(
                f"the host key of {host} changed: it now has the {key.kind} key {key.fingerprint}, but "
                f"{self.path}:{entry.line} has {entry.key.kind} {entry.key.fingerprint}; if the host was "
                f"reinstalled, remove that line, else someone may be listening in"
            )
        return False

    def _entries(self, host: str) -> list[KnownHost]:
        try:
            text = self._read()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as exc:
            raise KnownHostsError(
                f"{self.path} cannot be read: {_reason(exc)}; mend it, or choose another known_hosts"
            ) from exc
        return [entry for entry in parse_known_hosts(text) if entry.names(host)]

    def _read(self) -> str:
        with self.path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            raise ValueError("it is too large for a known_hosts file")
        return raw.decode("utf-8", "replace")

    def _record(self, host: str, key: HostKey) -> bool:
        # Several sessions may see a new host at the same time: the lock makes one of them record it.
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as exc:
            raise self._unrecordable(exc) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if self._is_known(host, key, self._entries(host)):
                return False
            size = os.fstat(descriptor).st_size
            joined = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
            # One write: a reader sees the whole line or nothing of it.
            os.write(descriptor, f"{'' if joined else chr(10)}{host} {key.line}\n".encode())
        except OSError as exc:
            raise self._unrecordable(exc) from exc
        finally:
            os.close(descriptor)
        return True

    def _unrecordable(self, exc: OSError) -> KnownHostsError:
        return KnownHostsError(
            f"the new host key cannot be recorded in {self.path}: {_reason(exc)}; choose another known_hosts"
        )


@attrs.frozen
class KnownHost:
    """One line of a known_hosts file."""

    line: int
    hosts: str
    key: HostKey
    revoked: bool = False

    def names(self, host: str) -> bool:
        """Return whether this line is about *host*."""
        if self.hosts.startswith(_HASHED):
            return _hash_matches(self.hosts, host)
        found = False
        for pattern in self.hosts.split(","):
            if _matches(pattern.removeprefix("!"), host):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


def parse_known_hosts(text: str) -> Iterator[KnownHost]:
    """Yield what the lines of *text* say; comments, certificate authorities and broken lines are passed over."""
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        revoked = fields[0] == _REVOKED
        if fields[0].startswith("@"):
            if not revoked:
                continue
            del fields[0]
        if len(fields) < 3:
            continue
        try:
            key = HostKey(base64.b64decode(fields[2], validate=True))
        except binascii.Error:
            continue
        if key.kind == fields[1]:
            yield KnownHost(number, fields[0], key, revoked)


def _matches(pattern: str, host: str) -> bool:
    # fnmatch knows brackets too, and here they stand for themselves.
    escaped = pattern.replace("[", "[[]")
    return fnmatch.fnmatchcase(host.lower(), escaped.lower())


def _hash_matches(hashed: str, host: str) -> bool:
    try:
        salt, digest = (
            base64.b64decode(part, validate=True) for part in hashed.removeprefix(_HASHED).split("|")
        )
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, host.lower().encode(), "sha1"), digest)


def _reason(exc: OSError | ValueError) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
