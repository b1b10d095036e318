"""A server that dies, hangs, or breaks the rules: bounded waits, ConnectionError, and the next call connects again."""

import random
import signal
import socket
import threading
import time

import anyio
import anyio.lowlevel
import h2.events
import h2.settings
import pytest
from client import memory_service

from statehouse import AsyncStatehouse, ConnectionError, InternalError, StatehouseError
from statehouse.rpc.client import transport
from statehouse.rpc.client.protocol import Keepalive
from statehouse.rpc.client.retry import TRIES
from statehouse.v1 import statehouse_pb2 as pb

OK = pb.HealthResponse(status="ok").SerializeToString()


def answer(peer, stream_id):
    peer.answer(stream_id, OK)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


AT_ONCE_S = 5.0
"""Long before the deadline of a call, also on a machine that is busy with something else."""


async def fails(call, match, within_s=AT_ONCE_S):
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=match):
        await call
    assert time.monotonic() - started < within_s


def test_nobody_listens(run):
    async def main():
        async with AsyncStatehouse(f"127.0.0.1:{free_port()}") as client:
            await fails(client.health(), "cannot connect to 127.0.0.1")
            with pytest.raises(ConnectionError):
                [event async for event in client.replay("a")]

    run(main)


def test_killed_in_the_middle_of_calls_and_the_next_call_reconnects(run, mortal_server):
    process, url = mortal_server()
    port = int(url.rpartition(":")[2])

    async def main():
        async with AsyncStatehouse(url) as client:
            assert await client.health() == "ok"
            killed_at = []

            async def call():
                with pytest.raises(ConnectionError, match="was lost"):
                    await client.list_keys("a")  # which this server never answers
                killed_at.append(time.monotonic())

            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(call)
                for _ in range(3):
                    assert await client.health() == "ok"  # the calls above are with the server by now
                process.send_signal(signal.SIGKILL)
                started = time.monotonic()
            assert len(killed_at) == 20
            assert max(killed_at) - started < AT_ONCE_S
            process.wait()
            await fails(client.health(), "cannot connect")

            server, _ = memory_service.serve(memory_service.MemoryService(), port)
            try:
                assert await client.health() == "ok"
            finally:
                server.stop(None).wait()

    run(main)


def test_killed_in_the_middle_of_a_replay(run, mortal_server):
    process, url = mortal_server()

    async def main():
        async with AsyncStatehouse(url) as client:
            for _ in range(40):
                async with await client.begin_transaction() as txn:
                    await txn.write("a", "k", {"pad": "x" * 100_000})
            replay = client.replay("a")
            await anext(replay)
            process.kill()
            started = time.monotonic()
            with pytest.raises(ConnectionError, match="was lost"):
                [event async for event in replay]
            assert time.monotonic() - started < AT_ONCE_S
            assert [event async for event in replay] == []

    run(main)


def test_a_call_that_is_not_answered_ends_at_its_deadline_and_the_connection_stays(run, memory_server):
    memory_server.hold = {"ListKeys"}

    async def main():
        async with AsyncStatehouse(memory_server.url, timeout_s=0.2) as client:
            assert await client.health(timeout_s=30) == "ok"
            # The server knows the deadline, too, and may be faster to tell that it is over.
            await fails(client.list_keys("a"), "ListKeys was not answered .* within 0.2 s|Deadline Exceeded")
            assert await client.health(timeout_s=30) == "ok"

    run(main)


def test_a_server_that_hangs_loses_its_connection(run, scripted, monkeypatch):
    monkeypatch.setattr(transport, "Keepalive", lambda: Keepalive(answer_s=0.5))
    done = threading.Event()
    frozen = scripted(lambda peer, stream_id: done.wait(60) if peer.number == 0 else answer(peer, stream_id))

    async def main():
        async with AsyncStatehouse(frozen.url, timeout_s=0.2) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fails, client.health(), "not answered")
                tasks.start_soon(fails, client.replay("a").__anext__(), "nothing came|does not answer")
            with anyio.fail_after(30):
                while True:
                    try:
                        assert await client.health(timeout_s=1) == "ok"
                    except ConnectionError:
                        continue
                    break
            assert frozen.connections == 2

    try:
        run(main)
    finally:
        done.set()


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (b"", "did not answer as a Statehouse daemon within 0.2 s"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "does not speak gRPC"),
        (b"\0\0\x04\x01\x04\0\0\0\x01\xff\xff\xff\xff", "does not speak gRPC"),
        (b"\x15\x03\x01\0\x02\x02\x46", r"does not speak gRPC: it speaks TLS \(use https://\)"),
    ],
)
def test_what_listens_is_no_daemon(run, raw_server, greeting, message):
    server = raw_server(greeting)

    async def main():
        # Only who says nothing is waited for: what else is said may come late from a machine that is busy.
        async with AsyncStatehouse(server.url, connect_timeout_s=10 if greeting else 0.2) as client:
            await fails(client.health(), message, within_s=15)

    run(main)


def test_a_server_that_hangs_up_at_once(run, raw_server):
    server = raw_server(hang_up=True)

    async def main():
        async with AsyncStatehouse(server.url) as client:
            expected = r"closed the connection at once: it may speak TLS \(https://\), or take no more connections"
            await fails(client.health(), expected)

    run(main)


def test_a_server_that_says_that_it_is_full(run, raw_server):
    settings, text = b"\0\0\0\4\0\0\0\0\0", b"too many connections"
    goaway = bytes([0, 0, 8 + len(text), 7, 0, 0, 0, 0, 0]) + bytes(7) + b"\x0b" + text
    server = raw_server(settings + goaway, hang_up=True)

    async def main():
        async with AsyncStatehouse(server.url) as client:
            with pytest.raises(ConnectionError, match=r"closed the connection|HTTP/2 error 11: too many connections"):
                await client.health()

    run(main)


def frame(rng):
    payload = rng.randbytes(rng.randrange(40))
    stream_id = rng.choice([0, 1, 1, 2, 3])
    return (
        len(payload).to_bytes(3, "big") + bytes([rng.randrange(11), rng.randrange(256), 0, 0, 0, stream_id]) + payload
    )


@pytest.mark.parametrize("seed", range(40))
def test_random_frames_end_in_an_error_of_ours(raw_server, seed):
    rng = random.Random(seed)
    settings = b"\0\0\0\x04\0\0\0\0\0" if seed % 4 else b""
    server = raw_server(settings + b"".join(frame(rng) for _ in range(20)), hang_up=True)

    async def main():
        async with AsyncStatehouse(server.url, timeout_s=0.5, connect_timeout_s=0.5) as client:
            with pytest.raises(ConnectionError):
                await client.health()

    anyio.run(main, backend="trio")


def test_flow_control_for_a_call_that_has_ended_is_no_error(run, scripted):
    def script(peer, stream_id):
        answer(peer, stream_id)
        if stream_id > 1:
            peer.flush()
            peer.socket.sendall(b"\0\0\x04\x08\0\0\0\0\x01\0\0\0\x01")  # WINDOW_UPDATE of stream 1

    server = scripted(script)

    async def main():
        async with AsyncStatehouse(server.url) as client:
            for _ in range(5):
                assert await client.health() == "ok"
        assert server.connections == 1

    run(main)


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (lambda peer, i: peer.refuse(i, ("grpc-status", "13"), ("grpc-message", "a%20bug")), InternalError, "a bug"),
        (lambda peer, i: peer.refuse(i), ConnectionError, "without a readable gRPC status"),
        (lambda peer, i: peer.refuse(i, ("grpc-status", "zero")), ConnectionError, "without a readable"),
        (lambda peer, i: peer.h2.send_headers(i, [(":status", "502")], end_stream=True), ConnectionError, "502"),
        (lambda peer, i: peer.h2.send_headers(i, [(":status", "200")]), ConnectionError, "not speak gRPC"),
        (lambda peer, i: peer.answer(i, b"\xff"), StatehouseError, "not readable"),
        (lambda peer, i: peer.refuse(i, ("grpc-status", "0")), ConnectionError, "did not give one answer"),
    ],
)
def test_a_bad_answer_ends_its_call_and_no_other(run, scripted, script, error, message):
    server = scripted(lambda peer, i: script(peer, i) if i % 4 == 1 else answer(peer, i))

    async def main():
        async with AsyncStatehouse(server.url, timeout_s=5) as client:
            for _ in range(3):
                with pytest.raises(error, match=message):
                    await client.health()
                assert await client.health() == "ok"
        assert server.connections == 1

    run(main)


def test_a_read_that_is_cut_off_is_asked_again_and_a_write_is_not(run, scripted):
    cut = []

    def script(peer, stream_id):
        cut.append(stream_id)
        if len(cut) % 2:
            peer.h2.reset_stream(stream_id, 2)
        else:
            answer(peer, stream_id)

    server = scripted(script)

    async def main():
        async with AsyncStatehouse(server.url, timeout_s=5) as client:
            assert await client.health() == "ok"
            with pytest.raises(ConnectionError, match="HTTP/2 error 2"):
                await client.begin_transaction(local=False)
        assert server.connections == 1

    run(main)
    assert len(cut) == 3


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"\x01\0\0\0\x01x", StatehouseError, "a compressed message"),
        (b"\0\x7f\xff\xff\xff", StatehouseError, "a message of 2147483647 bytes"),
        (b"\0\0\0\0\x09x", ConnectionError, "in the middle of a message"),
    ],
)
def test_messages_that_are_not_taken(run, scripted, data, error, message):
    resets = []

    def script(peer, stream_id):
        peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        peer.h2.send_data(stream_id, data)
        if data[4:5] == b"\x09":
            peer.h2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)

    def on_event(peer, event):
        if isinstance(event, h2.events.StreamReset):
            resets.append(event.stream_id)

    server = scripted(script, on_event=on_event)

    async def main():
        async with AsyncStatehouse(server.url, timeout_s=5) as client:
            for _ in range(2):
                with pytest.raises(error, match=message) as caught:
                    await client.health()
                assert type(caught.value) is error

    run(main)
    assert server.connections == 1
    assert bool(resets) is (error is StatehouseError)


def test_a_connection_that_was_closed_unseen_is_not_used(run, scripted):
    hung_up = threading.Event()

    def script(peer, stream_id):
        answer(peer, stream_id)
        if peer.number == 0:
            peer.hang_up()
            hung_up.set()

    server = scripted(script)

    async def main():
        async with AsyncStatehouse(server.url) as client:
            assert await client.health() == "ok"
            hung_up.wait(5)  # as a program does that computes: the event loop sees nothing
            assert await client.health() == "ok"
            assert server.connections == 2

    run(main)


def test_a_farewell_lets_calls_in_flight_end_and_moves_new_ones(run, scripted):
    def script(peer, stream_id):
        if peer.number == 0:
            peer.h2.close_connection(last_stream_id=stream_id)
            peer.flush()
            # h2 forbids what GOAWAY allows: answering afterwards.
            peer.h2.state_machine.state = type(peer.h2.state_machine.state).SERVER_OPEN
        answer(peer, stream_id)

    server = scripted(script)

    async def main():
        async with AsyncStatehouse(server.url, timeout_s=5) as client:
            assert await client.health() == "ok"
            assert await client.health() == "ok"
            assert server.connections == 2

    run(main)


def test_a_call_that_the_server_did_not_look_at_is_sent_again(run, scripted):
    def goodbye(peer, stream_id):
        if peer.number == 0:
            peer.h2.close_connection(last_stream_id=0)
        else:
            answer(peer, stream_id)

    server = scripted(goodbye)

    async def main():
        async with AsyncStatehouse(server.url, timeout_s=5) as client:
            assert await client.health() == "ok"
            assert server.connections == 2

    run(main)


def test_a_refused_call_is_sent_again_and_not_for_ever(run, scripted):
    seen = []

    def script(peer, stream_id):
        seen.append(stream_id)
        peer.h2.reset_stream(stream_id, 7)  # REFUSED_STREAM

    server = scripted(script)

    async def main():
        async with AsyncStatehouse(server.url, timeout_s=5) as client:
            with pytest.raises(ConnectionError, match="HTTP/2 error 7"):
                await client.health()
            assert len(seen) == TRIES
            with pytest.raises(ConnectionError, match="HTTP/2 error 7"):
                await anext(client.replay("a"))
            assert len(seen) == 2 * TRIES

    run(main)


def test_goaway_with_an_error_fails_the_calls(run, scripted):
    server = scripted(lambda peer, stream_id: peer.h2.close_connection(error_code=11))

    async def main():
        async with AsyncStatehouse(server.url, timeout_s=5) as client:
            await fails(client.health(), "HTTP/2 error 11")

    run(main)


def test_calls_above_the_servers_limit_wait_for_their_turn(run, scripted):
    in_flight, at_once, held = [], [], [True]

    def script(peer, stream_id):
        in_flight.append((peer, stream_id))
        at_once.append(len(in_flight))
        if len(in_flight) == 3 and not held:
            answer_all()

    def answer_all():
        while in_flight:
            answer(*in_flight.pop())

    server = scripted(script, settings={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 3})

    async def main():
        async with AsyncStatehouse(server.url, timeout_s=10) as client, anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(client.health)
            while len(in_flight) < 3:
                await anyio.lowlevel.checkpoint()
            for _ in range(30):
                tasks.start_soon(client.health)
            with anyio.move_on_after(0.05) as scope:  # one that gives up while it waits takes nobody's turn
                await anext(client.replay("a"))
            assert scope.cancelled_caught
            held.clear()
            peer = in_flight[0][0]
            answer_all()
            peer.flush()

    run(main)
    assert len(at_once) == 33
    assert max(at_once) == 3


def test_close_fails_the_calls_in_flight(run, memory_server):
    memory_server.hold = {"ListKeys"}

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fails, client.list_keys("a"), "the client was closed", 5)
                await client.health()
                await client.close()
            await fails(client.health(), "the client is closed")
            await client.close()

    run(main)
