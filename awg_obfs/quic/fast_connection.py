"""aioquic with fast paths for what a busy connection does nearly all the time: STREAM and ACK frames.

They reach into aioquic's private parts, so they are used with exactly the version that they were written for, and
after a test of themselves; see `is_usable`. With any other version the stock paths run, at a third of the speed.
"""

# ruff: noqa: SLF001 -- that is what the version check is for.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from aioquic.quic.configuration import QuicConfiguration

from awg_obfs.quic.fast_receiving import FastReceiving
from awg_obfs.quic.fast_recovery import FastRecovery
from awg_obfs.quic.windowed import BurstPacer

AIOQUIC_VERSION = "1.7.2"


class FastConnection(FastReceiving):
    """A `WindowedConnection` with fast paths."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        streams: int,
        original_destination_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            streams=streams,
            original_destination_connection_id=original_destination_connection_id,
        )
        self._loss = FastRecovery(
            congestion_control_algorithm=configuration.congestion_control_algorithm,
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=configuration.max_datagram_size,
            peer_completed_address_validation=not configuration.is_client,
            send_probe=self._send_probe,
        )
        self._loss.lost = {}
        self._loss._pacer = BurstPacer(max_datagram_size=configuration.max_datagram_size)
        self._start_fast_sending()
