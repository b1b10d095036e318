"""Accidents: real daemons and their real files, killed, cut, flipped, filled up and mixed up."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from zlib import crc32

import grpc
import pytest
from attrs import frozen
from daemon_process import DaemonProcess
from e2e.fix_wire import Wire, struct, until
from fix_daemon import refusal

from statehouse.limits import MIB
from statehouse.storage.log_format import HEADER_BYTES, LENGTH, MAX_PAYLOAD_BYTES, RECORD_OVERHEAD_BYTES
from statehouse.v1 import statehouse_pb2 as pb

AGENTS = ("alice", "bob", "carol")


@frozen
class Place:
    """Where a record stands in a segment."""

    start: int
    stop: int


def the_segment(daemon) -> Path:
    (segment,) = (daemon.data_dir / "log").glob("*.log")
    return segment


def records_of(segment: Path) -> list[Place]:
    """Where the records of a segment stand, by nothing but the format's page."""
    content, places, start = segment.read_bytes(), [], HEADER_BYTES
    while payload_bytes := LENGTH.unpack_from(content, start)[0] & MAX_PAYLOAD_BYTES:
        places.append(Place(start, start + RECORD_OVERHEAD_BYTES + payload_bytes))
        start = places[-1].stop
    return places


def write_some(wire: Wire, transactions: int, seed: int = 0) -> list[str]:
    """Random transactions over a few agents and keys: small values and large ones, deletes, none at all; their ids."""
    rng, ids = random.Random(seed), []
    for number in range(transactions):
        txn_id = wire.begin()
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            names = {"txn_id": txn_id, "agent_id": rng.choice(AGENTS), "key": f"key/{rng.randrange(6)}"}
            if rng.random() < 0.2:
                wire.call("Delete", **names)
            else:
                value = struct({"n": number, "text": "x" * rng.choice((5, 300, 3000))})
                wire.call("Write", value=value, **names)
        wire.commit(txn_id)
        ids.append(txn_id)
    return ids


def everything(wire: Wire, up_to: int | None = None) -> dict:
    """All that can be read of the agents of `write_some`, as bytes; with `up_to` only their events up to there."""
    found: dict = {}
    for agent in AGENTS:
        found[agent, "events"] = [each.SerializeToString() for each in wire.replay(agent, end_ts=up_to)]
        if up_to is None:
            found[agent, "entries"] = wire.call("ScanPrefix", agent_id=agent, prefix="").SerializeToString()
            found[agent, "states"] = [wire.get(agent, f"key/{n}").SerializeToString() for n in range(6)]
    return found


def folded_is_read(wire: Wire) -> bool:
    """Whether folding each agent's events gives its state."""
    for agent in AGENTS:
        state: dict = {}
        for event in wire.replay(agent):
            for each in event.operations:
                state[each.key] = (each.version, event.commit_ts, each.value if each.HasField("value") else None)
        for key, (version, commit_ts, value) in state.items():
            found = wire.get(agent, key)
            read = (found.version, found.commit_ts, found.value if found.exists else None)
            if read != (version, commit_ts, value):
                return False
        entries = wire.call("ScanPrefix", agent_id=agent, prefix="").entries
        if [each.key for each in entries] != sorted(key for key, (*_, value) in state.items() if value is not None):
            return False
    return True


def change(path: Path, offset: int, rng: random.Random) -> None:
    """Flip some bits of one byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ rng.randrange(1, 256)]))


# Restarts


def test_outcomes_versions_and_numbers_go_on_after_kill_9(daemon, connect):
    wire = connect(daemon.address)
    txn_id, left_open, aborted = wire.begin(), wire.begin(), wire.begin()
    wire.write(txn_id, "a", "k", {"n": 1})
    wire.write(left_open, "a", "k", {"never": True})
    wire.call("Abort", txn_id=aborted)
    empty = wire.begin()
    assert (wire.commit(txn_id), wire.commit(empty)) == (1, 2)
    daemon.restart()
    wire = connect(daemon.address)
    for committed, commit_ts in ((txn_id, "1"), (empty, "2")):
        for name in ("Commit", "Abort"):
            refused = wire.refused(name, txn_id=committed)
            assert refused.pair == ("FAILED_PRECONDITION", "TXN_ALREADY_COMMITTED")
            assert refused.details == {"commit_ts": commit_ts}
    for ended in (left_open, aborted):
        assert wire.refused("Commit", txn_id=ended).pair == ("NOT_FOUND", "TXN_NOT_FOUND")
        wire.call("Abort", txn_id=ended)
    assert wire.put("a", "k", {"n": 2}) == 3
    assert [(each.version, each.commit_ts) for each in (wire.get("a", "k"),)] == [(2, 3)]
    assert [event.commit_ts for event in wire.replay("a")] == [1, 3]


# The view


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory):
    """The data directory of a daemon that was stopped after some commits, what could be read of it, and their ids.

    It was started twice, so that its LevelDB has tables as well as a log.
    """
    with DaemonProcess(tmp_path_factory.mktemp("left") / "statehouse-data") as daemon:
        wire = Wire(daemon.address)
        ids = write_some(wire, 40)
        wire.channel.close()
        assert daemon.stop() == 0
        daemon.start()
        wire = Wire(daemon.address)
        ids += write_some(wire, 20, seed=1)
        assert folded_is_read(wire)
        found = everything(wire)
        wire.channel.close()
        assert daemon.stop() == 0
    return daemon.data_dir, found, ids


@pytest.fixture
def written(left_behind, make_daemon, tmp_path):
    """A daemon on a copy of `left_behind`, not started; what could be read, and the ids."""
    data_dir, found, ids = left_behind
    copy = shutil.copytree(data_dir, tmp_path / "statehouse-data")
    return make_daemon(copy), found, ids


def test_a_deleted_leveldb_is_rebuilt(written, connect):
    daemon, found, ids = written
    shutil.rmtree(daemon.data_dir / "state")
    wire = connect(daemon.start().address)
    assert everything(wire) == found
    assert daemon.events("store opened")[-1]["view_from"] == "log"
    assert wire.refused("Commit", txn_id=ids[0]).details == {"commit_ts": "1"}
    assert wire.put("alice", "key/0", {}) == 61


def test_a_byte_flipped_in_any_file_of_leveldb_changes_nothing(written, connect):
    daemon, found, ids = written
    rng = random.Random(5)
    whole, state = daemon.data_dir.with_name("whole"), daemon.data_dir / "state"
    shutil.copytree(state, whole)
    names = sorted(path.name for path in whole.iterdir() if path.stat().st_size)
    assert {Path(name).suffix for name in names} >= {".ldb", ".log"}
    for name in names:
        shutil.rmtree(state)
        shutil.copytree(whole, state)
        offset = rng.randrange((state / name).stat().st_size)
        change(state / name, offset, rng)
        wire = connect(daemon.start().address)
        try:
            read = everything(wire)
        except grpc.RpcError:  # a read that meets the damage says so, and has the next start rebuild the view
            daemon.restart()
            wire = connect(daemon.address)
            read = everything(wire)
        assert read == found, (name, offset)
        assert wire.refused("Commit", txn_id=ids[-1]).details == {"commit_ts": "60"}
        daemon.kill()


# The log


def test_a_byte_flipped_in_an_earlier_record_is_refused_and_named(written):
    daemon, _, _ = written
    segment, rng = the_segment(daemon), random.Random(6)
    whole, places = segment.read_bytes(), records_of(segment)
    assert len(places) == 60
    for commit_ts in (1, 30, 57):
        place = places[commit_ts - 1]
        change(segment, rng.randrange(place.start, place.stop), rng)
        flipped = segment.read_bytes()
        assert flipped != whole
        for state in ("there", "gone"):
            daemon.lines.clear()
            said = refusal(daemon, 5)
            assert f"{segment}: damaged at offset {place.start}, commit_ts {commit_ts}: " in said, state
            assert segment.read_bytes() == flipped
            if state == "there":
                (daemon.data_dir / "state").rename(daemon.data_dir / "state.moved")
        shutil.rmtree(daemon.data_dir / "state", ignore_errors=True)
        (daemon.data_dir / "state.moved").rename(daemon.data_dir / "state")
        segment.write_bytes(whole)
    daemon.lines.clear()
    daemon.start()


def test_a_byte_flipped_below_a_daemon_that_serves_is_never_read_as_a_value(daemon, connect):
    wire = connect(daemon.address)
    wire.put("a", "before", {"text": "y" * 3000})
    wire.put("a", "hurt", {"text": "x" * 3000})
    wire.put("a", "behind", {"text": "z" * 3000})
    segment = the_segment(daemon)
    change(segment, segment.read_bytes().index(b"x" * 3000) + 1500, random.Random(9))
    at_version = wire.refused("GetStateAtVersion", agent_id="a", key="hurt", version=1)
    for refused in (
        wire.refused("GetState", agent_id="a", key="hurt"),
        at_version,
        wire.refused("ScanPrefix", agent_id="a", prefix=""),
        wire.refused("Replay", agent_id="a"),
    ):
        assert refused.pair == ("DATA_LOSS", "STORAGE_ERROR")
        assert str(daemon.data_dir) not in str(refused)
        assert ".log" not in str(refused)
    told = [line for line in daemon.lines if str(segment) in line and "commit_ts" in line]
    assert told  # the operator is told what the client is not
    assert wire.get("a", "before").exists
    assert wire.get("a", "behind").exists
    assert [event.commit_ts for event in wire.replay("a", start_ts=3)] == [3]
    assert wire.put("a", "hurt", {"text": "anew"}) == 4
    assert wire.get("a", "hurt").version == 2


def test_a_tail_that_was_cut_ends_the_history_there_or_is_refused(written, connect):
    """The view tells whether what was cut had been answered; without one, the log ends at its last whole record."""
    daemon, found, _ = written
    segment, rng = the_segment(daemon), random.Random(7)
    whole, places = segment.read_bytes(), records_of(segment)
    state, moved = daemon.data_dir / "state", daemon.data_dir / "state.moved"
    for dropped in (1, 2, 3):
        place = places[-dropped]
        cut = rng.randrange(place.start + 1, place.stop)
        torn = whole[:cut].ljust(len(whole), b"\0")
        segment.write_bytes(torn)
        daemon.lines.clear()
        said = refusal(daemon, 5)
        assert f"{segment}: damaged at offset {place.start}, commit_ts {61 - dropped}: " in said
        assert segment.read_bytes() == torn
        state.rename(moved)
        daemon.lines.clear()
        wire = connect(daemon.start().address)
        (told,) = daemon.events("torn tail cut")
        assert (told["path"], told["offset"]) == (str(segment), place.start)
        assert told["dropped_bytes"] == len(torn[place.start : cut].rstrip(b"\0"))
        assert daemon.ready["head_ts"] == 60 - dropped
        kept = everything(wire, up_to=60)
        for (agent, _), events in kept.items():
            before = found[agent, "events"]
            assert events == [each for each in before if pb.ReplayEvent.FromString(each).commit_ts <= 60 - dropped]
        assert folded_is_read(wire)
        assert wire.put("alice", "key/0", {"anew": dropped}) == 61 - dropped
        daemon.kill()
        shutil.rmtree(state)
        moved.rename(state)
        segment.write_bytes(whole)
    daemon.lines.clear()
    assert everything(connect(daemon.start().address)) == found


def test_a_log_of_a_newer_format_is_refused_and_left_alone(written):
    daemon, _, _ = written
    segment = the_segment(daemon)
    content = bytearray(segment.read_bytes())
    content[8:12] = LENGTH.pack(2)
    content[HEADER_BYTES - 4 : HEADER_BYTES] = LENGTH.pack(crc32(content[: HEADER_BYTES - 4]))
    segment.write_bytes(content)
    for _ in range(2):
        daemon.lines.clear()
        said = refusal(daemon, 5)
        assert f"{segment}: written by a newer Statehouse: format 2, this one reads 1" in said
        assert segment.read_bytes() == content
        shutil.rmtree(daemon.data_dir / "state", ignore_errors=True)


def test_a_log_that_ends_before_the_view_is_refused_but_without_fsync(written, connect):
    daemon, _, _ = written
    segment = the_segment(daemon)
    whole, places = segment.read_bytes(), records_of(segment)
    shorter = whole[: places[-2].start].ljust(len(whole), b"\0")
    segment.write_bytes(shorter)
    daemon.lines.clear()
    said = refusal(daemon, 5)
    assert "the log ends at commit_ts 58, and the view has 60" in said
    assert "restore a copy of the folder `log`" in said
    assert "move the folders `state` and `snapshots` aside" in said
    assert segment.read_bytes() == shorter
    daemon.environment["STATEHOUSE_FSYNC_ON_COMMIT"] = "0"
    daemon.lines.clear()
    wire = connect(daemon.start().address)
    (warning,) = daemon.events("a view or snapshot cannot be used, and is passed over")
    assert warning["level"] == "warning"
    assert "commits 59 to 60 are lost" in warning["reason"]
    assert Path(warning["moved_to"]).is_dir()
    assert daemon.ready["head_ts"] == 58
    assert folded_is_read(wire)
    assert wire.put("alice", "key/0", {}) == 59


# The data directory


AS_NOBODY = (
    "import os, sys\n"
    "from statehouse.cli.statehoused import main\n"
    "if os.getuid() == 0:\n"
    "    os.setgid(65534); os.setuid(65534)\n"
    "main(sys.argv[1:])\n"
)


def test_a_data_directory_that_is_not_writable(make_daemon):
    with tempfile.TemporaryDirectory() as parent:  # a test's own directory is closed to other users
        Path(parent).chmod(0o755)
        directory = Path(parent) / "data"
        directory.mkdir(mode=0o555)
        daemon = make_daemon(directory, command=(sys.executable, "-c", AS_NOBODY))
        assert f"the data directory {directory} is not writable: Permission denied" in refusal(daemon, 2)
        assert list(directory.iterdir()) == []
        daemon = make_daemon(directory / "below", command=(sys.executable, "-c", AS_NOBODY))
        assert "cannot be made: Permission denied" in refusal(daemon, 2)


# No room


FULL = ("RESOURCE_EXHAUSTED", "STORAGE_ERROR")


def fill_up(wire: Wire, size_bytes: int) -> list[int]:
    """Commit values of this size until the daemon has no room; the commits that were answered."""
    answered: list[int] = []
    while len(answered) < 2_000:
        txn_id = wire.begin()
        wire.write(txn_id, "filler", key := f"{len(answered):04}", {"text": "x" * size_bytes})
        refused = wire.may_be_refused("Commit", txn_id=txn_id)
        if refused is not None:
            assert refused.pair == FULL
            return answered
        answered.append(wire.get("filler", key).commit_ts)
    pytest.fail("there was room for everything")


def is_all_there(wire: Wire, answered: list[int]) -> bool:
    keys = [f"{number:04}" for number in range(len(answered))]
    stamps = [wire.get("filler", key).commit_ts for key in keys]
    return stamps == answered and list(wire.call("ListKeys", agent_id="filler").keys) == keys


def test_a_log_that_may_not_grow_further(daemon, connect):
    daemon.stop()
    daemon.environment["STATEHOUSE_MAX_LOG_SIZE"] = "1MiB"
    wire = connect(daemon.start().address)
    answered = fill_up(wire, 20_000)
    assert answered == list(range(1, len(answered) + 1))
    assert is_all_there(wire, answered)
    txn_id = wire.begin()
    wire.write(txn_id, "filler", "more", {"text": "x" * 20_000})
    assert wire.refused("Commit", txn_id=txn_id).pair == FULL
    assert wire.refused("Commit", txn_id=txn_id).pair == ("NOT_FOUND", "TXN_NOT_FOUND")  # it was aborted
    assert wire.call("Health").status == "ok"
    assert daemon.stop() == 0
    daemon.environment["STATEHOUSE_MAX_LOG_SIZE"] = "2MiB"
    wire = connect(daemon.start().address)
    assert is_all_there(wire, answered)
    assert wire.put("filler", "more", {}) == len(answered) + 1
    assert not wire.call("GetStateAtVersion", agent_id="filler", key="more", version=2).exists


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 320 MiB, for which the tests must run as root."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=320m", "statehouse-test", where], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield where
    subprocess.run(["umount", "--lazy", where], check=True)


def test_a_disk_that_is_full_and_has_room_again(small_disk, make_daemon, connect):
    daemon = make_daemon(small_disk / "data").start()
    wire = connect(daemon.address)
    wire.put("before", "k", {"n": 1})
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        disk = os.statvfs(small_disk)
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - 2 * MIB)
    answered = fill_up(wire, 900_000)
    assert answered == list(range(2, len(answered) + 2))
    for _ in range(3):
        txn_id = wire.begin()
        wire.write(txn_id, "filler", "more", {"text": "x" * 900_000})
        assert wire.refused("Commit", txn_id=txn_id).pair == FULL
    assert is_all_there(wire, answered)
    assert wire.get("before", "k").value == struct({"n": 1})
    assert wire.call("Health").status == "ok"
    filler.unlink()
    assert wire.put("filler", f"{len(answered):04}", {"text": "x" * 900_000}) == len(answered) + 2
    answered.append(len(answered) + 2)
    assert is_all_there(wire, answered)
    assert not wire.get("filler", "more").version
    assert daemon.stop() == 0
    shutil.copytree(daemon.data_dir, small_disk.parent / "copy")
    wire = connect(make_daemon(small_disk.parent / "copy").start().address)
    assert is_all_there(wire, answered)
    assert len(wire.replay("filler")) == len(answered)


# Stopping


def test_while_it_stops_new_calls_are_unavailable(make_daemon, connect):
    """A replay that nobody reads keeps the drain waiting."""
    daemon = make_daemon(options=["--shutdown-grace-s", "3600"]).start()
    wire = connect(daemon.address)
    for number in range(20):
        wire.put("a", f"{number}", {"text": "x" * 1_000_000})
    replay = wire.call("Replay", agent_id="a")
    replay.initial_metadata()
    daemon.send(signal.SIGTERM)
    daemon.wait_for("stopping")
    until(lambda: wire.may_be_refused("Health") is not None)  # it says that it stops, and then it does
    for peer in (wire, connect(daemon.address)):
        for name in ("Health", "BeginTransaction"):
            assert peer.refused(name).status == "UNAVAILABLE"
    assert len(list(replay)) == 20  # and the drain is over
    assert daemon.wait() == 0


# Slow readers


def test_readers_that_stand_still_cost_no_memory_and_hold_nobody_up(daemon, connect):
    """Four replays of 48 MB each, of which only the first event is read at first."""
    wire = connect(daemon.address)
    for number in range(48):
        wire.put("a", f"{number}", {"text": "x" * 1_000_000})
    process = Path(f"/proc/{daemon.pid}")
    (process / "clear_refs").write_text("5")  # the peak is counted from here on
    before_kib = memory_kib(process, "VmRSS")
    replays = [connect(daemon.address).call("Replay", agent_id="a") for _ in range(4)]
    assert [next(replay).commit_ts for replay in replays] == [1] * 4
    for number in range(100):
        assert wire.put("b", "k", {"n": number}) == 49 + number
    assert memory_kib(process, "VmHWM") - before_kib < 40 * 1024
    for replay in replays:
        assert [event.commit_ts for event in replay] == list(range(2, 49))
    assert memory_kib(process, "VmHWM") - before_kib < 40 * 1024


def memory_kib(process: Path, field: str) -> int:
    (line,) = [line for line in (process / "status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1])
