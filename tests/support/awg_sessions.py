"""Plays recorded conversations of the reference to our device, one side at a time.

A side is given exactly what the reference's was given, at the same instants and with the same random stream. What it
makes of it, it must make byte for byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import attrs

from awg_obfs.events import (
    CookieReceived,
    CookieSent,
    DeviceEvent,
    HandshakeAnswered,
    HandshakeCompleted,
    Rejection,
)
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.device import Device, DeviceSettings
from awg_obfs.protocol.noise import PrivateKey
from awg_obfs.protocol.outbox import Outgoing
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.timers import NEW_HANDSHAKE_TIMEOUT, REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER
from awg_obfs.protocol.uapi import Configuration
from tests.support.awg import RecordedRandomness, Vector

SIDES = ("A", "B")
OTHER = {"A": "B", "B": "A"}

# What the record says of a delivery, and what we must say of it.
REJECTED = {
    "dropped_unknown_type": Rejection.UNKNOWN_TYPE,
    "dropped_bad_mac1": Rejection.BAD_MAC1,
    "dropped_silently": Rejection.TOO_SMALL,
    "answered_with_cookie": Rejection.UNDER_LOAD,
}
TOLD: dict[str, type[DeviceEvent]] = {
    "accepted_init": HandshakeAnswered,
    "accepted_response": HandshakeCompleted,
    "accepted_cookie": CookieReceived,
    "answered_with_cookie": CookieSent,
}


def address_of(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def ip_packet(plaintext: bytes) -> bytes:
    """Return *plaintext* without its zero fill, as the reference's receiver does: the IP header tells the length."""
    return plaintext[: int.from_bytes(plaintext[2:4], "big")]


def masked(datagram: bytes, offset: int) -> bytes:
    """Return *datagram* from behind its header on: what its draws have no part in."""
    return datagram[offset + 4 :]


@attrs.define(eq=False)
class Side:
    """One device of a session, run against the record of the whole session."""

    session: Vector
    name: str
    now_ms: int = attrs.field(default=0, init=False)
    random: RecordedRandomness = attrs.field(init=False)
    device: Device = attrs.field(init=False)
    peer: Peer = attrs.field(init=False)
    configuration: Configuration = attrs.field(factory=Configuration, init=False)
    produced: deque[Outgoing] = attrs.field(factory=deque[Outgoing], init=False)
    received: deque[bytes] = attrs.field(factory=deque[bytes], init=False)

    def __attrs_post_init__(self) -> None:
        own = self.session[self.name]
        self.random = RecordedRandomness(seed=own["random_seed"])
        lines = [line.partition("=") for line in own["uapi"]]
        settings = {key: value for key, _, value in lines}
        assert self.configuration.set("".join(f"{line}\n" for line in own["uapi"])) == 0
        self.device = Device(
            PrivateKey(bytes.fromhex(settings["private_key"])),
            self.configuration.parameters,
            DeviceSettings(mtu=own["tun_mtu"]),
            self.random,
            self.unix_time_ns,
            0.0,
            jitter=self.recorded_jitter,
        )
        endpoint = settings.get("endpoint")
        self.peer = self.device.add_peer(
            bytes.fromhex(settings["public_key"]),
            bytes.fromhex(settings.get("preshared_key", "00" * 32)),
            None if endpoint is None else address_of(endpoint),
            float(settings.get("persistent_keepalive_interval", 0)),
        )

    # -- the recorded world

    @property
    def now(self) -> float:
        return self.now_ms / 1000

    def unix_time_ns(self) -> int:
        return self.session["start_unix"] * 1_000_000_000 + self.now_ms * 1_000_000

    def recorded_jitter(self) -> float:
        """Return the jitter that makes a timer set now fire with the next recorded initiation, if it can."""
        for event in self.session["events"]:
            if event["ev"] == "send" and event["from"] == self.name and event["kind"] == "init":
                for delay in (REKEY_TIMEOUT, NEW_HANDSHAKE_TIMEOUT):
                    jitter = (event["t_ms"] - self.now_ms) / 1000 - delay
                    if 0 <= jitter <= REKEY_TIMEOUT_JITTER:
                        return jitter
        return 0.0

    # -- the run

    def run(self) -> None:
        """Play the session from its first event to its last."""
        events: Sequence[Vector] = self.session["events"]
        container: list[bytes] = []
        sent: list[Vector] = []
        for event in events:
            match event["ev"]:
                case "send" if event["from"] == self.name:
                    sent.append(event)
                    if event["pos"] == event["of"] - 1:
                        self._expect_sent(sent)
                        sent = []
                case "tun_in" if event["dev"] == self.name:
                    container.append(bytes.fromhex(event["hex"]))
                    if event["pos"] == event["of"] - 1:
                        self._do(
                            event, lambda packets=container: self.device.send(self.peer, packets, self.now)
                        )
                        container = []
                case "tun_out" if event["dev"] == self.name:
                    assert self.received.popleft().hex() == event["hex"]
                case "deliver" if event["to"] == self.name:
                    self._deliver(event)
                case "set" if event["dev"] == self.name:
                    self._do(
                        event, lambda lines=event["lines"], errno=event["errno"]: self._set(lines, errno)
                    )
                case "under_load" if event["dev"] == self.name:
                    until = (event["t_ms"] + 1000 * event["seconds"]) / 1000
                    self._do(event, lambda until=until: self.device.assume_load(until))
                case _:
                    pass
        self._draw_what_led_to_nothing()
        assert not self.produced
        assert not self.received

    @property
    def consumed(self) -> int:
        """How many random bytes were drawn."""
        return sum(map(len, self.random.reads)) // 2

    def _draw_what_led_to_nothing(self) -> None:
        """Let the timers go on that the record's end shows by their draws only: to nowhere nothing is sent."""
        expected = self.session["consumed"][self.name]
        while self.peer.endpoint is None and self.consumed < expected:
            due = self.device.next_timer()
            assert due is not None, "something was drawn for what we do not do"
            self._fire(due)

    def _do(self, event: Vector, action: Callable[[], None]) -> None:
        """Let time pass until *event*, firing what is due before; then act."""
        while (due := self.device.next_timer()) is not None and round(due * 1000) < event["t_ms"]:
            self._fire(due)
        self.now_ms = event["t_ms"]
        action()
        self._collect()

    def _fire(self, due: float) -> None:
        self.now_ms = max(self.now_ms, round(due * 1000))
        # A sum of seconds may miss the recorded millisecond by a rounding error.
        self.device.handle_timer(max(due, self.now))
        self._collect()

    def _collect(self) -> None:
        self.produced.extend(self.device.take_outgoing())
        for incoming in self.device.take_incoming():
            assert incoming.peer is self.peer
            self.received.extend(ip_packet(bytes(plaintext)) for plaintext in incoming.plaintexts)

    def _set(self, lines: list[str], errno: int) -> None:
        assert self.configuration.set("".join(f"{line}\n" for line in lines)) == errno
        self.device.reconfigure(self.configuration.parameters)

    def _expect_sent(self, sent: list[Vector]) -> None:
        while not self.produced:
            due = self.device.next_timer()
            assert due is not None, f"nothing will send the {sent[-1]['kind']}"
            assert round(due * 1000) <= sent[0]["t_ms"], f"nothing sends the {sent[-1]['kind']} in time"
            self._fire(due)
        outgoing = self.produced.popleft()
        assert self.now_ms == sent[0]["t_ms"]
        assert outgoing.address == address_of(self.session[OTHER[self.name]]["address"])
        assert len(outgoing.datagrams) == len(sent)
        for datagram, event in zip(outgoing.datagrams, sent, strict=True):
            if self.session["deterministic"] or event["kind"] != "transport":
                assert datagram.hex() == event["hex"], event["kind"]
            else:
                expected = bytes.fromhex(event["hex"])
                assert masked(datagram, event["offset"]) == masked(expected, event["offset"])

    def _deliver(self, event: Vector) -> None:
        datagram = bytes.fromhex(event.get("hex") or self.session["events"][event["ref"]]["hex"])
        source = address_of(self.session[OTHER[self.name]]["address"])
        before, waiting = self.peer.rx_bytes, len(self.received)
        dropped = self.device.rejections.copy()
        self.device.take_events()
        self._do(event, lambda: self.device.receive([datagram], source, self.now))
        events = self.device.take_events()
        result = event["result"]
        assert set(self.device.rejections - dropped) == ({REJECTED[result]} if result in REJECTED else set())
        if result in TOLD:
            assert any(isinstance(told, TOLD[result]) for told in events)
        if result == "accepted_data":
            assert len(self.received) > waiting
        elif result == "accepted_keepalive":
            assert self.peer.rx_bytes == before + 32
            assert len(self.received) == waiting
