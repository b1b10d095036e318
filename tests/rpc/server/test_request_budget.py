"""Requests on their way in: what they may hold, of a connection's windows and of the memory that large ones share."""

import struct
import tracemalloc

import pytest
import trio
import trio.testing
from rpc.fix_memory_peer import message, reset, settle, window_update

from statehouse.limits import CALLS_PER_CONNECTION, KIB, MIB, REQUESTS_BYTES
from statehouse.rpc.http2.frames import END_STREAM, FrameType, frame
from statehouse.rpc.server import request_budget
from statehouse.rpc.server.capacity import Capacity
from statehouse.rpc.server.protocol import FREE_MESSAGE_BYTES
from statehouse.rpc.server.request_budget import RequestBudget

FIRST_WINDOW, FRAME = 65_535, 16_384
LARGE = 3 * MIB


def count(request, _caller):
    return b"%d" % len(request)


def head(size):
    return struct.pack(">BL", 0, size)


def granted(peer, stream_id):
    """What the server let the peer send on a stream, or over all (0), beyond the first window."""
    return sum(struct.unpack(">L", each.payload)[0] for each in peer.of(FrameType.WINDOW_UPDATE, stream_id))


@pytest.fixture
async def connected(over_memory):
    return await over_memory(unary={"Count": count})


async def begin(connected, content):
    """Begin a request with this much of it."""
    begin, stream_id = connected.peer.begin("/t/Count")
    await connected.peer.send(begin, frame(FrameType.DATA, 0, stream_id, content))
    return stream_id


async def upload(peer, stream_id, content, *, ends=True):
    """Send content as the windows allow, and end."""
    sent, window = 0, FIRST_WINDOW
    while sent < len(content):
        await peer.until(lambda sent=sent: granted(peer, stream_id) + window > sent)
        room = min(granted(peer, stream_id) + window - sent, FRAME, len(content) - sent)
        flags = END_STREAM if ends and sent + room == len(content) else 0
        await peer.send(frame(FrameType.DATA, flags, stream_id, content[sent : sent + room]))
        sent += room
        await settle()


def test_the_budget_holds_what_fits_and_no_more():
    budget = RequestBudget(10)
    assert [budget.take(each) for each in (6, 5, 4, 1)] == [True, False, True, False]
    budget.give_back(6)
    assert (budget.held_bytes, budget.take(6)) == (4, True)


@pytest.mark.parametrize("size", [0, 1, FREE_MESSAGE_BYTES, 64 * KIB, 300 * KIB, LARGE])
async def test_a_request_of_any_size_comes_in(connected, size, autojump_clock):
    begin, stream_id = connected.peer.begin("/t/Count")
    await connected.peer.send(begin)
    await upload(connected.peer, stream_id, message(b"x" * size))
    assert await connected.peer.status(stream_id) == 0
    assert connected.peer.data[stream_id] == message(b"%d" % size)
    assert connected.nothing_is_held()


async def test_no_more_is_let_in_than_the_message_needs(connected, autojump_clock):
    stream_id = await begin(connected, head(LARGE) + b"x")
    await settle()
    assert granted(connected.peer, stream_id) + FIRST_WINDOW == LARGE + 5
    assert connected.capacity.requests.held_bytes == LARGE + 5


async def test_the_length_alone_takes_no_memory_and_what_follows_it_takes_all_at_once(connected, autojump_clock):
    await begin(connected, b"")  # what a first call allocates
    await settle()
    tracemalloc.start()
    try:
        stream_id = await begin(connected, head(LARGE) + b"x")
        await settle()
        assert connected.capacity.requests.held_bytes == LARGE + 5
        assert tracemalloc.get_traced_memory()[0] < FIRST_WINDOW
        for _ in range(3):
            await connected.peer.send(frame(FrameType.DATA, 0, stream_id, bytes(FRAME)))
        await settle()
        assert LARGE < tracemalloc.get_traced_memory()[0] < LARGE + 4 * FIRST_WINDOW
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pieces", ["with its end", "behind it", "once it was let in"])
async def test_a_message_behind_one_that_was_in_line_takes_nothing_uncounted(connected, pieces, autojump_clock):
    budget, peer = connected.capacity.requests, connected.peer
    first, second = message(b"x" * FRAME), head(LARGE) + b"y" * 1_000
    assert budget.take(REQUESTS_BYTES)
    stream_id = await begin(connected, first[:FRAME])
    await settle()
    assert budget.waiting == 1

    async def send(*contents):
        await peer.send(*(frame(FrameType.DATA, 0, stream_id, each) for each in contents))
        await settle()

    tracemalloc.start()
    try:
        if pieces == "once it was let in":
            await send(first[FRAME:])
            budget.give_back(REQUESTS_BYTES)
            await send(second)
        else:
            await send(*([first[FRAME:] + second] if pieces == "with its end" else [first[FRAME:], second]))
            budget.give_back(REQUESTS_BYTES)
        await send(bytes(FRAME), bytes(FRAME))
        taken_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    if pieces == "once it was let in":  # that it is one too many is seen when it is whole
        assert budget.held_bytes == FRAME + 5 + LARGE + 5
    else:
        assert await peer.status(stream_id) == 8
        assert taken_bytes < FIRST_WINDOW
        assert connected.nothing_is_held()


async def test_large_requests_share_what_there_is_and_small_ones_pass(over_memory, autojump_clock):
    capacity = Capacity()
    fit = REQUESTS_BYTES // (LARGE + 5)
    one, other = [await over_memory(unary={"Count": count}, capacity=capacity) for _ in range(2)]
    streams = [await begin(one, head(LARGE)) for _ in range(fit)]
    await settle()
    assert capacity.requests.held_bytes == fit * (LARGE + 5)
    late = await begin(other, head(LARGE) + b"x")
    await settle()
    assert capacity.requests.waiting == 1
    assert late not in other.peer.headers  # it waits, and its window does not grow
    small = b"x" * (FREE_MESSAGE_BYTES - 5)
    for connected in (one, other):
        assert await connected.peer.status(await connected.peer.call("/t/Count", small[: FRAME - 5])) == 0
    await one.peer.send(reset(streams[0]))
    await settle()
    assert (capacity.requests.waiting, capacity.requests.held_bytes) == (0, fit * (LARGE + 5))
    await one.peer.leave()
    await one.over.wait()
    assert capacity.requests.held_bytes == LARGE + 5
    await other.peer.leave()
    await other.over.wait()
    assert (capacity.requests.held_bytes, capacity.calls) == (0, 0)


async def test_small_requests_that_never_end_are_bounded_by_their_number(connected, autojump_clock):
    for _ in range(CALLS_PER_CONNECTION):
        await begin(connected, head(FREE_MESSAGE_BYTES - 5) + b"x" * (FRAME - 6))
    await settle()
    assert connected.capacity.requests.held_bytes == 0
    assert await connected.peer.status(1) == 4  # overdue


@pytest.mark.parametrize("end", ["reset", "deadline", "second message", "connection"])
async def test_what_a_request_holds_is_given_back_however_it_ends(over_memory, end, autojump_clock):
    connected = await over_memory(unary={"Count": count})
    frames, stream_id = connected.peer.begin("/t/Count", grpc_timeout="5S")
    await connected.peer.send(frames, frame(FrameType.DATA, 0, stream_id, head(LARGE)))
    await settle()
    assert connected.capacity.requests.held_bytes
    if end == "reset":
        await connected.peer.send(reset(stream_id))
    elif end == "deadline":
        await trio.sleep(5)
    elif end == "second message":
        await upload(connected.peer, stream_id, (b"x" * LARGE + head(LARGE)) + b"y")
    else:
        await connected.peer.leave()
    await settle()
    assert connected.nothing_is_held()


async def test_a_message_over_the_limit_is_refused_at_its_fifth_byte(over_memory, autojump_clock):
    connected = await over_memory(unary={"Count": count}, request_bytes=1000)
    fits = await connected.peer.call("/t/Count", b"x" * 1000)
    assert await connected.peer.status(fits) == 0
    stream_id = await begin(connected, head(1001))
    assert await connected.peer.status(stream_id) == 3
    assert "1001 bytes; the limit is 1000" in connected.peer.headers[stream_id]["grpc-message"]
    (ended,) = connected.peer.of(FrameType.RST_STREAM, stream_id)
    assert ended.payload == bytes(4)  # NO_ERROR: stop sending
    # What was under way is passed over, and does not use up the connection's window.
    for _ in range(200):
        await connected.peer.send(frame(FrameType.DATA, 0, stream_id, b"x" * FRAME))
    assert await connected.peer.status(await connected.peer.call("/t/Count")) == 0
    assert connected.nothing_is_held()


async def test_a_message_is_held_until_its_request_has_ended(over_memory, autojump_clock):
    """Whole and without an end it is kept, for nobody may know yet whether another follows."""
    connected = await over_memory(unary={"Count": count})
    frames, stream_id = connected.peer.begin("/t/Count")
    await connected.peer.send(frames)
    await upload(connected.peer, stream_id, message(b"x" * LARGE), ends=False)
    assert connected.capacity.requests.held_bytes == LARGE + 5
    await connected.peer.send(frame(FrameType.DATA, END_STREAM, stream_id))
    assert await connected.peer.status(stream_id) == 0
    assert connected.nothing_is_held()


async def test_what_was_not_handled_yet_is_held(over_memory, autojump_clock):
    """The output is full: what came waits for it."""
    to_server, from_peer = trio.testing.memory_stream_one_way_pair()
    to_peer, from_server = trio.testing.lockstep_stream_one_way_pair()
    connected = await over_memory(
        unary={"Count": count, "Get": lambda *_: b"x" * (FRAME - 5)},
        pair=lambda: (trio.StapledStream(to_server, from_server), trio.StapledStream(to_peer, from_peer)),
        read=False,
    )
    peer = connected.peer
    await peer.send(window_update(0, 2**30))
    frames, upload_id = peer.begin("/t/Count")
    await peer.send(frames, frame(FrameType.DATA, 0, upload_id, head(40_000) + b"x" * 10_000))
    await settle()
    for at in range(10_000, 39_999, 10_000):
        await peer.send(frame(FrameType.DATA, 0, upload_id, b"x" * min(10_000, 39_999 - at)))
        await settle()
    fill = []
    for _ in range(20):
        begin, stream_id = peer.begin("/t/Get")
        fill += [begin, frame(FrameType.DATA, END_STREAM, stream_id, message(b""))]
    await peer.send(*fill, frame(FrameType.DATA, END_STREAM, upload_id, b"x"))
    await settle()
    assert connected.connection._unhandled
    assert connected.capacity.requests.held_bytes == 40_005
    await peer.leave()
    await connected.over.wait()
    assert connected.nothing_is_held()


async def test_every_message_of_a_call_is_held_though_it_takes_one_only(connected, autojump_clock):
    frames, stream_id = connected.peer.begin("/t/Count")
    await connected.peer.send(frames)
    await upload(connected.peer, stream_id, message(b"x" * 20_000), ends=False)
    await connected.peer.send(frame(FrameType.DATA, 0, stream_id, head(LARGE) + b"x"))
    await settle()
    assert connected.capacity.requests.held_bytes == 20_005 + LARGE + 5
    await connected.peer.send(reset(stream_id))
    await settle()
    assert connected.nothing_is_held()


def test_who_comes_first_is_let_in_first():
    budget, admitted = RequestBudget(10), []
    assert budget.take(10)
    line = [budget.wait(size, lambda size=size: admitted.append(size)) for size in (8, 1, 2, 9)]
    assert not budget.take(1)
    budget.leave(line[1])
    budget.give_back(7)
    assert admitted == []
    budget.give_back(3)
    assert (admitted, budget.held_bytes, budget.waiting) == ([8, 2], 10, 1)
    assert not budget.take(0)  # nobody overtakes
    budget.leave(line[3])
    budget.give_back(10)
    assert (budget.held_bytes, budget.take(10)) == (0, True)


async def test_a_request_that_waited_comes_in_whole(over_memory, autojump_clock):
    capacity = Capacity()
    one, other = [await over_memory(unary={"Count": count}, capacity=capacity) for _ in range(2)]
    held = [await begin(one, head(LARGE)) for _ in range(REQUESTS_BYTES // (LARGE + 5))]
    await settle()
    late, waits = other.peer.begin("/t/Count")
    await other.peer.send(late, frame(FrameType.DATA, 0, waits, message(b"x" * LARGE)[:FRAME]))
    await settle()
    assert granted(other.peer, waits) == 0
    await one.peer.send(reset(held[0]))
    await other.peer.until(lambda: granted(other.peer, waits))
    await upload(other.peer, waits, message(b"x" * LARGE)[FRAME:])
    assert await other.peer.status(waits) == 0
    assert other.peer.data[waits] == message(b"%d" % LARGE)


async def test_one_that_waits_needs_no_room_when_all_of_it_came_at_once(over_memory, autojump_clock):
    capacity = Capacity()
    other = await over_memory(unary={"Count": count}, capacity=capacity)
    assert capacity.requests.take(REQUESTS_BYTES)
    content = message(b"x" * (2 * FREE_MESSAGE_BYTES))
    stream_id = await begin(other, content[:FRAME])
    await settle()
    assert capacity.requests.waiting == 1
    await upload(other.peer, stream_id, content[FRAME:])
    assert await other.peer.status(stream_id) == 0
    assert capacity.requests.waiting == 0


async def test_the_line_has_an_end(over_memory, autojump_clock, monkeypatch):
    monkeypatch.setattr(request_budget, "REQUESTS_IN_LINE", 2)
    capacity = Capacity()
    one, other = [await over_memory(unary={"Count": count}, capacity=capacity) for _ in range(2)]
    for _ in range(REQUESTS_BYTES // (LARGE + 5)):
        await begin(one, head(LARGE))
    await settle()
    first, second, third = [await begin(other, head(LARGE) + b"x") for _ in range(3)]
    assert await other.peer.status(third) == 8
    assert "try again" in other.peer.headers[third]["grpc-message"]
    assert capacity.requests.waiting == 2
    await other.peer.send(reset(first))
    await other.peer.leave()
    await other.over.wait()
    assert capacity.requests.waiting == 0
    assert second not in other.peer.headers
