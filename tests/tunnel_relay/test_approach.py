"""The way to a server: what may be wrong with its name, its port and its certificate."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from tests.support.relay_tokens import Certificate, make_certificate
from tests.support.stages import failure_of, outcomes, stage_of
from tunnel_relay.approach import Server, approach, look_up
from tunnel_relay.background import open_background
from tunnel_relay.category import Category
from tunnel_relay.stages import Course, Stage, Step

STEPS = (Step.NAMES, Step.REACH, Step.TLS)
DAY = 86400


@asynccontextmanager
async def tls_server(certificate: Certificate) -> AsyncGenerator[int]:
    """Something that shakes hands; yields its port."""
    context = certificate.server_context()

    async def shake(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        try:
            await tls.do_handshake()
            await tls.receive_some()
        except (trio.BrokenResourceError, ssl.SSLError):
            pass

    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, shake, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]


async def walk(server: Server, *, days: float = 0) -> tuple[Stage, ...]:
    """Return the stages to *server*, so many days from now."""
    course = Course(STEPS, unix_time=lambda: time.time() + days * DAY)

    async def work() -> None:
        await trio.aclose_forcefully(await approach(course, server))

    with trio.fail_after(20):
        return await course.run(work)


async def test_the_whole_way() -> None:
    certificate = make_certificate()
    async with tls_server(certificate) as port:
        server = Server(host="127.0.0.1", port=port, ssl_context=certificate.client_context())
        stages = await walk(server)

    assert outcomes(stages) == {"names": "ok", "reach": "ok", "tls": "ok"}
    assert [stage.found for stage in stages] == [
        "127.0.0.1 is an address",
        f"TCP to 127.0.0.1 port {port}",
        "TLS 1.3, certificate good for 29 days",
    ]


async def test_a_certificate_that_ends_soon() -> None:
    certificate = make_certificate()
    async with tls_server(certificate) as port:
        server = Server(host="127.0.0.1", port=port, ssl_context=certificate.client_context())
        stage = stage_of(await walk(server, days=25), Step.TLS)

    assert stage.outcome == "warning"
    assert (stage.cause, stage.fix) == ("the server's certificate expires in 4 days", "renew it there")


@attrs.frozen
class Bad:
    """A certificate, and what is told of it."""

    certificate: Certificate
    cause: str
    fix: str
    trusted: bool = True


TODAY = dt.datetime.now(dt.UTC)


@pytest.mark.parametrize(
    "bad",
    [
        Bad(
            make_certificate(since=-40, until=-10.5),
            f"has expired on {TODAY - dt.timedelta(days=10.5):%Y-%m-%d}, 10 days ago",
            "renew it there, or set this machine's clock",
        ),
        Bad(make_certificate(since=2), "is not valid before ", "set the clock"),
        Bad(
            make_certificate("relay.example.org", "www.example.org"),
            "is for relay.example.org, www.example.org, not for 127.0.0.1",
            "use a name that is in it",
        ),
        Bad(make_certificate(), "is signed by itself, unknown to this machine", "believe it", trusted=False),
        Bad(
            make_certificate(issuer="Nobody's CA"),
            """is signed by "CN=Nobody's CA", unknown to this machine""",
            "believe it",
            trusted=False,
        ),
    ],
    ids=["expired", "not yet", "name", "self-signed", "authority"],
)
async def test_bad_certificates(bad: Bad) -> None:
    context = bad.certificate.client_context() if bad.trusted else None
    async with tls_server(bad.certificate) as port:
        server = Server(host="127.0.0.1", port=port, ssl_context=context, trust="believe it")
        stage = failure_of(await walk(server))

    assert stage.step is Step.TLS
    assert f"the server's certificate {bad.cause}" in stage.cause
    assert bad.fix in stage.fix
    assert stage.category is Category.CONFIGURATION


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"),
        (b"", "the server hung up during the TLS handshake"),
        # Alerts of RFC 8446, section 6: protocol_version, unrecognized_name.
        (bytes.fromhex("15 03 03 00 02 02 46"), "no version of TLS in common"),
        (bytes.fromhex("15 03 03 00 02 02 70"), "TLS failed: tlsv1 unrecognized name"),
    ],
)
async def test_what_is_no_tls(answer: bytes, cause: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        stage = failure_of(await walk(Server(host="127.0.0.1", port=port)))

    assert (stage.step, cause in stage.cause) == (Step.TLS, True), stage


async def test_nothing_listens_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        stages = await walk(Server(host="127.0.0.1", port=port, secure=False))

    assert outcomes(stages) == {"names": "ok", "reach": "failed", "tls": "skipped"}
    assert stages[1].cause == f"127.0.0.1, port {port}: Connection refused"
    assert stages[1].fix == f"nothing listens there on port {port}: start the server, or correct the port"


async def test_a_proxy_is_told_of() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
        proxy = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        stages = await walk(Server.of_url("wss://relay.example/x", proxy))

    assert stages[0].found == "the HTTP proxy 127.0.0.1 is an address"
    assert stages[1].cause == "the HTTP proxy 127.0.0.1 answered CONNECT with HTTP status 403"
    assert stages[1].fix == "check HTTPS_PROXY and NO_PROXY"


@pytest.mark.parametrize("proxy", ["http://proxy:3128 ", "http://proxy:port"])
async def test_a_proxy_that_is_none_is_told_of(proxy: str) -> None:
    stages = await walk(Server.of_url("wss://relay.example/x", proxy))
    assert stages[0].cause == "the HTTP proxy's URL is not http://HOST:PORT"
    assert (stages[0].fix, stages[0].category) == ("correct HTTPS_PROXY", Category.CONFIGURATION)


@attrs.frozen
class Resolver(trio.abc.HostnameResolver):
    """Knows one name."""

    errno: int = socket.EAI_NONAME

    async def getaddrinfo(self, host: bytes | None, *_args: object, **_more: object) -> list[object]:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        if host == b"relay.example":
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{last}", 443)) for last in range(1, 6)
            ]
        raise socket.gaierror(self.errno, "no")

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:  # type: ignore[override]
        raise NotImplementedError


@pytest.mark.parametrize(
    ("host", "errno", "told"),
    [
        ("relay.example", 0, "relay.example is 192.0.2.1, 192.0.2.2, 192.0.2.3 and 2 more"),
        ("relay.exmaple", socket.EAI_NONAME, "relay.exmaple has no address here"),
        (
            "relay.exmaple",
            socket.EAI_AGAIN,
            "this machine's resolver does not answer when asked for relay.exmaple",
        ),
    ],
)
async def test_names(host: str, errno: int, told: str) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(errno))
    course = Course((Step.NAMES,))

    [stage] = await course.run(partial(look_up, course, host, 443))

    assert (stage.found or stage.cause) == told
