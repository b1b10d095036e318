"""Watches: what was, what comes, and what becomes of them when the daemon is cut off, restarted, or gone."""

import datetime as dt
import math
import signal
import threading

import anyio
import pytest
from client import memory_service
from client.fix_server import cancelled_once

from statehouse import (
    AsyncStatehouse,
    Bookmark,
    ConnectionError,
    InvalidRequestError,
    OverloadedError,
    Put,
    Statehouse,
    StatehouseError,
)
from statehouse.rpc.client import retry
from statehouse.v1 import statehouse_pb2 as pb


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry.Backoff.__init__, "__defaults__", (0.01, 0.05))


async def write(client, *numbers, agents=("a",)):
    for number in numbers:
        await client.transact([Put(agent, "k", {"n": number}) for agent in agents])


def number_of(event):
    return event.operations[0].value["n"]


async def take(watch, count):
    return [number_of(await anext(watch)) for _ in range(count)]


def test_history_and_then_what_comes(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client, anyio.create_task_group() as tasks:
            await write(client, 1, 2)
            watch = client.watch("a", start_ts=1)
            assert await take(watch, 2) == [1, 2]
            tasks.start_soon(write, client, 3, 4)
            assert await take(watch, 2) == [3, 4]
            await watch.aclose()
            assert [event async for event in watch] == []

    run(main)


def test_from_now_on(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await write(client, 1, 2)
            watch = client.watch("a", bookmarks=True)
            assert await anext(watch) == Bookmark(2)
            await write(client, 3)
            assert number_of(await anext(watch)) == 3
            log = client.watch_log(bookmarks=True)
            assert await anext(log) == Bookmark(3)
            await write(client, 4, agents=("a", "b"))
            assert [(await anext(log)).agent_id for _ in range(2)] == ["a", "b"]

    run(main)


def test_ends(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await write(client, 1, 2, 3)
            assert [number_of(event) async for event in client.watch("a", 1, 2)] == [1, 2]
            assert [number_of(event) async for event in client.watch("a", 2, limit=2)] == [2, 3]
            assert [event async for event in client.watch("a", end_ts=2)] == []
            assert [number_of(event) async for event in client.replay_log(limit=2)] == [1, 2]

    run(main)


def test_the_sync_client_watches_from_a_thread(memory_server):
    with Statehouse(memory_server.url) as client:
        client.transact([Put("a", "k", {"n": 1})])
        watch = client.watch("a", 1)
        assert number_of(next(watch)) == 1
        threading.Timer(0.05, client.transact, [[Put("a", "k", {"n": 2})]]).start()
        assert number_of(next(watch)) == 2
        threading.Timer(0.05, client.close).start()
        with pytest.raises(ConnectionError, match="closed"):
            next(watch)


def event(commit_ts, *, bookmark=False, agent_id="a"):
    operations = [] if bookmark else [pb.Operation(key="k", value={"n": commit_ts}, version=1)]
    return pb.ReplayEvent(commit_ts=commit_ts, operations=operations, bookmark=bookmark, agent_id=agent_id)


class Cutting:
    """Streams of so many messages each; the requests for them are kept."""

    def __init__(self, scripted, answers, *, hang_up=False):
        self.requests = []
        self._bodies = {}
        self._answers = answers
        self._hang_up = hang_up
        self._resets = []
        self.resets = threading.Semaphore(0)
        self.server = scripted(self._answer, on_event=self._event)
        self.url = self.server.url

    def _event(self, peer, happened):
        name = type(happened).__name__
        if name == "DataReceived":
            self._bodies[peer.number, happened.stream_id] = happened.data
        if name == "StreamReset":
            self.resets.release()

    def _answer(self, peer, stream_id):
        request = pb.ReplayRequest.FromString(self._bodies[peer.number, stream_id][5:])
        self.requests.append(request)
        answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
        peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc+proto")])
        for message in answer(request):
            if message is None:
                return
            body = message.SerializeToString()
            peer.h2.send_data(stream_id, b"\0" + len(body).to_bytes(4, "big") + body)
        if self._hang_up:
            peer.hang_up()
        else:
            peer.h2.send_headers(stream_id, [("grpc-status", "14"), ("grpc-message", "stopping")], end_stream=True)


@pytest.mark.parametrize("hang_up", [False, True])
def test_it_goes_on_after_the_last_event_or_bookmark_behind_one(run, scripted, hang_up):
    cutting = Cutting(
        scripted,
        [
            lambda request: [event(1), event(2)],
            lambda request: [event(3), event(7, bookmark=True)],
            lambda request: [],
            lambda request: [],
            lambda request: [],
            lambda request: [event(7), event(8)],  # the first of them is a repeat
            lambda request: [event(9), None],
        ],
        hang_up=hang_up,
    )

    async def main():
        async with AsyncStatehouse(cutting.url) as client:
            assert await take(client.watch("a", start_ts=1), 5) == [1, 2, 3, 8, 9]

    run(main)
    assert [request.start_ts for request in cutting.requests] == [1, 3, 8, 8, 8, 8, 9]
    assert all(request.follow and request.bookmarks for request in cutting.requests)


def test_it_begins_where_it_began_while_no_event_has_come(run, scripted):
    cutting = Cutting(
        scripted,
        [
            lambda request: [event(7, bookmark=True)],
            lambda request: [event(9, bookmark=True)],
            lambda request: [event(3), event(9, bookmark=True)],  # it has come to be as a fork
            lambda request: [event(12), None],
        ],
    )

    async def main():
        async with AsyncStatehouse(cutting.url) as client:
            watch = client.watch("a", start_ts=2, bookmarks=True)
            found = [await anext(watch) for _ in range(5)]
            assert [each.commit_ts for each in found] == [7, 9, 3, 9, 12]

    run(main)
    assert [request.start_ts for request in cutting.requests] == [2, 2, 2, 10]


def test_a_limit_counts_what_has_come(run, scripted):
    cutting = Cutting(
        scripted, [lambda request: [event(1), event(5, bookmark=True)], lambda request: [event(6), event(7)]]
    )

    async def main():
        async with AsyncStatehouse(cutting.url) as client:
            watch = client.watch("a", start_ts=1, limit=3)
            assert [number_of(each) async for each in watch] == [1, 6, 7]

    run(main)
    assert [(request.start_ts, request.limit) for request in cutting.requests] == [(1, 3), (6, 2)]


def test_the_log_goes_on_within_a_commit(run, scripted):
    commit = [event(5, agent_id=agent) for agent in "abc"]
    cutting = Cutting(
        scripted,
        [
            lambda request: [event(4), commit[0]],
            lambda request: commit[:2],
            *[lambda request: commit[:1]] * 4,  # more than one call is tried again
            lambda request: [*commit, event(6)],
            lambda request: [event(6), event(8), None],
        ],
    )

    async def main():
        async with AsyncStatehouse(cutting.url) as client:
            watch = client.watch_log(start_ts=4)
            taken = [await anext(watch) for _ in range(6)]
            assert [(each.commit_ts, each.agent_id) for each in taken] == [
                *((4, "a"), (5, "a"), (5, "b"), (5, "c"), (6, "a"), (8, "a"))
            ]

    run(main)
    starts = [pb.ReplayLogRequest.FromString(each.SerializeToString()).start_ts for each in cutting.requests]
    assert starts == [4, *[5] * 6, 6]


def refused(status):
    def script(peer, stream_id):
        if seen:
            peer.refuse(stream_id, ("grpc-status", str(status)))
        else:
            peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc+proto")])
            body = event(1).SerializeToString()
            peer.h2.send_data(stream_id, b"\0" + len(body).to_bytes(4, "big") + body)
            peer.h2.reset_stream(stream_id, 2)
        seen.append(stream_id)

    seen = []
    return script, seen


@pytest.mark.parametrize("status", [3, 16, 13])
def test_a_refusal_ends_it(run, scripted, status):
    script, _ = refused(status)
    server = scripted(script)

    async def main():
        async with AsyncStatehouse(server.url) as client:
            watch = client.watch("a", start_ts=1)
            assert await take(watch, 1) == [1]
            with pytest.raises(StatehouseError):
                await anext(watch)
            assert [each async for each in watch] == []

    run(main)


def test_want_of_room_does_not_end_it_once_it_has_begun(run, scripted):
    script, seen = refused(8)
    server = scripted(script)

    async def main():
        async with AsyncStatehouse(server.url) as client:
            watch = client.watch("a", start_ts=1)
            assert await take(watch, 1) == [1]
            await cancelled_once(lambda: len(seen) > 3, anext(watch))
            with pytest.raises(OverloadedError):
                await anext(client.watch("a", start_ts=1))

    run(main)


def test_nobody_there_at_the_beginning_is_told(run):
    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:
            for watch in (client.watch("a"), client.watch("a", start_ts=1), client.watch_log()):
                with pytest.raises(ConnectionError):
                    await anext(watch)

    run(main)


def test_a_daemon_that_says_nothing_is_asked_anew(run, scripted):
    cutting = Cutting(scripted, [lambda request: [event(1), None], lambda request: [event(2), None]])

    async def main():
        async with AsyncStatehouse(cutting.url) as client:
            assert await take(client.watch("a", start_ts=1, timeout_s=0.1), 2) == [1, 2]

    run(main)
    assert cutting.resets.acquire(timeout=30)


def test_cancelling_leaves_nothing_behind(run, scripted):
    cutting = Cutting(scripted, [lambda request: [event(1), None]])

    async def main():
        async with AsyncStatehouse(cutting.url) as client:
            watch = client.watch("a", start_ts=1)
            assert await take(watch, 1) == [1]
            with anyio.move_on_after(0.05) as scope:
                await anext(watch)
            assert scope.cancelled_caught
            assert await anyio.to_thread.run_sync(lambda: cutting.resets.acquire(timeout=30))
            assert [each async for each in watch] == []
            assert cutting.server.connections == 1
            gone = client.watch("a", start_ts=1)
            assert await take(gone, 1) == [1]
            await anyio.to_thread.run_sync(cutting.server.close)
            # Now in the middle of a pause, and of dialing: the client ends at once, and nothing dials on.
            with anyio.move_on_after(0.2):
                await anext(gone)

    before = threading.active_count()
    run(main)
    assert threading.active_count() <= before


def test_an_older_daemon_is_told(run, scripted):
    server = scripted(lambda peer, stream_id: peer.refuse(stream_id, ("grpc-status", "0")))

    async def main():
        async with AsyncStatehouse(server.url) as client:
            with pytest.raises(StatehouseError, match="older than this client"):
                await anext(client.watch("a"))

    run(main)


def test_it_outlives_a_daemon_that_goes_away(run, mortal_server):
    process, url = mortal_server()
    port = int(url.rpartition(":")[2])

    async def main():
        async with AsyncStatehouse(url) as client:
            watch = client.watch("a", bookmarks=True)
            assert await anext(watch) == Bookmark(0)
            process.send_signal(signal.SIGKILL)
            process.wait()
            with anyio.move_on_after(0.3):
                with pytest.raises(ConnectionError):
                    await client.health()
                await anyio.sleep_forever()

            async def serve_again():
                await anyio.sleep(0.2)
                servers.append(memory_service.serve(service, port)[0])
                async with AsyncStatehouse(url) as other:
                    await write(other, 1)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve_again)
                while isinstance(each := await anext(watch), Bookmark):
                    pass
            assert number_of(each) == 1

    service, servers = memory_service.MemoryService(), []
    try:
        run(main)
    finally:
        service.released.set()
        for server in servers:
            server.stop(None).wait()


WATCHES = [
    ({"start_ts": -1}, ValueError, "start_ts must be from 0"),
    ({"start_ts": 1, "start_time": dt.datetime.now(dt.UTC)}, ValueError, "start_ts and start_time exclude"),
    ({"end_ts": 1, "end_time": dt.datetime.now(dt.UTC)}, ValueError, "end_ts and end_time exclude"),
    ({"start_time": dt.datetime(2030, 1, 1)}, ValueError, "start_time has no time zone"),  # noqa: DTZ001
    ({"end_time": "now"}, TypeError, "end_time must be a datetime, not a str"),
    ({"limit": 0}, ValueError, "limit must be from 1"),
    ({"key_prefix": None}, TypeError, "key_prefix must be a str"),
    ({"metadata": {"a": None}}, TypeError, r"metadata\['a'\] must be a str, not None"),
    ({"timeout_s": math.nan}, ValueError, "timeout_s must be a finite"),
]


@pytest.mark.parametrize(("given", "error", "message"), WATCHES)
def test_mistakes_are_told_at_once(given, error, message):
    client = AsyncStatehouse()
    for call in (client.watch, client.watch_log, client.replay, client.replay_log):
        with pytest.raises(error, match=message):
            call("a", **given)


def test_against_the_daemon(run, daemon):
    async def main():
        async with AsyncStatehouse(daemon.address) as client:
            await write(client, 1, 2)
            watch = client.watch("a", bookmarks=True)
            assert await anext(watch) == Bookmark(2)
            await write(client, 3)
            assert number_of(await anext(watch)) == 3
            everything = client.watch_log(start_ts=1)
            assert await take(everything, 3) == [1, 2, 3]
            await anyio.to_thread.run_sync(daemon.kill)
            await anyio.to_thread.run_sync(daemon.start)
            await write(client, 4)
            while isinstance(each := await anext(watch), Bookmark):
                pass
            assert number_of(each) == 4
            assert await take(everything, 1) == [4]
            with pytest.raises(InvalidRequestError):
                await anext(client.watch("", 1))

    run(main)
