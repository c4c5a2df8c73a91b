"""What the stages of all kinds have in common: what exceptions mean, and what transports tell in passing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from session_proxy.errors import ExitCode, SessionProxyError
from session_proxy.events import Event, Notice
from session_proxy.outbound.ssh_login import failed_login
from session_proxy.outbound.transport import Services
from session_proxy.profile.secret import Secret
from session_proxy.profile.secret_sources import InvalidValueError, expand_path
from tunnel_relay import stages
from tunnel_relay.category import Category
from tunnel_relay.errors import SshError
from tunnel_relay.ssh.keys import key_file_warning
from tunnel_relay.stages import Course, Notes, Step, Trouble, split_advice

CATEGORIES: Mapping[ExitCode, Category] = {
    ExitCode.NOT_PERMITTED: Category.AUTHENTICATION,
    ExitCode.CONFIGURATION: Category.CONFIGURATION,
}


@attrs.frozen(kw_only=True)
class Setting:
    """What the stages of one connection have: their course, and how transports see the process.

    Attributes:
      course: The stages.
      services: What transports may use; what they warn of goes into the stage that runs.
      base: The folder of the file, to which its paths are relative.

    """

    course: Course
    services: Services
    base: Path


def make_setting(steps: Sequence[Step], services: Services, base: Path) -> Setting:
    """Return a new setting for *steps*."""
    course = Course(steps, explain=explain, expected=(*stages.EXPECTED, SessionProxyError))

    def heed(event: Event) -> None:
        if isinstance(event, Notice) and event.level == "warning" and course.notes is not None:
            course.notes.warn(*split_advice(event.message))

    return Setting(course=course, services=attrs.evolve(services, notify=heed), base=base)


def explain(exc: Exception) -> Trouble:
    """Return what *exc* means."""
    if isinstance(exc, SshError):
        exc = failed_login(exc)
    if isinstance(exc, SessionProxyError):
        said = str(exc) or type(exc).__name__
        return Trouble(*split_advice(said), CATEGORIES.get(exc.exit_code, Category.NETWORK))
    return stages.explain(exc)


def check_secret_file(notes: Notes, key: str, secret: Secret | None, setting: Setting) -> None:
    """Note where others may read the file that has a *secret*, which the *key* of the file names."""
    if secret is None or secret.source != "file":
        return
    try:
        path = expand_path(secret.reference, setting.base, setting.services.environ)
    except InvalidValueError:
        return
    if (warning := key_file_warning(path)) is not None:
        cause, fix = split_advice(warning)
        notes.warn(f"{key}: {cause}", fix)
