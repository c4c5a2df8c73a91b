"""The stages on the way to a server: its name, a TCP connection, and TLS with what is known of its certificate."""

from __future__ import annotations

import datetime as dt
import errno
import ipaddress
import os
import socket
import ssl
from typing import cast
from urllib.parse import urlsplit

import attrs
import trio
from cryptography import x509

from tunnel_relay.category import Category
from tunnel_relay.errors import WebSocketError
from tunnel_relay.http_tunnel import open_http_stream, split_proxy
from tunnel_relay.stages import Course, Notes, Step, Trouble, TroubleError
from tunnel_relay.tls import NOT_TLS, UNKNOWN_AUTHORITY, client_tls

# Seconds in a day, and how many of them a certificate should have left: those who renew by themselves do it earlier.
DAY = 86400
FEW_DAYS = 14

# How many addresses of a name are told.
MOST_TOLD = 3

# OpenSSL's numbers for what is wrong with a certificate (X509_V_ERR_…).
NOT_YET_VALID, EXPIRED = 9, 10
OTHER_NAME = (62, 64)

# Parts of OpenSSL's reasons (`ssl.SSLError.reason`).
OTHER_VERSION = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")


@attrs.frozen(kw_only=True)
class Server:
    """Who is approached.

    Attributes:
      host: Its name or address.
      port: Its TCP port.
      proxy: The URL of the HTTP proxy on the way; None where there is none.
      secure: Whether it speaks TLS.
      ssl_context: Whom to believe about it; None for the system's authorities.
      trust: What to do where its authority is unknown.

    """

    host: str
    port: int
    proxy: str | None = None
    secure: bool = True
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    trust: str = "trust its authority on this machine"

    @classmethod
    def of_url(
        cls,
        url: str,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        trust: str = "trust its authority on this machine",
    ) -> Server:
        """Return the server of a *url* whose scheme says whether there is TLS."""
        parts = urlsplit(url)
        secure = parts.scheme in ("wss", "https")
        return cls(
            host=parts.hostname or "",
            port=parts.port or (443 if secure else 80),
            proxy=proxy,
            secure=secure,
            ssl_context=ssl_context,
            trust=trust,
        )


async def approach(course: Course, server: Server) -> trio.abc.Stream:
    """Return a connection to *server*: the steps NAMES, REACH and TLS. The caller closes it.

    Raises:
      StageFailedError: there is none.

    """
    if server.proxy is None:
        await look_up(course, server.host, server.port)
    else:
        await look_up_proxy(course, server.proxy)
    stream = await reach(course, server)
    if not server.secure:
        course.skip(Step.TLS, "there is none on this way")
        return stream
    try:
        return await start_tls(course, stream, server)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def look_up_proxy(course: Course, proxy: str) -> None:
    """Make the step NAMES: see whether the HTTP *proxy* has an address."""
    try:
        parts = split_proxy(proxy)
    except WebSocketError as exc:
        with course.stage(Step.NAMES):
            raise TroubleError(Trouble(str(exc), "correct HTTPS_PROXY", Category.CONFIGURATION)) from exc
    await look_up(course, parts.hostname or "", parts.port or 80, "the HTTP proxy ")


async def look_up(
    course: Course, host: str, port: int, who: str = "", kind: socket.SocketKind = socket.SOCK_STREAM
) -> None:
    """Make the step NAMES: see whether *host* has an address."""
    with course.stage(Step.NAMES) as notes:
        if _is_address(host):
            notes.find(f"{who}{host} is an address")
            return
        try:
            found = await trio.socket.getaddrinfo(host, port, type=kind)
        except socket.gaierror as exc:
            raise TroubleError(_unresolved(f"{who}{host}", exc)) from exc
        except UnicodeError as exc:
            raise TroubleError(Trouble(f"{host} is no name that DNS could know", "correct it")) from exc
        addresses = list(dict.fromkeys(str(name[0]) for *_, name in found))
        more = f" and {len(addresses) - MOST_TOLD} more" if len(addresses) > MOST_TOLD else ""
        notes.find(f"{who}{host} is {', '.join(addresses[:MOST_TOLD])}{more}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _unresolved(name: str, exc: socket.gaierror) -> Trouble:
    if exc.errno == socket.EAI_AGAIN:
        return Trouble(
            f"this machine's resolver does not answer when asked for {name}",
            "check the network, the VPN, and /etc/resolv.conf",
        )
    return Trouble(f"{name} has no address here", "check the spelling, and whether a VPN has to be up for it")


async def reach(course: Course, server: Server) -> trio.abc.Stream:
    """Make the step REACH, and return the TCP connection."""
    with course.stage(Step.REACH) as notes:
        try:
            stream = await open_http_stream(server.host, server.port, server.proxy)
        except WebSocketError as exc:
            raise TroubleError(Trouble(str(exc), reach_fix(str(exc), server.port))) from exc
        notes.find(f"TCP to {server.host} port {server.port}" + (" by an HTTP proxy" if server.proxy else ""))
        return stream


def reach_fix(said: str, port: int) -> str:
    """Return what to do where a TCP connection to *port* failed, and the system *said* why."""
    if os.strerror(errno.ECONNREFUSED).lower() in said.lower():
        return f"nothing listens there on port {port}: start the server, or correct the port"
    if "proxy" in said:
        return "check HTTPS_PROXY and NO_PROXY"
    return f"check that it runs, and that firewalls let TCP port {port} through"


async def start_tls(course: Course, stream: trio.abc.Stream, server: Server) -> trio.abc.Stream:
    """Make the step TLS on *stream*, and return what is inside."""
    with course.stage(Step.TLS) as notes:
        tls = client_tls(stream, server.ssl_context, server.host)
        try:
            await tls.do_handshake()
        except trio.BrokenResourceError as exc:
            raise TroubleError(await _tls_trouble(exc.__cause__, server, course.unix_time())) from exc
        told = cast("dict[str, object]", tls.getpeercert() or {})
        expires = ssl.cert_time_to_seconds(str(told.get("notAfter", "")))
        notes.find(str(tls.version()).replace("v", " "))
        tell_certificate(notes, expires - course.unix_time())
        return tls


def tell_certificate(notes: Notes, left: float) -> None:
    """Note for how long a certificate holds that has so many seconds *left*."""
    days = int(left // DAY)
    notes.find(f"certificate good for {days} days")
    if days < FEW_DAYS:
        notes.warn(f"the server's certificate expires in {days} days", "renew it there")


async def _tls_trouble(cause: BaseException | None, server: Server, now: float) -> Trouble:
    """Return what it means that there is no TLS with *server*."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _certificate_trouble(cause, server, await fetch_certificate(server), now)
    reason = (cause.reason or "") if isinstance(cause, ssl.SSLError) else ""
    if any(part in reason for part in OTHER_VERSION):
        return Trouble(
            "the server has no version of TLS in common with this machine",
            "update the older of the two: TLS 1.3 is what relays speak",
            Category.CONFIGURATION,
        )
    if any(part in reason for part in NOT_TLS):
        return Trouble(
            f"what listens on port {server.port} does not speak TLS",
            "correct the port, or what is in between",
            Category.CONFIGURATION,
        )
    if isinstance(cause, ssl.SSLError) and reason and "EOF" not in reason:
        return Trouble(f"TLS failed: {reason.replace('_', ' ').lower()}", category=Category.PROTOCOL)
    return Trouble(
        "the server hung up during the TLS handshake",
        "check what listens there, and whether something in between ends TLS connections",
        Category.PROTOCOL,
    )


def _certificate_trouble(
    exc: ssl.SSLCertVerificationError, server: Server, certificate: x509.Certificate | None, now: float
) -> Trouble:
    category = Category.CONFIGURATION
    code: int = exc.verify_code
    if code == EXPIRED:
        when = ""
        if certificate is not None:
            until = certificate.not_valid_after_utc
            when = f" on {until:%Y-%m-%d}, {int((now - until.timestamp()) // DAY)} days ago"
        return Trouble(
            f"the server's certificate has expired{when}",
            "renew it there, or set this machine's clock",
            category,
        )
    if code == NOT_YET_VALID:
        when = "" if certificate is None else f" before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        today = dt.datetime.fromtimestamp(now, dt.UTC)
        return Trouble(
            f"the server's certificate is not valid{when}; it is {today:%Y-%m-%d %H:%M} UTC here",
            "set the clock of this machine, or of whoever made the certificate",
            category,
        )
    if code in OTHER_NAME:
        names = ", ".join(names_in(certificate)) if certificate is not None else ""
        whose = f"for {names}, not" if names else "not"
        return Trouble(
            f"the server's certificate is {whose} for {server.host}",
            "use a name that is in it, or get a certificate with this one",
            category,
        )
    if code in UNKNOWN_AUTHORITY:
        return Trouble(
            f"the server's certificate is signed by {_issuer(certificate)}, unknown to this machine",
            server.trust,
            category,
        )
    return Trouble(f"the server's certificate cannot be trusted: {exc.verify_message}", category=category)


async def fetch_certificate(server: Server) -> x509.Certificate | None:
    """Return the certificate that *server* shows, whatever it is worth; None where it shows none now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Nothing is said to it: this is to tell people what is wrong with the certificate.
    context.verify_mode = ssl.CERT_NONE
    try:
        stream = await open_http_stream(server.host, server.port, server.proxy)
    except WebSocketError:
        return None
    try:
        tls = client_tls(stream, context, server.host)
        await tls.do_handshake()
        raw = cast("bytes | None", tls.getpeercert(binary_form=True))
        return None if raw is None else x509.load_der_x509_certificate(raw)
    except (trio.BrokenResourceError, ValueError):
        return None
    finally:
        await trio.aclose_forcefully(stream)


def names_in(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that *certificate* is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    names = extension.value.get_values_for_type(x509.DNSName)
    return [*names, *map(str, extension.value.get_values_for_type(x509.IPAddress))]


def _issuer(certificate: x509.Certificate | None) -> str:
    if certificate is None:
        return "an authority"
    if certificate.issuer == certificate.subject:
        return "itself"
    return repr(certificate.issuer.rfc4514_string()[:200])
