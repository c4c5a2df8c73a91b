"""What has to hold between the values of a profile, once each of them is good by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from session_proxy.policy.rules import REJECT
from session_proxy.policy.shadowing import find_shadows
from session_proxy.profile.addresses import collide, is_loopback
from session_proxy.profile.awg_checks import awg_warnings
from session_proxy.profile.model import Admin, Auth, AwgUpstream, ListenAddress, Profile, RelayUpstream
from session_proxy.profile.relay_upstream_checks import relay_upstream_warnings
from session_proxy.profile.shape import path_text
from session_proxy.profile.structuring import Structurer
from session_proxy.profile.upstream_checks import check_upstream

# RFC 1929, section 2: each of them is sent behind one octet that holds its length.
MAX_CREDENTIAL = 255

# The keys of a route that decide what it matches.
REACH_KEYS = ("match", "ports", "resolve")


def check_profile(profile: Profile, notes: Structurer) -> None:
    """Note every problem between the values of *profile*.

    *profile* may have holes where values could not be read; what was noted about them is not repeated.
    """
    _check_open_doors(profile, notes)
    check_listens(profile.listen, profile.admin, notes)
    if profile.auth is not None:
        check_auth(profile.auth, notes)
    for name, upstream in profile.upstreams.items():
        check_upstream(path_text(["upstreams", name]), upstream, notes)
    for position, rule in enumerate(profile.routes):
        _check_order(f"{notes.item('routes', position)}.upstream", rule.upstream, notes)
    _check_shadows(profile, notes)


def profile_warnings(profile: Profile, now: float) -> Iterator[str]:
    """Yield one line for each thing in *profile* that works but was probably not meant, at *now* in Unix time."""
    named = {name for rule in profile.routes for name in rule.upstream} | {profile.default}
    for name, upstream in profile.upstreams.items():
        if name not in named:
            yield f"upstreams.{name}: no route leads there, and the default does not either"
        if isinstance(upstream, AwgUpstream):
            yield from awg_warnings(f"{path_text(['upstreams', name])}.", upstream)
        if isinstance(upstream, RelayUpstream):
            yield from relay_upstream_warnings(path_text(["upstreams", name]), upstream, now)
    for position, rule in enumerate(profile.routes):
        if rule.resolve == "local" and not any(rule.networks()):
            yield f'routes[{position}].resolve: "local" does nothing here; it is for CIDRs'
    if profile.auth is not None and profile.allow_anonymous:
        yield "allow_anonymous: does nothing here; clients have to present the credentials of auth"


def _check_open_doors(profile: Profile, notes: Structurer) -> None:
    if profile.auth is not None or profile.allow_anonymous:
        return
    if not all(notes.sound(key) for key in ("auth", "allow_anonymous", "listen")):
        return
    for position, address in enumerate(profile.listen):
        if not is_loopback(address):
            notes.note(
                notes.item("listen", position),
                f"{address} lets other machines in without credentials",
                f'write [auth] with user and pass, "{attrs.evolve(address, host="127.0.0.1")}", '
                "or allow_anonymous = true",
            )


def check_listens(
    listen: Sequence[ListenAddress], admin: Admin | None, notes: Structurer, *, by: str = "the proxy"
) -> None:
    """Note where an address to listen on is taken already; *by* whom *listen* is."""
    seen: list[ListenAddress] = []
    for position, address in enumerate(listen if notes.sound("listen") else ()):
        if earlier := next((other for other in seen if collide(address, other)), None):
            what = "stands twice" if address == earlier else f"and {earlier} take the same port"
            notes.note(notes.item("listen", position), f"{address} {what}", "keep one of them")
        seen.append(address)
    if admin is not None and any(collide(admin.listen, address) for address in seen):
        other = ListenAddress(admin.listen.host, admin.listen.port % 65535 + 1)
        notes.note("admin.listen", f"{admin.listen} is taken by {by} itself", f'write "{other}", for example')


def check_auth(auth: Auth, notes: Structurer) -> None:
    """Note where *auth* holds what SOCKS or HTTP cannot carry."""
    if ":" in auth.user:
        # RFC 7617, section 2: the first colon ends the user's name.
        notes.note("auth.user", "holds a colon, which HTTP cannot carry", "write a name without one")
    for path, text in (("auth.user", auth.user), ("auth.pass", auth.password.reveal())):
        if len(text.encode()) > MAX_CREDENTIAL:
            notes.note(
                path,
                f"is longer than {MAX_CREDENTIAL} bytes, which SOCKS cannot carry",
                f"write at most {MAX_CREDENTIAL} bytes",
            )


def _check_order(path: str, upstreams: tuple[str, ...], notes: Structurer) -> None:
    if REJECT in upstreams and len(upstreams) > 1:
        notes.note(path, f'"{REJECT}" stands in a list', f'write "{REJECT}" alone, or remove it')
    for position, name in enumerate(upstreams):
        if name in upstreams[:position]:
            notes.note(notes.item(path, position), f'"{name}" stands twice', "keep one of them")


def _check_shadows(profile: Profile, notes: Structurer) -> None:
    places = [notes.item("routes", position) for position in range(len(profile.routes))]
    # A rule with a hole may match more than its author meant, so it neither hides nor is hidden.
    whole = [
        rule if all(notes.sound(f"{place}.{key}") for key in REACH_KEYS) else attrs.evolve(rule, match=())
        for place, rule in zip(places, profile.routes, strict=True)
    ]
    for shadow in find_shadows(whole):
        hidden, by = profile.routes[shadow.index], profile.routes[shadow.by]
        place, earlier = places[shadow.index], places[shadow.by]
        fix = "remove it" if hidden.upstream == by.upstream else f"move it before {earlier}, or remove it"
        notes.note(
            f"{place}.match",
            f"can never match: {earlier} takes everything that it does",
            fix,
        )
