"""Every kind of bad profile: where the problem is said to be, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from session_proxy.errors import ExitCode, ProfileError
from session_proxy.profile.loading import load_profile


@attrs.frozen
class Bad:
    """A *profile*, the *path* of its one problem, and parts of the *message* and of the *fix*."""

    name: str
    profile: str
    path: str
    message: str
    fix: str


DEV = '[upstreams.dev]\ninstances = ["i-1"]\n'
SSH = '[upstreams.b]\nkind = "ssh"\naddress = "b:22"\n'


def route(**keys: str) -> str:
    lines = {"match": '"a"', "upstream": '"direct"', **keys}
    return "[[routes]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value)


BAD = [
    # The front door.
    Bad("unknown key", "listn = 1", "listn", "is not a key", 'did you mean "listen"?'),
    Bad("unknown key far from any", "zzz = 1", "zzz", "is not a key", "the keys here are listen, default"),
    Bad("key of another table", "connect = 5", "connect", "is not a key here", "write it under limits"),
    Bad("listen without host", 'listen = ":1080"', "listen", "names no host", 'write "127.0.0.1:1080"'),
    Bad("listen without port", 'listen = "127.0.0.1"', "listen", "has no port", 'write "HOST:PORT"'),
    Bad("listen as a port", "listen = 1080", "listen", "a port without a host", 'write "127.0.0.1:1080"'),
    Bad(
        "listen port too large", 'listen = "127.0.0.1:70000"', "listen", "'70000' is not a port", "HOST:PORT"
    ),
    Bad("listen v6 bare", 'listen = "::1:1080"', "listen", "is ambiguous", "[ADDRESS]:PORT"),
    Bad("listen host nonsense", 'listen = "a b:1"', "listen", "is not a host name", "HOST:PORT"),
    Bad("listen is a table", "[listen]\nport = 1", "listen", "is a table", "HOST:PORT"),
    Bad("listen empty", "listen = []", "listen", "is an empty list", "write at least one"),
    Bad("listen item", 'listen = ["127.0.0.1:1", true]', "listen[1]", "is true or false", "HOST:PORT"),
    Bad("listen twice", 'listen = ["127.0.0.1:1", "127.0.0.1:1"]', "listen[1]", "stands twice", "keep one"),
    Bad("open door", 'listen = "0.0.0.0:1080"', "listen", "without credentials", "allow_anonymous = true"),
    Bad("open v6 door", 'listen = ["127.0.0.1:1", "[::]:1"]', "listen[1]", "without cred", '"127.0.0.1:1"'),
    Bad("open named door", 'listen = "proxy.lan:1"', "listen", "other machines", "[auth]"),
    Bad("anonymous as text", 'allow_anonymous = "yes"', "allow_anonymous", "is text", "write true or false"),
    Bad(
        "anonymous as number", "allow_anonymous = 1", "allow_anonymous", "is a number", "write true or false"
    ),
    Bad("default unknown", 'default = "dve"\n' + DEV, "default", "'dve'", 'did you mean "dev"?'),
    Bad("default far from any", 'default = "x"', "default", "no upstream", "write one of direct, reject"),
    Bad("default is a list", 'default = ["direct"]', "default", "is a list", "write text"),
    Bad("default empty", 'default = ""', "default", "is empty", "remove the key"),
    # Credentials.
    Bad("auth without pass", '[auth]\nuser = "u"', "auth.pass", "is missing", 'write pass = "env:'),
    Bad("auth without user", '[auth]\npass = "p"', "auth.user", "is missing", "write user ="),
    Bad("auth is text", 'auth = "u:p"', "auth", "is text", "write a table with the keys user, pass"),
    Bad("pass is a number", '[auth]\nuser = "u"\npass = 12345', "auth.pass", "is a number", "in quotes"),
    Bad("pass is empty", '[auth]\nuser = "u"\npass = ""', "auth.pass", "is empty", '"env:NAME"'),
    Bad(
        "user too long", f'[auth]\nuser = "{"u" * 256}"\npass = "p"', "auth.user", "255 bytes", "at most 255"
    ),
    Bad(
        "pass too long", f'[auth]\nuser = "u"\npass = "{"p" * 256}"', "auth.pass", "255 bytes", "at most 255"
    ),
    Bad("user with colon", '[auth]\nuser = "u:v"\npass = "p"', "auth.user", "holds a colon", "without one"),
    Bad(
        "variable unset", '[auth]\nuser = "u"\npass = "env:NOPE"', "auth.pass", "NOPE is not set", "set NOPE"
    ),
    Bad(
        "variable empty", '[auth]\nuser = "u"\npass = "env:EMPTY"', "auth.pass", "EMPTY is empty", "set EMPTY"
    ),
    Bad("variable unnamed", '[auth]\nuser = "u"\npass = "env:"', "auth.pass", "names no var", '"env:NAME"'),
    Bad(
        "secret file missing",
        '[auth]\nuser = "u"\npass = "file:no"',
        "auth.pass",
        "no such file",
        "name the file",
    ),
    Bad(
        "secret file a folder",
        '[auth]\nuser = "u"\npass = "file:."',
        "auth.pass",
        "directory",
        "name the file",
    ),
    Bad("secret file unnamed", '[auth]\nuser = "u"\npass = "file:"', "auth.pass", "no file", '"file:PATH"'),
    Bad(
        "command fails", '[auth]\nuser = "u"\npass = "command:exit 3"', "auth.pass", "status 3", "in a shell"
    ),
    Bad("command silent", '[auth]\nuser = "u"\npass = "command:true"', "auth.pass", "nothing", "first line"),
    Bad("command empty", '[auth]\nuser = "u"\npass = "command: "', "auth.pass", "no command", "command:LINE"),
    # Admin and limits.
    Bad("admin without listen", "[admin]", "admin.listen", "is missing", 'write listen = "127.0.0.1:28890"'),
    Bad("admin list", '[admin]\nlisten = ["127.0.0.1:1"]', "admin.listen", "is a list", "HOST:PORT"),
    Bad(
        "admin on the door",
        '[admin]\nlisten = "127.0.0.1:28881"',
        "admin.listen",
        "is taken",
        '"127.0.0.1:28882"',
    ),
    Bad(
        "admin on the door by another name",
        'listen = "localhost:28881"\n[admin]\nlisten = "127.0.0.1:28881"',
        "admin.listen",
        "is taken by the proxy itself",
        '"127.0.0.1:28882"',
    ),
    Bad(
        "listen twice by other names",
        'allow_anonymous = true\nlisten = ["0.0.0.0:1080", "127.0.0.1:1080"]',
        "listen[1]",
        "127.0.0.1:1080 and 0.0.0.0:1080 take the same port",
        "keep one",
    ),
    Bad("limit as text", '[limits]\nconnect = "30"', "limits.connect", "is text", "write a number"),
    Bad("limit with unit", '[limits]\nidle = "1h"', "limits.idle", "is text", "write a number"),
    Bad("limit true", "[limits]\nidle = true", "limits.idle", "is true or false", "write a number"),
    Bad("limit negative", "[limits]\ndrain = -1", "limits.drain", "-1 is out of", "from 0 to 86400"),
    Bad("limit in ms", "[limits]\nconnect = 300000", "limits.connect", "out of range", "from 0.1 to 86400"),
    Bad("limit nan", "[limits]\nidle = nan", "limits.idle", "not a finite number", "write a number"),
    Bad("limit inf", "[limits]\nidle = inf", "limits.idle", "not a finite number", "write a number"),
    Bad(
        "connections half", "[limits]\nconnections = 1.5", "limits.connections", "is a number", "whole number"
    ),
    Bad("connections none", "[limits]\nconnections = 0", "limits.connections", "0 is out of", "from 1 to"),
    Bad("limit misspelt", "[limits]\nhandshaek = 1", "limits.handshaek", "not a key", '"handshake"?'),
    Bad(
        "limits twice named", "limits = 5", "limits", "is a number", "write a table with the keys connections"
    ),
    Bad("a date", "[limits]\nidle = 2020-01-01", "limits.idle", "is a date", "write a number"),
    # Upstreams.
    Bad("upstreams list", "upstreams = []", "upstreams", "is a list", "write [upstreams.NAME] tables"),
    Bad(
        "upstream text", 'upstreams = { dev = "i-1" }', "upstreams.dev", "is text", "write a table with kind"
    ),
    Bad(
        "upstream empty",
        "[upstreams.dev]",
        "upstreams.dev.kind",
        "is missing",
        '"ssm", "ssm-port", "ssh", "awg" or "relay"',
    ),
    Bad("kind as a list", "[upstreams.a]\nkind = []", "upstreams.a.kind", "is a list", '"ssh"'),
    Bad("kind misspelt", '[upstreams.a]\nkind = "shh"', "upstreams.a.kind", "'shh'", 'did you mean "ssh"?'),
    Bad("kind number", "[upstreams.a]\nkind = 1", "upstreams.a.kind", "is a number", '"ssm"'),
    Bad("name direct", SSH.replace(".b", ".direct"), "upstreams.direct", "is reserved", '"my-direct"'),
    Bad("name reject", SSH.replace(".b", ".reject"), "upstreams.reject", "is reserved", '"my-reject"'),
    Bad(
        "name with space",
        SSH.replace(".b", '."a b"'),
        'upstreams."a b"',
        "'a b' cannot be",
        "letters, digits",
    ),
    Bad(
        "ssh without address", '[upstreams.b]\nkind = "ssh"', "upstreams.b.address", "is missing", "address ="
    ),
    Bad("address portless", SSH.replace("b:22", "b"), "upstreams.b.address", "has no port", "HOST:PORT"),
    Bad("address port 0", SSH.replace("b:22", "b:0"), "upstreams.b.address", "0 is not a port", "HOST:PORT"),
    Bad("user outside ssh", SSH + 'user = "me"', "upstreams.b.user", "not a key here", "write it under ssh"),
    Bad("key misspelt", SSH + 'ssh.usr = "me"', "upstreams.b.ssh.usr", "is not a key", '"user"?'),
    Bad("user at host", SSH + 'ssh.user = "me@b"', "upstreams.b.ssh.user", "no user name", "the name alone"),
    Bad(
        "host_keys", SSH + 'ssh.host_keys = "accept"', "upstreams.b.ssh.host_keys", "'accept'", '"accept-new"'
    ),
    Bad(
        "host_keys off", SSH + "ssh.host_keys = false", "upstreams.b.ssh.host_keys", "is true or", '"strict"'
    ),
    Bad(
        "another ssh port",
        SSH + "ssh.port = 2222",
        "upstreams.b.ssh.port",
        "2222 contradicts address",
        "remove",
    ),
    Bad("ssh port", SSH + "ssh.port = 0", "upstreams.b.ssh.port", "0 is out of range", "from 1 to 65535"),
    Bad(
        "key in unknown home",
        SSH + 'ssh.key = "~nobodyatall/k"',
        "upstreams.b.ssh.key",
        "unknown",
        "write the",
    ),
    Bad(
        "passphrase alone",
        SSH + 'ssh.passphrase = "x"',
        "upstreams.b.ssh.passphrase",
        "without a key",
        "write key",
    ),
    Bad(
        "connect by address",
        SSH + 'ssh.key = "instance-connect"\nssh.user = "u"',
        "upstreams.b.ssh.key",
        "EC2",
        'kind = "ssm"',
    ),
    Bad(
        "connect userless",
        DEV + 'ssh.key = "instance-connect"',
        "upstreams.dev.ssh.user",
        "is missing",
        "user =",
    ),
    Bad("startup", DEV + 'startup = "lazy"', "upstreams.dev.startup", "'lazy'", '"required" or "background"'),
    Bad("sessions", DEV + "sessions = 0", "upstreams.dev.sessions", "out of range", "from 1 to 64"),
    Bad(
        "sessions in port",
        DEV + 'kind = "ssm-port"\nsessions = 2',
        "upstreams.dev.sessions",
        "is not a key",
        "instances",
    ),
    Bad(
        "ssh in port",
        DEV + 'kind = "ssm-port"\nssh.user = "u"',
        "upstreams.dev.ssh",
        "is not a key",
        "the keys here",
    ),
    Bad(
        "no instances", '[upstreams.d]\nkind = "ssm"', "upstreams.d.instances", "is missing", '["i-0123456789'
    ),
    Bad(
        "empty instances",
        "[upstreams.d]\ninstances = []",
        "upstreams.d.instances",
        "empty list",
        "at least one",
    ),
    Bad(
        "instance number",
        "[upstreams.d]\ninstances = [1]",
        "upstreams.d.instances[0]",
        "is a number",
        "in quotes",
    ),
    Bad(
        "instance twice",
        '[upstreams.d]\ninstances = ["i-1", "i-1"]',
        "upstreams.d.instances[1]",
        "twice",
        "keep one",
    ),
    Bad(
        "tag alone",
        '[upstreams.d]\ninstances = "tag:Role"',
        "upstreams.d.instances",
        "no tag",
        '"tag:KEY=VALUE"',
    ),
    Bad(
        "name empty",
        '[upstreams.d]\ninstances = "name:"',
        "upstreams.d.instances",
        "no instance",
        '"name:NAME"',
    ),
    Bad(
        "prefix",
        '[upstreams.d]\ninstances = "id:i-1"',
        "upstreams.d.instances",
        "is no instance",
        "write an id",
    ),
    Bad(
        "instances in one",
        '[upstreams.d]\ninstances = "i-1 i-2"',
        "upstreams.d.instances",
        "no instance id",
        "id,",
    ),
    Bad(
        "access key alone",
        DEV + 'aws.access_key = "A"\naws.region = "r"',
        "upstreams.dev.aws.secret_key",
        "missing",
        "secret_key =",
    ),
    Bad(
        "secret key alone",
        DEV + 'aws.secret_key = "A"\naws.region = "r"',
        "upstreams.dev.aws.access_key",
        "missing",
        "access_key =",
    ),
    Bad(
        "keys and profile",
        DEV + 'aws.access_key = "A"\naws.secret_key = "B"\naws.profile = "p"',
        "upstreams.dev.aws.profile",
        "beside inline keys",
        "keep either",
    ),
    Bad(
        "keys without region",
        DEV + 'aws.access_key = "A"\naws.secret_key = "B"',
        "upstreams.dev.aws.region",
        "is missing",
        'region = "eu-west-1"',
    ),
    Bad(
        "token alone",
        DEV + 'aws.session_token = "A"',
        "upstreams.dev.aws.session_token",
        "without the keys",
        "access_key",
    ),
    Bad(
        "region",
        DEV + 'aws.region = "EU (Ireland)"',
        "upstreams.dev.aws.region",
        "is no region",
        '"eu-west-1"',
    ),
    Bad(
        "payload",
        DEV + "data_channel.payload = 1",
        "upstreams.dev.data_channel.payload",
        "out of range",
        "from 256",
    ),
    # Routes.
    Bad(
        "route without match", route(match=""), "routes[0].match", "is missing", 'write match = "10.0.0.0/8"'
    ),
    Bad(
        "route without upstream",
        route(upstream=""),
        "routes[0].upstream",
        "is missing",
        'upstream = "direct"',
    ),
    Bad("routes as text", 'routes = "direct"', "routes", "is text", "match, ports, upstream"),
    Bad("route as text", 'routes = ["direct"]', "routes[0]", "is text", "write a table with the keys match"),
    Bad("route misspelt", route(port="80"), "routes[0].port", "is not a key", 'did you mean "ports"?'),
    Bad("host bits", route(match='"10.1.2.3/8"'), "routes[0].match", "host bits set", 'write "10.0.0.0/8"'),
    Bad(
        "host bits v6",
        route(match='["a", "2001:db8::1/32"]'),
        "routes[0].match[1]",
        "host bits",
        '"2001:db8::/32"',
    ),
    Bad("prefix length", route(match='"10.0.0.0/33"'), "routes[0].match", "prefix length", "up to 32"),
    Bad("netmask", route(match='"10.0.0.0/255.0.0.0"'), "routes[0].match", "is a mask", 'write "10.0.0.0/8"'),
    Bad("inner glob", route(match='"web-*.prod"'), "routes[0].match", "a wildcard", 'write "*.prod"'),
    Bad("match with port", route(match='"db:5432"'), "routes[0].match", "cannot match", "ports = 5432"),
    Bad("match url", route(match='"https://db/x"'), "routes[0].match", "is a URL", "host alone"),
    Bad("match dot", route(match='".prod"'), "routes[0].match", "cannot match", 'write "*.prod"'),
    Bad("match number", route(match="10"), "routes[0].match", "is a number", "in quotes"),
    Bad("match empty list", route(match="[]"), "routes[0].match", "is an empty list", "at least one item"),
    Bad("match empty", route(match='""'), "routes[0].match", "is empty", "write a value"),
    Bad("port 0", route(ports="0"), "routes[0].ports", "0 is not a port", "from 1 to 65535"),
    Bad("port name", route(ports='["https"]'), "routes[0].ports[0]", "'https' is not a port", '"8000-8999"'),
    Bad("ports backwards", route(ports='"90-80"'), "routes[0].ports", "runs backwards", 'write "80-90"'),
    Bad("ports true", route(ports="true"), "routes[0].ports", "is true or false", "write a number"),
    Bad("ports empty", route(ports="[]"), "routes[0].ports", "is an empty list", "remove the key"),
    Bad(
        "upstream unknown",
        DEV + route(upstream='"dve"'),
        "routes[0].upstream",
        "'dve'",
        'did you mean "dev"?',
    ),
    Bad("upstream item", DEV + route(upstream='["dev", "Dev"]'), "routes[0].upstream[1]", "'Dev'", '"dev"?'),
    Bad("upstream direkt", route(upstream='"direkt"'), "routes[0].upstream", "'direkt'", '"direct"?'),
    Bad(
        "upstream twice", DEV + route(upstream='["dev", "dev"]'), "routes[0].upstream[1]", "twice", "keep one"
    ),
    Bad(
        "reject in a list",
        DEV + route(upstream='["dev", "reject"]'),
        "routes[0].upstream",
        "in a list",
        "alone",
    ),
    Bad("upstream empty", route(upstream="[]"), "routes[0].upstream", "is an empty list", "at least one"),
    Bad("resolve", route(resolve='"locally"'), "routes[0].resolve", "'locally'", '"remote" or "local"'),
    Bad(
        "shadowed",
        route(match='"*.a"') + route(match='"b.a"', upstream='"reject"'),
        "routes[1].match",
        "routes[0] takes everything",
        "move it before routes[0]",
    ),
    Bad("repeated", route() + route(), "routes[1].match", "can never match", "remove it"),
    Bad(
        "after everything",
        route(match='"*"') + route(match='"::/0"'),
        "routes[1].match",
        "can never",
        "remove it",
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_one_problem_is_reported_where_it_is_with_what_to_write(bad: Bad, tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text(bad.profile)

    with pytest.raises(ProfileError) as info:
        load_profile(file, environ={"EMPTY": ""})

    (problem,) = info.value.problems
    assert problem.path == bad.path
    assert bad.message in problem.message
    assert bad.fix in problem.fix
    assert str(info.value) == f"{file}: {problem.path}: {problem.message}; {problem.fix}"
    assert info.value.exit_code is ExitCode.CONFIGURATION


SYNTAX = [
    ("profile.toml", "listen = '127.0.0.1:1'\ndefault = direct\n", 2, "not TOML", "into quotes"),
    ("profile.toml", 'default = "direct"\nlisten "x"\n', 2, "not TOML", "check the quotes"),
    (
        "profile.toml",
        'default = "direct"\n\ndefault = "reject"\n',
        3,
        "default stands twice",
        "keep one of them",
    ),
    (
        "profile.toml",
        "[limits]\nidle = 1\n[limits]\ndrain = 1\n",
        3,
        "[limits] stands twice",
        "keep one of them",
    ),
    ("profile.toml", '[routes]\nmatch = "a"\n[[routes]]\n', 3, "[[routes]] stands twice", "[[routes]]"),
    (
        "profile.toml",
        'listen = "127.0.0.1:1"\nupstreams:\n  dev:\n',
        2,
        "looks like YAML",
        "call the file .yaml",
    ),
    ("profile.toml", 'listen = "127.0.0.1:1\n', 1, "not TOML", ""),
    ("profile.toml", 'routes = [\n{ match = "a"\n', 2, "not TOML", "brackets"),
    ("profile.yaml", "listen: 127.0.0.1:1\nlimits:\n\tidle: 5\n", 3, "a tab indents", "indent with spaces"),
    (
        "profile.yaml",
        "listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n",
        2,
        "listen stands twice",
        "keep one of them",
    ),
    ("profile.yaml", "limits: {idle: 5\ndefault: direct\n", 2, "not YAML", "check the indentation"),
    ("profile.yaml", "default: direct\n idle: 5\n", 2, "a colon is where no key can be", "indent"),
    ("profile.yaml", "default: direct\n---\ndefault: reject\n", 2, "a second document", "keep one"),
    ("profile.yaml", "default: *missing\n", 1, "undefined alias", "define the anchor"),
    ("profile.yaml", "a: &a [*a]\n", 1, "within its own anchor", "write the value out"),
    ("profile.yaml", "default: !!python/object:os.system x\n", 1, "is not known", "remove it"),
    ("profile.yaml", "a: &a {x: 1}\nb:\n  <<: *a\n", 3, "<< merges", "write the keys out"),
    ("profile.yaml", "- direct\n", 1, "is not a table", "KEY: VALUE"),
    ("profile.yaml", "? [a]\n: b\n", 1, "a key is not text", "KEY: VALUE"),
]


@pytest.mark.parametrize(("name", "text", "line", "message", "fix"), SYNTAX)
def test_broken_syntax_is_reported_with_its_line(
    name: str, text: str, line: int, message: str, fix: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(text)

    with pytest.raises(ProfileError) as info:
        load_profile(file, environ={})

    (problem,) = info.value.problems
    assert (problem.line, problem.path) == (line, "")
    assert message in problem.message
    assert fix in problem.fix
    assert str(info.value).startswith(f"{file}:{line}: ")


def test_every_problem_is_reported_in_one_run(tmp_path: Path) -> None:
    """Faults in different places, and of different kinds, do not hide one another."""
    file = tmp_path / "profile.toml"
    file.write_text(
        """
        listen = "0.0.0.0:x"
        defalt = "direct"
        default = "dve"
        [auth]
        user = "me"
        pas = "x"
        [limits]
        connect = "5"
        idle = -1
        [upstreams.dev]
        instances = ["i-1", 3]
        user = "me"
        ssh.host_keys = "no"
        [upstreams.edge]
        kind = "rely"
        [[routes]]
        match = ["10.0.0.1/8", "web-*"]
        upstream = "dew"
        ports = "x"
        [[routes]]
        match = "*.x"
        upstream = ["dev", "reject"]
        [[routes]]
        match = "b.x"
        upstream = "edge"
        """
    )

    with pytest.raises(ProfileError) as info:
        load_profile(file, environ={})

    assert sorted(problem.path for problem in info.value.problems) == [
        "auth.pas",
        "auth.pass",
        "defalt",
        "default",
        "limits.connect",
        "limits.idle",
        "listen",
        "routes[0].match[0]",
        "routes[0].match[1]",
        "routes[0].ports",
        "routes[0].upstream",
        "routes[1].upstream",
        "routes[2].match",
        "upstreams.dev.instances[1]",
        "upstreams.dev.ssh.host_keys",
        "upstreams.dev.user",
        "upstreams.edge.kind",
    ]
    assert str(info.value).count("\n") == len(info.value.problems) - 1


def test_no_problem_shows_a_secret(tmp_path: Path) -> None:
    """Not even a misplaced one: values of secret or unknown keys are never repeated."""
    file = tmp_path / "profile.toml"
    file.write_text(
        """
        password = "hunter2"
        [auth]
        user = "u"
        pass = ["hunter2"]
        [upstreams.dev]
        instances = "i-1"
        aws.access_key = "hunter2"
        aws.session_token = "hunter2"
        """
    )

    with pytest.raises(ProfileError) as info:
        load_profile(file, environ={})

    assert "hunter2" not in str(info.value)
