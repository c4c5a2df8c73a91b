"""Which algorithms we agree to, in order of preference, and what to say to a server that knows only others.

Left out on purpose: everything on SHA-1, MD5, CBC, 3DES and DSA, and short RSA keys. So are the classic
Diffie-Hellman groups: in Python an exchange takes 20 to 100 ms, during which no stream of any session moves.
chacha20-poly1305 and sntrup761 are missing because paramiko does not have them.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tunnel_relay.protocol.ssh_fields import FieldError, Fields, clean_text

KEY_EXCHANGES = (
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
)
# AES-256-GCM costs what AES-128-GCM does; CTR with an HMAC costs twice as much.
CIPHERS = (
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
# In a key and in known_hosts an RSA key has one name, whatever hash signs with it (RFC 8332, section 3).
RSA_KEY = "ssh-rsa"
RSA_ALGORITHMS = ("rsa-sha2-512", "rsa-sha2-256")
# NIST SP 800-131A: shorter RSA keys are no longer acceptable. OpenSSH's RequiredRSASize is 1024 unless changed.
MIN_RSA_BITS = 2048

# What the type of a certificate ends with.
CERTIFICATE = "-cert-v01@openssh.com"

# How many of a server's names an error message shows.
_SHOWN = 6


def host_key_algorithms(known_types: Sequence[str]) -> tuple[str, ...]:
    """Return `HOST_KEYS`, those first for which *known_types* (key types, as in known_hosts) has a key.

    A host with several keys then presents the one that we can check.
    """
    known = {name for kind in known_types for name in (RSA_ALGORITHMS if kind == RSA_KEY else (kind,))}
    return tuple(sorted(HOST_KEYS, key=lambda name: name not in known))


@attrs.frozen
class Offer:
    """What a server's SSH_MSG_KEXINIT offers (RFC 4253, section 7.1); both directions count as one.

    *guesses* says that a packet follows which is meant for the first methods of both sides.
    """

    key_exchanges: tuple[str, ...]
    host_keys: tuple[str, ...]
    ciphers: tuple[str, ...]
    macs: tuple[str, ...]
    guesses: bool

    @classmethod
    def of(cls, payload: bytes) -> Offer:
        """Parse the message *payload*; raises `FieldError`."""
        fields = Fields(payload, 17)
        exchanges, keys, ciphers_out, ciphers_in, macs_out, macs_in = (fields.names() for _ in range(6))
        for _compression_and_language in range(4):
            fields.string()
        guesses = fields.boolean()
        return cls(exchanges, keys, (*ciphers_out, *ciphers_in), (*macs_out, *macs_in), guesses)


def explain_mismatch(payload: bytes, host_keys: Sequence[str]) -> str:
    """Return why no agreement is possible with the server that sent the SSH_MSG_KEXINIT *payload*."""
    try:
        offer = Offer.of(payload)
    except FieldError:
        return "the server's list of algorithms is malformed"
    for subject, offered, accepted in (
        ("key exchange", offer.key_exchanges, KEY_EXCHANGES),
        ("host key", offer.host_keys, host_keys),
        ("cipher", offer.ciphers, CIPHERS),
        ("MAC", offer.macs, MACS),
    ):
        if not set(offered) & set(accepted):
            names = list(dict.fromkeys(clean_text(name.encode(), 64) for name in offered))
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            return (
                f"the server has no {subject} algorithm that is safe: it offers only {shown or 'none'}; "
                f"let it offer {accepted[0]} or {accepted[1]}"
            )
    return "the server and this program have no algorithms in common"
