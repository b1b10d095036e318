"""Deadlines, signs of life, pauses and repeated calls, in virtual time."""

import itertools
import math

import anyio
import pytest
import trio
from rpc.client.memory_server import MemoryServer, MemoryStream

from statehouse import ConnectionError, OverloadedError, StatehouseError
from statehouse.rpc.client.credentials import Target
from statehouse.rpc.client.faults import LostCallError, NotConnectedError
from statehouse.rpc.client.message_stream import MessageStream
from statehouse.rpc.client.retry import BACKOFF_CAP_S, BACKOFF_S, POLICIES, TRIES
from statehouse.rpc.client.transport import Transport
from statehouse.rpc.contract import METHODS
from statehouse.v1 import statehouse_pb2 as pb

GET = METHODS["GetState"], pb.GetStateRequest(agent_id="a", key="k")
COMMIT = METHODS["Commit"], pb.CommitRequest(txn_id="t")
UNARY = sorted(name for name, method in METHODS.items() if not method.server_streaming)
READS = {
    *("Health", "Version", "GetState", "GetStateAtVersion", "ListKeys", "ScanPrefix", "Head"),
    *("BatchGet", "ListAgents", "ListNamespaces", "GetLease", "GetLineage"),
}
STREAMS = {name for name, method in METHODS.items() if method.server_streaming}


def answers(stream, stream_id, headers, message):
    stream.peer.answer(stream_id, b"")


def says_nothing(stream, stream_id, headers, message):
    pass


def hangs_up(stream, stream_id, headers, message):
    stream.hang_up()


def unavailable(stream, stream_id, headers, message):
    stream.peer.answer(stream_id, trailers=[("grpc-status", "14"), ("grpc-message", "stopping")])


def refuses(stream, stream_id, headers, message):
    stream.peer.h2.reset_stream(stream_id, 7)


def once(first, then):
    """One script for the first request, another for all that follow."""
    scripts = itertools.chain([first], itertools.repeat(then))

    def script(*request):
        next(scripts)(*request)

    return script


async def failed(awaitable):
    """What it failed with, and after how long."""
    started = trio.current_time()
    with pytest.raises(ConnectionError) as caught:
        await awaitable
    return str(caught.value), trio.current_time() - started


async def events_of(stream):
    return [event.commit_ts async for event in stream]


# Deadlines


async def test_the_clients_deadline_and_the_calls_own(autojump_clock):
    server = MemoryServer(says_nothing)
    async with server.transport() as transport:
        assert await failed(transport.unary(*GET)) == ("GetState was not answered by db:1 within 30 s", 30)
        assert (await failed(transport.unary(*GET, timeout_s=0.5)))[1] == 0.5
    assert [headers["grpc-timeout"] for _, headers, _ in server.requests] == ["30000m", "500m"]


async def test_many_deadlines_end_each_at_its_time(autojump_clock):
    async with MemoryServer(says_nothing).transport() as transport, trio.open_nursery() as nursery:

        async def ends_after(timeout_s):
            assert (await failed(transport.unary(*GET, timeout_s=timeout_s)))[1] == pytest.approx(timeout_s)

        for timeout_s in (3, 1, 2, 7, 0.25, 5, 1):
            nursery.start_soon(ends_after, timeout_s)


@pytest.mark.parametrize(
    ("timeout_s", "error"),
    [(math.inf, ValueError), (0, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)],
)
async def test_a_call_waits_for_no_time_that_is_none(timeout_s, error):
    async with MemoryServer(answers).transport() as transport:
        with pytest.raises(error, match="timeout_s"):
            await transport.unary(*GET, timeout_s=timeout_s)


async def test_each_wait_of_a_stream_has_its_time_and_the_reader_has_all_of_his(autojump_clock):
    streams = []

    def script(stream, stream_id, headers, message):
        assert "grpc-timeout" not in headers
        streams.append((stream, stream_id))
        stream.peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])

    def send(commit_ts):
        ((stream, stream_id),) = streams
        message = pb.ReplayEvent(commit_ts=commit_ts).SerializeToString()
        stream.peer.h2.send_data(stream_id, b"\0" + len(message).to_bytes(4, "big") + message)
        stream.flush()

    async with MemoryServer(script).transport() as transport, trio.open_nursery() as nursery:
        replay = MessageStream(transport, METHODS["Replay"], pb.ReplayRequest(agent_id="a"), 10)

        async def sends():
            for commit_ts in range(1, 4):
                await trio.sleep(9)
                send(commit_ts)

        nursery.start_soon(sends)
        assert [(await anext(replay)).commit_ts for _ in range(3)] == [1, 2, 3]
        await trio.sleep(100)
        send(4)
        assert (await anext(replay)).commit_ts == 4
        what, after_s = await failed(anext(replay))
        assert (what, after_s) == ("Replay: nothing came from db:1 within 10 s", 10)


async def test_a_stream_may_wait_for_ever_if_it_is_told_to(autojump_clock):
    async with MemoryServer(says_nothing).transport() as transport:
        replay = MessageStream(transport, METHODS["Replay"], pb.ReplayRequest(agent_id="a"), math.inf)
        with trio.move_on_after(10_000) as scope:
            await anext(replay)
        assert scope.cancelled_caught


# Signs of life


async def test_a_server_that_vanished_is_found_out_long_before_the_deadline(autojump_clock):
    server = MemoryServer(says_nothing)
    async with server.transport(timeout_s=1_000) as transport:

        async def call():
            what, after_s = await failed(transport.unary(*COMMIT))
            assert what.startswith("db:1 does not answer; whether it was committed is not known; commit the same")
            assert after_s == pytest.approx(40)

        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(call)
                await trio.sleep(1)
                server.deaf = True


async def test_a_server_that_answers_pings_may_take_its_time(autojump_clock):
    async with MemoryServer(says_nothing).transport(timeout_s=1_000) as transport:
        assert (await failed(transport.unary(*GET)))[1] == 1_000


# Pauses


async def test_nobody_is_there(autojump_clock):
    server = MemoryServer(answers)
    server.refuses = True
    async with server.transport() as transport:
        assert await failed(transport.unary(*GET)) == ("cannot connect to db:1: Connection refused", 0)
        waits = []
        for _ in range(10):
            started = trio.current_time()
            with pytest.raises(ConnectionError, match="cannot connect to db:1: Connection refused"):
                await transport.unary(*GET)
            waits.append(trio.current_time() - started)
        # Each waits for the next try, which is half of the most later: the random source says so.
        assert waits == pytest.approx([min(BACKOFF_CAP_S, BACKOFF_S * 2**n) / 2 for n in range(10)])
        assert len(server.dials) == 11
        server.refuses = False
        await transport.unary(*GET)
        server.refuses = True
        transport.connection().lose("gone")
        assert (await failed(transport.unary(*GET)))[1] == 0  # a connection that served makes up for all of it


async def test_calls_share_a_try(autojump_clock):
    server = MemoryServer(answers)
    server.refuses = True
    async with server.transport() as transport:
        await failed(transport.unary(*GET))
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(failed, transport.unary(*GET))
        assert len(server.dials) == 2


async def test_a_call_waits_for_the_next_try_at_most_as_long_as_for_a_connection(autojump_clock):
    server = MemoryServer(answers)
    server.refuses = True
    async with server.transport(connect_timeout_s=0.25) as transport:
        for _ in range(5):
            await failed(transport.unary(*GET))
        what, after_s = await failed(transport.unary(*GET))
        assert after_s == 0.25
        assert what == "cannot connect to db:1: Connection refused (it is tried again later)"


async def test_calls_pass_once_the_server_is_back(autojump_clock):
    server = MemoryServer(answers)
    server.refuses = True
    async with server.transport() as transport:
        for _ in range(8):
            await failed(transport.unary(*GET))
        server.refuses = False
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(transport.unary, *GET)
        assert trio.current_time() - started <= BACKOFF_CAP_S
        assert len(server.dials) == 9


async def test_a_server_that_never_says_hello(autojump_clock):
    class Mute(MemoryServer):
        async def dial(self):
            stream = await super().dial()
            await stream.receive()
            return stream

    server = Mute(answers)
    server.deaf = True
    async with server.transport() as transport:
        what, after_s = await failed(transport.unary(*GET))
        assert (what, after_s) == ("db:1 did not answer as a Statehouse daemon within 5 s", 5)
        what, after_s = await failed(transport.unary(*GET, timeout_s=2))
        assert (what, after_s) == ("GetState could not be sent to db:1 within 2 s", 2)


# What is sent again


def test_every_call_has_a_policy_and_a_reason():
    assert POLICIES.keys() == METHODS.keys()
    assert all(policy.why for policy in POLICIES.values())
    assert {name for name, policy in POLICIES.items() if policy.again} == READS | STREAMS | {"Abort", "RenewLease"}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("loses", [hangs_up, unavailable])
async def test_what_was_lost_is_sent_again_only_if_that_is_safe(autojump_clock, name, loses):
    server = MemoryServer(once(loses, answers))
    request = METHODS[name].request_type()
    async with server.transport() as transport:
        if name in READS | {"Abort", "RenewLease"}:
            await transport.unary(METHODS[name], request)
            assert len(server.requests) == 2
        else:
            what, _ = await failed(transport.unary(METHODS[name], request))
            assert len(server.requests) == 1
            assert ("TXN_ALREADY_COMMITTED" in what) is (name == "Commit")
            assert ("was forked is not known" in what) is (name == "ForkAgent")
            assert ("was deleted is not known" in what) is (name == "DeleteAgent")
        await transport.unary(METHODS[name], request)


@pytest.mark.parametrize("name", UNARY)
async def test_what_was_not_looked_at_is_sent_again_whatever_it_is(autojump_clock, name):
    server = MemoryServer(once(refuses, answers))
    async with server.transport() as transport:
        await transport.unary(METHODS[name], METHODS[name].request_type())
    assert len(server.requests) == 2


@pytest.mark.parametrize("script", [hangs_up, unavailable, refuses])
async def test_nothing_is_sent_again_for_ever(autojump_clock, script):
    server = MemoryServer(script)
    async with server.transport() as transport:
        _, after_s = await failed(transport.unary(*GET))
    assert len(server.requests) == TRIES
    assert after_s == pytest.approx((BACKOFF_S + 2 * BACKOFF_S) / 2, abs=BACKOFF_S)


async def test_nothing_is_sent_again_after_its_deadline(autojump_clock):
    server = MemoryServer(hangs_up)
    async with server.transport() as transport:
        assert (await failed(transport.unary(*GET, timeout_s=BACKOFF_S / 4)))[1] == 0
    assert len(server.requests) == 1


async def test_a_commit_that_was_refused_and_then_lost_is_told_as_lost(autojump_clock):
    async with MemoryServer(once(refuses, hangs_up)).transport() as transport:
        with pytest.raises(LostCallError, match=r"error 7.*; tried again: .* was lost; .* TXN_ALREADY_COMMITTED"):
            await transport.unary(*COMMIT)
    server = MemoryServer(once(refuses, hangs_up))
    server.refuses = True
    async with server.transport() as transport:
        with pytest.raises(NotConnectedError, match=r"cannot connect to db:1: Connection refused$"):
            await transport.unary(*COMMIT)


async def test_an_answer_is_an_answer(autojump_clock):
    def overloaded(stream, stream_id, headers, message):
        stream.peer.answer(stream_id, trailers=[("grpc-status", "8"), ("grpc-message", "later")])

    server = MemoryServer(overloaded)
    async with server.transport() as transport:
        with pytest.raises(OverloadedError):
            await transport.unary(*GET)
    assert len(server.requests) == 1


# Replay


class History:
    """Commits 1 to `last`; each connection sends `at_once` events and is lost, until the rest fits."""

    def __init__(self, last, at_once):
        self.last = last
        self.at_once = at_once
        self.asked = []

    def __call__(self, stream, stream_id, headers, message):
        request = pb.ReplayRequest.FromString(message)
        first = request.start_ts if request.HasField("start_ts") else 1
        last = min(self.last, request.end_ts) if request.HasField("end_ts") else self.last
        self.asked.append(first)
        events = [pb.ReplayEvent(commit_ts=commit_ts).SerializeToString() for commit_ts in range(first, last + 1)]
        if len(events) <= self.at_once:
            stream.peer.answer(stream_id, *events)
            return
        stream.peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        for event in events[: self.at_once]:
            stream.peer.h2.send_data(stream_id, b"\0" + len(event).to_bytes(4, "big") + event)
        begun = b"\0\0\0\1\0half"  # of an event that does not come to its end
        stream.peer.h2.send_data(stream_id, begun)
        stream.hang_up()


@pytest.mark.parametrize("at_once", [1, 7, 300])
async def test_a_replay_goes_on_where_it_broke_off(autojump_clock, at_once):
    history = History(300, at_once)
    async with MemoryServer(history).transport() as transport:
        replay = MessageStream(transport, METHODS["Replay"], pb.ReplayRequest(agent_id="a"), 30)
        assert await events_of(replay) == list(range(1, 301))
    assert history.asked == list(range(1, 301, at_once))
    assert trio.current_time() <= len(history.asked) * BACKOFF_S  # a line that carries something is dialed at once


async def test_a_replay_that_lost_only_its_end_is_complete(autojump_clock):
    def script(stream, stream_id, headers, message):
        stream.peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        event = pb.ReplayEvent(commit_ts=9).SerializeToString()
        stream.peer.h2.send_data(stream_id, b"\0" + len(event).to_bytes(4, "big") + event)
        stream.hang_up()

    server = MemoryServer(script)
    async with server.transport() as transport:
        replay = MessageStream(transport, METHODS["Replay"], pb.ReplayRequest(agent_id="a", end_ts=9), 30)
        assert await events_of(replay) == [9]
    assert len(server.requests) == 1


@pytest.mark.parametrize("after_s", [0, 0.4])
async def test_what_a_server_says_before_it_hangs_up_is_read(autojump_clock, after_s):
    """Nothing can be sent any more, while what it said is on the way or not read yet."""

    class HungUp(MemoryStream):
        async def send(self, item):
            await trio.lowlevel.checkpoint()
            raise anyio.BrokenResourceError

        async def receive(self, max_bytes=65536):
            await trio.sleep(after_s)
            return await super().receive() + await super().receive()  # the settings and the farewell at once

    async def dial():
        stream = HungUp(server, 0)
        stream.peer.h2.close_connection(error_code=11, additional_data=b"too many connections")
        stream.hang_up()
        return stream

    server = MemoryServer(answers)
    async with Transport(Target("db", 1), dial=dial) as transport:
        said, _ = await failed(transport.unary(*GET))
    assert "db:1 ended the connection with HTTP/2 error 11: too many connections" in said


async def test_a_server_that_takes_nothing_and_says_nothing_is_lost(autojump_clock):
    class Deaf(MemoryStream):
        async def send(self, item):
            await trio.lowlevel.checkpoint()
            raise anyio.BrokenResourceError

        async def receive(self, max_bytes=65536):
            await trio.sleep_forever()

    async def dial():
        return Deaf(server, 0)

    server = MemoryServer(answers)
    async with Transport(Target("db", 1, tls=True), dial=dial) as transport:
        said, after_s = await failed(transport.unary(*GET))
    assert said.startswith("db:1 closed the connection at once: it may ask for a client certificate")
    assert after_s < 1


async def test_a_replay_without_progress_ends(autojump_clock):
    history = History(100, 10)
    server = MemoryServer(once(history, hangs_up))
    async with server.transport() as transport:
        replay = MessageStream(transport, METHODS["Replay"], pb.ReplayRequest(agent_id="a"), 30)
        with pytest.raises(ConnectionError, match="was lost"):  # noqa: PT012
            for commit_ts in range(1, 12):
                assert (await anext(replay)).commit_ts == commit_ts
        assert [event async for event in replay] == []
    assert len(server.requests) == TRIES


async def test_the_caller_s_request_is_left_as_it_is(autojump_clock):
    request = pb.ReplayRequest(agent_id="a")
    async with MemoryServer(History(20, 3)).transport() as transport:
        await events_of(MessageStream(transport, METHODS["Replay"], request, 30))
    assert request == pb.ReplayRequest(agent_id="a")


async def test_an_error_in_the_middle_of_a_replay_is_no_loss(autojump_clock):
    def script(stream, stream_id, headers, message):
        event = pb.ReplayEvent(commit_ts=1).SerializeToString()
        stream.peer.answer(stream_id, event, trailers=[("grpc-status", "13"), ("grpc-message", "a bug")])

    server = MemoryServer(script)
    async with server.transport() as transport:
        replay = MessageStream(transport, METHODS["Replay"], pb.ReplayRequest(agent_id="a"), 30)
        assert (await anext(replay)).commit_ts == 1
        with pytest.raises(StatehouseError, match="a bug"):
            await anext(replay)
    assert len(server.requests) == 1
