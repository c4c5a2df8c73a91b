"""The datagrams that go in front of every initiation: signature packets, then junk (spec, section 5)."""

from __future__ import annotations

from collections.abc import Callable

from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.randomness import Randomness, uniform


def junk_packets(count: int, smallest: int, largest: int, random: Randomness) -> list[bytes]:
    """Return *count* packets of random bytes, each of a random length from *smallest* to *largest*, both included.

    For each packet its length is drawn first, then its content. One of no length draws no content, and equal bounds
    draw no length.

    Raises:
      ValueError: *largest* is below *smallest*. The reference panics.

    """
    packets: list[bytes] = []
    for _ in range(count):
        length = smallest + uniform(largest - smallest + 1, random)
        packets.append(random(length) if length else b"")
    return packets


def decoys(
    parameters: Parameters, random: Randomness, unix_time: Callable[[], int], counter: int = 0
) -> list[bytes]:
    """Return what is sent in front of one initiation: I1 to I5, those that there are, and the junk.

    *counter* is how many datagrams this device has sent so far; each of these counts as it is made.
    """
    signatures = [
        chain.generate(random, unix_time, counter + made) for made, chain in enumerate(parameters.chains)
    ]
    return signatures + junk_packets(parameters.jc, parameters.jmin, parameters.jmax, random)
