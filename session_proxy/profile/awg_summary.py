"""What a session is configured to be, in a few words for the log: never a key, never a credential."""

from __future__ import annotations

from awg_obfs.protocol.parameters import DEFAULT, SIGNATURE_KEYS, Parameters
from session_proxy.profile.awg_model import AwgServer
from session_proxy.profile.model import AwgUpstream


def session_summary(upstream: AwgUpstream) -> dict[str, object]:
    """Return the fields of the line that tells how an upstream's session is configured."""
    return {
        "endpoint": str(upstream.endpoint),
        "preshared_key": _yes(upstream.preshared_key is not None),
        "mtu": upstream.mtu,
        "keepalive_padding": _yes(upstream.keepalive_padding),
        **_parameters(upstream.awg),
    }


def server_summary(server: AwgServer) -> dict[str, object]:
    """Return the fields of the line that tells how a server is configured."""
    limits = server.limits
    return {
        "listen": str(server.listen),
        "peers": ",".join(peer.name for peer in server.peers),
        "mtu": server.mtu,
        "keepalive_padding": _yes(server.keepalive_padding),
        **_parameters(server.awg),
        "allow": _networks(server.policy.allow),
        "deny": _networks(server.policy.deny),
        "sessions": limits.sessions,
        "streams": limits.streams,
        "idle": limits.idle,
    }


def _parameters(parameters: Parameters) -> dict[str, object]:
    if parameters == DEFAULT:
        return {"obfuscation": "none"}
    junk = f"{parameters.jc}x{parameters.jmin}-{parameters.jmax}" if parameters.jc else "none"
    signatures = [
        f"{key}:{chain.length}"
        for key, chain in zip(SIGNATURE_KEYS, parameters.signatures, strict=True)
        if chain is not None
    ]
    return {
        "junk": junk,
        "padding": ",".join(map(str, parameters.paddings)),
        "headers": ",".join(map(str, parameters.headers)),
        "signatures": ",".join(signatures) or "none",
    }


def _networks(networks: tuple[object, ...]) -> str:
    # The default denies more than anybody wants to read in a log.
    shown = [str(network) for network in networks[:4]]
    more = [f"and {len(networks) - 4} more"] if len(networks) > 4 else []
    return ", ".join(shown + more) or "none"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
