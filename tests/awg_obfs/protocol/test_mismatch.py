from __future__ import annotations

from collections.abc import Mapping

import attrs
import pytest

from awg_obfs.events import DatagramRejected, HandshakeCompleted, Rejection
from awg_obfs.protocol.device import DeviceSettings
from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.mismatch import advice
from awg_obfs.protocol.parameters import DEFAULT
from tests.support.awg_world import CLIENT, OBFUSCATED, SERVER, Couple, Station, World, block

OTHER_RANGE = HeaderRange(700_000, 799_999)


def hints(station: Station) -> list[str]:
    return [event.hint for event in station.told(DatagramRejected) if event.hint]


def meet(changes: Mapping[str, object]) -> Couple:
    """Let a client whose parameters were changed talk to a server."""
    couple = Couple.meet(attrs.evolve(OBFUSCATED, **changes), OBFUSCATED)
    couple.talk(block("hello"))
    return couple


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"s1": 17}, "an initiation made for us: s1 of the sender is 17, ours 15"),
        (
            {"h1": HeaderRange(9, 9)},
            "an initiation made for us: h1 of the sender has 9, ours is 100000-199999",
        ),
        ({"s1": 0, "h1": HeaderRange(9, 9)}, "s1 of the sender is 0, ours 15, h1 of the sender has 9"),
    ],
)
def test_the_server_names_what_differs_in_an_initiation(changes: Mapping[str, object], words: str) -> None:
    couple = meet(changes)

    assert [words in hint for hint in hints(couple.server)] == [True]
    assert not couple.server.sent


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"s2": 3}, "a response made for us: s2 of the sender is 18, ours 3"),
        ({"h2": OTHER_RANGE}, "a response made for us: h2 of the sender has 2"),
    ],
)
def test_the_client_names_what_differs_in_a_response(changes: Mapping[str, object], words: str) -> None:
    couple = meet(changes)

    assert words in hints(couple.client)[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"s4": 3}, "a packet of one of our sessions: s4 of the sender is 3, ours 12"),
        ({"h4": OTHER_RANGE}, "a packet of one of our sessions: h4 of the sender has 7"),
    ],
)
def test_the_server_names_what_differs_in_data(changes: Mapping[str, object], words: str) -> None:
    couple = meet(changes)

    assert couple.client.told(HandshakeCompleted)
    assert words in hints(couple.server)[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"s3": 0}, "a cookie reply for us: s3 of the sender is 20, ours 0"),
        ({"h3": OTHER_RANGE}, "a cookie reply for us: h3 of the sender has 3"),
    ],
)
def test_the_client_names_what_differs_in_a_cookie_reply(changes: Mapping[str, object], words: str) -> None:
    couple = Couple.meet(attrs.evolve(OBFUSCATED, **changes), OBFUSCATED)
    couple.server.device.assume_load(couple.world.now + 1)
    couple.talk(block("hello"))

    assert words in hints(couple.client)[0]


def test_the_reference_s_bare_keepalives_are_recognised() -> None:
    couple = Couple.meet(OBFUSCATED, persistent_keepalive=25.0)
    couple.world.run(1.0)

    (hint,) = hints(couple.server)
    assert hint.startswith("a keepalive without the 12 bytes of s4, as the reference sends them")
    assert hint.endswith("set keepalive_padding = true on the other side")


def test_padded_keepalives_need_no_hint() -> None:
    settings = DeviceSettings(keepalive_padding=True)
    couple = Couple.meet(OBFUSCATED, settings=settings, persistent_keepalive=25.0)
    couple.world.run(1.0)

    assert hints(couple.server) == []
    assert couple.server.told(HandshakeCompleted)


def test_another_public_key_of_the_server_is_named() -> None:
    world = World()
    client, server = world.add_station(CLIENT, OBFUSCATED), world.add_station(SERVER, OBFUSCATED)
    stranger = world.add_station(("192.0.2.3", 1), OBFUSCATED)
    peer = client.device.add_peer(stranger.identity.public, endpoint=SERVER)
    server.device.add_peer(client.identity.public)
    client.device.send(peer, [block("hello")], world.now)
    world.run()

    (rejected,) = server.told(DatagramRejected)
    assert rejected.reason is Rejection.BAD_MAC1
    assert "another public key for us" in rejected.hint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"h1": HeaderRange(9, 9)}, "as long as an initiation with s1 = 15, but its header 9 is outside h1"),
        ({"s1": 40}, "a header of h1 where an initiation with s1 = 40 has it (ours is 15)"),
    ],
)
def test_a_wrong_key_and_a_wrong_parameter_are_both_told(changes: Mapping[str, object], words: str) -> None:
    world = World()
    client = world.add_station(CLIENT, attrs.evolve(OBFUSCATED, **changes))
    server, stranger = world.add_station(SERVER, OBFUSCATED), world.add_station(("192.0.2.3", 1))
    peer = client.device.add_peer(stranger.identity.public, endpoint=SERVER)
    client.device.send(peer, [block("hello")], world.now)
    world.run()

    assert any(words in hint for hint in hints(server))


def test_plain_wireguard_is_recognised() -> None:
    couple = Couple.meet(DEFAULT, OBFUSCATED)
    couple.talk(block("hello"))

    assert "s1 of the sender is 0, ours 15, h1 of the sender has 1" in hints(couple.server)[0]


def test_junk_is_no_news() -> None:
    """It is counted for good handshakes too: that rejected datagrams grow proves only that they arrive."""
    couple = meet({})

    rejections = couple.server.device.rejections
    assert rejections[Rejection.UNKNOWN_TYPE] + rejections[Rejection.TOO_SMALL] == rejections.total() == 4
    assert not couple.server.told(DatagramRejected)
    assert couple.server.received == [block("hello")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"s2": 3}, "s2 of the sender is 18, ours 3; make s2 the same on both sides"),
        ({"s2": 3, "h2": OTHER_RANGE}, "make s2 and h2 the same on both sides"),
    ],
)
def test_whoever_asked_a_server_learns_what_to_make_the_same(
    changes: Mapping[str, object], expected: str
) -> None:
    said = advice(hints(meet(changes).client)[0])

    assert said.endswith(expected)
    assert "made for us" not in said


def test_advice_about_keys_and_keepalives() -> None:
    keys = advice("the preshared keys differ, if it is a peer's")
    assert keys == "the preshared keys differ; make preshared_key the same on both sides"
    assert "keepalive_padding = true" in advice(
        "a keepalive without the 8 bytes of s4: set keepalive_padding = true"
    )


def test_what_anybody_could_have_sent_advises_nothing() -> None:
    for hint in (
        "",
        "as long as a response with s2 = 18, but its header 7 is outside h2 = 100-200, and it was not made",
        "a header of h2 where a response with s2 = 3 has it (ours is 18), but not made for our public key",
        "played again, or the clock of the sender was set back",
    ):
        assert advice(hint) == ""
