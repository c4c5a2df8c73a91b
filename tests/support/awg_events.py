"""One of every event of a session, as a device tells them."""

from __future__ import annotations

from awg_obfs.events import (
    CookieReceived,
    CookieSent,
    DatagramRejected,
    DeviceEvent,
    HandshakeAnswered,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeFault,
    HandshakeSent,
    PeerMoved,
    Rejection,
    SessionExpired,
    UnderLoad,
)
from awg_obfs.protocol.device import Device, DeviceSettings
from awg_obfs.protocol.noise import PrivateKey, Role
from awg_obfs.protocol.parameters import DEFAULT
from tests.support.awg import RecordedRandomness
from tests.support.awg_files import CLIENT_KEY, SERVER_KEY

HERE, THERE = ("192.0.2.1", 443), ("2001:db8::1", 4443)

DEVICE = Device(
    PrivateKey(SERVER_KEY), DEFAULT, DeviceSettings(), RecordedRandomness(seed="x"), lambda: 0, 0.0
)
PEER = DEVICE.add_peer(PrivateKey(CLIENT_KEY).public, name="laptop")

DEVICE_EVENTS: list[tuple[DeviceEvent, str]] = [
    (HandshakeSent(PEER, 2, HERE), "debug awg handshake sent link=laptop to=192.0.2.1:443 attempt=2"),
    (HandshakeAnswered(PEER, HERE), "debug awg handshake answered link=laptop to=192.0.2.1:443"),
    (
        HandshakeCompleted(PEER, Role.RESPONDER, THERE),
        "debug awg handshake completed link=laptop with=[2001:db8::1]:4443 role=responder",
    ),
    (
        HandshakeFailed(PEER, HandshakeFault.NO_ANSWER),
        'info awg handshake failed link=laptop reason="no answer"',
    ),
    (
        PeerMoved(PEER, HERE, THERE),
        "info awg peer moved link=laptop from=192.0.2.1:443 to=[2001:db8::1]:4443",
    ),
    (PeerMoved(PEER, None, HERE), "info awg peer moved link=laptop to=192.0.2.1:443"),
    (SessionExpired(PEER), "debug awg keys forgotten link=laptop"),
    (UnderLoad(), "warning awg under load"),
    (CookieSent(HERE), "debug awg cookie sent to=192.0.2.1:443"),
    (CookieReceived(PEER), "debug awg cookie received link=laptop"),
    (
        DatagramRejected(HERE, 148, Rejection.BAD_MAC1, "the public key differs"),
        (
            'debug awg datagram rejected source=192.0.2.1:443 size=148 reason="bad mac1" '
            'hint="the public key differs"'
        ),
    ),
    (
        DatagramRejected(HERE, 3, Rejection.TOO_SMALL),
        'debug awg datagram rejected source=192.0.2.1:443 size=3 reason="too small"',
    ),
]
