from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import ConfFileError
from awg_obfs.protocol.conf import MAX_TEXT, ConfFile, ConfInterface, ConfPeer
from awg_obfs.protocol.keys import is_usable_public_key, key_from_text, key_to_text
from awg_obfs.protocol.lint import Severity, findings
from awg_obfs.protocol.parameters import Parameters, parameters_from_mapping
from awg_obfs.protocol.presets import Preset, random_parameters
from tests.support.awg import RecordedRandomness

PRIVATE, PUBLIC, SHARED = (key_to_text(bytes((number,)) * 32) for number in (1, 2, 3))

# As Amnezia's applications write it.
AMNEZIA = f"""\
[Interface]
Address = 10.8.1.3/32
DNS = 1.1.1.1, 1.0.0.1
PrivateKey = {PRIVATE}
Jc = 5
Jmin = 10
Jmax = 50
S1 = 86
S2 = 104
S3 = 34
S4 = 9
H1 = 471800590-471800690
H2 = 1246894907-1246895000
H3 = 923637689-923637690
H4 = 1769581055-1869581055
I1 = <r 2><b 0x858000010001000000000669636c6f756403636f6d0000010001c00c000100010000105a00044d583737>
I2 =
I3 =
I4 =
I5 =

[Peer]
PublicKey = {PUBLIC}
PresharedKey = {SHARED}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.7:41414
PersistentKeepalive = 25
"""

# As a person writes it for awg-quick(8).
SERVER = f"""\
# the office
[interface]
 private key = {PRIVATE}   # generated
listenport=443
Address=10.0.0.1/24
Address = fd00::1/64
MTU = 1280
PostUp = iptables -A FORWARD -i %i -j ACCEPT; echo up
Table = off
FwMark = 0xca6c
S1=20
S2=30

[PEER]
PublicKey={PUBLIC}
AllowedIPs=10.0.0.2/32

[Peer]
PublicKey = {SHARED}
Endpoint = [2001:db8::1]:51820
AllowedIPs = 10.0.0.3/32
AllowedIPs = 10.0.0.4/32
AdvancedSecurity = on
PersistentKeepalive = off
"""


def problems(content: str) -> list[str]:
    with pytest.raises(ConfFileError) as caught:
        ConfFile.parse(content)
    return [str(problem) for problem in caught.value.problems]


def test_a_file_of_amnezia_s_is_read() -> None:
    conf = ConfFile.parse(AMNEZIA)

    interface, (peer,) = conf.interface, conf.peers
    assert interface.private_key == b"\1" * 32
    assert interface.parameters.paddings == (86, 104, 34, 9)
    assert str(interface.parameters.h4) == "1769581055-1869581055"
    assert len(interface.parameters.chains) == 1
    assert interface.kept == (("Address", "10.8.1.3/32"), ("DNS", "1.1.1.1, 1.0.0.1"))
    assert (peer.public_key, peer.preshared_key) == (b"\2" * 32, b"\3" * 32)
    assert (peer.endpoint, peer.persistent_keepalive) == ("203.0.113.7:41414", 25)
    assert peer.kept == (("AllowedIPs", "0.0.0.0/0, ::/0"),)
    assert conf.warnings == (
        "line 17: I2 is empty and left out, as later versions of awg(8) do",
        "line 18: I3 is empty and left out, as later versions of awg(8) do",
        "line 19: I4 is empty and left out, as later versions of awg(8) do",
        "line 20: I5 is empty and left out, as later versions of awg(8) do",
        "[Interface] Address, DNS: without effect here, where streams are carried and no IP packets",
        "[Peer] AllowedIPs: without effect here, where streams are carried and no IP packets",
    )
    assert not [found for found in findings(interface.parameters) if found.severity is Severity.REFUSE]


def test_a_file_for_awg_quick_is_read() -> None:
    conf = ConfFile.parse(SERVER)

    assert conf.interface.listen_port == 443
    assert [name for name, _ in conf.interface.kept] == [
        "Address",
        "Address",
        "MTU",
        "PostUp",
        "Table",
        "FwMark",
    ]
    assert dict(conf.interface.kept)["PostUp"] == "iptables -A FORWARD -i %i -j ACCEPT; echo up"
    assert [peer.endpoint for peer in conf.peers] == ["", "[2001:db8::1]:51820"]
    assert [peer.persistent_keepalive for peer in conf.peers] == [0, 0]


@pytest.mark.parametrize("content", [AMNEZIA, SERVER, "[Interface]\n", ""])
def test_a_file_comes_back_as_it_was(content: str) -> None:
    conf = ConfFile.parse(content)
    written = conf.as_text()

    assert ConfFile.parse(written) == conf
    assert ConfFile.parse(written).as_text() == written
    assert conf.export_warnings == ()


def test_every_line_of_amnezia_s_file_comes_back_but_the_empty_ones() -> None:
    lines = {line for line in AMNEZIA.splitlines() if not line.endswith(" =")}

    assert set(ConfFile.parse(AMNEZIA).as_text().splitlines()) == lines


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Jc = 0", "Jc: must not be 0; leave it out: then it is 0"),
        ("Jc = four", 'Jc: "four" is no number up to 65535; write one'),
        ("S1 = 65536", 'S1: "65536" is no number up to 65535; write one'),
        ("S1 =", 'S1: "" is no number up to 65535; write one'),
        (
            "H1 = 9-8",
            'H1: "9-8" ends before it starts; write a number or a range of them up to 4294967295, as in',
        ),
        ("I1 = <q>", "I1: there is no tag <q>; the tags are <b HEX>,"),
        # The blanks are gone, as awg(8) has it, because the line begins with one.
        (" I1 = <r 5>", "I1: there is no tag <r5>; the tags are <b HEX>,"),
        (
            "I1 = <b 0x" + "00" * MAX_TEXT + ">",
            f"I1: has {2 * MAX_TEXT + 6} characters, and awg(8) reads 5119; make",
        ),
        ("J1 = <t>", "J1: belongs to AmneziaWG 1.5, which is not spoken here; remove the line"),
        (
            "HeaderProtectionKey = x",
            "HeaderProtectionKey: belongs to AmneziaWG 3, which is not spoken here; turn it ",
        ),
        ("Endpoint = a:1", "Endpoint: does not belong to this section; move it to [Peer]"),
        ("Colour = red", "Colour: there is no such key; remove the line, or look for a slip"),
        (
            "PrivateKey = abc",
            "PrivateKey: a key is 44 characters of base64, as awg genkey prints it; this has 3 ",
        ),
        ("ListenPort = 70000", 'ListenPort: "70000" is no number up to 65535; write one'),
    ],
)
def test_what_is_wrong_with_the_interface_is_told_with_its_line(line: str, problem: str) -> None:
    (told,) = problems(f"[Interface]\n{line}\n")

    assert told.startswith(f"line 2: {problem}")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("PublicKey = abc", "PublicKey: a key is 44 characters of base64"),
        (f"PublicKey = {'A' * 43}=", "PublicKey: is a key that nobody can have"),
        ("PresharedKey = abc", "PresharedKey: a key is 44 characters of base64"),
        (
            "Endpoint = example.com",
            'Endpoint: "example.com" is no address with a port; write HOST:PORT, or',
        ),
        ("Endpoint = 2001:db8::1:5", 'Endpoint: "2001:db8::1:5" is no address with a port'),
        ("Endpoint = a:x", 'Endpoint: "a:x" is no address with a port'),
        ("Endpoint = a:0", 'Endpoint: "a:0" is no address with a port'),
        ("PersistentKeepalive = x", 'PersistentKeepalive: "x" is no number up to 65535'),
        ("Jc = 4", "Jc: does not belong to this section; move it to [Interface]"),
        ("Address = 10.0.0.1", "Address: does not belong to this section; move it to [Interface]"),
    ],
)
def test_what_is_wrong_with_a_peer_is_told_with_its_line(line: str, problem: str) -> None:
    told = problems(f"[Peer]\nPublicKey = {PUBLIC}\n{line}\n")

    assert len(told) == 1
    assert told[0].startswith(f"line 3: {problem}")


def test_a_peer_needs_its_key() -> None:
    assert problems("[Interface]\n[Peer]\nEndpoint = a:1\n") == [
        "line 2: this peer has no PublicKey; add it: a peer is known by its key"
    ]


def test_all_faults_are_told_in_the_order_of_their_lines() -> None:
    told = problems("[Interface]\nH2 = x\nnonsense\nJc = 0\n[Peer]\n")

    assert [line.split(":")[0] for line in told] == ["line 2", "line 3", "line 4", "line 5"]


def test_the_last_of_several_lines_wins() -> None:
    conf = ConfFile.parse("[Interface]\nJc = 4\nI1 = <t>\nJc = 5\nI1 =\n")

    assert conf.interface.parameters == Parameters(jc=5)


def test_keys_are_shown_nowhere() -> None:
    conf = ConfFile.parse(AMNEZIA)
    shown = repr(conf) + str(conf) + " ".join(conf.warnings)
    (told,) = problems(AMNEZIA.replace(PRIVATE, PRIVATE[:-2] + "!!"))

    for key in (PRIVATE, SHARED):
        assert key not in shown
        assert repr(key_from_text(key)) not in shown
        assert key[:20] not in told


def test_what_awg_cannot_read_is_told_on_the_way_out() -> None:
    parameters = parameters_from_mapping(
        {"i1": "<c>", "i2": "", "i3": "<b 0x" + "00" * 3000 + ">", "i4": " # <t>\n<r 4>"}
    )
    conf = ConfFile(ConfInterface(parameters=parameters))

    assert conf.export_warnings == (
        "I1: amneziawg-go refuses <c>, which only we offer; put <r 4> in its place",
        "I2: left out, for awg(8) has no way to write an empty packet",
        "I3: has 6006 characters, and awg(8) reads 5119; make it shorter",
    )
    assert "I2" not in conf.as_text()
    assert "I4 = <t><r 4>\n" in conf.as_text()


KEYS = st.binary(min_size=32, max_size=32)
WORDS = st.text(alphabet="abc .,/-;0123456789", min_size=1, max_size=20).map(str.strip)
PEERS = st.builds(
    ConfPeer,
    public_key=KEYS.filter(is_usable_public_key),
    preshared_key=st.none() | KEYS,
    endpoint=st.sampled_from(("", "a.example:1", "192.0.2.1:65535", "[::1]:53")),
    persistent_keepalive=st.integers(0, 65535),
    kept=st.lists(st.tuples(st.just("AllowedIPs"), WORDS), max_size=3).map(tuple),
)


@given(
    seed=st.text(),
    preset=st.sampled_from(Preset),
    private_key=st.none() | KEYS,
    port=st.integers(0, 65535),
    kept=st.lists(st.tuples(st.sampled_from(("Address", "DNS", "PostUp", "MTU")), WORDS), max_size=4).map(
        tuple
    ),
    peers=st.lists(PEERS, max_size=3).map(tuple),
)
def test_whatever_is_written_is_read_again(
    seed: str,
    preset: Preset,
    private_key: bytes | None,
    port: int,
    kept: tuple[tuple[str, str], ...],
    peers: tuple[ConfPeer, ...],
) -> None:
    parameters = random_parameters(RecordedRandomness(seed=seed), preset)
    conf = ConfFile(ConfInterface(private_key, port, parameters, kept), peers)

    assert ConfFile.parse(conf.as_text()) == conf
    assert attrs.evolve(conf, warnings=("other",)) == conf


@given(
    content=st.text() | st.lists(st.sampled_from(AMNEZIA.splitlines() + SERVER.splitlines())).map("\n".join)
)
def test_any_text_is_a_file_or_refused(content: str) -> None:
    try:
        conf = ConfFile.parse(content)
    except ConfFileError:
        assert all(problem.isprintable() for problem in problems(content))
    else:
        assert ConfFile.parse(conf.as_text()) == conf
