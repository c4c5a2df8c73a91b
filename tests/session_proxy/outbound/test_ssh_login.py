"""Which keys are offered, and what goes wrong with them; test_ssh.py logs in to a real server."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import attrs
import pytest

from session_proxy.errors import ExitCode
from session_proxy.events import Event, Notice
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.ssh_login import SshLogin, failed_login
from session_proxy.outbound.transport import Services
from session_proxy.profile.model import INSTANCE_CONNECT, Ssh
from session_proxy.profile.secret import Secret
from tests.support.sshd import generate_key
from tunnel_relay.errors import (
    HostKeyError,
    KnownHostsError,
    SshAuthenticationError,
    SshDisconnectedError,
    SshError,
    SshHandshakeError,
    SshKeyError,
)


@attrs.define(eq=False)
class Home:
    """A home folder, and what was told."""

    path: Path
    environ: dict[str, str] = attrs.field(factory=dict[str, str])
    events: list[Event] = attrs.field(factory=list[Event])

    def login(self, ssh: Ssh | None = None) -> SshLogin:
        environ = {"HOME": str(self.path), **self.environ}
        return SshLogin("dev", ssh or Ssh(), Services(notify=self.events.append, environ=environ))

    def key(self, name: str, passphrase: str = "") -> str:
        """Make ~/.ssh/*name*; return its public line."""
        (self.path / ".ssh").mkdir(exist_ok=True)
        return generate_key(self.path / ".ssh" / name, passphrase=passphrase)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def agent(home: Home) -> Generator[Home, None, None]:
    """A real ssh-agent; its socket's path must be short."""
    socket = home.path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    while not socket.exists():
        assert process.poll() is None
    home.environ["SSH_AUTH_SOCK"] = str(socket)
    yield home
    process.terminate()
    process.wait()


def add_to_agent(home: Home, key: str) -> None:
    subprocess.run(
        ["ssh-add", "-q", str(home.path / ".ssh" / key)],
        check=True,
        env={**os.environ, "SSH_AUTH_SOCK": home.environ["SSH_AUTH_SOCK"]},
    )


async def test_the_users_own_keys_in_the_order_of_ssh(home: Home) -> None:
    home.key("id_rsa")
    home.key("id_ed25519")

    identities = await home.login().identities()

    assert [Path(identity.name).name for identity in identities] == ["id_ed25519", "id_rsa"]


async def test_the_agents_keys_come_first_and_none_comes_twice(agent: Home) -> None:
    agent.key("other")
    agent.key("id_ed25519")
    add_to_agent(agent, "other")
    add_to_agent(agent, "id_ed25519")
    agent.key("id_rsa")

    identities = await agent.login().identities()

    assert len(identities) == 3
    assert [identity.name.startswith("ssh-agent") for identity in identities] == [True, True, False]


async def test_an_agent_that_does_not_answer_is_no_reason_to_give_up(home: Home) -> None:
    home.environ["SSH_AUTH_SOCK"] = str(home.path / "nobody")
    home.key("id_ed25519")

    assert len(await home.login().identities()) == 1


async def test_no_key_at_all(home: Home) -> None:
    """The message says what was looked at and what to do."""
    home.environ["SSH_AUTH_SOCK"] = str(home.path / "nobody")
    home.key("id_ed25519", passphrase="x")

    with pytest.raises(SshKeyError) as caught:
        await home.login().identities()

    assert "nobody" in str(caught.value)
    assert "id_ed25519 is encrypted" in str(caught.value)
    assert "run ssh-add, write key under [upstreams.dev.ssh], or give --key" in str(caught.value)


async def test_a_key_file_is_read_once(home: Home) -> None:
    home.key("prod", passphrase="open sesame")
    secret = Secret("env", "KEY_PASS", "open sesame")
    login = home.login(Ssh(key=str(home.path / ".ssh" / "prod"), passphrase=secret))
    first = await login.identities()

    (home.path / ".ssh" / "prod").unlink()

    assert await login.identities() is first


async def test_a_key_that_others_can_read_draws_a_warning(home: Home) -> None:
    home.key("prod")
    (home.path / ".ssh" / "prod").chmod(0o644)

    await home.login(Ssh(key=str(home.path / ".ssh" / "prod"))).identities()

    (notice,) = home.events
    assert isinstance(notice, Notice)
    assert notice.level == "warning"
    assert "chmod 600" in notice.message


async def test_what_is_no_key_draws_no_advice_about_its_mode(home: Home) -> None:
    """Whoever points at the wrong file is not to change its permissions."""
    path = home.path / "hosts"
    path.write_text("127.0.0.1 localhost\n", "ascii")
    path.chmod(0o644)

    with pytest.raises(SshKeyError):
        await home.login(Ssh(key=str(path))).identities()

    assert not home.events


def test_the_user(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    assert home.login(Ssh(user="ec2-user")).user() == "ec2-user"
    assert home.login().user() == getpass.getuser()
    monkeypatch.setattr(getpass, "getuser", nobody)
    with pytest.raises(LinkFailedError, match=r"\[upstreams.dev.ssh\]") as caught:
        home.login().user()
    assert caught.value.exit_code is ExitCode.CONFIGURATION


def test_instance_connect(home: Home) -> None:
    assert home.login(Ssh(key=INSTANCE_CONNECT)).wants_instance_connect
    assert not home.login(Ssh(key="prod.pem")).wants_instance_connect


@pytest.mark.parametrize(
    ("error", "needs_person", "exit_code"),
    [
        (SshKeyError("no such file"), True, ExitCode.CONFIGURATION),
        (KnownHostsError("cannot be read"), True, ExitCode.CONFIGURATION),
        (HostKeyError("changed"), True, ExitCode.NOT_PERMITTED),
        (SshAuthenticationError("no key taken"), True, ExitCode.NOT_PERMITTED),
        (SshHandshakeError("not SSH"), False, ExitCode.UNREACHABLE),
        (SshDisconnectedError("cut"), False, ExitCode.UNREACHABLE),
    ],
)
def test_what_a_failed_login_means(error: SshError, needs_person: bool, exit_code: ExitCode) -> None:
    failure = failed_login(error)

    assert (str(failure), failure.needs_person, failure.exit_code) == (str(error), needs_person, exit_code)
