"""Files of sproxy awg-server and awg-client, as text."""

from __future__ import annotations

import attrs

from awg_obfs.protocol.keys import key_to_text, public_key_of

SERVER_KEY = bytes(range(32))
CLIENT_KEY = bytes(range(1, 33))
SERVER_PUBLIC = key_to_text(public_key_of(SERVER_KEY))
CLIENT_PUBLIC = key_to_text(public_key_of(CLIENT_KEY))


@attrs.frozen
class ServerText:
    """A ``server.toml``, whose parts tests replace."""

    keys: str = f'listen = "127.0.0.1:4443"\nprivate_key = "{key_to_text(SERVER_KEY)}"\n'
    awg: str = ""
    peers: str = f'[[peers]]\nname = "laptop"\npublic_key = "{CLIENT_PUBLIC}"\n'
    more: str = ""

    def __str__(self) -> str:
        return f"{self.keys}[awg]\n{self.awg}\n{self.peers}\n{self.more}\n"


@attrs.frozen
class ClientText:
    """A ``client.toml``, or an upstream's table, whose parts tests replace."""

    listen: str = 'listen = "127.0.0.1:0"\n'
    keys: str = (
        'endpoint = "127.0.0.1:4443"\n'
        f'private_key = "{key_to_text(CLIENT_KEY)}"\npublic_key = "{SERVER_PUBLIC}"\n'
    )
    auth: str = '[auth]\nuser = "app"\npass = "sesame"\n'
    awg: str = ""
    more: str = ""

    def __str__(self) -> str:
        return f"{self.listen}{self.keys}{self.auth}[awg]\n{self.awg}\n{self.more}\n"

    def as_upstream(self, name: str = "edge") -> str:
        """Return the tables of a profile."""
        return (
            f'[upstreams.{name}]\nkind = "awg"\n{self.keys}[upstreams.{name}.awg]\n{self.awg}\n{self.more}\n'
        )


# Four ranges and paddings that the lint finds nothing wrong with.
SOUND = """\
s1 = 20
s2 = 30
s3 = 25
h1 = "100000-200000"
h2 = "300000-400000"
h3 = "500000-600000"
h4 = "700000-800000"
"""
