from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.protocol.lint import findings
from awg_obfs.protocol.presets import Preset, random_parameters, server_side, signature
from tests.support.awg import RecordedRandomness

PRESETS = st.sampled_from(Preset)


def packet(preset: Preset, seed: str) -> bytes:
    """Return a packet that the preset makes."""
    random = RecordedRandomness(seed=seed)
    return signature(preset, random).generate(random, lambda: 0)


@given(preset=PRESETS, seed=st.text(), ipv6=st.booleans())
def test_the_lint_has_nothing_to_say(preset: Preset, seed: str, ipv6: bool) -> None:
    """On the smallest path of IPv4, and over IPv6 on any that is not the smallest."""
    parameters = random_parameters(RecordedRandomness(seed=seed), preset)
    path_mtu = 1420 if ipv6 else 1280

    assert findings(parameters, path_mtu=path_mtu, ipv6=ipv6, keepalive_padding=True) == ()
    assert findings(server_side(parameters), path_mtu=path_mtu, ipv6=ipv6, keepalive_padding=True) == ()


def test_the_server_gets_what_must_match() -> None:
    parameters = random_parameters(RecordedRandomness(seed="server"))
    server = server_side(parameters)

    assert (server.paddings, server.headers) == (parameters.paddings, parameters.headers)
    assert (server.jc, server.jmin, server.jmax, server.chains) == (0, 0, 0, ())


def test_no_two_are_alike() -> None:
    made = [random_parameters(RecordedRandomness(seed=f"{number}")) for number in range(50)]

    assert len({parameters.headers for parameters in made}) == 50
    assert len({parameters.paddings for parameters in made}) == 50


@given(seed=st.text())
def test_dns_is_one_question(seed: str) -> None:
    query = packet(Preset.DNS, seed)
    # RFC 1035, section 4.1.1: recursion desired; one question.
    assert query[2:12].hex() == "01000001000000000000"
    offset = 12
    while length := query[offset]:
        assert query[offset + 1 : offset + 1 + length].replace(b"-", b"").isalnum()
        offset += 1 + length
    # A type, and the class of the Internet.
    assert query[offset + 3 :].hex() == "0001"


@pytest.mark.parametrize("preset", [Preset.DNS, Preset.STUN])
def test_nothing_looks_like_a_version_of_quic(preset: Preset) -> None:
    """RFC 9000, section 15: whoever searches for the four bytes of version 1 finds none."""
    for number in range(100):
        assert bytes.fromhex("00000001") not in packet(preset, f"{number}")


@given(seed=st.text())
def test_quic_is_an_initial_of_version_1(seed: str) -> None:
    initial = packet(Preset.QUIC, seed)
    # RFC 9000, sections 14.1 and 17.2: long header, fixed bit, type Initial.
    assert 1200 <= len(initial) <= 1232
    assert initial[0] & 0xF0 == 0xC0
    assert initial[1:6].hex() == "0000000108"
    assert initial[14:16].hex() == "0000"
    assert int.from_bytes(initial[16:18], "big") == 0x4000 | len(initial[18:])


@given(seed=st.text())
def test_stun_is_a_binding_request(seed: str) -> None:
    request = packet(Preset.STUN, seed)
    # RFC 8489, section 5: type, length of what follows the header, magic cookie.
    assert request[:2].hex() == "0001"
    assert int.from_bytes(request[2:4], "big") == len(request) - 20
    assert request[4:8].hex() == "2112a442"
    kinds: list[int] = []
    offset = 20
    while offset < len(request):
        kinds.append(int.from_bytes(request[offset : offset + 2], "big"))
        length = int.from_bytes(request[offset + 2 : offset + 4], "big")
        offset += 4 + length + -length % 4
    assert offset == len(request)
    # USERNAME, PRIORITY, ICE-CONTROLLING, MESSAGE-INTEGRITY.
    assert kinds == [0x0006, 0x0024, 0x802A, 0x0008]


@pytest.mark.parametrize("preset", Preset)
def test_packets_of_one_configuration_differ(preset: Preset) -> None:
    random = RecordedRandomness(seed="differ")
    chain = signature(preset, random)

    assert chain.generate(random, lambda: 0) != chain.generate(random, lambda: 0)
