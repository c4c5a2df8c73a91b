"""Options of the commands that use a relay, and which relay they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

if TYPE_CHECKING:
    from session_proxy.profile.relay_choice import RelayChoice

ProfileOption = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        readable=False,
        metavar="PROFILE",
        help="The profile; absent: ./config.toml or .yaml, then that of $XDG_CONFIG_HOME/session-proxy.",
        show_default=False,
    ),
]
UpstreamOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Which upstream of kind relay, where there are several.", show_default=False
    ),
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="No profile: the relay server (wss://…); more than once for several.",
        show_default=False,
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(readable=False, metavar="FILE", help="With --endpoint: the token.", show_default=False),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        metavar="FILE",
        help="With --endpoint: certificates (PEM) of authorities that are believed, too.",
        show_default=False,
    ),
]


@attrs.frozen
class RelayOptions:
    """What the command line says of the relay."""

    profile: Path | None
    upstream: str | None
    endpoints: list[str] | None
    token_file: Path | None
    ca: Path | None

    def check(self) -> None:
        """Raise `typer.BadParameter` where options do not go together."""
        if self.endpoints:
            given = {"--profile": self.profile, "--upstream": self.upstream}
            for option, value in given.items():
                if value is not None:
                    raise typer.BadParameter("--endpoint does without a profile", param_hint=option)
            if self.token_file is None:
                raise typer.BadParameter("write --token-file FILE beside it", param_hint="--endpoint")
            return
        for option, value in {"--token-file": self.token_file, "--ca": self.ca}.items():
            if value is not None:
                raise typer.BadParameter(
                    "goes with --endpoint; a profile says it per upstream", param_hint=option
                )

    def choose(self, agent: str | None) -> RelayChoice:
        """Return the relay that leads to *agent*; without one, to whom the profile says.

        Raises:
          ProfileError: there is none.

        """
        from session_proxy.profile.loading import load_profile
        from session_proxy.profile.relay_choice import choose_relay, relay_of_options

        if self.endpoints and self.token_file is not None:
            choice = relay_of_options(self.endpoints, self.token_file, self.ca, os.environ)
        else:
            choice = choose_relay(load_profile(self.profile, environ=os.environ), self.upstream, agent)
        if agent is None:
            return choice
        return attrs.evolve(choice, upstream=attrs.evolve(choice.upstream, agent=agent))


def check_name(name: str, option: str) -> None:
    """Raise `typer.BadParameter` where no agent or service is called *name*."""
    from session_proxy.profile.values import describe_name_fault

    if fault := describe_name_fault(name):
        raise typer.BadParameter("; ".join(fault), param_hint=option)
