"""Answers that cannot be sent at once: within the client's windows, and within the memory for them."""

import gzip

import pytest
import trio
from rpc.fix_memory_peer import message, no_window, reset, settle, window_update

from statehouse.actors.reply import Reply
from statehouse.errors import OverloadedError
from statehouse.limits import ANSWER_STALL_S, CONNECTION_ANSWERS_BYTES, CONNECTION_LISTINGS_BYTES, KIB, MIB
from statehouse.rpc.http2.frames import FrameType, Setting, frame, settings_payload
from statehouse.rpc.messages import Compressed
from statehouse.rpc.server import capacity
from statehouse.rpc.server.answering import SMALL_ANSWER_BYTES
from statehouse.rpc.server.capacity import LISTING_BYTES
from statehouse.rpc.server.kept_requests import SHORT_REQUEST_BYTES

ENOUGH = 2**30
LONG = SHORT_REQUEST_BYTES + 1
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


async def ask_long(connected, *, compressed=False):
    """A call whose request is LONG."""
    if compressed:
        return await connected.peer.call("/t/Get", gzip.compress(bytes(LONG)), flag=1, grpc_encoding="gzip")
    begin, stream_id = connected.peer.begin("/t/Get")
    content = message(bytes(LONG))
    halves = (frame(FrameType.DATA, 0, stream_id, content[:100]), frame(FrameType.DATA, 1, stream_id, content[100:]))
    await connected.peer.send(begin, *halves)
    return stream_id


@pytest.mark.parametrize("share", ["KEPT_REQUESTS_BYTES", "CONNECTION_KEPT_REQUESTS_BYTES"])
@pytest.mark.parametrize("compressed", [False, True])
async def test_long_requests_are_kept_within_bounds_until_their_client_takes_something(
    over_memory, compressed, share, autojump_clock, monkeypatch
):
    monkeypatch.setattr(capacity, share, 2 * LONG + LONG // 2)
    reads = Reads()
    connected = await over_memory(unary={"Get": reads}, unary_answer_bytes=MIB + KIB, settings=no_window())
    kept = [await ask_long(connected, compressed=compressed) for _ in range(2)]
    await trio.sleep(1)
    assert connected.capacity.kept_requests.held_bytes == 2 * LONG
    refused = await ask_long(connected, compressed=compressed)
    assert await connected.peer.status(refused) == 8
    assert reads.count == 0
    await connected.peer.send(window_update(0, 2_000), *(window_update(each, 1_000) for each in kept))
    await trio.sleep(1)
    assert (reads.count, connected.capacity.kept_requests.held_bytes) == (2, 0)  # read, and not sent yet
    await open_windows(connected, *kept)
    assert [await connected.peer.status(each) for each in kept] == [0, 0]
    assert connected.nothing_is_held()
    gone = await ask_long(connected, compressed=compressed)
    await trio.sleep(1)
    assert connected.capacity.kept_requests.held_bytes == LONG
    await connected.peer.send(reset(gone))
    await connected.peer.leave()
    await connected.over.wait()
    assert connected.nothing_is_held()


async def test_long_requests_of_clients_that_never_read_make_room_for_another(over_memory, autojump_clock, monkeypatch):
    monkeypatch.setattr(capacity, "KEPT_REQUESTS_BYTES", 2 * LONG)
    shared, reads = capacity.Capacity(), Reads()
    never, other = [
        await over_memory(unary={"Get": reads}, unary_answer_bytes=MIB + KIB, settings=no_window(), capacity=shared)
        for _ in range(2)
    ]
    kept = [await ask_long(never) for _ in range(2)]
    await trio.sleep(ANSWER_STALL_S - 1)
    assert await other.peer.status(await ask_long(other)) == 8
    assert shared.kept_requests.held_bytes == 2 * LONG
    await trio.sleep(2)
    asked = await ask_long(other)
    assert await never.peer.status(kept[0]) == 8
    assert "nothing of the answer was read" in never.peer.headers[kept[0]]["grpc-message"]
    await ask_long(never)  # asked at once again, it only takes its own place
    assert await never.peer.status(kept[1]) == 8
    assert await never.peer.status(await ask_long(never)) == 8
    assert shared.kept_requests.held_bytes == 2 * LONG
    await open_windows(other, asked)
    assert await other.peer.status(asked) == 0
    await never.peer.leave()
    await never.over.wait()
    assert other.nothing_is_held()


class Request(bytes):
    """Which tells when it is gone."""

    def __del__(self):
        self.gone.append(None)


async def test_a_compressed_request_is_gone_when_it_is_read(over_memory, autojump_clock, monkeypatch):
    gone = []

    def inflate(_compressed):
        request = Request(LONG)
        request.gone = gone
        return request

    monkeypatch.setattr(Compressed, "inflate", inflate)
    connected = await over_memory(unary={"Get": Reads()}, unary_answer_bytes=MIB + KIB, settings=no_window())
    call = await ask_long(connected, compressed=True)
    await trio.sleep(1)
    assert (gone, connected.capacity.kept_requests.held_bytes) == ([], LONG)
    await connected.peer.send(window_update(0, 1), window_update(call, 1))
    await trio.sleep(1)
    assert (gone, connected.capacity.kept_requests.held_bytes) == ([None], 0)
    await open_windows(connected, call)
    assert await connected.peer.status(call) == 0
    assert connected.nothing_is_held()


@pytest.mark.parametrize("compressed", [False, True])
async def test_long_requests_of_listings_are_counted_while_they_wait_in_line(
    over_memory, compressed, autojump_clock, monkeypatch
):
    monkeypatch.setattr(capacity, "KEPT_REQUESTS_BYTES", 3 * LONG)
    may_answer, begun = trio.Event(), []

    def listing(_request, _caller):
        async def read():
            begun.append(None)
            await may_answer.wait()
            return b"x"

        return read()

    connected = await over_memory(unary={"Get": listing}, unary_answer_bytes=CONNECTION_LISTINGS_BYTES)
    kept = [await ask_long(connected, compressed=compressed) for _ in range(3)]
    await trio.sleep(1)
    assert (len(begun), connected.capacity.kept_requests.held_bytes) == (1, 3 * LONG)
    assert await connected.peer.status(await ask_long(connected, compressed=compressed)) == 8
    await trio.sleep(2 * ANSWER_STALL_S)  # which is not their client's doing
    assert await connected.peer.status(await ask_long(connected, compressed=compressed)) == 8
    may_answer.set()
    assert [await connected.peer.status(each) for each in kept] == [0, 0, 0]
    assert connected.nothing_is_held()


async def test_a_listing_that_is_read_again_is_held_as_one(over_memory, autojump_clock):
    """It had its answer at hand, of which there was no room for more, and has it no longer."""
    small, large = VALUE * 4, VALUE * 8
    asked = []

    def get(request, _caller):
        async def read():
            await trio.lowlevel.checkpoint()
            return large

        asked.append(request)
        return small if asked.count(request) == 1 else read()

    connected = await over_memory(unary={"Get": get}, unary_answer_bytes=LISTING_BYTES + 1)
    await connected.peer.send(window_update(0, ENOUGH))
    calls = [await connected.peer.call("/t/Get", bytes([number])) for number in range(4)]
    await trio.sleep(1)
    held = connected.capacity.answers.held_bytes, connected.capacity.listings.held_bytes
    assert (len(asked), held[0] <= CONNECTION_ANSWERS_BYTES, held[1] >= 2 * len(large)) == (6, True, True)
    await connected.peer.send(*(window_update(each, ENOUGH) for each in calls))
    assert [await connected.peer.status(each) for each in calls] == [0] * 4
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
