"""What a server's log says of a peer that moves, and of two that are taken for one."""

from __future__ import annotations

import attrs
import trio
import trio.testing

from awg_obfs.protocol.address import Address
from session_proxy.observability.log_settings import LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.supervision.peer_moves import LINE_AFTER_WARNING, LINE_EVERY, WARNING_EVERY, PeerMoves

HOME, CAFE = ("192.0.2.1", 443), ("198.51.100.7", 5000)
TWO_PLACES = (
    'warning awg peer in two places link=laptop message="peer \\"laptop\\" comes from two places at once; '
    'two clients seem to use its key: give each its own"'
)


@attrs.define(eq=False)
class Watched:
    """A peer's moves, and the log without its times."""

    lines: list[str] = attrs.field(factory=list[str])
    moves: PeerMoves = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        log = make_logger(lambda line: self.lines.append(" ".join(line.split()[1:])), LogSettings())
        self.moves = PeerMoves("laptop", log)

    def at(self, *addresses: Address, has_session: bool = True) -> int:
        """Find the peer at *addresses*, and return how often it has moved."""
        found = [self.moves.found_at(address, has_session=has_session) for address in addresses]
        return sum(old is not None for old in found)


async def test_a_first_address_is_no_move_nor_is_one_without_a_session() -> None:
    watched = Watched()
    assert not watched.at(HOME, HOME)
    assert not watched.at(CAFE, has_session=False)
    assert not watched.at(CAFE)
    assert not watched.lines


async def test_a_move_is_told() -> None:
    watched = Watched()
    assert watched.at(HOME, CAFE) == 1
    assert watched.lines == ["info awg peer moved link=laptop from=192.0.2.1:443 to=198.51.100.7:5000"]


async def test_moves_in_a_row_are_told_in_one_line(autojump_clock: trio.testing.MockClock) -> None:
    watched = Watched()
    assert watched.at(HOME, *(("192.0.2.1", port) for port in (1, 2, 3))) == 3
    assert len(watched.lines) == 1
    await trio.sleep(LINE_EVERY)
    watched.at(("192.0.2.1", 4))
    assert watched.lines[1] == "info awg peer moved link=laptop from=192.0.2.1:3 to=192.0.2.1:4 moves=3"


async def test_to_and_fro_is_two_clients_with_one_key(autojump_clock: trio.testing.MockClock) -> None:
    watched = Watched()
    watched.at(HOME, CAFE, HOME)
    assert len(watched.lines) == 1
    watched.at(CAFE)
    assert watched.lines[1:] == [TWO_PLACES]
    for _ in range(int(WARNING_EVERY / 2)):
        await trio.sleep(1)
        watched.at(HOME)
        await trio.sleep(1)
        watched.at(CAFE)
    assert watched.lines.count(TWO_PLACES) == 2
    assert len(watched.lines) <= 3 + WARNING_EVERY / LINE_AFTER_WARNING


async def test_other_ports_of_the_same_two_hosts_are_the_same_two_places() -> None:
    watched = Watched()
    watched.at(*((host, port) for port, host in enumerate(["192.0.2.1", "198.51.100.7"] * 2)))
    assert watched.lines[-1] == TWO_PLACES


async def test_many_moves_in_a_short_time_are_two_clients_behind_one_nat() -> None:
    watched = Watched()
    watched.at(*(("192.0.2.1", port) for port in range(6)))
    assert TWO_PLACES not in watched.lines
    watched.at(("192.0.2.1", 6))
    assert watched.lines[-1] == TWO_PLACES


async def test_a_client_that_roams_now_and_then_is_one_client(autojump_clock: trio.testing.MockClock) -> None:
    watched = Watched()
    for port in range(20):
        watched.at(("192.0.2.1", port))
        await trio.sleep(7)
    await trio.sleep(20)
    watched.at(HOME, CAFE)
    await trio.sleep(20)
    watched.at(HOME)
    await trio.sleep(20)
    watched.at(CAFE)
    assert TWO_PLACES not in watched.lines
