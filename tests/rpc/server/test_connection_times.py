"""What a connection does when time passes: preface, silence, idleness, age, requests and calls that are late."""

import pytest
import trio
from rpc.fix_memory_peer import message, settle

from statehouse.actors.reply import Reply
from statehouse.rpc.http2.frames import CONNECTION_PREFACE, END_STREAM, FrameType, frame
from statehouse.rpc.server.calls import REQUEST_S
from statehouse.rpc.server.lifetime import KEEPALIVE_ANSWER_S, KEEPALIVE_S, PREFACE_S, LifetimeLimits

NO_ERROR, U31 = 0, 2**31 - 1


def echo(request, _caller):
    return request


@pytest.mark.parametrize("said", [b"", CONNECTION_PREFACE[:10], CONNECTION_PREFACE])
async def test_a_peer_that_does_not_greet_is_let_go(over_memory, said, autojump_clock):
    connected = await over_memory(greet=False)
    await connected.peer.send(said)
    await connected.over.wait()
    assert trio.current_time() == PREFACE_S
    assert connected.peer.goaways() == [(PREFACE_S, 0, NO_ERROR)]


async def test_a_trickle_of_a_preface_is_no_preface(over_memory, autojump_clock):
    connected = await over_memory(greet=False)
    for byte in CONNECTION_PREFACE:
        if connected.over.is_set():
            break
        await connected.peer.send(bytes([byte]))
        await trio.sleep(1)
    assert connected.over.is_set()
    assert connected.peer.ended_at == PREFACE_S


async def test_a_silent_peer_is_pinged_and_stays_when_it_answers(over_memory, autojump_clock):
    peer = (await over_memory()).peer
    await trio.sleep(3 * KEEPALIVE_S + 1)
    assert [ping.at for ping in peer.of(FrameType.PING)] == [KEEPALIVE_S, 2 * KEEPALIVE_S, 3 * KEEPALIVE_S]
    assert peer.ended_at is None


async def test_a_peer_that_does_not_answer_a_ping_is_cut_off_and_its_calls_with_it(over_memory, autojump_clock):
    ended = trio.Event()

    async def forever(_request, _caller):
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        yield []

    connected = await over_memory(stream={"Forever": forever})
    connected.peer.pongs = False
    await connected.peer.call("/t/Forever")
    await connected.over.wait()
    assert trio.current_time() == KEEPALIVE_S + KEEPALIVE_ANSWER_S
    assert ended.is_set()
    assert connected.nothing_is_held()


async def test_an_idle_connection_is_said_goodbye_to(over_memory, autojump_clock):
    connected = await over_memory(limits=LifetimeLimits(idle_s=10))
    await connected.over.wait()
    # The first says: no more calls; the second, which ones were looked at.
    assert connected.peer.goaways() == [(10, U31, NO_ERROR), (10, 0, NO_ERROR)]


async def test_a_call_makes_a_connection_busy_until_it_ends(over_memory, autojump_clock):
    reply = Reply()
    connected = await over_memory(limits=LifetimeLimits(idle_s=10), unary={"Wait": lambda *_: reply})
    await trio.sleep(9)
    call = await connected.peer.call("/t/Wait")
    await trio.sleep(30)
    assert connected.connection.idle_since is None
    reply.succeed(b"")
    assert await connected.peer.status(call) == 0
    assert connected.connection.idle_since == 39
    await connected.over.wait()
    assert trio.current_time() == 49
    assert connected.peer.goaways()[-1] == (49, call, NO_ERROR)


async def test_an_old_connection_takes_no_new_calls_and_ends_when_the_last_has(over_memory, autojump_clock):
    reply = Reply()
    connected = await over_memory(limits=LifetimeLimits(age_s=20), unary={"Wait": lambda *_: reply, "Echo": echo})
    call = await connected.peer.call("/t/Wait")
    await trio.sleep(30)
    assert connected.peer.goaways() == [(20, U31, NO_ERROR)]
    late = await connected.peer.call("/t/Echo", b"it was under way")
    assert await connected.peer.status(late) == 0
    reply.succeed(b"answer")
    assert await connected.peer.status(call) == 0
    await connected.over.wait()
    assert connected.peer.goaways()[1:] == [(30, late, NO_ERROR)]


@pytest.mark.parametrize("begun", [b"", message(b"x" * 100)[:50]])
async def test_a_request_that_does_not_come_in_is_ended_alone(over_memory, begun, autojump_clock):
    connected = await over_memory(unary={"Echo": echo})
    begin, call = connected.peer.begin("/t/Echo")
    await connected.peer.send(begin, frame(FrameType.DATA, 0, call, begun) if begun else b"")
    await trio.sleep(REQUEST_S - 1)
    assert call not in connected.peer.headers
    assert await connected.peer.status(call) == 4
    assert trio.current_time() == REQUEST_S
    assert "the request did not come in" in connected.peer.headers[call]["grpc-message"]
    assert await connected.peer.status(await connected.peer.call("/t/Echo")) == 0
    assert connected.nothing_is_held()


async def test_a_request_that_came_in_may_wait_for_its_answer_for_long(over_memory, autojump_clock):
    reply = Reply()
    connected = await over_memory(unary={"Wait": lambda *_: reply})
    call = await connected.peer.call("/t/Wait")
    await trio.sleep(100 * REQUEST_S)
    reply.succeed(b"")
    assert await connected.peer.status(call) == 0


async def test_the_deadline_of_a_request_that_does_not_come_in(over_memory, autojump_clock):
    connected = await over_memory(unary={"Echo": echo})
    begin, call = connected.peer.begin("/t/Echo", grpc_timeout="2S")
    await connected.peer.send(begin)
    assert await connected.peer.status(call) == 4
    assert trio.current_time() == 2
    await connected.peer.send(frame(FrameType.DATA, END_STREAM, call, message(b"late")))
    assert await connected.peer.status(await connected.peer.call("/t/Echo")) == 0
    assert connected.nothing_is_held()


@pytest.mark.parametrize("outcome", ["succeed", "fail"])
async def test_a_reply_after_the_deadline_sends_nothing_and_is_counted_until_then(over_memory, outcome, autojump_clock):
    reply = Reply()
    connected = await over_memory(unary={"Wait": lambda *_: reply})
    call = await connected.peer.call("/t/Wait", grpc_timeout="1500m")
    assert await connected.peer.status(call) == 4
    assert trio.current_time() == 1.5
    assert "outcome is unknown" in connected.peer.headers[call]["grpc-message"]
    assert connected.capacity.calls == 1
    await trio.sleep(100)
    sent = len(connected.peer.of(FrameType.HEADERS) + connected.peer.of(FrameType.DATA))
    if outcome == "succeed":
        reply.succeed(b"late")
    else:
        reply.fail(ZeroDivisionError())
    await settle()
    assert len(connected.peer.of(FrameType.HEADERS) + connected.peer.of(FrameType.DATA)) == sent
    assert connected.nothing_is_held()


async def test_of_many_deadlines_each_ends_its_call(over_memory, autojump_clock):
    connected = await over_memory(unary={"Wait": lambda *_: Reply()})
    seconds = [5, 1, 3, 3, 8]
    calls = [await connected.peer.call("/t/Wait", grpc_timeout=f"{each}S") for each in seconds]
    assert [await connected.peer.status(each) for each in calls] == [4] * 5
    assert [connected.peer.of(FrameType.HEADERS, each)[-1].at for each in calls] == seconds


async def test_the_deadline_of_a_stream_ends_its_work(over_memory, autojump_clock):
    ended_at = []

    async def ticks(_request, _caller):
        try:
            while True:
                await trio.sleep(1)
                yield [b"tick"]
        finally:
            ended_at.append(trio.current_time())

    connected = await over_memory(stream={"Ticks": ticks})
    call = await connected.peer.call("/t/Ticks", grpc_timeout="3500m")
    assert await connected.peer.status(call) == 4
    assert connected.peer.data[call] == message(b"tick") * 3
    assert ended_at == [3.5]
    assert connected.nothing_is_held()


async def test_a_deadline_that_has_passed_at_once(over_memory, autojump_clock):
    connected = await over_memory(unary={"Wait": lambda *_: Reply()})
    call = await connected.peer.call("/t/Wait", grpc_timeout="0n")
    assert await connected.peer.status(call) == 4
