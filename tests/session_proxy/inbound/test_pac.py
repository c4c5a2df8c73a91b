from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from session_proxy.inbound.pac import proxy_auto_config
from session_proxy.policy.route_table import RouteTable
from session_proxy.policy.rules import Rule
from session_proxy.target import Target
from tests.support.javascript import run_in_chromium, run_javascript
from tests.support.routes import ROUTES, TARGETS

PROXY = "PROXY 127.0.0.1:1080"

Run = Callable[[str, str], object]


def ask(
    rules: Sequence[Rule], default: str, urls: Sequence[tuple[str, str]], run: Run = run_javascript
) -> object:
    """What browsers would be told about (URL, host) pairs."""
    script = proxy_auto_config(rules, default, "127.0.0.1:1080")
    return run(
        script, f"{json.dumps(urls)}.map(function (pair) {{ return FindProxyForURL(pair[0], pair[1]); }})"
    )


def expected(rules: Sequence[Rule], target: Target) -> str:
    table = RouteTable.build(rules, "direct")
    direct = not table.wants_addresses(target) and table.decide(target).upstreams == ("direct",)
    return "DIRECT" if direct else PROXY


# Each example starts an engine, and a browser is a slow one.
@settings(
    max_examples=10 if shutil.which("node") else 3,
    suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow],
)
@given(ROUTES, st.lists(TARGETS, min_size=30, max_size=30))
def test_browsers_ask_the_proxy_for_what_the_routes_send_through_it(
    rules: list[Rule], targets: list[Target]
) -> None:
    urls = [(f"http://{target}/", target.host) for target in targets]

    assert ask(rules, "direct", urls) == [expected(rules, target) for target in targets]


URLS = [
    # URL and host as browsers pass them, and whether the rules below send it through the proxy.
    ("http://db.prod.internal:8500/x?y=:1#z", "db.prod.internal", True),
    ("http://db.prod.internal:9000/", "db.prod.internal", False),
    ("https://db.prod.internal/", "db.prod.internal", True),
    ("wss://db.prod.internal/", "db.prod.internal", True),
    ("http://db.prod.internal/", "db.prod.internal", False),
    ("ftp://db.prod.internal/", "db.prod.internal", False),
    ("https://user:443@db.prod.internal:80/", "db.prod.internal", False),
    ("https://DB.Prod.Internal./", "DB.Prod.Internal.", True),
    ("https://prod.internal/", "prod.internal", False),
    ("https://notprod.internal/", "notprod.internal", False),
    ("http://10.1.2.3/", "10.1.2.3", True),
    ("http://11.1.2.3/", "11.1.2.3", False),
    ("http://[2001:db8::5]/", "2001:db8::5", True),
    ("http://[2001:db8::5]:80/", "[2001:db8::5]", True),
    ("http://[2001:db9::5]/", "2001:db9::5", False),
    ("http://[::]/", "::", False),
    ("http://[::ffff:a01:203]/", "::ffff:a01:203", True),
    ("http://[::ffff:10.1.2.3]/", "::ffff:10.1.2.3", True),
    ("http://[fe80::1]/", "fe80::1%eth0", False),
    ("http://refused/", "refused", True),
    ("http://xn--bcher-kva.example/", "xn--bcher-kva.example", True),
    ("http://either/", "either", True),
    ("nonsense", "nonsense", False),
]
RULES = [
    Rule.of("*.prod.internal", "dev", [443, "8000-8999"]),
    Rule.of(["10.0.0.0/8", "2001:db8::/32"], "dev"),
    Rule.of("refused", "reject"),
    Rule.of("Bücher.example", "dev"),
    Rule.of("either", ["direct", "dev"]),
]


@pytest.mark.parametrize("run", [run_javascript, pytest.param(run_in_chromium, marks=pytest.mark.slow)])
def test_urls_are_read_as_browsers_write_them(run: Run) -> None:
    answers = ask(RULES, "direct", [(url, host) for url, host, _ in URLS], run)

    assert answers == [PROXY if proxied else "DIRECT" for _, _, proxied in URLS]


def test_a_name_that_may_resolve_into_a_network_goes_to_the_proxy() -> None:
    """Only the proxy knows what the name resolves to there."""
    rules = [Rule.of("a", "direct"), Rule.of("10.0.0.0/8", "dev", [80], resolve="local")]
    urls = [("http://a/", "a"), ("http://b/", "b"), ("https://b/", "b"), ("http://11.0.0.1/", "11.0.0.1")]

    assert ask(rules, "direct", urls) == ["DIRECT", PROXY, "DIRECT", "DIRECT"]


def test_a_name_that_a_route_takes_anyhow_is_not_doubted() -> None:
    rules = [Rule.of(["10.0.0.0/8", "a"], "direct", resolve="local")]

    assert ask(rules, "dev", [("http://a/", "a"), ("http://b/", "b")]) == ["DIRECT", PROXY]


def test_what_no_route_matches_goes_where_the_default_does() -> None:
    for default, answer in (("direct", "DIRECT"), ("dev", PROXY), ("reject", PROXY)):
        assert ask([], default, [("http://a/", "a")]) == [answer]
