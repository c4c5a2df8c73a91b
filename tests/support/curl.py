"""curl, the client that most people have: one call per request."""

from __future__ import annotations

import shutil
import subprocess

import pytest

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

# curl's exit codes (curl(1), EXIT CODES) that say which side refused.
OK = 0
COULD_NOT_RESOLVE_PROXY = 5
COULD_NOT_CONNECT = 7
RECEIVE_ERROR = 56
PROXY_HANDSHAKE = 97

PATIENCE = 120.0


def curl(*arguments: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[bytes]:
    """Run curl without anybody's .curlrc or proxy variables; its output is in the result."""
    return subprocess.run(
        ["curl", "-q", "--silent", "--show-error", "--max-time", str(patience), *arguments],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin"},
    )
