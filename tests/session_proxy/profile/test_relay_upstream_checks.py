"""Every kind of bad upstream of kind relay: where the problem is said to be, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from session_proxy.errors import ProfileError
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import RelayEndpoint, RelayUpstream
from tests.support.relay_files import TOKEN, RelayUpstreamText, claims_token, write_file
from tests.support.relay_tokens import make_certificate

ROUTE = '[[routes]]\nmatch = "*"\nupstream = "home"\n'


def endpoints(*urls: str) -> str:
    tables = [f'{{ url = "{url}" }}' for url in urls]
    return f"endpoints = [{', '.join(tables)}]\n"


def load(folder: Path, text: RelayUpstreamText, warnings: list[str] | None = None) -> RelayUpstream:
    file = write_file(folder, f"{text}{ROUTE}")
    noted = [] if warnings is None else warnings
    upstream = load_profile(file, environ={}, warn=noted.append).upstreams["home"]
    assert isinstance(upstream, RelayUpstream)
    return upstream


def test_an_upstream_with_everything(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "ca.pem").write_text(make_certificate().certificate)
    text = RelayUpstreamText(
        keys='token = "file:token"\nagent = "nas"\nmode = "end-to-end"\nservice = "shell"\nca = "file:ca.pem"\n',
        endpoints=(
            'endpoints = [{ url = "wss://a.example/path", priority = 2, weight = 3 }, { url = "ws://[::1]:80" }]\n'
        ),
        ssh='user = "me"\nkey = "file:me.pem"\n',
    )
    (tmp_path / "me.pem").touch()
    warnings: list[str] = []

    upstream = load(tmp_path, text, warnings)

    assert not warnings
    assert upstream.endpoints == (
        RelayEndpoint(url="wss://a.example/path", priority=2, weight=3),
        RelayEndpoint(url="ws://[::1]:80", priority=1, weight=1),
    )
    assert upstream.token.reveal() == TOKEN
    assert (upstream.agent, upstream.mode, upstream.service) == ("nas", "end-to-end", "shell")
    assert upstream.ca == tmp_path / "ca.pem"
    assert upstream.ssh.key == str(tmp_path / "me.pem")
    assert upstream.startup == "required"


def test_little_is_needed_and_one_endpoint_needs_no_list(tmp_path: Path) -> None:
    upstream = load(tmp_path, RelayUpstreamText(endpoints='endpoints = { url = "wss://a.example" }\n'))

    assert [endpoint.url for endpoint in upstream.endpoints] == ["wss://a.example"]
    assert (upstream.agent, upstream.mode, upstream.service) == (None, "end-to-end", "ssh")


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:3001", "ws://localhost", "wss://10.0.0.1", "wss://a.example:3001/x/y"]
)
def test_good_addresses(url: str, tmp_path: Path) -> None:
    load(tmp_path, RelayUpstreamText(endpoints=endpoints(url)))


@attrs.frozen
class Bad:
    """An upstream, the *path* of its one problem below the upstream's, and parts of the *message* and the *fix*."""

    text: RelayUpstreamText
    path: str
    message: str
    fix: str


def bad_url(url: str, message: str, fix: str) -> Bad:
    return Bad(RelayUpstreamText(endpoints=endpoints(url)), "endpoints[0].url", message, fix)


LIKE = 'write it like "wss://relay.example.com"'

BAD = [
    bad_url("ws://a.example", "would send the token", 'write "wss://a.example"'),
    bad_url("ws://10.0.0.1:80/x", "for everybody to read", 'write "wss://10.0.0.1:80/x"'),
    bad_url("https://a.example", "https:// is no WebSocket's", 'write "wss://a.example"'),
    bad_url("http://localhost:3001", "http:// is no WebSocket's", 'write "ws://localhost:3001"'),
    bad_url("https://me:hunter2@a.example/x", "https://", 'write "wss://a.example/x"'),
    bad_url("a.example", "is no address of a WebSocket", LIKE),
    bad_url("a.example:443", "is no address of a WebSocket", LIKE),
    bad_url("wss://", "is no address of a WebSocket", LIKE),
    bad_url("wss://a.example:99999", "is no URL", LIKE),
    bad_url("wss://[::1", "is no URL", LIKE),
    bad_url("wss://a.example:0", "names the port 0", "where the server listens"),
    bad_url("wss://me:hunter2@a.example", "holds credentials", "before the @"),
    bad_url("wss://a.example/?token=hunter2", "holds a query", "begins with ? or #"),
    bad_url("wss://a.example/#x", "holds a query or a fragment", "begins with ? or #"),
    bad_url("wss://a.example/a b", "holds characters that no URL can", LIKE),
    bad_url("wss://a_ä.example", "holds characters", LIKE),
    bad_url("wss://a..example", "is not a host name", "wss://"),
    Bad(
        RelayUpstreamText(endpoints=endpoints("wss://a.example", "wss://a.example")),
        "endpoints[1].url",
        "'wss://a.example' stands twice",
        "keep one",
    ),
    Bad(
        RelayUpstreamText(endpoints=endpoints("wss://a.example", "wss://A.example:443/api/tunnel/connect")),
        "endpoints[1].url",
        "is the same as 'wss://a.example'",
        "keep one",
    ),
    Bad(RelayUpstreamText(endpoints=""), "endpoints", "is missing", "write endpoints = [{ url ="),
    Bad(RelayUpstreamText(endpoints="endpoints = []\n"), "endpoints", "empty list", 'url = "wss://'),
    Bad(RelayUpstreamText(endpoints='endpoints = "wss://a"\n'), "endpoints", "is text", "keys url, priority"),
    Bad(RelayUpstreamText(endpoints="endpoints = [{}]\n"), "endpoints[0].url", "is missing", "write url ="),
    Bad(
        RelayUpstreamText(endpoints='endpoints = { url = "wss://a", weight = 0 }\n'),
        "endpoints.weight",
        "0 is out of range",
        "1 to 65535",
    ),
    Bad(
        RelayUpstreamText(endpoints='endpoints = { ulr = "wss://a", url = "wss://a" }\n'),
        "endpoints.ulr",
        "is not a key",
        'did you mean "url"?',
    ),
    Bad(RelayUpstreamText(keys=""), "token", "is missing", 'write token = "file:token"'),
    Bad(RelayUpstreamText(keys='token = "hunter2"\n'), "token", "is no JWT", "sproxy relay-token"),
    Bad(RelayUpstreamText(keys=f'token = "{TOKEN}\\n{TOKEN}"\n'), "token", "is no JWT", "sproxy relay-token"),
    Bad(RelayUpstreamText(keys=f'token = "{TOKEN}\\n# it"\n'), "token", "is no JWT", "sproxy relay-token"),
    Bad(RelayUpstreamText(keys='token = "file:none"\n'), "token", "cannot read", "name the file"),
    Bad(
        RelayUpstreamText(keys=f'token = "{TOKEN}"\nmode = "relay_ssh"\n'),
        "mode",
        "'relay_ssh' is no choice",
        'did you mean "relay-ssh"?',
    ),
    Bad(RelayUpstreamText(keys=f'token = "{TOKEN}"\nagent = "a b"\n'), "agent", "'a b' cannot", "letters"),
    Bad(RelayUpstreamText(keys=f'token = "{TOKEN}"\nservice = "/"\n'), "service", "'/' cannot", "letters"),
    Bad(RelayUpstreamText(keys=f'token = "{TOKEN}"\nca = "none.pem"\n'), "ca", "cannot read", "in PEM"),
    Bad(RelayUpstreamText(keys=f'token = "{TOKEN}"\nca = "jwks.json"\n'), "ca", "holds no cert", "in PEM"),
    Bad(
        RelayUpstreamText(keys=f'token = "{TOKEN}"\nca = "env:CA"\n'), "ca", "has to be a file", '"file:PATH"'
    ),
    Bad(RelayUpstreamText(ssh="port = 22\n"), "ssh.port", "does nothing here", "the agent's [services]"),
    Bad(
        RelayUpstreamText(ssh='user = "u"\nkey = "instance-connect"\n'),
        "ssh.key",
        "needs an EC2 instance",
        "write a key file",
    ),
    Bad(RelayUpstreamText(ssh='user = "a b"\n'), "ssh.user", "'a b' is no user name", "the name alone"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.path} {bad.message}")
def test_bad_upstreams(bad: Bad, tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as info:
        load(tmp_path, bad.text)

    (problem,) = info.value.problems
    assert problem.path == f"upstreams.home.{bad.path}"
    assert bad.message in problem.message
    assert bad.fix in problem.fix
    assert "hunter2" not in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            RelayUpstreamText(keys=f'token = "{claims_token(exp=0, scope="client")}"\n'),
            "token: has expired (1970-01-01 00:00 UTC); issue a new one",
        ),
        (
            RelayUpstreamText(keys=f'token = "{claims_token(exp=4e9, scope="agent")}"\n'),
            'token: its scope does not hold "client"; issue one with --scope client',
        ),
        (
            RelayUpstreamText(keys=f'token = "{TOKEN}"\nmode = "relay-ssh"\n', ssh='user = "me"\n'),
            'ssh: does nothing with mode = "relay-ssh"',
        ),
    ],
)
def test_what_works_but_was_hardly_meant(text: RelayUpstreamText, warning: str, tmp_path: Path) -> None:
    warnings: list[str] = []

    load(tmp_path, text, warnings)

    (line,) = warnings
    assert f"upstreams.home.{warning}" in line


def test_an_expiry_beyond_all_dates_is_none(tmp_path: Path) -> None:
    warnings: list[str] = []
    for exp in (1e300, -1e300):
        load(
            tmp_path,
            RelayUpstreamText(keys=f'token = "{claims_token(exp=exp, scope="client")}"\n'),
            warnings,
        )

    assert [line.partition("token: ")[2][:11] for line in warnings] == ["has expired"]


def test_variables_override_an_upstream(tmp_path: Path) -> None:
    file = write_file(tmp_path, f"{RelayUpstreamText()}{ROUTE}")
    token = claims_token(exp=4e9, scope="client")
    environ = {
        "SPROXY_UPSTREAMS_HOME_TOKEN": token,
        "SPROXY_UPSTREAMS_HOME_MODE": "relay-ssh",
        "SPROXY_UPSTREAMS_HOME_AGENT": "laptop",
    }

    upstream = load_profile(file, environ=environ).upstreams["home"]

    assert isinstance(upstream, RelayUpstream)
    assert (upstream.token.reveal(), upstream.mode, upstream.agent) == (token, "relay-ssh", "laptop")


def test_a_token_of_a_variable_that_is_none_is_the_variables_problem(tmp_path: Path) -> None:
    file = write_file(tmp_path, f"{RelayUpstreamText()}{ROUTE}")

    with pytest.raises(ProfileError, match="SPROXY_UPSTREAMS_HOME_TOKEN: is no JWT; copy the whole line"):
        load_profile(file, environ={"SPROXY_UPSTREAMS_HOME_TOKEN": "hunter2"})
