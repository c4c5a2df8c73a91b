"""Which of the agent's port sessions a session gets (specification, section 9)."""

from __future__ import annotations

from session_proxy.lab.agent import AgentSession
from session_proxy.lab.basic_port import drive_basic
from session_proxy.lab.handshake import ClientAbilities
from session_proxy.lab.mux_port import drive_mux


async def drive_port(session: AgentSession, client: ClientAbilities) -> None:
    """Carry bytes between *session* and its port, as an agent does for a client with these abilities."""
    if session.wanted.forwards_ports and client.speaks_smux:
        await drive_mux(session, client)
    else:
        await drive_basic(session)
