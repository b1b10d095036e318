"""Answers that cannot be sent at once: within the client's windows, and within the memory for them."""

import gzip

import pytest
import trio
from rpc.fix_memory_peer import message, no_window, reset, settle, window_update

from statehouse.actors.reply import Reply
from statehouse.errors import OverloadedError
from statehouse.limits import CONNECTION_ANSWERS_BYTES, KIB, MIB
from statehouse.rpc.http2.frames import FrameType, Setting, frame, settings_payload
from statehouse.rpc.server.answering import LONGEST_READ_BYTES, SMALL_ANSWER_BYTES

ENOUGH = 2**30
FRAME = 16_384
VALUE = b"v" * MIB


class Reads:
    """A handler that reads a value; keeps count."""

    def __init__(self, value=VALUE):
        self.value, self.count = value, 0

    def __call__(self, _request, _caller):
        self.count += 1
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


async def open_windows(connected, *streams):
    await connected.peer.send(window_update(0, ENOUGH), *(window_update(each, ENOUGH) for each in streams))


async def test_an_answer_larger_than_every_window_comes_as_they_open(over_memory, autojump_clock):
    connected = await over_memory(unary={"Get": Reads()})
    call = await connected.peer.call("/t/Get")
    await settle()
    assert len(connected.peer.data[call]) == 65_535
    await connected.peer.send(window_update(call, ENOUGH), window_update(0, 10))
    await settle()
    assert len(connected.peer.data[call]) == 65_545
    await connected.peer.send(window_update(0, ENOUGH))
    assert await connected.peer.status(call) == 0
    assert connected.peer.data[call] == message(VALUE)
    assert max(len(each.payload) for each in connected.peer.of(FrameType.DATA)) <= 16_384
    assert connected.nothing_is_held()


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_drips_as_slowly_as_its_reader_wants(over_memory, size, autojump_clock):
    value = bytes(range(256)) * 20
    connected = await over_memory(unary={"Get": Reads(value)}, settings=no_window())
    call = await connected.peer.call("/t/Get")
    while "grpc-status" not in connected.peer.headers.get(call, {}):
        await connected.peer.send(window_update(call, size), window_update(0, size))
        await settle()
    assert connected.peer.data[call] == message(value)
    assert {len(each.payload) for each in connected.peer.of(FrameType.DATA, call)[:-1]} <= {size}


async def test_large_answers_without_a_window_are_read_again_when_there_is_room(over_memory, autojump_clock):
    reads = Reads()
    connected = await over_memory(unary={"Get": reads}, settings=no_window())
    calls = [await connected.peer.call("/t/Get") for _ in range(100)]
    await settle()
    kept = CONNECTION_ANSWERS_BYTES // (MIB + 5)
    assert connected.capacity.answers.held_bytes <= CONNECTION_ANSWERS_BYTES
    assert connected.capacity.answers.held_bytes >= kept * MIB
    await open_windows(connected, *calls)
    assert [await connected.peer.status(each) for each in calls] == [0] * 100
    assert all(connected.peer.data[each] == message(VALUE) for each in calls)
    assert reads.count == 100 + (100 - kept)
    assert connected.nothing_is_held()


async def test_what_is_read_again_is_what_is_there_then(over_memory, autojump_clock):
    reads = Reads()
    connected = await over_memory(unary={"Get": reads}, settings=no_window())
    calls = [await connected.peer.call("/t/Get") for _ in range(20)]
    await settle()
    reads.value = OverloadedError("gone meanwhile")
    await open_windows(connected, *calls)
    statuses = [await connected.peer.status(each) for each in calls]
    kept = CONNECTION_ANSWERS_BYTES // (MIB + 5)
    assert statuses == [0] * kept + [8] * (20 - kept)
    assert connected.nothing_is_held()


async def test_small_answers_wait_without_being_counted(over_memory, autojump_clock):
    reads = Reads(b"v" * SMALL_ANSWER_BYTES)
    connected = await over_memory(unary={"Get": reads}, settings=no_window())
    calls = [await connected.peer.call("/t/Get") for _ in range(100)]
    await settle()
    assert connected.capacity.answers.held_bytes == 0
    await open_windows(connected, *calls)
    assert [await connected.peer.status(each) for each in calls] == [0] * 100
    assert reads.count == 100


@pytest.mark.parametrize("how", ["settings", "windows"])
async def test_a_window_that_opens_by_settings_counts_too(over_memory, how, autojump_clock):
    connected = await over_memory(unary={"Get": Reads(b"v" * 40_000)}, settings=no_window())
    call = await connected.peer.call("/t/Get")
    await settle()
    if how == "settings":
        opened = settings_payload({Setting.INITIAL_WINDOW_SIZE: 50_000})
        await connected.peer.send(frame(FrameType.SETTINGS, 0, 0, opened))
    else:
        await connected.peer.send(window_update(call, 50_000))
    assert await connected.peer.status(call) == 0


async def test_a_window_that_shrinks_below_zero_holds_the_rest_back(over_memory, autojump_clock):
    connected = await over_memory(unary={"Get": Reads()})
    call = await connected.peer.call("/t/Get")
    await settle()
    await connected.peer.send(frame(FrameType.SETTINGS, 0, 0, settings_payload(no_window())), window_update(0, ENOUGH))
    await settle()
    await connected.peer.send(window_update(call, 65_535))  # from -65,535 to 0
    await settle()
    assert len(connected.peer.data[call]) == 65_535
    await connected.peer.send(window_update(call, ENOUGH))
    assert await connected.peer.status(call) == 0


async def test_a_reply_that_no_window_lets_through_is_sent_when_one_does(over_memory, autojump_clock):
    reply = Reply()
    connected = await over_memory(unary={"Commit": lambda *_: reply}, settings=no_window())
    call = await connected.peer.call("/t/Commit")
    await settle()
    reply.succeed(b"42")
    await settle()
    assert call not in connected.peer.data
    await connected.peer.send(window_update(call, 3))
    await settle()
    assert connected.peer.data[call] == message(b"42")[:3]
    await connected.peer.send(window_update(call, 100))
    assert await connected.peer.status(call) == 0
    assert connected.nothing_is_held()


async def test_a_deadline_in_the_middle_of_a_message_is_a_reset(over_memory, autojump_clock):
    connected = await over_memory(unary={"Get": Reads()})
    call = await connected.peer.call("/t/Get", grpc_timeout="3S")
    await trio.sleep(3)
    await settle()
    (ended,) = connected.peer.of(FrameType.RST_STREAM, call)
    assert (ended.at, ended.payload[-1]) == (3, 8)
    assert "grpc-status" not in connected.peer.headers[call]
    assert connected.nothing_is_held()


async def test_a_deadline_between_messages_is_a_status(over_memory, autojump_clock):
    async def two(_request, _caller):
        yield [b"one"]
        await trio.sleep(10)
        yield [b"two"]

    connected = await over_memory(stream={"Two": two})
    call = await connected.peer.call("/t/Two", grpc_timeout="3S")
    assert await connected.peer.status(call) == 4
    assert connected.peer.data[call] == message(b"one")


async def test_a_stream_is_not_read_further_than_its_client_is(over_memory, autojump_clock):
    read = 0

    async def endless(_request, _caller):
        nonlocal read
        while True:
            await trio.lowlevel.checkpoint()
            read += 1
            yield [b"x" * 995] * 10

    connected = await over_memory(stream={"Endless": endless}, answer_bytes=512 * KIB)
    call = await connected.peer.call("/t/Endless")
    await settle()
    assert read == 7  # of which the window lets 65,535 bytes through
    assert connected.capacity.answers.held_bytes == 10_000  # nothing has left memory that was not sent as a whole
    await connected.peer.send(window_update(call, 20_000), window_update(0, 20_000))
    await settle()
    assert (read, len(connected.peer.data[call])) == (9, 85_535)
    await connected.peer.send(reset(call))
    await settle()
    assert connected.nothing_is_held()


async def test_empty_chunks_and_empty_messages(over_memory, autojump_clock):
    async def sparse(_request, _caller):
        yield []
        yield [b"", b"x", b""]
        yield []

    connected = await over_memory(stream={"Sparse": sparse})
    call = await connected.peer.call("/t/Sparse")
    assert await connected.peer.status(call) == 0
    assert connected.peer.data[call] == message(b"") + message(b"x") + message(b"")


async def test_a_stream_without_a_message_is_one_header_list(over_memory, autojump_clock):
    async def nothing(_request, _caller):
        return
        yield

    connected = await over_memory(stream={"Nothing": nothing})
    call = await connected.peer.call("/t/Nothing")
    assert await connected.peer.status(call) == 0
    assert len(connected.peer.of(FrameType.HEADERS, call)) == 1


# What may be large is not even read for a client that takes nothing


@pytest.mark.parametrize("waits", [False, True])
async def test_a_large_read_is_made_once_when_there_is_a_window(over_memory, waits, autojump_clock):
    reads = Reads()

    def get(request, caller):
        async def scan():
            await trio.lowlevel.checkpoint()
            return reads(request, caller)

        return scan() if waits else reads(request, caller)

    connected = await over_memory(unary={"Get": get}, unary_answer_bytes=MIB + KIB, settings=no_window())
    calls = [await connected.peer.call("/t/Get") for _ in range(100)]
    await trio.sleep(1)
    assert (reads.count, connected.capacity.answers.held_bytes) == (0, 0)
    assert connected.capacity.calls == 100
    await open_windows(connected, *calls)
    assert [await connected.peer.status(each) for each in calls] == [0] * 100
    assert all(connected.peer.data[each] == message(VALUE) for each in calls)
    assert reads.count == 100
    assert connected.nothing_is_held()


async def test_reads_for_clients_that_take_a_little_are_bounded(over_memory, autojump_clock):
    reads = Reads()
    connected = await over_memory(unary={"Get": reads}, unary_answer_bytes=MIB + KIB, settings=no_window())
    calls = [await connected.peer.call("/t/Get") for _ in range(100)]
    await connected.peer.send(*(window_update(each, 1) for each in calls))
    await trio.sleep(1)
    assert 0 < reads.count <= CONNECTION_ANSWERS_BYTES // MIB
    assert connected.capacity.answers.held_bytes <= CONNECTION_ANSWERS_BYTES
    await open_windows(connected, *calls)
    assert [await connected.peer.status(each) for each in calls] == [0] * 100
    assert connected.nothing_is_held()


async def test_compressed_requests_are_read_no_sooner(over_memory, autojump_clock):
    reads = Reads()
    connected = await over_memory(unary={"Get": reads}, unary_answer_bytes=MIB + KIB, settings=no_window())
    request = gzip.compress(bytes(10))
    calls = [await connected.peer.call("/t/Get", request, flag=1, grpc_encoding="gzip") for _ in range(20)]
    await trio.sleep(1)
    assert (reads.count, connected.capacity.answers.held_bytes) == (0, 0)
    await open_windows(connected, *calls)
    assert [await connected.peer.status(each) for each in calls] == [0] * 20
    assert connected.nothing_is_held()


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_long_request_is_not_kept_until_its_client_takes_something(over_memory, compressed, autojump_clock):
    reads = Reads()
    connected = await over_memory(unary={"Get": reads}, unary_answer_bytes=MIB + KIB, settings=no_window())
    how = {"flag": 1, "grpc_encoding": "gzip"} if compressed else {}
    long = bytes(LONGEST_READ_BYTES + 1 if compressed else FRAME - 5)
    content = gzip.compress(long) if compressed else long
    call = await connected.peer.call("/t/Get", content, **how)
    await trio.sleep(1)
    assert reads.count == 0
    assert (connected.peer.headers.get(call, {}).get("grpc-status") == "8") == compressed
    await connected.peer.leave()
    await connected.over.wait()
    assert connected.nothing_is_held()


async def test_a_stream_that_nobody_takes_is_not_read(over_memory, autojump_clock):
    begun = []

    async def stream(_request, _caller):
        begun.append(1)
        await trio.lowlevel.checkpoint()
        yield [b"x"]

    connected = await over_memory(stream={"Stream": stream}, settings=no_window(), answer_bytes=512 * KIB)
    call = await connected.peer.call("/t/Stream")
    late = await connected.peer.call("/t/Stream", grpc_timeout="2S")
    assert await connected.peer.status(late) == 4
    assert (begun, connected.capacity.answers.held_bytes) == ([], 0)
    await connected.peer.send(window_update(call, 100))
    assert await connected.peer.status(call) == 0
    assert begun == [1]
    assert connected.nothing_is_held()


@pytest.mark.parametrize("end", ["reset", "deadline", "connection"])
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_what_an_answer_holds_is_given_back_however_its_call_ends(over_memory, kind, end, autojump_clock):
    async def stream(_request, _caller):
        await trio.lowlevel.checkpoint()
        yield [VALUE]

    handlers = {"unary": {"Get": Reads()}} if kind == "unary" else {"stream": {"Get": stream}}
    connected = await over_memory(**handlers, unary_answer_bytes=MIB, answer_bytes=MIB)
    calls = [await connected.peer.call("/t/Get", grpc_timeout="5S") for _ in range(20)]
    await settle()
    assert connected.capacity.answers.held_bytes
    if end == "reset":
        await connected.peer.send(*(reset(each) for each in calls))
    elif end == "deadline":
        await trio.sleep(5)
    else:
        await connected.peer.leave()
    await settle()
    assert connected.nothing_is_held()
