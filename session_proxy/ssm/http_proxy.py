"""Which HTTP proxy a URL is reached through, by the variables that everybody uses.

boto3 reads ``HTTPS_PROXY`` and ``NO_PROXY`` itself; the data channel's WebSocket must go the same way. There is no
standard; this follows curl(1) and requests: lower case wins, ``wss`` goes with ``https``, an entry of ``NO_PROXY``
is a name (its subdomains included), an address, a network, any of these with a port, or ``*``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

_VARIABLE = {"wss": "https_proxy", "https": "https_proxy", "ws": "http_proxy", "http": "http_proxy"}
_PORT = {"wss": 443, "https": 443, "ws": 80, "http": 80}


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the HTTP proxy for *url*, `None` where it is reached directly."""
    parts = urlsplit(url)
    variable = _VARIABLE.get(parts.scheme, "")
    proxy = _get(environ, variable)
    if not proxy or parts.hostname is None:
        return None
    port = parts.port or _PORT[parts.scheme]
    entries = _get(environ, "no_proxy").replace(",", " ").split()
    if any(_covers(entry.lower(), parts.hostname, port) for entry in entries):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _get(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    address = _address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass
    name, colon, only = entry.rpartition(":")
    if colon and only.isdigit():
        return int(only) == port and _covers(name.strip("[]"), host, port)
    name = entry.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
