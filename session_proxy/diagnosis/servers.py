"""What can be said of a server from its file: its secrets, and its certificate."""

from __future__ import annotations

from pathlib import Path

import trio
from cryptography import x509

from session_proxy.diagnosis.course import Setting, check_secret_file
from session_proxy.profile.awg_model import AwgServer
from session_proxy.profile.relay_model import RelayServer, RelayTls
from tunnel_relay.approach import tell_certificate
from tunnel_relay.category import Category
from tunnel_relay.ssh.keys import key_file_warning
from tunnel_relay.stages import Notes, Step, Trouble, TroubleError, split_advice

STEPS = (Step.CONFIGURATION, Step.CREDENTIALS)


async def examine(setting: Setting, server: AwgServer | RelayServer) -> None:
    """Make the step CREDENTIALS."""
    with setting.course.stage(Step.CREDENTIALS) as notes:
        if isinstance(server, AwgServer):
            check_secret_file(notes, "private_key", server.private_key, setting)
            for peer in server.peers:
                check_secret_file(notes, f"preshared_key of {peer.name}", peer.preshared_key, setting)
            notes.find(f"keys of {len(server.peers)} peers")
            return
        if "HS256" in server.jwt.algorithms:
            # All others verify with public keys.
            check_secret_file(notes, "jwt.keys", server.jwt.keys, setting)
        check_secret_file(notes, "metrics_token", server.metrics_token, setting)
        notes.find(f"tokens signed with {', '.join(server.jwt.algorithms)}")
        if server.tls is not None:
            await _tell_tls(notes, server.tls, setting.course.unix_time())


async def _tell_tls(notes: Notes, tls: RelayTls, now: float) -> None:
    if (warning := key_file_warning(tls.key)) is not None:
        notes.warn(*split_advice(warning))
    certificate = await trio.to_thread.run_sync(_read, tls.certificate)
    left = certificate.not_valid_after_utc.timestamp() - now
    if left <= 0:
        raise TroubleError(
            Trouble(
                f"the certificate in {tls.certificate} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
                "renew it",
                Category.CONFIGURATION,
            )
        )
    tell_certificate(notes, left)


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as exc:
        raise TroubleError(
            Trouble(f"{path} holds no certificate", "name one in PEM", Category.CONFIGURATION)
        ) from exc
