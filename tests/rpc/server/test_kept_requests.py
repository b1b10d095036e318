"""Long requests that are kept: how many, and who makes room for another."""

import pytest
import trio

from statehouse.errors import OverloadedError
from statehouse.limits import ANSWER_STALL_S
from statehouse.rpc.server.kept_requests import SHORT_REQUEST_BYTES, KeptRequests

LONG = SHORT_REQUEST_BYTES + 1


class Kept:
    """Requests by name: those that wait for their client are ended, as a call would be, in the next turn."""

    def __init__(self, nursery, room):
        self.nursery, self.room = nursery, room
        self.ended = []

    async def wait(self, name, size_bytes=LONG, room=None):
        over = trio.Event()

        def end():
            self.ended.append(name)
            over.set()

        async def run(task_status):
            with (room or self.room).keep(size_bytes) as kept, kept.waiting_for_client(end):
                task_status.started()
                await over.wait()

        await self.nursery.start(lambda *, task_status: run(task_status))


@pytest.fixture
def server():
    return KeptRequests(4 * LONG, "")


@pytest.fixture
def kept(nursery, server):
    return Kept(nursery, KeptRequests(3 * LONG, " of this connection", within=(server,)))


async def test_what_is_short_is_not_counted(kept, autojump_clock):
    for _ in range(100):
        kept.room.keep(SHORT_REQUEST_BYTES)
    assert kept.room.held_bytes == 0


async def test_who_waits_longest_makes_room_and_no_more_than_is_needed(kept, server, autojump_clock):
    for name in "abc":
        await kept.wait(name)
        await trio.sleep(1)
    await trio.sleep(ANSWER_STALL_S - 2.5)  # for a it is long enough, and for nobody else
    with kept.room.keep(LONG):
        assert (kept.ended, kept.room.held_bytes, server.held_bytes) == (["a"], 3 * LONG, 3 * LONG)
        with pytest.raises(OverloadedError, match="of this connection"):
            kept.room.keep(LONG)
        await trio.sleep(2)
        with kept.room.keep(2 * LONG):
            assert kept.ended == ["a", "b", "c"]
    await trio.lowlevel.checkpoint()
    assert kept.room.held_bytes == server.held_bytes == 0


async def test_nobody_is_ended_when_it_would_not_do(kept, autojump_clock):
    with kept.room.keep(2 * LONG):  # in line: it is not its client that takes nothing
        await kept.wait("a")
        await trio.sleep(2 * ANSWER_STALL_S)
        with pytest.raises(OverloadedError):
            kept.room.keep(2 * LONG)
        assert kept.ended == []
        kept.room.keep(LONG)
        assert kept.ended == ["a"]


async def test_those_of_another_connection_make_room_too(kept, server, autojump_clock):
    other = KeptRequests(3 * LONG, " of this connection", within=(server,))
    for name in "ab":
        await kept.wait(name)
    await kept.wait("c", 2 * LONG, other)
    await trio.sleep(ANSWER_STALL_S)
    with other.keep(2 * LONG):  # its own is in the way in both rooms, and does
        assert kept.ended == ["c"]
        with kept.room.keep(LONG):
            assert kept.ended == ["c", "a"]


async def test_one_that_is_longer_than_the_room_is_let_in_alone(kept, autojump_clock):
    await kept.wait("a")
    await trio.sleep(ANSWER_STALL_S)
    with kept.room.keep(100 * LONG):
        assert kept.ended == ["a"]
        with pytest.raises(OverloadedError):
            kept.room.keep(LONG)


async def test_the_order_is_that_of_waiting(kept, autojump_clock):
    first = kept.room.keep(LONG)
    await kept.wait("b")
    await trio.sleep(1)
    with first.waiting_for_client(lambda: kept.ended.append("a")):
        await trio.sleep(ANSWER_STALL_S)
        kept.room.keep(2 * LONG)
        assert kept.ended == ["b"]
    first.let_go()
    first.let_go()
    assert kept.room.held_bytes == 2 * LONG
