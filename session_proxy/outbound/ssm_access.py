"""What the two kinds of upstream through AWS Session Manager share: finding instances, starting sessions."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence

import attrs
import trio

from session_proxy.errors import ExitCode
from session_proxy.events import Notice
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.transport import Services
from session_proxy.ssm.control import Control
from session_proxy.ssm.data_channel import Dialing
from session_proxy.ssm.errors import SsmError
from session_proxy.ssm.http_proxy import proxy_for
from session_proxy.ssm.session import StartedSession
from session_proxy.ssm.targets import resolve_instance


@attrs.frozen(eq=False)
class SsmAccess:
    """One upstream's way to Session Manager."""

    upstream: str
    control: Control
    services: Services

    async def resolve(self, entry: str) -> tuple[str, ...]:
        """Return the instances that *entry* stands for; raises `LinkFailedError`."""
        try:
            return await resolve_instance(entry, self.control)
        except SsmError as exc:
            raise failed_session(exc) from exc
        except ValueError as exc:
            raise LinkFailedError(str(exc), needs_person=True, exit_code=ExitCode.CONFIGURATION) from exc

    async def start(
        self, instance: str, document: str, parameters: Mapping[str, Sequence[str]]
    ) -> tuple[StartedSession, Dialing]:
        """Start a session, and return how its data channel is dialled; raises `SsmError`."""
        ssl_context = await self.ssl_context()
        session = await self.control.start_session(instance, document, parameters)
        proxy = proxy_for(session.stream_url, self.services.environ)
        return session, Dialing(proxy=proxy, ssl_context=ssl_context, notify=self._tell)

    async def ssl_context(self) -> ssl.SSLContext | None:
        """Return what trusts the certificates that boto3 is told to trust, `None` for the system's.

        Raises:
          LinkFailedError: they cannot be read.

        """
        bundle = self.services.environ.get("AWS_CA_BUNDLE")
        if not bundle:
            return None

        def load() -> ssl.SSLContext:
            return ssl.create_default_context(cafile=bundle)

        try:
            return await trio.to_thread.run_sync(load)
        except OSError as exc:
            # ssl.SSLError is an OSError too.
            raise LinkFailedError(
                f"AWS_CA_BUNDLE={bundle} cannot be read: {exc.strerror or exc}",
                needs_person=True,
                exit_code=ExitCode.CONFIGURATION,
            ) from exc

    def _tell(self, message: str) -> None:
        self.services.notify(Notice(self.upstream, message))


def failed_session(exc: SsmError) -> LinkFailedError:
    """Return what *exc* means for an upstream."""
    return LinkFailedError(str(exc), needs_person=exc.needs_person, exit_code=exc.exit_code)
