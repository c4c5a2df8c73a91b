from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from session_proxy.cli.explain import explain

PROFILE = """\
default = "dev"
[upstreams.dev]
instances = "i-1"
[[routes]]
match = "10.0.0.0/8"
ports = 443
upstream = "direct"
resolve = "local"
[[routes]]
match = "*.ads.example"
upstream = "reject"
[[routes]]
match = ["*.internal", "internal"]
upstream = ["dev", "direct"]
"""


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names have addresses of the test's own choice, and each look-up is expected."""

    def getaddrinfo(name: str, *_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if name != "db.internal":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in ("10.1.2.3", "fe80::1%eth0", "10.1.2.3")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def invoke(folder: Path, target: str, *options: str, profile: str = PROFILE) -> Result:
    file = folder / "profile.toml"
    file.write_text(profile)
    app = typer.Typer()
    app.command()(explain)
    return CliRunner().invoke(app, [str(file), target, *options])


def test_each_rule_says_why(tmp_path: Path) -> None:
    result = invoke(tmp_path, "web.internal:80")

    assert result.exit_code == 0
    assert result.stdout == (
        "web.internal:80\n"
        "  - routes[0]: port 80 is not among 443\n"
        "  - routes[1]: *.ads.example does not take web.internal\n"
        "  + routes[2]: web.internal is below internal\n"
        "  routes[2] decides: dev, then direct\n"
        "  dev: the name is resolved at the far end of dev\n"
        "  direct: the name is resolved on this machine\n"
    )


def test_a_name_without_addresses_matches_no_network(tmp_path: Path) -> None:
    result = invoke(tmp_path, "web.internal:443")

    assert "  - routes[0]: 10.0.0.0/8 takes addresses, and web.internal has none here\n" in result.stdout
    assert "  routes[2] decides" in result.stdout


def test_a_name_is_looked_up_where_a_rule_wants_it(tmp_path: Path) -> None:
    result = invoke(tmp_path, "db.internal:443")

    assert result.exit_code == 0
    assert result.stdout == (
        "db.internal:443\n"
        "  resolves here to 10.1.2.3, fe80::1\n"
        "  + routes[0]: 10.0.0.0/8 holds 10.1.2.3, to which db.internal resolves here\n"
        "    2 later routes were not considered\n"
        "  routes[0] decides: direct\n"
        "  direct: the name is resolved on this machine\n"
    )


@pytest.mark.parametrize(
    ("target", "code", "outcome", "rule"),
    [
        ("x.internal:1", 0, "rule", "routes[2]"),
        ("example.com:1", 3, "default", "default"),
        ("x.ads.example:1", 4, "reject", "routes[1]"),
        ("10.0.0.1:443", 0, "rule", "routes[0]"),
        ("[2001:db8::1]:443", 3, "default", "default"),
    ],
)
def test_the_exit_code_says_who_decided(
    target: str, code: int, outcome: str, rule: str, tmp_path: Path
) -> None:
    result = invoke(tmp_path, target, "--json")

    assert result.exit_code == code
    report = json.loads(result.stdout)
    assert (report["target"], report["outcome"], report["decision"]["rule"]) == (target, outcome, rule)


def test_json_holds_everything(tmp_path: Path) -> None:
    report = json.loads(invoke(tmp_path, "db.internal:443", "--json").stdout)

    assert report == {
        "target": "db.internal:443",
        "addresses": ["10.1.2.3", "fe80::1"],
        "considered": [
            {
                "rule": "routes[0]",
                "matches": ["10.0.0.0/8"],
                "ports": "443",
                "upstreams": ["direct"],
                "matched": True,
                "why": "10.0.0.0/8 holds 10.1.2.3, to which db.internal resolves here",
            }
        ],
        "not_considered": 2,
        "decision": {"rule": "routes[0]", "upstreams": ["direct"]},
        "resolution": [{"upstream": "direct", "where": "on this machine"}],
        "outcome": "rule",
    }


def test_a_bad_profile_is_not_explained(tmp_path: Path) -> None:
    result = invoke(tmp_path, "a:1", profile="listn = 1")

    assert result.exit_code == 78
    assert "listn: is not a key" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("target", ["a", "a:0", "a b:1", "::1:1"])
def test_a_bad_target_is_a_usage_error(target: str, tmp_path: Path) -> None:
    result = invoke(tmp_path, target)

    assert result.exit_code == 2
    assert "HOST:PORT" in result.stderr
