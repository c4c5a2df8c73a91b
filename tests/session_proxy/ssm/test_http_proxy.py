from __future__ import annotations

import pytest

from session_proxy.ssm.http_proxy import proxy_for

URL = "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/x?role=publish_subscribe"
PROXY = "http://proxy.corp:3128"


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        (URL, {}, None),
        (URL, {"HTTPS_PROXY": PROXY}, PROXY),
        (URL, {"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY),
        (URL, {"HTTPS_PROXY": "proxy.corp:3128"}, PROXY),
        (URL, {"HTTP_PROXY": PROXY}, None),
        ("ws://example.com/x", {"HTTP_PROXY": PROXY}, PROXY),
        ("ftp://example.com/x", {"HTTP_PROXY": PROXY}, None),
    ],
)
def test_the_scheme_chooses_the_variable(url: str, environ: dict[str, str], expected: str | None) -> None:
    assert proxy_for(url, environ) == expected


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("*", URL, True),
        ("amazonaws.com", URL, True),
        (".amazonaws.com", URL, True),
        ("*.amazonaws.com", URL, True),
        ("AmazonAWS.com", URL, True),
        ("localhost, amazonaws.com", URL, True),
        ("aws.com", URL, False),
        ("amazonaws.com:443", URL, True),
        ("amazonaws.com:8443", URL, False),
        ("127.0.0.1", "wss://127.0.0.1:9/x", True),
        ("127.0.0.0/8", "wss://127.0.0.1:9/x", True),
        ("127.0.0.1:9", "wss://127.0.0.1:9/x", True),
        ("127.0.0.1:10", "wss://127.0.0.1:9/x", False),
        ("::1", "wss://[::1]:9/x", True),
        ("[::1]:9", "wss://[::1]:9/x", True),
        ("10.0.0.0/8", "wss://127.0.0.1:9/x", False),
        ("", URL, False),
        (",", URL, False),
    ],
)
def test_no_proxy(no_proxy: str, url: str, direct: bool) -> None:
    proxy = proxy_for(url, {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})

    assert (proxy is None) == direct
