"""Watching a real daemon with grpcio: across restarts and a rebuilt view, and beside watchers that never read."""

import shutil
import time

import grpc
import pytest
from rpc.fix_edge import PATIENCE_S, stub

from statehouse.limits import FEED_CHUNK_BYTES
from statehouse.v1 import statehouse_pb2 as pb

BIG = "x" * FEED_CHUNK_BYTES


@pytest.fixture
def connect():
    """Channels to a daemon, each a connection of its own; closed with the test."""
    channels = []

    def dial(daemon):
        channels.append(grpc.insecure_channel(daemon.address, options=[("grpc.use_local_subchannel_pool", 1)]))
        return channels[-1]

    yield dial
    for channel in channels:
        channel.close()


def follow(channel, name="Replay", **fields):
    request = {"Replay": pb.ReplayRequest, "ReplayLog": pb.ReplayLogRequest}[name](follow=True, **fields)
    return stub(channel, name)(request, timeout=PATIENCE_S)


def write(channel, agent_id="a", text="", **metadata):
    operation = pb.TransactOperation(agent_id=agent_id, key="k", value={"text": text})
    request = pb.TransactRequest(operations=[operation], metadata=metadata)
    return stub(channel, "Transact")(request, timeout=PATIENCE_S, wait_for_ready=True).commit_ts


def commits(events):
    return [event.commit_ts for event in events if not event.bookmark]


def test_a_watcher_goes_on_across_restarts_and_a_rebuilt_view(daemon, connect):
    seen = []
    for life in range(3):
        channel = connect(daemon)
        watching = follow(channel, agent_id="a", start_ts=seen[-1] + 1 if seen else 0, limit=4)
        history = write(channel)
        assert next(watching).commit_ts == (seen[-1] if seen else 0) + 1
        seen.append(history)
        for _ in range(3):
            newest = write(channel)
            seen.append(next(watching).commit_ts)
            assert seen[-1] == newest
        assert list(watching) == []  # the limit
        missed = write(channel, text="while nobody watches")
        assert daemon.stop() == 0
        if life == 1:
            shutil.rmtree(daemon.data_dir / "state")
        daemon.start()
        channel = connect(daemon)
        watching = follow(channel, agent_id="a", start_ts=seen[-1] + 1, bookmarks=True)
        assert next(watching).commit_ts == missed
        bookmark = next(watching)
        assert (bookmark.bookmark, bookmark.commit_ts) == (True, missed)
        watching.cancel()
        seen.append(missed)
    assert seen == list(range(1, 16))


def test_a_stop_ends_watchers_at_once_with_unavailable(daemon, connect):
    channel = connect(daemon)
    watchers = [follow(channel, name, bookmarks=True) for name in ("ReplayLog", "ReplayLog")]
    watchers.append(follow(channel, agent_id="a", bookmarks=True))
    for each in watchers:
        assert next(each).bookmark
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5  # the grace time is longer
    for each in watchers:
        with pytest.raises(grpc.RpcError) as caught:
            next(each)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_watcher_that_never_reads_holds_up_nobody(daemon, connect):
    lazy = [follow(connect(daemon), agent_id="a") for _ in range(20)]
    reader = follow(connect(daemon), agent_id="a")
    writer = connect(daemon)
    for _ in range(100):
        newest = write(writer, text=BIG)
        began = time.monotonic()
        assert next(reader).commit_ts == newest
        assert time.monotonic() - began < 5
    for each in lazy:  # and who is slow is given everything
        assert commits(next(each) for _ in range(100)) == list(range(1, 101))


def test_the_whole_log_has_whole_commits(daemon, connect):
    channel = connect(daemon)
    watching = follow(channel, "ReplayLog", metadata={"run": "1"})
    request = pb.TransactRequest(
        operations=[pb.TransactOperation(agent_id=name, key="k", value={}) for name in "cab"], metadata={"run": "1"}
    )
    for _ in range(3):
        stub(channel, "Transact")(request, timeout=PATIENCE_S)
        write(channel, run="2")
    found = [next(watching) for _ in range(9)]
    assert [(event.commit_ts, event.agent_id) for event in found] == [(ts, name) for ts in (1, 3, 5) for name in "abc"]


def test_a_cancelled_watcher_is_gone(daemon, connect):
    channel = connect(daemon)
    for _ in range(300):  # more than a connection may have at once
        watching = follow(channel, agent_id="a", bookmarks=True)
        assert next(watching).bookmark
        watching.cancel()
    write(channel)
