"""One front door for SOCKS5 and HTTP, one route table, and supervised transports behind it.

``async with session_proxy.open("profile.toml") as dial`` gives a Trio program the same ways out as
``sproxy run profile.toml`` gives its clients.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from session_proxy.errors import (
    ControlError,
    DialError,
    DialTimeoutError,
    InvalidTargetError,
    ListenError,
    NotAllowedError,
    ProfileError,
    RefusedError,
    ResolutionError,
    SessionProxyError,
    TransportDownError,
    UdpUnsupportedError,
    UnreachableError,
    UpstreamStartError,
)

if TYPE_CHECKING:
    from session_proxy.embedding import Dial, open  # noqa: A004
    from session_proxy.profile.loading import load_profile
    from session_proxy.profile.model import Profile

__all__ = [
    "ControlError",
    "Dial",
    "DialError",
    "DialTimeoutError",
    "InvalidTargetError",
    "ListenError",
    "NotAllowedError",
    "Profile",
    "ProfileError",
    "RefusedError",
    "ResolutionError",
    "SessionProxyError",
    "TransportDownError",
    "UdpUnsupportedError",
    "UnreachableError",
    "UpstreamStartError",
    "load_profile",
    "open",
]

# Imported on first use (PEP 562): `sproxy --help` should not wait for boto3 and paramiko.
_LAZY = {
    "Dial": "session_proxy.embedding",
    "Profile": "session_proxy.profile.model",
    "load_profile": "session_proxy.profile.loading",
    "open": "session_proxy.embedding",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
