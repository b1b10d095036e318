"""The simulation: seeds pass, a seed is one run, and engines that break their promises are found."""

import os
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from random import Random

import proof_simulation
import pytest
from attrs import evolve
from histories.lineages import Forking
from histories.submissions import Load, Read, Replayed
from histories.workload import AGENTS
from simulation import run, threads
from simulation.coverage import Coverage
from simulation.judge import Judge
from simulation.machine import Machine
from simulation.plan import CRASHES, KINDS, Fault, Life, Plan, draw_plan
from simulation.run import _Run, run_plan
from simulation.shrink import Reduction, shrink
from simulation.view import SimulatedHome
from simulation.witnesses import AFTER_SYNC
from simulation.workers import run_bounded

from statehouse import StateResult
from statehouse.actors.sequencer import Sequencer
from statehouse.storage import recovery, snapshots
from statehouse.storage.log_format import HEADER_BYTES
from statehouse.storage.log_opening import list_segments
from statehouse.storage.log_writer import LogWriter
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.store import Store

ROOT = Path(__file__).parents[2]
SEEDS_UNTIL_FOUND = 150
TRACE_OF = """
import sys
from hashlib import sha256
from simulation.plan import draw_plan
from simulation.run import run_plan
for seed in (3, 11):
    print(sha256("\\n".join(run_plan(draw_plan(seed), traced=True).trace).encode()).hexdigest())
"""


def trace_of(seed: int) -> str:
    return sha256("\n".join(run_plan(draw_plan(seed), traced=True).trace).encode()).hexdigest()


def first_failing(seeds: range) -> int:
    for seed in seeds:
        if run_bounded(draw_plan(seed)).violations:
            return seed
    pytest.fail(f"not found in {len(seeds)} seeds")


@pytest.mark.parametrize("seed", range(12))
def test_a_seed_passes(seed):
    result = run_plan(draw_plan(seed))
    assert result.violations == []
    assert result.coverage.counts["recoveries judged"]


def test_the_same_seed_is_the_same_run_whatever_hashes_strings():
    traces = [trace_of(3), trace_of(11)]
    assert traces == [trace_of(3), trace_of(11)]
    for hash_seed in ("1", "2"):
        other = subprocess.run(
            [sys.executable, "-c", TRACE_OF],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert other.stdout.split() == traces


def test_another_seed_is_another_run():
    assert trace_of(3) != trace_of(4)


def test_plans_have_every_kind_of_fault():
    plans = [draw_plan(seed) for seed in range(300)]
    assert {fault.kind for plan in plans for fault in plan.faults} == set(KINDS)
    assert {plan.fsync for plan in plans} == {True, False}


def no_sync(self: LogWriter) -> None:
    """Answered without a sync."""


def test_an_engine_that_does_not_sync_is_found_and_the_plan_made_smaller(monkeypatch):
    monkeypatch.setattr(LogWriter, "sync", no_sync)
    start = Reduction(first_failing(range(SEEDS_UNTIL_FOUND)))

    def fails(plan: Plan) -> bool:
        return bool(run_bounded(plan).violations)

    smallest = shrink(start, fails, seconds=10)
    plan = smallest.plan()
    assert fails(plan)
    assert len(plan.faults) < len(start.plan().faults) or len(start.plan().faults) == 1
    assert any(fault.kind in CRASHES for fault in plan.faults)
    assert f"--seed {start.seed} " in smallest.command()


def test_a_commit_that_is_answered_before_it_is_durable_is_found(monkeypatch):
    taken = Sequencer.commit

    def answered_at_once(self, commit):
        reply = taken(self, commit)
        reply.succeed(self._machine._head_ts + 1)
        return reply

    monkeypatch.setattr(Sequencer, "commit", answered_at_once)
    first_failing(range(SEEDS_UNTIL_FOUND))


def test_a_group_that_failed_and_is_left_in_the_log_is_found(monkeypatch):
    monkeypatch.setattr(LogWriter, "roll_back", lambda self: None)
    first_failing(range(SEEDS_UNTIL_FOUND))


def test_a_crash_that_follows_a_fault_waits_for_it():
    close = 0
    for seed in range(20):
        fault, crash = Fault(1, "write has no room", 0, 60), Fault(2, "kill -9", 0, 3, "write", after=1)
        result = run_plan(evolve(draw_plan(seed), lives=(Life(3, 6, "stopped"),), faults=(fault, crash)), traced=True)
        assert result.violations == []
        assert result.coverage.struck["kill -9"] == 1
        struck_at = {line.split()[3]: int(line.split()[1]) for line in result.trace if " FAULT " in line}
        if "1:" in struck_at:
            assert struck_at["2:"] >= struck_at["1:"] + crash.at
            close += not result.coverage.struck_at["kill -9: idle"]
        else:
            assert result.coverage.struck_at["kill -9: idle"] == 1
        assert result.coverage.counts["crashes close on another fault"] == ("1:" in struck_at)
    assert close


def test_a_short_write_that_is_left_in_the_log_is_found(monkeypatch):
    monkeypatch.setattr(LogWriter, "_erase", lambda self, start, size: None)
    followed = [
        seed
        for seed in range(2_500)
        if any(
            fault.kind == "write has no room" and crash.after == fault.number
            for fault in draw_plan(seed).faults
            for crash in draw_plan(seed).faults
        )
    ]
    first_failing(followed)


def test_a_view_that_is_written_through_again_is_found(monkeypatch):
    def looks_well(self: Store) -> None:
        self._view_failed = False

    monkeypatch.setattr(Store, "_mend_view", looks_well)
    first_failing(range(SEEDS_UNTIL_FOUND))


def test_a_log_that_has_lost_full_segments_without_fsync_is_found(monkeypatch):
    def forgetful(place, **options):
        for path in [f"log/{first_ts:020d}.log" for first_ts in list_segments(place.disk, "log")[1:]]:
            place.disk.remove(path)
        for path in snapshots.list_snapshots(place.disk, "snapshots"):
            place.disk.remove(path)
        place.view.set_aside()
        return recovery.open_store(place, **options)

    monkeypatch.setattr(
        run,
        "open_store",
        lambda place, **options: (forgetful if place.disk.exists("log") else recovery.open_store)(place, **options),
    )
    plans = [plan for plan in map(draw_plan, range(200)) if not plan.fsync]
    assert any("without fsync too" in violation for plan in plans for violation in run_bounded(plan).violations)


def test_a_start_that_is_refused_for_a_snapshot_that_cannot_be_read_is_found(monkeypatch):
    def strict(disk, directory, store_id):
        for path in snapshots.list_snapshots(disk, directory):
            disk.open(path, read_only=True).close()
        return snapshots.witnessed_ts(disk, directory, store_id)

    monkeypatch.setattr(recovery, "witnessed_ts", strict)
    plan = evolve(draw_plan(0), fsync=True, snapshot_interval=1, lives=(Life(2, 4, "stopped"), Life(1, 1, "stopped")))
    struck = [evolve(plan, faults=(Fault(0, "another operation fails", 1, at),)) for at in range(12)]
    found = [violation for one in struck for violation in run_plan(one).violations]
    assert any("of a snapshot" in violation for violation in found), found


def test_a_refusal_names_what_was_hurt_or_what_is_beside_it():
    disk = SimulatedDisk()
    disk.make_dir("log")
    paths = [f"log/{first_ts:020d}.log" for first_ts in (1, 5, 9, 13)]
    for path in paths:
        file = disk.open(path, create=True)
        file.write_at(0, b"a segment")
        file.close()
    machine = Machine(disk, SimulatedHome(None), Coverage(), Random(1), replaced={paths[3]: None})
    where = {"offset": "10", "commit_ts": "14"}
    assert [machine.named_rightly({"file": path, **where}) for path in paths] == [False, False, True, True]
    for missing in ("file", "offset", "commit_ts"):
        details = {"file": paths[3], **where}
        del details[missing]
        assert not machine.named_rightly(details)


@pytest.mark.parametrize("begun", [False, True], ids=["as it was", "cut by a start that crashed"])
def test_what_was_hurt_is_brought_back_or_remembered_as_cut(begun):
    disk = SimulatedDisk()
    disk.make_dir("log")
    path = "log/00000000000000000001.log"
    with closing(disk.open(path, create=True)) as file:
        file.write_at(0, b"a segment")
    machine = Machine(disk, SimulatedHome(None), Coverage(), Random(1))
    machine.strike_while_down([Fault(0, "bit flips in the log", 1, 0)], 1)
    assert machine.is_hurt
    if begun:
        with closing(disk.open(path)) as file:
            file.write_at(0, bytes(9))
    machine.restore()
    assert (disk.content(path) == b"a segment", machine.is_hurt, machine.was_cut) == (not begun, False, begun)
    machine.forget()
    assert not machine.was_cut


def a_log_of(records: int, disk: SimulatedDisk, path: str, *, synced: int) -> list[int]:
    """Write a segment of records that each say that those before were synced; where they begin is given back."""
    chain, starts = bytes(32), []
    segment = bytearray(HEADER_BYTES)
    for number in range(records + 1):
        starts.append(len(segment))
        if number in {synced, records}:
            with closing(disk.open(path, create=not disk.exists(path))) as file:
                file.write_at(0, bytes(segment))
                if number == synced:
                    file.sync()
        body, head = bytes([number + 1]) * 900, (900 | AFTER_SYNC).to_bytes(4)
        chain = sha256(chain + head + body).digest()
        segment += head + chain + body
    return starts


def test_power_loss_takes_the_testimony_of_what_was_not_synced():
    path, told = "log/00000000000000000001.log", set()
    for seed in range(20):
        disk = SimulatedDisk()
        disk.make_dir("log")
        starts = a_log_of(3, disk, path, synced=2)
        for directory in ("log", "."):
            disk.sync_dir(directory)
        machine = Machine(disk, SimulatedHome(None), Coverage(), Random(seed))
        whole = disk.content(path)
        machine.strike_while_down([Fault(0, "bit flips in the log", 1, 0)], 2)
        assert machine.witness_ts == 2
        machine.lose_power()
        machine.strike_while_down([], 2)
        is_left = machine.disk.content(path)[starts[2] :] == whole[starts[2] :]
        if machine.rot[0].offset < starts[2]:
            assert machine.witness_ts == 1 + is_left, seed
            told.add(is_left)
    assert told == {False, True}


def test_what_a_start_has_cut_had_testified_all_the_same():
    path = "log/00000000000000000001.log"
    disk = SimulatedDisk()
    disk.make_dir("log")
    starts = a_log_of(3, disk, path, synced=3)
    for directory in ("log", "."):
        disk.sync_dir(directory)
    machine = Machine(disk, SimulatedHome(None), Coverage(), Random(1))
    machine.strike_while_down([Fault(0, "bit flips in the log", 1, 0)], 2)
    with closing(disk.open(path)) as file:
        file.truncate(starts[1])
        file.sync()
    machine.lose_power()
    machine.strike_while_down([], 2)
    assert machine.witness_ts == 2


def test_reads_of_what_is_left_are_judged_after_a_loss():
    agent = AGENTS[0]
    state = {ts: StateResult(value=None, version=1, commit_ts=ts, exists=False) for ts in (0, 4, 5)}
    kept = [Read(agent, 4, {"a": state[4]}, after=1), Replayed(agent, 3, 0, None, ())]
    dropped = [Read(agent, 5, {"a": state[4]}), Read(agent, 4, {"a": state[5]}), Read(agent, 4, {"a": state[0]})]
    judge = Judge((agent,), Random(1), load=Load(reads=[*dropped, *kept], newest_ts=5))
    judge.forget_lost(4)
    assert judge.load.reads == [evolve(kept[0], after=0), kept[1]]


def test_what_a_fork_showed_is_forgotten_when_the_fork_is_lost():
    lost, left = (
        Forking(agent, AGENTS[0], None, 3, after=1, answered=True, commit_ts=commit_ts, at_ts=3, depth=1)
        for agent, commit_ts in ((AGENTS[1], 5), (AGENTS[2], 4))
    )
    inherited = StateResult(value=None, version=1, commit_ts=2, exists=False)
    reads = [Read(fork.agent, 4, {"a": inherited}) for fork in (lost, left)]
    judge = Judge((AGENTS[0],), Random(1), load=Load(reads=reads, newest_ts=5, forks=[lost, left]))
    judge.forget_lost(4)
    assert judge.load.reads == [reads[1]]
    assert [(fork.answered, fork.refused) for fork in judge.load.forks] == [(False, True), (True, False)]
    assert [fork.floor_ts for fork in judge.load.forks] == [3, 3]


def test_a_last_life_that_was_refused_is_lived_again(monkeypatch):
    plan, judged, refused = draw_plan(3), _Run._judged, []

    async def refuse_once(run, engine, opened):
        if run.world.plan is plan and len(refused) < run.coverage.counts["lives"] - len(plan.lives) < 2:
            refused.append(opened)
            return False
        return await judged(run, engine, opened)

    expected = run_plan(plan).coverage.counts["lives"]
    monkeypatch.setattr(_Run, "_judged", refuse_once)
    result = run_plan(plan)
    assert result.violations == []
    assert (len(refused), result.coverage.counts["lives"]) == (1, expected + 1)


def test_the_command_tells_what_it_tried_and_repeats_a_seed(capsys, monkeypatch):
    assert proof_simulation.main(["--seeds", "40", "--first", "0"]) == 0
    out = capsys.readouterr().out
    assert "seeds" in out
    assert "power loss" in out
    assert "VIOLATION" not in out
    monkeypatch.setattr(LogWriter, "sync", no_sync)
    seed = first_failing(range(SEEDS_UNTIL_FOUND))
    assert proof_simulation.main(["--seed", str(seed), "--no-shrink"]) == 1
    out = capsys.readouterr().out
    assert "VIOLATION" in out
    assert f"repeat: python tools/proof_simulation.py --seed {seed}" in out


def test_a_lock_is_waited_for_in_turns():
    lock, told = threads.YieldingLock(), []

    def hold(name: str) -> None:
        with lock:
            told.append(f"{name} has it")
            threads.current_thread().pause(0)
            told.append(f"{name} gives it back")

    first, second = (threads.SimulatedThread(name, lambda name=name: hold(name)) for name in ("first", "second"))
    first.step()
    second.step()
    assert second.waits_for is lock
    second.kill()
    assert isinstance(second.error, threads.WorldEnded)
    with lock:  # the event loop stands still while the first goes on
        told.append("the loop has it")
    assert told == ["first has it", "first gives it back", "the loop has it"]
    assert first.finished
