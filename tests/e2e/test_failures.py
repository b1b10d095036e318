"""What cannot be made to happen to a process from outside: the engine, its server and the wire, with a disk that fails.

Everything is real but the disk and, where it says so, one line of code that is made to fail.
"""

import errno
import os
import random
import signal
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from actors.fix_engine import EngineBench
from e2e.fix_wire import Wire
from rpc.serving import serve
from storage.fix_store import FailingHome, StoreBench, Writer, judge

from statehouse.actors import partition
from statehouse.actors.opening import open_engine
from statehouse.daemon import run_daemon
from statehouse.errors import StoreDamagedError
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.listener import open_listener
from statehouse.setting_forms import Address
from statehouse.settings import Settings
from statehouse.storage.disk import RealDisk
from statehouse.storage.log_format import HEADER_BYTES, LENGTH, MAX_PAYLOAD_BYTES, RECORD_OVERHEAD_BYTES

EIO = OSError(errno.EIO, "input/output error")
ENOSPC = OSError(errno.ENOSPC, "no space left on device")
SEGMENT = "log/00000000000000000001.log"


@asynccontextmanager
async def served(bench: EngineBench):
    """A peer of an engine on the bench's disk; the two are in one process, so calls are made in threads."""
    async with bench.engine() as engine, trio.open_nursery() as nursery:
        stop = trio.Event()
        run = partial(serve, engine, "127.0.0.1", 0, stop=stop, grace_s=1, build=BuildVersion("1", "abc"))
        wire = Wire(await nursery.start(run))
        try:
            yield wire
        finally:
            wire.channel.close()
            stop.set()


in_thread = trio.to_thread.run_sync


async def test_after_a_failed_sync_the_daemon_is_read_only_until_it_is_restarted(engine_bench):
    def before(wire):
        assert wire.put("a", "k", {"n": 1}) == 1
        assert wire.call("Health").status == "ok"
        return wire.begin()

    def after(wire, txn_id):
        wire.write(txn_id, "a", "k", {"n": 2})
        for txn in (txn_id, wire.begin()):
            for _ in range(2):
                refused = wire.refused("Commit", txn_id=txn)
                if txn == txn_id:  # in the failed sync: its outcome is not known
                    assert refused.pair == ("UNAVAILABLE", "STORAGE_ERROR")
        refused = wire.refused("Commit", txn_id=wire.begin())
        assert refused.pair == ("UNAVAILABLE", "STORAGE_ERROR")
        assert "read-only" in refused.message
        assert wire.call("Health").status == "read-only"
        assert wire.get("a", "k").version == 1
        assert list(wire.call("ListKeys", agent_id="a").keys) == ["k"]
        assert [event.commit_ts for event in wire.replay("a")] == [1]

    async with served(engine_bench) as wire:
        txn_id = await in_thread(before, wire)
        engine_bench.place.disk.fail_next("sync", EIO, path=SEGMENT)
        await in_thread(after, wire, txn_id)

    def restarted(wire):
        assert wire.call("Health").status == "ok"
        version = wire.get("a", "k").version
        outcome = wire.refused("Commit", txn_id=txn_id)
        assert outcome.code == ("TXN_ALREADY_COMMITTED" if version == 2 else "TXN_NOT_FOUND")
        assert wire.put("a", "k", {"n": 3}) == version + 1

    async with served(engine_bench) as wire:
        await in_thread(restarted, wire)


async def test_a_write_that_finds_no_room_is_resource_exhausted_and_did_not_happen(engine_bench):
    def calls(wire):
        wire.put("a", "k", {"n": 1})
        txn_id = wire.begin()
        wire.write(txn_id, "a", "k", {"n": 2})
        engine_bench.place.disk.fail_next("write", ENOSPC)
        assert wire.refused("Commit", txn_id=txn_id).pair == ("RESOURCE_EXHAUSTED", "STORAGE_ERROR")
        assert wire.call("Health").status == "ok"
        assert wire.get("a", "k").version == 1
        assert wire.refused("Commit", txn_id=txn_id).pair == ("NOT_FOUND", "TXN_NOT_FOUND")
        assert wire.put("a", "k", {"n": 3}) == 2

    async with served(engine_bench) as wire:
        await in_thread(calls, wire)


async def test_a_bug_has_an_id_and_nothing_internal(engine_bench, monkeypatch):
    def calls(wire):
        txn_id = wire.begin()
        wire.write(txn_id, "a", "k", {"n": 1})
        with monkeypatch.context() as failing:
            failing.setattr(partition, "prepare_section", lambda *_: {}["secret"])
            refused = wire.refused("Commit", txn_id=txn_id)
        assert refused.pair == ("INTERNAL", "INTERNAL_ERROR")
        word, _, error_id = refused.message.rpartition(" ")
        assert (word, len(bytes.fromhex(error_id))) == ("internal error", 8)
        assert "secret" not in str(refused)
        assert wire.put("a", "k", {"n": 2}) == 1

    async with served(engine_bench) as wire:
        await in_thread(calls, wire)


async def test_while_the_daemon_starts_calls_are_unavailable(tmp_path, monkeypatch):
    """The daemon's own start, held before its store is opened."""
    listeners, opening, go_on, ready = [], trio.Event(), trio.Event(), trio.Event()

    async def listen(host, port, **rules):
        listeners.append(await open_listener(host, port, **rules))
        return listeners[0]

    @asynccontextmanager
    async def held(settings, **options):
        opening.set()
        await go_on.wait()
        async with open_engine(settings, **options) as engine:
            yield engine

    monkeypatch.setattr("statehouse.daemon.open_listener", listen)
    monkeypatch.setattr("statehouse.daemon.open_engine", held)
    monkeypatch.setattr("statehouse.daemon._say_ready", lambda *_, **__: ready.set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_daemon, Settings(listen_addr=Address("127.0.0.1", 0), data_dir=tmp_path / "data"))
        await opening.wait()
        wire = Wire("{}:{}".format(*listeners[0].socket.getsockname()))
        for name in ("Health", "BeginTransaction"):
            refused = await in_thread(partial(wire.refused, name))
            assert refused.pair == ("UNAVAILABLE", "INTERNAL_ERROR")
            assert "starting" in refused.message
        go_on.set()
        await ready.wait()
        assert await in_thread(partial(wire.put, "a", "k", {})) == 1
        wire.channel.close()
        os.kill(os.getpid(), signal.SIGTERM)


def test_the_tail_of_a_real_file_cut_at_every_byte_of_the_last_three_records(tmp_path):
    """A store on the real disk whose view has all but the last three commits, or has them too."""
    bench = StoreBench(RealDisk(), FailingHome(), f"{tmp_path}/", 16 * 1024)
    writer = Writer(bench.store())
    for _ in range(5):
        writer.commit_randomly(random.Random(8), 1)
    bench.close()
    history, batches, segment = writer.history, bench.home.batches, tmp_path / SEGMENT
    whole = segment.read_bytes()
    starts = record_starts(whole)
    behind = batches[: len(batches) - 3]
    for cut in range(starts[2], starts[5]):
        torn = whole[:cut].ljust(len(whole), b"\0")
        kept = sum(start <= cut for start in starts[1:])
        segment.write_bytes(torn)
        bench.home.batches = list(batches)
        with pytest.raises(StoreDamagedError, match=f"commit_ts {kept + 1}|ends at commit_ts {kept}, and the view"):
            bench.open()
        assert segment.read_bytes() == torn
        bench.home.batches = list(behind)
        store = bench.store()
        judge(store, history[:kept])
        assert [(each.offset, each.commit_ts) for each in bench.reports.cuts] == (
            [(starts[kept], kept + 1)] if torn[starts[kept] :].strip(b"\0") else []
        )
        bench.close()


def record_starts(content: bytes) -> list[int]:
    """Where each record begins, and where the last one ends."""
    starts = [HEADER_BYTES]
    while payload_bytes := LENGTH.unpack_from(content, starts[-1])[0] & MAX_PAYLOAD_BYTES:
        starts.append(starts[-1] + RECORD_OVERHEAD_BYTES + payload_bytes)
    return starts
