"""Take over a file that was changed, while the service runs: all of it, or nothing.

What is new is made ready first, which may fail. Only then is anything exchanged, which cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar, runtime_checkable

import attrs
import trio

from session_proxy.errors import ExitCode, ReloadError, SessionProxyError
from session_proxy.observability.logging import Log
from session_proxy.policy.changes import Changes, changed_keys
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.lifecycle import Lifecycle, Phase

# Seconds for everything that is new to be ready. A session through AWS takes two; a secret that a command prints, and
# an upstream whose first instance does not answer, take longer.
LIMIT = 60.0


File = TypeVar("File")


async def read_anew(load: Callable[[Callable[[str], None]], File], log: Log) -> File:
    """Return what *load* says now; what it warns of goes to the log. Raises what *load* does."""
    warnings: list[str] = []
    # Secrets may come from commands, and certificates from slow disks.
    file = await trio.to_thread.run_sync(load, warnings.append, abandon_on_cancel=True)
    for warning in warnings:
        log.warning("profile", message=warning)
    return file


class Change(Protocol):
    """A change that is ready to be made."""

    @property
    def changes(self) -> Changes:
        """What differs."""
        ...

    @property
    def admin(self) -> ListenAddress | None:
        """Where the admin pages are to be."""
        ...

    @property
    def drain(self) -> float:
        """How long the service may take to end, in seconds."""
        ...

    def commit(self) -> Sequence[ListenAddress]:
        """Make it, without fail and without waiting; return the addresses on which clients are accepted."""
        ...


@runtime_checkable
class Reloadable(Protocol):
    """A `Daemon` that can take over its file while it runs."""

    def prepare(self) -> AbstractAsyncContextManager[Change]:
        """Read the file anew, and make ready what it takes; leaving the block without `Change.commit` undoes that.

        Raises:
          SessionProxyError: the file is wrong, or something that is new does not work.

        """
        ...


class AdminPort(Protocol):
    """The admin pages, which may move: `session_proxy.supervision.admin_port.AdminPort`."""

    def prepare(self, address: ListenAddress | None) -> AbstractAsyncContextManager[Callable[[], None]]:
        """Make ready to serve at *address*, and yield what does it; raises `ListenError`."""
        ...


def settings_that_change(
    old: object, new: object, changeable: Callable[[str], bool], apart: Collection[str], what: str
) -> tuple[str, ...]:
    """Return the keys that *new* has otherwise than *old*, without fields that stand *apart*: they are no keys.

    Raises:
      ReloadError: some of them are not *changeable* while *what* runs.

    """
    keys = [key for key in changed_keys(old, new) if key not in apart]
    fixed = [key for key in keys if not changeable(key)]
    if fixed:
        raise ReloadError(f"{', '.join(fixed)} cannot change while the {what} runs; restart it")
    return tuple(keys)


@attrs.frozen(kw_only=True)
class ReloadReport:
    """What came of a reload: the *changes* that were made, or the *problems* for which none was; JSON on the wire."""

    done: bool
    changes: list[str] = attrs.field(factory=list[str])
    problems: list[str] = attrs.field(factory=list[str])
    exit_code: int = ExitCode.OK


@attrs.define(eq=False)
class Reloader:
    """Reloads *daemon*, one time after another; *adopt* is told of each change that was made."""

    name: str
    daemon: object
    lifecycle: Lifecycle
    admin: AdminPort
    log: Log
    adopt: Callable[[Change], None]
    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def reload(self) -> ReloadReport:
        """Take over the file, or tell why not; writes that to the log, too."""
        async with self._lock:
            try:
                changes = await self._change()
            except SessionProxyError as exc:
                return self._refused(str(exc), exc.exit_code)
            except OSError as exc:
                where = "" if exc.filename is None else f"{exc.filename}: "
                return self._refused(f"{where}{exc.strerror or exc}", ExitCode.CONFIGURATION)
        lines = changes.lines()
        self.log.info("reloaded", changes="; ".join(lines) or "none")
        return ReloadReport(done=True, changes=lines)

    def _refused(self, reason: str, code: ExitCode) -> ReloadReport:
        problems = reason.splitlines()
        for problem in problems:
            self.log.error("not reloaded", reason=problem)
        return ReloadReport(done=False, problems=problems, exit_code=code)

    async def _change(self) -> Changes:
        self._check_possible()
        assert isinstance(self.daemon, Reloadable), "it was checked"
        with trio.move_on_after(LIMIT) as scope:
            async with self.daemon.prepare() as change, self.admin.prepare(change.admin) as move_admin:
                # A drain may have begun meanwhile.
                self._check_possible()
                scope.deadline = math.inf
                self.lifecycle.listen = tuple(str(address) for address in change.commit())
                move_admin()
                self.adopt(change)
            return change.changes
        raise ReloadError(f"what is new was not ready within {LIMIT:g} s", ExitCode.UNREACHABLE)

    def _check_possible(self) -> None:
        if not isinstance(self.daemon, Reloadable):
            raise ReloadError(f"{self.name} cannot take over its file while it runs; restart it")
        if self.lifecycle.phase is not Phase.READY:
            raise ReloadError(f"{self.name} is {self.lifecycle.phase.value}")
