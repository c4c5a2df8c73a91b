"""``sproxy relay-token``: tokens for a relay's users and agents, and the keys that sign them."""

from __future__ import annotations

import enum
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_proxy.profile.secret_sources import InvalidValueError
from session_proxy.profile.values import MAX_USER, check_plain_name, check_user_name

if TYPE_CHECKING:
    from tunnel_relay.protocol.tokens import Scope


class KeyAlgorithm(enum.StrEnum):
    """What a new key signs with."""

    EDDSA = "EdDSA"
    RS256 = "RS256"
    HS256 = "HS256"


def relay_token(
    key: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="FILE",
            help="What signs the token: a private key (JWK, JWKS or PEM), or the secret of HS256.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(metavar="USER", help="Whose the token is: agents and clients of one user meet."),
    ] = None,
    tier: Annotated[
        str, typer.Option(metavar="TIER", help="What the user may do. Default: free.", show_default=False)
    ] = "free",
    scope: Annotated[
        str,
        typer.Option(
            metavar="SCOPE", help="client, agent, or both: client,agent. Default: client.", show_default=False
        ),
    ] = "client",
    expires: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="How long it holds: 90s, 15m, 12h, 30d or 4w. Default: 30d.",
            show_default=False,
        ),
    ] = "30d",
    audience: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The audience of the relay's [jwt]. Default: session-proxy.",
            show_default=False,
        ),
    ] = "session-proxy",
    kid: Annotated[
        str | None, typer.Option(metavar="KID", help="Which of the file's keys, or what the relay calls it.")
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(
            readable=False, metavar="FILE", help="Make a key instead, and print what the relay verifies with."
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Print what the relay verifies --key's tokens with, instead.")
    ] = False,
    algorithm: Annotated[
        KeyAlgorithm, typer.Option(help="What the new key signs with.")
    ] = KeyAlgorithm.EDDSA,
) -> None:
    """Issue a token, or make a key that signs tokens.

    The token alone is printed on stdout; its id, by which it can be revoked, on stderr. A new key is a file that
    only its owner may read; printed is the JWKS for "keys" of relay.toml, but for HS256, whose one secret does both.
    """
    if (key is None) == (new_key is None):
        raise typer.BadParameter(
            "write --key FILE to issue a token, or --new-key FILE to make a key", param_hint="--key"
        )
    if new_key is not None:
        if user is not None:
            raise typer.BadParameter("a key is nobody's; issue the token with --key", param_hint="--user")
        if public:
            raise typer.BadParameter("--new-key prints it already", param_hint="--public")
        _make_key(new_key, algorithm)
    elif key is not None:
        if public:
            _print_public(key)
            return
        if user is None:
            raise typer.BadParameter("write --user USER: whose token it is", param_hint="--user")
        _issue(key, kid, user, tier, scope, expires, audience)


def _make_key(file: Path, algorithm: KeyAlgorithm) -> None:
    import os

    from session_proxy.profile.private_files import OutputError, write_new
    from session_proxy.profile.relay_tokens import new_key

    if file.exists():
        # The shell may have emptied what was printed the last time.
        again = f"sproxy relay-token --key {shlex.quote(str(file))} --public"
        raise OutputError(f"{file}: is there already; name another file, or print its JWKS again: {again}")
    made = new_key(algorithm.value, os.urandom)
    write_new({file: made.private})
    if made.public is None:
        said = f'the secret that signs and verifies; the relay needs it too: algorithms = "{algorithm}"'
    else:
        typer.echo(made.public, nl=False)
        said = f'signs tokens: keep it; the relay gets what is printed: algorithms = "{algorithm}"'
    typer.echo(f"{file}: {said}", err=True)
    typer.echo(f"issue tokens with: sproxy relay-token --key {shlex.quote(str(file))} --user USER", err=True)


def _print_public(file: Path) -> None:
    from session_proxy.profile.relay_tokens import public_keys

    typer.echo(public_keys(file), nl=False)


def _issue(
    file: Path, kid: str | None, user: str, tier: str, scope: str, expires: str, audience: str
) -> None:
    import datetime as dt
    import os
    import time

    from session_proxy.profile.relay_tokens import read_duration, read_signing_key
    from tunnel_relay.protocol.tokens import MAX_TOKEN, Claims, issue

    try:
        check_user_name(user)
    except InvalidValueError:
        text = f"write up to {MAX_USER} characters"
        raise typer.BadParameter(f"{user!r} is no user; {text}", param_hint="--user") from None
    try:
        check_plain_name(tier)
    except InvalidValueError as exc:
        raise typer.BadParameter(f"{exc}; {exc.fix}", param_hint="--tier") from exc
    try:
        seconds = read_duration(expires)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--expires") from exc
    scopes = _read_scopes(scope)
    now = time.time()
    claims = Claims(user, float(int(now) + seconds), tier, frozenset(scopes), os.urandom(16).hex())
    if not audience.strip():
        raise typer.BadParameter("write the audience that the relay demands", param_hint="--audience")
    token = issue(claims, read_signing_key(file, kid), audience=audience, now=now)
    if len(token) > MAX_TOKEN:
        raise typer.BadParameter("the token would be too long for a relay", param_hint="--audience")
    if stat.S_ISREG(mode := file.stat().st_mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        typer.echo(f"warning: {file}: others can read it; chmod 600 {shlex.quote(str(file))}", err=True)
    typer.echo(token)
    until = dt.datetime.fromtimestamp(claims.expires, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    words = ", ".join(each.value for each in scopes)
    typer.echo(f"{user!r}, tier {tier}, {words}: until {until}; its id is {claims.token_id}", err=True)


def _read_scopes(text: str) -> Sequence[Scope]:
    from tunnel_relay.protocol.tokens import Scope

    try:
        return sorted({Scope(word.strip()) for word in text.split(",")}, key=lambda each: each.value)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no scope; write client, agent or client,agent", param_hint="--scope"
        ) from None
