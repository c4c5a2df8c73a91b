"""Devices as they run here: on the system's clock and randomness, and made for QUIC."""

from __future__ import annotations

import os
import random
import time

import trio

from awg_obfs.protocol.device import Device, DeviceSettings
from awg_obfs.protocol.noise import PrivateKey
from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.randomness import PooledRandomness
from awg_obfs.protocol.timers import REKEY_TIMEOUT_JITTER


def make_device(private_key: bytes, parameters: Parameters, *, keepalive_padding: bool) -> Device:
    """Return a device without peers, whose contents are QUIC's datagrams.

    Raises:
      ValueError: *private_key* has not 32 bytes.

    """
    rng = random.Random()  # noqa: S311  # timers need no secrets
    return Device(
        PrivateKey(private_key),
        parameters,
        # A QUIC datagram does not begin with a zero byte.
        DeviceSettings(leading_fill=True, keepalive_padding=keepalive_padding),
        PooledRandomness(os.urandom),
        time.time_ns,
        trio.current_time(),
        jitter=lambda: rng.uniform(0.0, REKEY_TIMEOUT_JITTER),
    )
