"""What a call does not cost: no task when nothing is waited for, no write of its own when others go out too."""

import pytest
import trio
from rpc.fix_memory_peer import settle

from statehouse.actors.reply import Reply
from statehouse.rpc.http2.frames import (
    CONNECTION_PREFACE,
    END_HEADERS,
    END_STREAM,
    FrameType,
    frame,
)
from statehouse.rpc.http2.header_blocks import literal_block
from statehouse.rpc.server.access import ANYONE
from statehouse.rpc.server.capacity import Capacity
from statehouse.rpc.server.connection import ServerConnection
from statehouse.rpc.server.dispatch import Endpoint, Kind
from statehouse.rpc.server.lifetime import LifetimeLimits

CALLS = 50
GREETING = CONNECTION_PREFACE + frame(FrameType.SETTINGS, 0, 0)
HEADERS = literal_block(
    [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/t/Call"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
)


def call(number):
    stream_id = 2 * number + 1
    return frame(FrameType.HEADERS, END_HEADERS, stream_id, HEADERS) + frame(
        FrameType.DATA, END_STREAM, stream_id, bytes(5)
    )


def tasks():
    return trio.lowlevel.current_statistics().tasks_living


class CountingLink:
    """Gives the packets that it is fed, and keeps what is written, write by write."""

    def __init__(self):
        self.feed, self._packets = trio.open_memory_channel(10)
        self.writes = []

    async def read(self, take):
        async for packet in self._packets:
            if not take(packet):
                return
        take(b"")

    def send_now(self, output):
        self.writes.append(bytes(output))
        return len(output)

    async def send_all(self, output):
        self.writes.append(bytes(output))


@pytest.fixture
async def serving(nursery):
    """Serve a handler; returns the link, when the peer has been greeted."""

    async def serve(handler):
        link = CountingLink()
        endpoint = Endpoint("/t/Call", Kind.UNARY, handler, 0, open_to_all=False, always=False)
        connection = ServerConnection(
            link, lambda *_: (endpoint, ANYONE), Capacity(), LifetimeLimits(), peer="p", request_bytes=100
        )
        nursery.start_soon(connection.run)
        await link.feed.send(GREETING)
        await settle()
        link.writes.clear()
        return link

    return serve


def answered(link):
    return b"".join(link.writes).count(b"answer")


async def test_an_answer_that_is_there_costs_no_task_and_no_write_of_its_own(serving):
    seen = []

    def handler(request, _caller):
        seen.append(tasks())
        return b"answer"

    link = await serving(handler)
    before = tasks()
    await link.feed.send(b"".join(call(number) for number in range(CALLS)))
    await settle()
    assert seen == [before] * CALLS
    assert (len(link.writes), answered(link)) == (1, CALLS)


async def test_answers_that_come_later_cost_no_task_and_go_out_together(serving):
    replies = []

    def handler(request, _caller):
        replies.append(Reply())
        return replies[-1]

    link = await serving(handler)
    before = tasks()
    await link.feed.send(b"".join(call(number) for number in range(CALLS)))
    await settle()
    assert (len(replies), tasks(), link.writes) == (CALLS, before, [])
    for reply in replies:  # as a group of commits is answered
        reply.succeed(b"answer")
    await settle()
    assert (len(link.writes), answered(link)) == (1, CALLS)
    assert tasks() == before
