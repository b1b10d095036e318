"""The calls of a connection: what counts as under way, for how long, and what is sent to whom."""

import pytest
import trio
from rpc.fix_memory_peer import message, no_window, reset, settle, window_update

from statehouse.actors.reply import Reply
from statehouse.errors import TransactionError, UnavailableError
from statehouse.limits import CALLS_PER_CONNECTION
from statehouse.rpc.error_table import encode_error
from statehouse.rpc.http2.frames import END_HEADERS, END_STREAM, FrameType, frame
from statehouse.rpc.http2.header_blocks import literal_block
from statehouse.rpc.server import capacity as capacity_module
from statehouse.rpc.server import connection as connection_module
from statehouse.rpc.server.capacity import Capacity

CANCEL, REFUSED_STREAM = 8, 7


def echo(request, _caller):
    return request


class Held:
    """A handler whose answers come when the test says so."""

    def __init__(self):
        self.replies = []

    def __call__(self, request, _caller):
        self.replies.append(Reply())
        return self.replies[-1]


@pytest.fixture
def held():
    return Held()


async def test_a_reset_commit_counts_until_its_work_has_ended(over_memory, held, autojump_clock):
    connected = await over_memory(unary={"Commit": held})
    call = await connected.peer.call("/t/Commit")
    await settle()
    await connected.peer.send(reset(call))
    await settle()
    assert (connected.capacity.calls, len(held.replies)) == (1, 1)
    held.replies[0].succeed(b"done")
    await settle()
    assert connected.nothing_is_held()
    assert connected.peer.of(FrameType.HEADERS) + connected.peer.of(FrameType.DATA) == []


async def test_a_client_that_resets_has_no_more_calls_than_one_that_waits(over_memory, held, autojump_clock):
    connected = await over_memory(unary={"Commit": held})
    for _ in range(CALLS_PER_CONNECTION + 20):
        call = await connected.peer.call("/t/Commit")
        await settle()
        await connected.peer.send(reset(call))
    await settle()
    assert (connected.capacity.calls, len(held.replies)) == (CALLS_PER_CONNECTION, CALLS_PER_CONNECTION)
    refused = await connected.peer.call("/t/Commit")
    assert await connected.peer.status(refused) == 8
    for reply in held.replies:
        reply.succeed(b"")
    again = await connected.peer.call("/t/Commit")
    await settle()
    held.replies[-1].succeed(b"")
    assert await connected.peer.status(again) == 0
    assert connected.nothing_is_held()


async def test_more_streams_than_were_allowed_are_refused_alone(over_memory, held, autojump_clock):
    connected = await over_memory(unary={"Commit": held})
    calls = [await connected.peer.call("/t/Commit") for _ in range(CALLS_PER_CONNECTION + 3)]
    await settle()
    assert [each.stream_id for each in connected.peer.of(FrameType.RST_STREAM)] == calls[-3:]
    assert {each.payload[-1] for each in connected.peer.of(FrameType.RST_STREAM)} == {REFUSED_STREAM}
    for reply in held.replies:
        reply.succeed(b"")
    assert [await connected.peer.status(each) for each in calls[:-3]] == [0] * CALLS_PER_CONNECTION


async def test_all_connections_together_have_a_cap(over_memory, held, autojump_clock, monkeypatch):
    monkeypatch.setattr(capacity_module, "CALLS", 5)
    capacity = Capacity()
    one, other = [await over_memory(unary={"Commit": held, "Echo": echo}, capacity=capacity) for _ in range(2)]
    for connected in (one, one, one, other, other):
        await connected.peer.call("/t/Commit")
        await settle()
    assert await other.peer.status(await other.peer.call("/t/Echo")) == 8
    assert capacity.refusals.counts == {"too_many_calls": 1}
    held.replies[0].succeed(b"")
    assert await other.peer.status(await other.peer.call("/t/Echo")) == 0
    await one.peer.leave()  # its commits go on, and count
    await one.over.wait()
    assert capacity.calls == 4
    for reply in held.replies[1:]:
        reply.succeed(b"")
    assert capacity.calls == 0


@pytest.mark.parametrize("how", ["the peer leaves", "the run is cancelled"])
async def test_work_that_outlives_its_connection_counts_until_it_has_ended(over_memory, how, autojump_clock):
    finish = trio.Event()

    async def stubborn(_request, _caller):
        try:
            yield [b"first"]
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):  # a read in a thread cannot be left
                await finish.wait()

    connected = await over_memory(stream={"Stubborn": stubborn})
    call = await connected.peer.call("/t/Stubborn")
    await connected.peer.until(lambda: connected.peer.data.get(call))
    if how == "the peer leaves":
        await connected.peer.leave()
    else:
        connected.scope.cancel()
    await trio.sleep(100)
    assert connected.capacity.calls == 1
    finish.set()
    await connected.over.wait()
    assert connected.nothing_is_held()


@pytest.mark.parametrize("window", ["stream", "connection"])
async def test_a_write_whose_answer_has_no_window_is_carried_out_once(over_memory, window, autojump_clock):
    carried_out = []

    def write(request, _caller):
        carried_out.append(request)
        return b""  # as Write, Delete and Abort answer

    connected = await over_memory(
        unary={"Write": write, "Echo": echo}, settings=no_window() if window == "stream" else {}
    )
    if window == "connection":
        filler = [await connected.peer.call("/t/Echo", b"x" * 16_000) for _ in range(5)]
        await settle()
        assert sum(map(len, connected.peer.data.values())) == 65_535
    call = await connected.peer.call("/t/Write", b"once")
    await settle()
    assert carried_out == [b"once"]
    await connected.peer.send(window_update(call if window == "stream" else 0, 100_000))
    assert await connected.peer.status(call) == 0
    assert connected.peer.data[call] == message(b"")
    assert carried_out == [b"once"]
    if window == "connection":
        assert [await connected.peer.status(each) for each in filler] == [0] * 5


async def test_a_conversation_whose_reset_came_along_is_told_nothing(over_memory, autojump_clock):
    connected = await over_memory(conversation={"Ask": echo})
    begin, call = connected.peer.begin("/t/Ask")
    question = frame(FrameType.DATA, 0, call, message(b"?"))
    await connected.peer.send(begin, question, question, reset(call))
    await settle()
    assert connected.peer.of(FrameType.DATA) + connected.peer.of(FrameType.HEADERS) == []
    assert connected.nothing_is_held()


async def test_answers_to_requests_that_are_no_grpc_are_not_kept_for_streams_that_are_gone(over_memory, autojump_clock):
    connected = await over_memory(settings=no_window())
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")]
    for stream_id in range(1, 601, 2):
        block = literal_block(fields)
        get = frame(FrameType.HEADERS, END_HEADERS | END_STREAM, stream_id, block)
        await connected.peer.send(get, reset(stream_id))
    await settle()
    assert len(connected.peer.of(FrameType.HEADERS)) == 300
    assert len(connected.connection._protocol._plain._unsent) <= 1


async def test_many_replies_of_one_turn_are_all_answered(over_memory, held, autojump_clock):
    connected = await over_memory(unary={"Commit": held})
    calls = [await connected.peer.call("/t/Commit") for _ in range(50)]
    await settle()
    for number, reply in enumerate(held.replies):
        if number % 10:
            reply.succeed(b"%d" % number)
        else:
            reply.fail(TransactionError("conflict"))
    statuses = [await connected.peer.status(each) for each in calls]
    assert [bool(each) for each in statuses] == [number % 10 == 0 for number in range(50)]
    assert connected.nothing_is_held()


async def test_the_calls_of_a_packet_leave_others_their_turn(over_memory, autojump_clock, monkeypatch):
    monkeypatch.setattr(connection_module, "TURN_S", 0.0)  # each call takes longer than a turn
    asked = []

    def note(request, _caller):
        asked.append(request)
        return request

    capacity = Capacity()
    many, one = [await over_memory(unary={"Note": note}, capacity=capacity) for _ in range(2)]
    await settle()
    packet, calls = [], []
    for _ in range(CALLS_PER_CONNECTION):
        begin, stream_id = many.peer.begin("/t/Note")
        packet += [begin, frame(FrameType.DATA, END_STREAM, stream_id, message(b"many"))]
        calls.append(stream_id)
    await many.peer.send(*packet)
    assert await one.peer.status(await one.peer.call("/t/Note", b"one")) == 0
    assert asked.index(b"one") < CALLS_PER_CONNECTION // 2
    assert {await many.peer.status(each) for each in calls} == {0}
    assert asked.count(b"many") == CALLS_PER_CONNECTION
    assert many.nothing_is_held()


@pytest.mark.parametrize("end", ["frame of no stream", "goaway", "half-close", "drain", "resets"])
async def test_calls_of_a_packet_are_answered_in_their_turns_whatever_follows(
    over_memory, end, autojump_clock, monkeypatch
):
    monkeypatch.setattr(connection_module, "TURN_S", 0.0)
    connected = await over_memory(unary={"Echo": echo})
    await settle()
    packet, calls = [], []
    for _ in range(50):
        begin, stream_id = connected.peer.begin("/t/Echo")
        packet += [begin, frame(FrameType.DATA, END_STREAM, stream_id, message(b"x"))]
        calls.append(stream_id)
    if end == "frame of no stream":
        packet.append(frame(FrameType.DATA, 0, 0, b"x"))
    elif end == "goaway":
        packet.append(frame(FrameType.GOAWAY, 0, 0, bytes(8)))
    elif end == "resets":
        packet += [reset(each) for each in calls[10:]]
        calls = calls[:10]
    await connected.peer.send(*packet)
    if end == "half-close":
        await connected.peer.leave()
    elif end == "drain":
        connected.connection.drain()
    assert {await connected.peer.status(each) for each in calls} == {0}
    await settle()
    assert connected.nothing_is_held()


async def test_ending_all_calls_tells_each(over_memory, held, autojump_clock):
    async def forever(_request, _caller):
        yield [b"one"]
        await trio.sleep_forever()

    connected = await over_memory(unary={"Commit": held}, stream={"Forever": forever})
    calls = [await connected.peer.call(path) for path in ("/t/Commit", "/t/Forever")]
    begin, unfinished = connected.peer.begin("/t/Commit")
    await connected.peer.send(begin)
    await settle()
    connected.connection.end_calls(encode_error(UnavailableError("over")))
    assert [await connected.peer.status(each) for each in (*calls, unfinished)] == [14, 14, 14]
    assert connected.capacity.calls == 1  # the commit is under way
    held.replies[0].succeed(b"")
    assert connected.nothing_is_held()


async def test_a_draining_connection_waits_for_its_calls_and_then_leaves(over_memory, held, autojump_clock):
    connected = await over_memory(unary={"Commit": held})
    call = await connected.peer.call("/t/Commit")
    await settle()
    connected.connection.drain()
    await trio.sleep(1000)
    assert not connected.over.is_set()
    held.replies[0].succeed(b"")
    await connected.over.wait()
    assert await connected.peer.status(call) == 0
    assert [code for _, _, code in connected.peer.goaways()] == [0, 0]


async def test_a_peer_that_says_goodbye_is_let_go_with_its_calls(over_memory, held, autojump_clock):
    connected = await over_memory(unary={"Commit": held})
    await connected.peer.call("/t/Commit")
    await settle()
    await connected.peer.send(frame(FrameType.GOAWAY, 0, 0, bytes(8)))
    await connected.over.wait()
    held.replies[0].succeed(b"")
    assert connected.nothing_is_held()
