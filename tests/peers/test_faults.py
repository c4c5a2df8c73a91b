"""What goes wrong on the way to an instance: bytes arrive whole, or there is one clear error, in bounded time."""

from __future__ import annotations

import hashlib
import subprocess
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import tomli_w

from tests.support.curl import OK, curl, needs_curl
from tests.support.programs import END, Lab, run_sproxy, start_lab, start_sproxy

pytestmark = needs_curl

LENGTH = 3_000_000
EXPECTED = hashlib.sha256((bytes(range(256)) * (LENGTH // 256 + 1))[:LENGTH]).hexdigest()

UNREACHABLE, NOT_PERMITTED = 69, 77

# As many bytes of an endless transfer as show that it is under way.
WELL_INTO_IT = 200_000

# Faults that no user may notice; in frames of 4 KiB, so that there are enough of them to go wrong.
HEALED = [
    ["drop-output=7"],
    ["drop-input=3"],
    ["duplicate-output=3", "duplicate-input=3"],
    ["reorder-output=5", "reorder-input=5"],
    ["drop-acks-to-client=4", "drop-acks-to-agent=4"],
    ["wrong-digest=9", "wrong-header=11"],
    ["refuse-input=4", "connect-delay=0.3"],
    ["pause-first=on", "closed-116=on", "resend-head-only=on"],
    ["cut-after=200"],
    ["cut-after=300", "cut-loses=5"],
    ["close-after=1.5", "drop-output=50"],
    ["drop-output=11", "reorder-output=7", "duplicate-output=5", "drop-acks-to-agent=9"],
]


def only(lab: Lab, transport: str, folder: Path) -> Path:
    """Return a profile like the lab's in which everything goes by *transport*, and nothing else is opened."""
    content = tomllib.loads(lab.profile.read_text())
    profile = folder / "one.toml"
    upstreams = {transport: content["upstreams"][transport]}
    profile.write_text(tomli_w.dumps({"listen": "127.0.0.1:0", "default": transport, "upstreams": upstreams}))
    return profile


def options(faults: Sequence[str]) -> list[str]:
    return ["--payload", "4096", *(part for fault in faults for part in ("--fault", fault))]


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["ssm", "ssm-port"])
@pytest.mark.parametrize("faults", HEALED, ids=",".join)
def test_what_can_be_healed_is(faults: list[str], transport: str, tmp_path: Path) -> None:
    with start_lab(tmp_path / "lab", *options(faults)) as lab:
        profile = only(lab, transport, tmp_path)
        url = f"http://{lab.target(transport).http}"
        (tmp_path / "payload").write_bytes((bytes(range(256)) * (LENGTH // 256 + 1))[:LENGTH])
        with start_sproxy(profile, env=lab.env) as proxy:
            through = ("-x", f"socks5h://{proxy.address}")
            down = curl(*through, f"{url}/bytes/{LENGTH}", patience=60)
            up = curl(*through, "--upload-file", str(tmp_path / "payload"), f"{url}/up", patience=60)

    assert (down.returncode, hashlib.sha256(down.stdout).hexdigest()) == (OK, EXPECTED), down.stderr
    assert (up.returncode, up.stdout.decode()) == (OK, EXPECTED), up.stderr


# What a person has to change: the start fails with one line and its code.
HOPELESS = [
    ("start-error=AccessDeniedException", NOT_PERMITTED, "ssm:StartSession"),
    ("start-error=ExpiredTokenException", NOT_PERMITTED, "have expired"),
    ("start-error=TargetNotConnected", UNREACHABLE, "is not connected to Session Manager"),
    pytest.param("connect-fails=on", UNREACHABLE, "sshd", marks=pytest.mark.slow),  # ten seconds of silence
]


@pytest.mark.parametrize(("fault", "code", "says"), HOPELESS)
def test_what_cannot_is_one_line(fault: str, code: int, says: str, tmp_path: Path) -> None:
    with start_lab(tmp_path / "lab", *options([fault])) as lab:
        profile = only(lab, "ssm", tmp_path)
        env = {**lab.env, "XDG_RUNTIME_DIR": str(tmp_path)}

        ended = run_sproxy("run", str(profile), "--log-level", "error", env=env)

    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_an_unknown_host_key_is_one_line(tmp_path: Path) -> None:
    with start_lab(tmp_path / "lab") as lab:
        profile = only(lab, "ssh", tmp_path)
        content = tomllib.loads(profile.read_text())
        content["upstreams"]["ssh"]["ssh"]["host_keys"] = "strict"
        profile.write_text(tomli_w.dumps(content))

        ended = run_sproxy("run", str(profile), env={**lab.env, "XDG_RUNTIME_DIR": str(tmp_path)})

    assert ended.returncode == NOT_PERMITTED, ended.stderr
    assert "check the fingerprint" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["ssh", "ssm", "ssm-port"])
def test_streams_of_a_far_end_that_dies_end_and_do_not_hang(transport: str, tmp_path: Path) -> None:
    with start_lab(tmp_path / "lab", "--pace") as lab:
        profile = only(lab, transport, tmp_path)
        with start_sproxy(profile, env=lab.env) as proxy:
            url = f"http://{lab.target(transport).http}/bytes/{1 << 32}"
            file = tmp_path / "arrived"
            argv = ["curl", "-q", "-sS", "-N", "-x", f"socks5h://{proxy.address}", "-o", str(file), url]
            with subprocess.Popen(argv) as download:
                proxy.wait_for(lambda: proxy.find("upstream up"))
                proxy.wait_for(lambda: file.exists() and file.stat().st_size > WELL_INTO_IT)
                lab.process.kill()
                began = time.monotonic()
                assert download.wait(90) != OK
                assert time.monotonic() - began < 90
            assert proxy.stop() == 0
            assert time.monotonic() - began < 90 + END
