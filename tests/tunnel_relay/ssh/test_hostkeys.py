from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
import trio

from tunnel_relay.errors import HostKeyError, KnownHostsError
from tunnel_relay.protocol.ssh_fields import string
from tunnel_relay.ssh.hostkeys import HostKey, KnownHosts, known_host_name, parse_known_hosts

ONE = HostKey(string(b"ssh-ed25519") + string(b"1" * 32))
TWO = HostKey(string(b"ssh-ed25519") + string(b"2" * 32))
RSA = HostKey(string(b"ssh-rsa") + string(b"3") + string(b"n" * 256))


def known(tmp_path: Path, text: str, *, strict: bool = False) -> KnownHosts:
    path = tmp_path / "known_hosts"
    path.write_text(text)
    return KnownHosts(path, mode="strict" if strict else "accept-new")


def test_a_key_is_shown_as_openssh_shows_it() -> None:
    assert ONE.kind == "ssh-ed25519"
    assert ONE.line == "ssh-ed25519 " + base64.b64encode(ONE.blob).decode()
    assert ONE.fingerprint.startswith("SHA256:")
    assert not ONE.fingerprint.endswith("=")
    assert HostKey(b"\0").kind == ""


def rsa(bits: int) -> HostKey:
    number = (1 << (bits - 1)) + 1
    return HostKey(string(b"ssh-rsa") + string(b"\1\0\1") + string(number.to_bytes(bits // 8 + 1, "big")))


def test_a_short_rsa_key_is_weak() -> None:
    assert rsa(1024).weakness == "an RSA key of 1024 bits; fewer than 2048 are not safe"
    assert rsa(2047).weakness
    assert not rsa(2048).weakness
    assert not ONE.weakness
    assert HostKey(string(b"ssh-rsa") + string(b"\1\0\1")).weakness


def test_a_port_of_its_own_shows_in_the_name() -> None:
    assert known_host_name("host") == "host"
    assert known_host_name("host", 2222) == "[host]:2222"


async def test_a_new_host_is_recorded_once(tmp_path: Path) -> None:
    hosts = KnownHosts(tmp_path / "new" / "known_hosts")
    assert await hosts.known_types("h") == []
    assert await hosts.verify("h", ONE)
    assert not await hosts.verify("h", ONE)
    assert hosts.path.read_text() == f"h {ONE.line}\n"
    assert hosts.path.stat().st_mode & 0o777 == 0o600
    assert hosts.path.parent.stat().st_mode & 0o777 == 0o700
    assert await hosts.known_types("h") == ["ssh-ed25519"]


async def test_recording_keeps_what_is_there_and_mends_a_missing_newline(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"other {TWO.line}")
    await hosts.verify("h", ONE)
    assert hosts.path.read_text() == f"other {TWO.line}\nh {ONE.line}\n"


async def test_many_sessions_that_meet_a_host_together_record_it_once(tmp_path: Path) -> None:
    hosts = KnownHosts(tmp_path / "known_hosts")
    new: list[bool] = []

    async def meet() -> None:
        new.append(await hosts.verify("i-1", ONE))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(meet)
    assert sorted(new) == [False] * 19 + [True]
    assert hosts.path.read_text().count("\n") == 1


async def test_when_two_different_keys_meet_only_one_wins(tmp_path: Path) -> None:
    hosts = KnownHosts(tmp_path / "known_hosts")
    refused: list[HostKeyError] = []

    async def meet(key: HostKey) -> None:
        try:
            await hosts.verify("h", key)
        except HostKeyError as exc:
            refused.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(meet, ONE)
        nursery.start_soon(meet, TWO)
    assert len(refused) == 1
    assert hosts.path.read_text().count("\n") == 1


async def test_strict_demands_the_key_and_says_how(tmp_path: Path) -> None:
    hosts = known(tmp_path, "", strict=True)
    with pytest.raises(HostKeyError) as caught:
        await hosts.verify("h", ONE)
    said = str(caught.value)
    assert ONE.fingerprint in said
    assert str(hosts.path) in said
    assert hosts.path.read_text() == ""


@pytest.mark.parametrize("strict", [False, True])
async def test_a_changed_key_is_refused_with_file_and_line(tmp_path: Path, strict: bool) -> None:
    hosts = known(tmp_path, f"# comment\n\nh {TWO.line}\n", strict=strict)
    with pytest.raises(HostKeyError) as caught:
        await hosts.verify("h", ONE)
    said = str(caught.value)
    assert f"{hosts.path}:3" in said
    assert ONE.fingerprint in said
    assert TWO.fingerprint in said
    assert "\n" not in said


async def test_a_key_of_another_type_does_not_slip_in(tmp_path: Path) -> None:
    """Who can choose the type of the key could otherwise choose one that is not recorded."""
    hosts = known(tmp_path, f"h {RSA.line}\n")
    with pytest.raises(HostKeyError, match="changed"):
        await hosts.verify("h", ONE)


async def test_a_host_may_have_several_keys(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"h {RSA.line}\nh {ONE.line} comment\n", strict=True)
    assert not await hosts.verify("h", ONE)
    assert await hosts.known_types("h") == ["ssh-rsa", "ssh-ed25519"]


async def test_a_revoked_key_is_refused_even_where_it_is_listed(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"h {ONE.line}\n@revoked * {ONE.line}\n")
    with pytest.raises(HostKeyError, match=r"revoked .*:2"):
        await hosts.verify("h", ONE)


async def test_a_revoked_key_does_not_make_a_host_known(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"@revoked h {TWO.line}\n")
    assert await hosts.known_types("h") == []
    assert await hosts.verify("h", ONE)


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("h", "h", True),
        ("h", "H", True),
        ("a,h,b", "h", True),
        ("*.example.com", "x.example.com", True),
        ("*.example.com,!bad.example.com", "bad.example.com", False),
        ("h?", "h1", True),
        ("[h]:2222", "[h]:2222", True),
        ("[h]:2222", "h", False),
        ("h", "[h]:2222", False),
        ("[h]:22*", "[h]:2222", True),
    ],
)
def test_patterns_match_as_sshd_documents_them(pattern: str, host: str, matches: bool) -> None:
    (entry,) = parse_known_hosts(f"{pattern} {ONE.line}")
    assert entry.names(host) == matches


async def test_hashed_names_made_by_ssh_keygen_are_found(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"web.example {ONE.line}\n[web.example]:2200 {TWO.line}\n", strict=True)
    command = ["ssh-keygen", "-q", "-H", "-f", str(hosts.path)]
    await trio.run_process(command, capture_stdout=True, capture_stderr=True, stdin=subprocess.DEVNULL)
    assert "web.example" not in hosts.path.read_text()
    assert not await hosts.verify("web.example", ONE)
    assert not await hosts.verify("[web.example]:2200", TWO)
    with pytest.raises(HostKeyError):
        await hosts.verify("web.example", TWO)
    with pytest.raises(HostKeyError, match="is not in"):
        await hosts.verify("other.example", ONE)


def test_lines_that_are_broken_are_passed_over() -> None:
    text = "\n".join(
        [
            "# comment",
            "h ssh-ed25519",
            "h ssh-ed25519 ///",
            f"h ssh-rsa {ONE.line.split()[1]}",
            f"@cert-authority * {ONE.line}",
            "|1|broken " + ONE.line,
            f"h {ONE.line}",
        ]
    )
    entries = [entry for entry in parse_known_hosts(text) if entry.names("h")]
    assert [entry.line for entry in entries] == [7]


async def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    hosts = KnownHosts(tmp_path / "file" / "known_hosts")
    with pytest.raises(KnownHostsError, match=r"cannot be re"):
        await hosts.verify("h", ONE)


async def test_a_folder_is_not_a_known_hosts_file(tmp_path: Path) -> None:
    with pytest.raises(KnownHostsError, match="cannot be read"):
        await KnownHosts(tmp_path).known_types("h")
