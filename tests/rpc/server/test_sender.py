"""How output leaves: at once where the link takes it, else by the task; in order, whole, and within bounds."""

import random

import pytest
import trio
import trio.testing
from rpc.fix_memory_peer import message, settle, window_update

from statehouse.limits import CONNECTION_ANSWERS_BYTES
from statehouse.rpc.http2.frames import END_STREAM, FrameType, Setting, frame
from statehouse.rpc.server.sender import OUTPUT_BYTES, Sender


class Output:
    """What a sender knows of a protocol."""

    def __init__(self):
        self.output = bytearray()

    def take_output(self):
        output, self.output = self.output, bytearray()
        return output


class Link:
    """Takes at once what `takes` says; the rest when the task sends it, while `open` is set."""

    def __init__(self, takes=lambda size: size):
        self.takes, self.open, self.sent, self.at_once = takes, trio.Event(), b"", 0
        self.broken = False
        self.open.set()

    def _check(self):
        if self.broken:
            raise trio.BrokenResourceError

    def send_now(self, output):
        self._check()
        taken = self.takes(len(output))
        self.sent += output[:taken]
        self.at_once += 1
        return taken

    async def send_all(self, output):
        await trio.lowlevel.checkpoint()
        await self.open.wait()
        self._check()
        self.sent += output


class Sending:
    def __init__(self, link):
        self.protocol, self.link, self.told = Output(), link, 0
        self.sender = Sender(link, self.protocol, self.broken)

    def broken(self):
        self.told += 1

    def produce(self, content):
        self.protocol.output += content
        self.sender.flush()


@pytest.fixture
async def sending(nursery):
    async def start(link):
        made = Sending(link)
        nursery.start_soon(made.sender.run)
        await settle()
        return made

    return start


async def test_what_the_link_takes_is_gone_at_once(sending):
    made = await sending(Link())
    made.produce(b"answer")
    assert made.link.sent == b"answer"
    assert made.protocol.output == b""
    made.sender.flush()
    assert made.link.at_once == 1  # nothing to send is no system call


@pytest.mark.parametrize("takes", [lambda _: 0, lambda _: 1, lambda size: size // 2])
async def test_what_it_does_not_take_follows_in_order(sending, takes):
    made = await sending(Link(takes))
    made.link.open = trio.Event()
    for piece in (b"one ", b"two ", b"three "):
        made.produce(piece)
        await settle()
        made.produce(b"and ")
    assert len(made.link.sent) < 25
    made.link.open.set()
    await made.sender.finish()
    assert made.link.sent == b"one and two and three and "


async def test_a_link_that_takes_a_byte_at_a_time_gets_everything(sending):
    rng = random.Random(7)
    made = await sending(Link(lambda size: rng.randrange(2)))
    expected = b""
    for number in range(200):
        piece = bytes([number]) * rng.randrange(5)
        expected += piece
        made.produce(piece)
        if rng.random() < 0.3:
            await trio.lowlevel.checkpoint()
    await made.sender.finish()
    assert made.link.sent == expected


async def test_who_produces_more_waits_until_it_is_gone(sending, autojump_clock, nursery):
    made = await sending(Link(lambda _: 0))
    made.link.open = trio.Event()
    made.produce(b"x")
    await settle()  # the task is sending
    made.produce(b"x" * OUTPUT_BYTES)
    assert not made.sender.is_full
    made.produce(b"x")
    assert made.sender.is_full
    waited = []

    async def wait():
        await made.sender.room()
        waited.append(len(made.protocol.output))

    nursery.start_soon(wait)
    nursery.start_soon(wait)
    await trio.sleep(100)
    assert waited == []
    made.link.open.set()
    await settle()
    assert waited == [0, 0]


async def test_woken_it_sends_later_in_the_turn(sending):
    made = await sending(Link())
    made.protocol.output += b"one "
    made.sender.wake()
    made.protocol.output += b"two"
    assert made.link.sent == b""
    await settle()
    assert (made.link.sent, made.link.at_once) == (b"one two", 0)


@pytest.mark.parametrize("when", ["at once", "by the task"])
async def test_a_link_that_breaks_is_told_and_ends_the_task(sending, when):
    made = await sending(Link(lambda size: size if when == "at once" else 0))
    made.link.broken = True
    made.produce(b"x")
    if when == "by the task":
        await settle()
    assert made.told == 1
    made.produce(b"y")
    await made.sender.finish()
    assert made.told >= 1
    assert made.link.sent == b""


async def test_finishing_with_nothing_to_send(sending):
    made = await sending(Link())
    await made.sender.finish()
    assert made.link.at_once == 0


# A connection on such links


async def flooded(over_memory, pair):
    """A connection whose peer asks for more than it reads; what was asked is counted."""
    asked = 0

    def echo(request, _caller):
        nonlocal asked
        asked += 1
        return request

    connected = await over_memory(unary={"Echo": echo}, pair=pair, read=False)
    return connected, lambda: asked


async def test_a_peer_that_stops_reading_is_not_read_from_either(over_memory, autojump_clock, nursery):
    """Its answers would gather here; so the reader waits, and TCP holds it back."""
    to_server, from_peer = trio.testing.memory_stream_one_way_pair()
    to_peer, from_server = trio.testing.lockstep_stream_one_way_pair()

    def pair():
        return trio.StapledStream(to_server, from_server), trio.StapledStream(to_peer, from_peer)

    connected, asked = await flooded(over_memory, pair)
    peer = connected.peer
    await peer.send(window_update(0, 2**30))
    for _ in range(1_000):
        await peer.call("/t/Echo", b"x" * 1_000)
        await settle()
    read_ahead = 64 * 1024 // 1_000 + 1
    assert OUTPUT_BYTES // 1_200 <= asked() <= OUTPUT_BYTES // 1_000 + read_ahead
    assert len(connected.connection._protocol.output) < 2 * OUTPUT_BYTES
    before = asked()
    await trio.sleep(10)
    assert asked() == before
    nursery.start_soon(peer.run)
    await peer.until(lambda: len(peer.of(FrameType.HEADERS)) == 2_000)
    assert asked() == 1_000


async def test_a_peer_that_never_reads_again_is_cut_off_by_the_keepalive(over_memory, autojump_clock):
    to_server, from_peer = trio.testing.memory_stream_one_way_pair()
    to_peer, from_server = trio.testing.lockstep_stream_one_way_pair()

    def pair():
        return trio.StapledStream(to_server, from_server), trio.StapledStream(to_peer, from_peer)

    connected, asked = await flooded(over_memory, pair)
    await connected.peer.send(window_update(0, 2**30))
    for _ in range(1_000):
        await connected.peer.call("/t/Echo", b"x" * 1_000)
    await connected.over.wait()
    assert asked() < 300  # looking at the time lets nothing more in
    assert trio.current_time() == 60 + 20 + 1  # silence, no answer to the ping, and the farewell that does not leave
    assert connected.nothing_is_held()


QUESTIONS = 100
GENEROUS = {Setting.INITIAL_WINDOW_SIZE: 2**31 - 1, Setting.MAX_FRAME_SIZE: 2**24 - 1}


@pytest.mark.parametrize("kind", ["unary", "conversation", "stream"])
async def test_answers_to_what_came_in_one_packet_are_bounded_too(over_memory, kind, autojump_clock, nursery):
    """A packet holds a thousand calls, and each may be answered with a megabyte (here less)."""
    to_server, from_peer = trio.testing.memory_stream_one_way_pair()
    to_peer, from_server = trio.testing.lockstep_stream_one_way_pair()
    answer, answered = b"x" * 2**18, 0

    def handler(_request, _caller):
        nonlocal answered
        answered += 1
        return answer

    async def chunks(_request, _caller):
        await trio.lowlevel.checkpoint()
        yield [handler(_request, _caller)]

    connected = await over_memory(
        **{kind: {"Large": chunks if kind == "stream" else handler}},
        pair=lambda: (trio.StapledStream(to_server, from_server), trio.StapledStream(to_peer, from_peer)),
        read=False,
        settings=GENEROUS,
        answer_bytes=2**18,
    )
    peer = connected.peer
    frames = [window_update(0, 2**30)]
    begin, talk = peer.begin("/t/Large")
    for _ in range(QUESTIONS if kind == "conversation" else 90):
        if kind != "conversation":
            begin, talk = peer.begin("/t/Large")
        elif len(frames) > 1:
            begin = b""
        frames += [begin, frame(FrameType.DATA, 0 if kind == "conversation" else END_STREAM, talk, message(b""))]
    await peer.send(*frames)
    await settle()
    assert len(connected.connection._protocol.output) <= OUTPUT_BYTES + 2 * len(answer)
    assert connected.capacity.answers.held_bytes <= CONNECTION_ANSWERS_BYTES
    nursery.start_soon(peer.run)
    expected = (QUESTIONS if kind == "conversation" else 90) * (len(answer) + 5)
    await peer.until(lambda: sum(map(len, peer.data.values())) == expected)


async def test_who_waits_for_room_is_woken_by_a_flush_that_makes_it(nursery, autojump_clock):
    sending = Sending(Link())  # its task does not run: it may find nothing left to send, and wake nobody
    sending.protocol.output += bytes(OUTPUT_BYTES + 1)
    woken = trio.Event()

    async def wait_for_room():
        await sending.sender.room()
        woken.set()

    nursery.start_soon(wait_for_room)
    await settle()
    assert not woken.is_set()
    sending.sender.flush()
    with trio.fail_after(1):
        await woken.wait()
