from __future__ import annotations

import pytest

from session_proxy.errors import UpstreamStartError
from session_proxy.outbound.relay import open_relay_transport
from session_proxy.outbound.transport import Services
from session_proxy.profile.model import RelayEndpoint, RelayUpstream
from session_proxy.profile.secret import Secret


def test_it_says_that_it_is_not_there_yet() -> None:
    upstream = RelayUpstream(
        endpoints=(RelayEndpoint(url="wss://relay.example"),), token=Secret("literal", "", "x")
    )

    with pytest.raises(UpstreamStartError, match="not built"):
        open_relay_transport("home", upstream, Services())
