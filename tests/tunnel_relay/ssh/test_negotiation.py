from __future__ import annotations

import contextlib
import inspect
import threading

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from paramiko.packet import Packetizer

from tests.support.ssh_peer import ServerNegotiation
from tunnel_relay.errors import HostKeyError, SshError, SshHandshakeError
from tunnel_relay.protocol.ssh_numbers import CHANNEL_DATA, DEBUG, IGNORE, KEXINIT, NEWKEYS
from tunnel_relay.ssh import negotiation
from tunnel_relay.ssh.algorithms import CIPHERS, KEY_EXCHANGES, MACS
from tunnel_relay.ssh.negotiation import Negotiation

HOST_KEY = paramiko.ECDSAKey.generate(ec.SECP256R1())


def carry(source: Negotiation, sink: Negotiation) -> list[bytes]:
    """Move what *source* has written into *sink*, which handles it; return the messages."""
    taken = source.writer.take()
    sink.reader.space()[: len(taken)] = taken
    sink.reader.filled(len(taken))
    source.writer.give_back(taken)
    messages: list[bytes] = []
    while (payload := sink.reader.packet()) is not None:
        message = bytes(payload)
        messages.append(message)
        sink.admit(message[0])
        if message[0] in (KEXINIT, NEWKEYS) or 30 <= message[0] < 50:
            sink.handle(message[0], message, sink.reader.sequence - 1)
    return messages


def pair(server_key: paramiko.PKey = HOST_KEY) -> tuple[Negotiation, ServerNegotiation]:
    client, server = Negotiation(), ServerNegotiation(server_key)
    client.remote_version, server.remote_version = server.local_version, client.local_version
    return client, server


def agree(client: Negotiation, server: Negotiation) -> None:
    """Exchange keys once; each side may have begun."""
    for _ in range(6):
        carry(client, server)
        carry(server, client)


def begin(client: Negotiation, server: Negotiation) -> None:
    client.begin()
    server.begin()
    agree(client, server)


# -- the seam itself


def test_paramiko_is_the_version_that_the_seam_was_cut_for() -> None:
    assert paramiko.__version__.startswith("5.1."), (
        "read negotiation.py against the new version, then change this"
    )


def test_everything_private_that_is_used_is_there() -> None:
    """These names are what a new minor version may move."""
    transport = Negotiation()
    for name in ("_expect_packet", "_send_kex_init", "_negotiate_keys", "_parse_newkeys", "_verify_key"):
        assert callable(getattr(paramiko.Transport, name)), name
    for name in ("_expected_packet", "agreed_on_strict_kex", "clear_to_send", "kex_engine", "session_id"):
        assert hasattr(transport, name), name
    for name in (
        "_kex_info",
        "_key_info",
        "_cipher_info",
        "_mac_info",
        "_preferred_kex",
        "_preferred_ciphers",
    ):
        assert hasattr(paramiko.Transport, name), name


def test_the_packet_layer_is_called_as_it_was() -> None:
    """These are called with keywords: a new one would break every connection."""
    for name in ("set_outbound_cipher", "set_inbound_cipher"):
        ours = inspect.signature(getattr(negotiation._PacketSeam, name))
        theirs = inspect.signature(getattr(Packetizer, name))
        assert list(ours.parameters) == list(theirs.parameters)


def test_no_thread_is_started() -> None:
    before = threading.active_count()
    begin(*pair())
    assert threading.active_count() == before


def test_the_algorithms_are_all_known_to_paramiko() -> None:
    known = vars(paramiko.Transport)
    assert set(CIPHERS) <= set(known["_cipher_info"])
    assert set(MACS) <= set(known["_mac_info"])
    assert set(KEY_EXCHANGES) <= {*known["_kex_info"], "curve25519-sha256"}


# -- agreements


def test_the_best_is_agreed_on() -> None:
    client, server = pair()
    begin(client, server)
    assert client.kex_name == "mlkem768x25519-sha256"
    assert client.local_cipher == "aes256-gcm@openssh.com"
    assert client.strict
    assert server.strict
    assert not client.running
    assert client.host_key_blob == HOST_KEY.asbytes()
    assert client.session_id == server.session_id


@pytest.mark.parametrize("kex", KEY_EXCHANGES)
def test_every_key_exchange_works(kex: str) -> None:
    client, server = pair()
    server._preferred_kex = (kex,)  # pyright: ignore[reportAttributeAccessIssue]
    begin(client, server)
    assert client.kex_name == kex
    client.writer.write(b"\x02hello")
    assert carry(client, server) == [b"\x02hello"]


@pytest.mark.parametrize("mac", MACS)
@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_cipher_works_both_ways_before_and_after_new_keys(cipher: str, mac: str) -> None:
    client, server = pair()
    server._preferred_ciphers = (cipher,)  # pyright: ignore[reportAttributeAccessIssue]
    server._preferred_macs = (mac,)  # pyright: ignore[reportAttributeAccessIssue]
    begin(client, server)
    for _ in range(2):
        for sender, receiver in ((client, server), (server, client)):
            for size in (1, 100, 5000):
                sender.writer.write(b"\x02", bytes(size))
            assert [len(message) for message in carry(sender, receiver)][-3:] == [2, 101, 5001]
        client.begin()
        agree(client, server)


@pytest.mark.parametrize("key", ["rsa", "ed25519", "nistp384", "nistp521"])
def test_every_host_key_works(key: str, tmp_path: str) -> None:
    from pathlib import Path

    from tests.support.sshd import generate_key

    path = Path(tmp_path) / "host"
    if key.startswith("nistp"):
        generate_key(path, "ecdsa", extra=("-b", key.removeprefix("nistp")))
    else:
        generate_key(path, key, extra=("-b", "2048") if key == "rsa" else ())
    client, server = pair(paramiko.PKey.from_path(path))
    begin(client, server)
    assert client.host_key_blob


def test_keys_are_exchanged_again_by_either_side_and_by_both_at_once() -> None:
    client, server = pair()
    begin(client, server)
    first = client.session_id
    for who in ((client,), (server,), (client, server)):
        for side in who:
            side.begin()
        agree(client, server)
        assert not client.running
        assert not server.running
        client.writer.write(b"\x02after")
        assert carry(client, server)[-1] == b"\x02after"
    assert client.session_id == first


def guess(server: Negotiation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a server that says: a packet follows that is meant for my first methods."""
    said: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(server.writer, "write", said.append)
        server.begin()
    (kexinit,) = said
    kexinit = kexinit[:-5] + b"\x01" + kexinit[-4:]
    monkeypatch.setattr(server, "local_kex_init", kexinit)
    monkeypatch.setattr(server, "_latest_kex_init", kexinit)
    server.writer.write(kexinit)


@pytest.mark.parametrize("again", [False, True])
def test_a_packet_of_a_wrong_guess_is_ignored(again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 4253, section 7: silently, and that one only."""
    client, server = pair()
    if again:
        begin(client, server)
    server._preferred_kex = KEY_EXCHANGES[::-1]  # pyright: ignore[reportAttributeAccessIssue]
    client.begin()
    guess(server, monkeypatch)
    server.writer.write(bytes([31]) + bytes(40))
    agree(client, server)
    assert not client.running
    client.writer.write(b"\x02after")
    assert carry(client, server)[-1] == b"\x02after"


def test_a_second_packet_after_a_wrong_guess_is_taken_seriously(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = pair()
    server._preferred_kex = KEY_EXCHANGES[::-1]  # pyright: ignore[reportAttributeAccessIssue]
    client.begin()
    guess(server, monkeypatch)
    for _ in range(2):
        server.writer.write(bytes([31]) + bytes(40))
    with pytest.raises(SshHandshakeError, match="the key exchange failed"):
        carry(server, client)


def test_a_packet_of_a_right_guess_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = pair()
    client._preferred_keys = (HOST_KEY.get_name(),)
    client.begin()
    guess(server, monkeypatch)
    server.writer.write(bytes([31]) + bytes(40))
    with pytest.raises(SshHandshakeError, match="the key exchange failed"):
        carry(server, client)


def test_packets_are_counted_from_zero_under_new_keys() -> None:
    """Strict key exchange, against CVE-2023-48795."""
    client, server = pair()
    begin(client, server)
    assert client.writer.sequence <= 1
    assert client.reader.sequence <= 1


# -- refusals


@pytest.mark.parametrize("number", [IGNORE, DEBUG])
def test_nothing_may_be_slipped_into_the_first_key_exchange(number: int) -> None:
    client, server = pair()
    client.begin()
    server.begin()
    carry(client, server)
    server.writer.write(bytes([number, 0, 0, 0, 0]))
    with pytest.raises(SshHandshakeError, match="strict"):
        carry(server, client)


@pytest.mark.parametrize("number", [NEWKEYS, CHANNEL_DATA, 5, 31])
def test_what_is_no_part_of_a_key_exchange_is_refused_while_it_runs(number: int) -> None:
    client, server = pair()
    client.begin()
    server.writer.write(bytes([number]) + bytes(40))
    with pytest.raises(SshHandshakeError, match="in the middle"):
        carry(server, client)


def test_answers_to_nothing_are_refused() -> None:
    client, server = pair()
    begin(client, server)
    for number in (NEWKEYS, 31):
        with pytest.raises(SshHandshakeError):
            client.handle(number, bytes([number]), 5)


def test_a_server_with_weak_algorithms_only_is_told_so() -> None:
    client, server = pair()
    server._preferred_ciphers = ("aes128-cbc", "3des-cbc")  # pyright: ignore[reportAttributeAccessIssue]
    client.begin()
    server.begin()
    with pytest.raises(
        SshHandshakeError, match=r"no cipher .* offers only aes128-cbc, 3des-cbc; let it offer aes256"
    ):
        carry(server, client)


def test_a_wrong_signature_is_noticed() -> None:
    """Somebody who has the host's public key, but not the private one."""

    class Impostor(ServerNegotiation):
        def get_server_key(self) -> paramiko.PKey:
            key = paramiko.ECDSAKey.generate(ec.SECP256R1())
            key.asbytes = HOST_KEY.asbytes  # pyright: ignore[reportAttributeAccessIssue]
            return key

    client = Negotiation()
    server = Impostor(HOST_KEY)
    client.remote_version, server.remote_version = server.local_version, client.local_version
    with pytest.raises(SshHandshakeError, match="Signature"):
        begin(client, server)


def test_a_host_key_that_changes_within_the_connection_is_refused() -> None:
    client, server = pair()
    begin(client, server)
    server.add_server_key(paramiko.ECDSAKey.generate(ec.SECP256R1()))
    server.begin()
    with pytest.raises(HostKeyError, match="within the connection"):
        agree(client, server)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from([KEXINIT, 31, NEWKEYS]), st.booleans())
def test_noise_in_a_key_exchange_is_an_ssh_error(noise: bytes, number: int, started: bool) -> None:
    client, server = pair()
    client.begin()
    if started:
        server.begin()
        carry(server, client)
    message = bytes([number]) + noise
    with contextlib.suppress(SshError):
        client.admit(number)
        client.handle(number, message, 0)


@settings(max_examples=300)
@given(st.integers(0, 5000), st.integers(0, 255))
def test_a_reply_with_one_changed_byte_never_brings_up_a_connection(position: int, value: int) -> None:
    client, server = pair()
    client.begin()
    server.begin()
    carry(server, client)
    carry(client, server)
    carry(client, server)
    data = bytearray(bytes(server.writer.take()))
    position %= len(data)
    same = data[position] == value
    data[position] = value
    client.reader.space()[: len(data)] = data
    client.reader.filled(len(data))
    try:
        while (payload := client.reader.packet()) is not None:
            message = bytes(payload)
            client.admit(message[0])
            if message[0] in (KEXINIT, NEWKEYS) or 30 <= message[0] < 50:
                client.handle(message[0], message, client.reader.sequence - 1)
    except SshError:
        return
    # Only padding may be changed before the keys are there, and nothing after.
    assert same or client.running or client.host_key_blob == HOST_KEY.asbytes()
