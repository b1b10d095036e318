"""head and verify in both clients, against a server that is not ours."""

import pytest

import statehouse
from statehouse import AsyncStatehouse, Head, Statehouse, VerifyFinding, VerifyProgress, VerifyVerdict
from statehouse.findings import HEADS_AT_MOST

KEPT = Head(9, b"k" * 32)


def judge(events):
    progress, finding, verdict = events
    assert progress == VerifyProgress(stage="log", done=0, total=0, records=0, rows=0)
    assert finding == VerifyFinding(kind="head-cut", message="gone", commit_ts=9)
    assert isinstance(verdict, VerifyVerdict)
    assert (verdict.sound, verdict.heads) == (False, 1)


def test_the_sync_client(memory_server):
    with Statehouse(memory_server.url) as client:
        head = client.head()
        assert (head.commit_ts, head.chain, head.store_id) == (0, bytes(32), bytes(16))
        judge(list(client.verify([KEPT])))  # an event of a newer daemon is left out
        assert [type(event) for event in client.verify()] == [VerifyProgress, VerifyVerdict]
        with pytest.raises(ValueError, match="at most"):
            next(client.verify(Head(ts, bytes(32)) for ts in range(HEADS_AT_MOST + 1)))
        events = client.verify([KEPT])
        next(events)
        events.close()
        assert client.health() == "ok"


def test_the_async_client(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            assert await client.head(timeout_s=5) == Head(0, bytes(32))
            judge([event async for event in client.verify(iter([KEPT]), timeout_s=5)])
            with pytest.raises(ValueError, match="32 bytes"):
                client.verify([Head(1, b"")])

    run(main)


def test_a_daemon_that_is_not_there():
    with Statehouse("127.0.0.1:1") as client:
        with pytest.raises(statehouse.ConnectionError):
            client.head()
        with pytest.raises(statehouse.ConnectionError):
            list(client.verify())
