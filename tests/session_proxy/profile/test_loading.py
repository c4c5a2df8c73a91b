from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from session_proxy.errors import ProfileError
from session_proxy.policy.rules import GlobMatch, Rule
from session_proxy.profile.loading import find_profile, load_file, load_profile, single_upstream_profile
from session_proxy.profile.model import ListenAddress, Profile, SshUpstream, SsmPortUpstream, SsmUpstream
from session_proxy.profile.structuring import Structurer

# The example of the product's first design document, unchanged.
SEED = """\
listen: "127.0.0.1:28881"

auth:  # Optional SOCKS5 authentication
  user: admin
  pass: secret

upstreams:
  dev:
    ssh:
      user: ec2-user
    aws:
      profile: default  # Region auto-detected
    instances: [i-dev-1, i-dev-2]

  prod:
    ssh:
      user: admin
      key: ~/.ssh/prod.pem
    aws:
      profile: prod
    instances: [i-prod-1]

routes:
  - match: "10.0.0.0/8"
    upstream: dev
  - match: "*.prod.internal"
    upstream: prod

default: dev
"""

WHOLE = """\
listen = ["127.0.0.1:28881", "[::1]:0"]
default = "reject"
allow_anonymous = false

[auth]
user = "admin"
pass = "env:SPROXY_PASS"

[admin]
listen = "127.0.0.1:28890"

[limits]
connections = 10
handshake = 1
connect = 2.5
idle = 3
drain = 0

[failover]
back_after = 5

[upstreams.dev]
instances = ["i-0123456789abcdef0", "tag:Role=bastion", "name:web-1"]
sessions = 8
startup = "background"
aws.region = "eu-west-1"
aws.access_key = "env:KEY"
aws.secret_key = "file:secret"
aws.session_token = "command:printf 'token\\nmore'"
ssh.user = "ec2-user"
ssh.key = "keys/prod.pem"
ssh.passphrase = "env:KEY_PASS"
ssh.host_keys = "strict"
ssh.known_hosts = "~/hosts"
ssh.port = 2222
data_channel = { payload = 1024, frames_per_second = 500, resume = 5 }

[upstreams.db]
kind = "ssm-port"
instances = "i-1"

[upstreams.bastion]
kind = "ssh"
address = "[2001:DB8::1]:22"

[[routes]]
match = ["*.prod.internal", "10.0.0.0/8"]
ports = [443, "8000-8999"]
upstream = ["dev", "bastion"]
resolve = "local"

[[routes]]
match = "*.db"
upstream = "db"
"""

ENVIRON = {"HOME": "/home/me", "SPROXY_PASS": "pass", "KEY": "key", "KEY_PASS": "phrase"}


def write(folder: Path, text: str, name: str = "profile.toml") -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(0o600)
    return file


def load(folder: Path, text: str, environ: Mapping[str, str] = ENVIRON, **overrides: object) -> Profile:
    return load_profile(write(folder, text), environ=environ, overrides=overrides)


def test_the_first_design_documents_example_loads_unchanged(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, SEED, "config.yaml"), environ={"HOME": "/home/me"})

    dev, prod = profile.upstreams["dev"], profile.upstreams["prod"]
    assert isinstance(dev, SsmUpstream)
    assert isinstance(prod, SsmUpstream)
    assert (dev.instances, dev.ssh.user, dev.aws.profile) == (("i-dev-1", "i-dev-2"), "ec2-user", "default")
    assert (prod.ssh.key, prod.startup) == ("/home/me/.ssh/prod.pem", "required")
    assert profile.routes == (Rule.of("10.0.0.0/8", "dev"), Rule.of("*.prod.internal", "prod"))
    assert profile.auth is not None
    assert (profile.auth.user, profile.auth.password.reveal()) == ("admin", "secret")
    assert (profile.default, profile.name) == ("dev", "config")


def test_every_key_is_read(tmp_path: Path) -> None:
    write(tmp_path, "secret\n", "secret")
    profile = load(tmp_path, WHOLE)

    assert profile.listen == (ListenAddress("127.0.0.1", 28881), ListenAddress("::1", 0))
    assert attrs.astuple(profile.limits) == (10, 1, 2.5, 3, 0)
    assert profile.failover.back_after == 5
    assert profile.admin is not None
    assert str(profile.admin.listen) == "127.0.0.1:28890"
    dev, db, bastion = profile.upstreams.values()
    assert isinstance(dev, SsmUpstream)
    assert (dev.sessions, dev.startup, len(dev.instances)) == (8, "background", 3)
    keys = (dev.aws.access_key, dev.aws.secret_key, dev.aws.session_token, dev.ssh.passphrase)
    assert [key and key.reveal() for key in keys] == ["key", "secret", "token", "phrase"]
    assert (dev.ssh.key, dev.ssh.known_hosts) == (str(tmp_path / "keys/prod.pem"), Path("/home/me/hosts"))
    assert (dev.ssh.host_keys, dev.ssh.port) == ("strict", 2222)
    assert attrs.astuple(dev.data_channel) == (1024, 500, 5)
    assert isinstance(db, SsmPortUpstream)
    assert (db.instances, db.startup) == (("i-1",), "required")
    assert isinstance(bastion, SshUpstream)
    assert (str(bastion.address), bastion.startup) == ("[2001:db8::1]:22", "background")
    assert bastion.ssh.known_hosts == Path("/home/me/.ssh/known_hosts")
    assert profile.routes[0].match[0] == GlobMatch("prod.internal")
    assert (str(profile.routes[0].ports), profile.routes[0].resolve) == ("443, 8000-8999", "local")


def test_an_empty_profile_is_a_direct_proxy(tmp_path: Path) -> None:
    profile = load(tmp_path, "")

    assert profile == Profile(file=tmp_path / "profile.toml", name="profile")


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    as_toml = load_profile(write(tmp_path, 'listen = "[::1]:1"\nlimits.idle = 5\n', "a.toml"), environ={})
    as_yaml = load_profile(write(tmp_path, "listen: '[::1]:1'\nlimits: {idle: 5}\n", "a.yml"), environ={})

    assert attrs.evolve(as_toml, file=None) == attrs.evolve(as_yaml, file=None)


def test_no_secret_shows(tmp_path: Path) -> None:
    write(tmp_path, "secret", "secret")
    shown = repr(load(tmp_path, WHOLE, {**ENVIRON, "SPROXY_PASS": "hunter2", "KEY": "hunter2"}))

    assert "hunter2" not in shown
    assert "<secret from env SPROXY_PASS>" in shown


def test_variables_override_the_file_and_flags_override_variables(tmp_path: Path) -> None:
    environ = {
        "SPROXY_LISTEN": "127.0.0.1:1,[::1]:2",
        "SPROXY_LIMITS_CONNECT": "5",
        "SPROXY_LIMITS_IDLE": "7.5",
    }
    profile = load(
        tmp_path, "limits.connect = 1", environ, **{"limits.idle": 9, "admin.listen": "127.0.0.1:3"}
    )

    assert [str(address) for address in profile.listen] == ["127.0.0.1:1", "[::1]:2"]
    assert (profile.limits.connect, profile.limits.idle) == (5, 9)
    assert profile.admin is not None


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    environ = {
        "SPROXY_LIMITS_CONNECT": "soon",
        "SPROXY_LISTEN": "127.0.0.1:1,nowhere",
        "SPROXY_AUTH_PASS": "",
    }

    with pytest.raises(ProfileError) as info:
        load(tmp_path, '[auth]\nuser = "u"\npass = "p"', environ)

    assert [problem.path for problem in info.value.problems] == [
        "SPROXY_LISTEN",
        "SPROXY_AUTH_PASS",
        "SPROXY_LIMITS_CONNECT",
    ]


def test_a_mistyped_variable_is_warned_of(tmp_path: Path) -> None:
    warnings: list[str] = []
    environ = {"SPROXY_LIMITS_CONECT": "5", "SPROXY_LISTENS": "x", "SPROXY_SECRET": "p", "PATH": "/bin"}
    file = write(tmp_path, '[auth]\nuser = "u"\npass = "env:SPROXY_SECRET"')
    load_profile(file, environ=environ, warn=warnings.append)

    assert warnings == [
        "the variable SPROXY_LIMITS_CONECT overrides nothing; did you mean SPROXY_LIMITS_CONNECT?",
        "the variable SPROXY_LISTENS overrides nothing; did you mean SPROXY_LISTEN?",
    ]


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True), (0o622, False)])
def test_literal_secrets_that_others_can_read_are_warned_of(mode: int, warned: bool, tmp_path: Path) -> None:
    warnings: list[str] = []
    file = write(tmp_path, '[auth]\nuser = "u"\npass = "hunter2"')
    file.chmod(mode)
    load_profile(file, environ={}, warn=warnings.append)

    assert bool(warnings) is warned
    assert all(
        "auth.pass" in text and f"chmod 600 {file}" in text and "hunter2" not in text for text in warnings
    )


def test_readable_files_without_literals_are_fine(tmp_path: Path) -> None:
    """A secret that a variable overrides is not in the file either."""
    warnings: list[str] = []
    file = write(tmp_path, '[auth]\nuser = "u"\npass = "env:P"')
    file.chmod(0o644)
    load_profile(file, environ={"P": "p", "SPROXY_AUTH_PASS": "q"}, warn=warnings.append)

    assert warnings == []


def test_what_was_hardly_meant_is_warned_of(tmp_path: Path) -> None:
    warnings: list[str] = []
    text = (
        '[upstreams.a]\ninstances = "i-1"\nssh.key = "no.pem"\n'
        '[[routes]]\nmatch = "x"\nresolve = "local"\nupstream = "direct"'
    )
    load_profile(write(tmp_path, text), environ={}, warn=warnings.append)

    assert [warning.partition("profile.toml: ")[2] for warning in warnings] == [
        f"upstreams.a.ssh.key: there is no file {tmp_path / 'no.pem'}",
        "upstreams.a: no route leads there, and the default does not either",
        'routes[0].resolve: "local" does nothing here; it is for CIDRs',
    ]


def test_profiles_are_searched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, configured = tmp_path / "here", tmp_path / "xdg" / "session-proxy"
    here.mkdir()
    configured.mkdir(parents=True)
    monkeypatch.chdir(here)
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}

    with pytest.raises(ProfileError) as info:
        load_profile(None, environ=environ)
    assert str(info.value) == (
        f"there is no profile; write ./config.toml or {configured / 'config.toml'}, or name a file"
    )

    write(configured, 'default = "reject"', "config.toml")
    assert load_profile(None, environ=environ).default == "reject"
    write(here, "default: direct", "config.yaml")
    assert find_profile(environ) == Path("config.yaml")
    write(here, "", "config.toml")
    warnings: list[str] = []
    assert find_profile(environ, warnings.append) == Path("config.toml")
    assert warnings == ["config.yaml: is not read, since config.toml comes first"]


def test_the_home_folder_holds_profiles_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "me" / ".config" / "session-proxy"
    folder.mkdir(parents=True)
    file = write(folder, "", "config.yml")

    assert find_profile({"HOME": str(tmp_path / "me")}) == file


def test_a_profile_may_be_given_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "hunter2", "pass")
    write(tmp_path, '[auth]\nuser = "u"\npass = "file:pass"')

    profile = load_profile(Path("profile.toml"), environ={})
    assert profile.auth is not None
    assert profile.auth.password.reveal() == "hunter2"


def test_one_instance_needs_no_profile() -> None:
    profile = single_upstream_profile(
        "name:web", "me", "~/k.pem", "prod", "eu-west-1", "127.0.0.1:0", environ={"HOME": "/home/me"}
    )

    (upstream,) = profile.upstreams.values()
    assert isinstance(upstream, SsmUpstream)
    assert (upstream.instances, upstream.ssh.user, upstream.ssh.key) == (
        ("name:web",),
        "me",
        "/home/me/k.pem",
    )
    assert (upstream.aws.profile, upstream.aws.region) == ("prod", "eu-west-1")
    assert (profile.default, upstream.startup) == ("instance", "required")
    assert (profile.file, profile.name, profile.listen) == (
        None,
        "instance",
        (ListenAddress("127.0.0.1", 0),),
    )


def test_variables_count_without_a_profile_too() -> None:
    environ = {"SPROXY_LISTEN": "127.0.0.1:1", "SPROXY_LIMITS_DRAIN": "0"}

    assert str(single_upstream_profile("i-1", environ=environ).listen[0]) == "127.0.0.1:1"
    profile = single_upstream_profile("i-1", listen="127.0.0.1:2", environ=environ)
    assert (str(profile.listen[0]), profile.limits.drain) == ("127.0.0.1:2", 0)


def test_problems_without_a_profile_name_the_option() -> None:
    with pytest.raises(ProfileError) as info:
        single_upstream_profile("tag:x", "me@host", "~nobodyatall/k", "p", "E U", "0.0.0.0:1", environ={})

    assert sorted(problem.path for problem in info.value.problems) == [
        "--instance",
        "--key",
        "--listen",
        "--region",
        "--user",
    ]
    assert str(info.value).startswith("--key: ")


AWS = "SPROXY_UPSTREAMS_INSTANCE_AWS"


@pytest.mark.parametrize(
    ("environ", "key", "problems"),
    [
        ({"SPROXY_AUTH_USER": "u"}, None, ["SPROXY_AUTH_PASS: is missing; set it"]),
        (
            {f"{AWS}_SECRET_KEY": "x"},
            None,
            [
                f"{AWS}_ACCESS_KEY: is missing beside {AWS}_SECRET_KEY; set it",
                "--region: is missing beside inline keys; set it",
            ],
        ),
        ({}, "instance-connect", ['--user: is missing beside key = "instance-connect"; set it']),
    ],
)
def test_what_is_missing_without_a_profile_is_not_to_be_written_into_one(
    environ: dict[str, str], key: str | None, problems: list[str]
) -> None:
    with pytest.raises(ProfileError) as info:
        single_upstream_profile("i-1", key=key, environ=environ)

    assert str(info.value).splitlines() == problems


def test_a_mistyped_variable_is_warned_of_without_a_profile_too() -> None:
    warnings: list[str] = []
    environ = {"SPROXY_UPSTREAMS_INSTANCE_SSH_POTR": "23"}

    single_upstream_profile("i-1", environ=environ, warn=warnings.append)

    assert len(warnings) == 1
    assert "did you mean SPROXY_UPSTREAMS_INSTANCE_SSH_PORT?" in warnings[0]


@attrs.frozen(kw_only=True)
class Server:
    """A file of another daemon.

    Attributes:
      state: A folder.
      verbose: A flag.

    """

    state: Path
    verbose: bool = False


def test_other_files_are_read_the_same_way(tmp_path: Path) -> None:
    def check(server: Server, notes: Structurer) -> None:
        if server.verbose:
            notes.note("verbose", "is noisy", "write false")

    file = write(tmp_path, 'state = "var"', "server.toml")

    assert load_file(file, Server, environ={}, check=check) == Server(state=tmp_path / "var")
    with pytest.raises(ProfileError, match="SPROXY_VERBOSE: is noisy; write false"):
        load_file(file, Server, environ={"SPROXY_VERBOSE": "true"}, check=check)
    with pytest.raises(ProfileError, match="state: is missing; write state"):
        load_file(write(tmp_path, "", "server.toml"), Server, environ={}, check=check)
