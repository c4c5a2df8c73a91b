from __future__ import annotations

from tunnel_relay.protocol.ssh_fields import name_list
from tunnel_relay.protocol.ssh_numbers import KEXINIT
from tunnel_relay.ssh.algorithms import (
    CIPHERS,
    HOST_KEYS,
    KEY_EXCHANGES,
    MACS,
    Offer,
    explain_mismatch,
    host_key_algorithms,
)


def kexinit(kex: str, keys: str, ciphers: str, macs: str) -> bytes:
    lists = [kex, keys, ciphers, ciphers, macs, macs, "none", "none", "", ""]
    return bytes([KEXINIT]) + bytes(16) + b"".join(name_list([names]) for names in lists) + bytes(5)


def test_nothing_weak_is_ever_offered() -> None:
    weak = ("sha1", "cbc", "3des", "md5", "group1-", "dss", "ssh-rsa", "arcfour", "group-exchange")
    assert not [
        name for name in (*KEY_EXCHANGES, *CIPHERS, *MACS, *HOST_KEYS) if any(w in name for w in weak)
    ]


def test_the_best_comes_first() -> None:
    assert KEY_EXCHANGES[0] == "mlkem768x25519-sha256"
    assert CIPHERS[0] == "aes256-gcm@openssh.com"


def test_a_host_is_asked_for_the_key_that_is_known() -> None:
    assert host_key_algorithms(["ssh-rsa"])[:3] == ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519")
    assert host_key_algorithms(["ecdsa-sha2-nistp384"])[0] == "ecdsa-sha2-nistp384"
    assert host_key_algorithms([]) == HOST_KEYS
    assert set(host_key_algorithms(["ssh-dss"])) == set(HOST_KEYS)


def test_an_offer_is_parsed() -> None:
    offer = Offer.of(kexinit("a,b", "k", "c", "m"))
    assert offer.key_exchanges == ("a", "b")
    assert offer.ciphers == ("c", "c")


def test_a_mismatch_names_what_is_offered_and_what_would_do() -> None:
    good = (KEY_EXCHANGES[1], HOST_KEYS[0], CIPHERS[0], MACS[0])
    weak = ("diffie-hellman-group1-sha1", "ssh-dss", "3des-cbc", "hmac-md5")
    for position, subject in enumerate(("key exchange", "host key", "cipher", "MAC")):
        names = [*good[:position], weak[position], *good[position + 1 :]]
        said = explain_mismatch(kexinit(*names), HOST_KEYS)
        assert subject in said
        assert weak[position] in said
        assert "\n" not in said
    assert "in common" in explain_mismatch(kexinit(*good), HOST_KEYS)
    assert "malformed" in explain_mismatch(b"\x14short", HOST_KEYS)


def test_an_offer_cannot_inject_control_characters() -> None:
    said = explain_mismatch(kexinit("x\x1b[2J", "k", "c", "m"), HOST_KEYS)
    assert "\x1b" not in said


def test_a_long_offer_is_cut() -> None:
    said = explain_mismatch(kexinit(",".join(f"bad{n}" for n in range(50)), "k", "c", "m"), HOST_KEYS)
    assert "bad5, …" in said
    assert "bad6" not in said
